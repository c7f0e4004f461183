"""`exporl serve`: a run's policy behind a WebSocket."""

import argparse
import asyncio
import contextlib
import hashlib
import signal
import warnings
from pathlib import Path

from exporl.cli.keys import check_host, read_key
from exporl.cli.numbers import number
from exporl.cli.parsing import Parser
from exporl.cli.status import notice, say
from exporl.files.run_files import STATISTICS
from exporl.serve.messages import LARGEST
from exporl.serve.server import Listening, Server

HELP = """examples:
  exporl serve runs/push                          robots on this machine: ws://127.0.0.1:8000
  exporl serve runs/push --port 9000 --host 0.0.0.0 --key-file key.txt
                                                  robots elsewhere, which have to send the key
  curl http://127.0.0.1:8000/healthz              OK, as soon as robots may come

the robot's side, without JAX:
  from exporl import Client                       # numpy, websockets, msgpack
  client = Client("ws://127.0.0.1:8000", most_change=0.2)
  client.reset()                                  # an episode begins
  action = client.next_action({"state": state})   # step by step, in the environment's own units

or with the unmodified openpi-client:
  policy = WebsocketClientPolicy(host="127.0.0.1", port=8000)
  chunk = policy.infer({"state": state})["actions"]

While the run is still trained, newer checkpoints are taken over and no connection is dropped.
Ctrl-C ends the server. docs/serving.md: the protocol, what clients are told, limits, latency.
"""


def serve_command(args: list[str]) -> int:
    """`exporl serve RUN [--host H] [--port P] [--key-file FILE] ...`."""
    options = _parser().parse_args(args)
    key = None if options.key_file is None else read_key(options.key_file)
    check_host(options.host, key, options.open, "use the policy")
    _check_packages()
    listening = Listening(
        host=options.host,
        port=options.port,
        api_key=key,
        deadline_s=options.deadline,
        most_clients=options.clients,
        largest_message=int(options.largest_message * 2**20),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = _show
        return asyncio.run(_serve(options, listening))


def _parser() -> Parser:
    parser = Parser(
        prog="exporl serve",
        description="Answers robots over the network: a run's policy in openpi's protocol.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (this machine alone)")
    parser.add_argument("--port", type=number(0, 65535), default=8000, help="0: any free (8000)")
    parser.add_argument("--key-file", type=Path, help="text file with the key that clients send")
    parser.add_argument(
        "--open", action="store_true", help="listen beyond this machine without a key"
    )
    parser.add_argument(
        "--deadline",
        type=number(0.001, whole=False),
        default=10.0,
        help="seconds after which an observation is refused instead of answered (10)",
    )
    parser.add_argument("--clients", type=number(1), default=64, help="at a time (64)")
    parser.add_argument(
        "--largest-message",
        type=number(0.001, 1024, whole=False),
        default=LARGEST / 2**20,
        help="MiB of an observation (32)",
    )
    parser.add_argument(
        "--reload-every",
        type=number(0, whole=False),
        default=5.0,
        help="seconds between looks for a newer checkpoint; 0: never (5)",
    )
    parser.add_argument(
        "--trust", action="store_true", help="load code that the run names, module:attribute"
    )
    return parser


def _check_packages() -> None:
    try:
        import msgpack  # noqa: F401
        import websockets  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"exporl serve needs the package {error.name!r}. Install it with: "
            "pip install 'exporl[serve]'"
        ) from error


async def _serve(options: argparse.Namespace, listening: Listening) -> int:
    """Loads, compiles, listens, follows the run, and ends at a signal."""
    from exporl.acting.policy import Policy, load_policy
    from exporl.serve.batches import compile_calls
    from exporl.serve.newer import Newer
    from exporl.speed.tuning import keep_compiled_programs

    def load() -> Policy:
        return load_policy(options.run, trust=options.trust)

    policy = load()
    keep_compiled_programs(notice)
    notice(f"compiling {policy.checkpoint_name} ...")
    compile_calls(policy)
    statistics = _digest(options.run / STATISTICS) if policy.interface.normalized else None
    server = Server(policy, listening, statistics=statistics, say=notice)
    stop = asyncio.Event()
    with _stopped_by_signals(stop):
        newer = Newer(options.run, load, notice)
        following = (
            [asyncio.create_task(newer.follow(server, options.reload_every))]
            if options.reload_every
            else []
        )

        def ready(address: str) -> None:
            say(f"serving {options.run} ({policy.checkpoint_name}) at {address}; Ctrl-C ends it")

        try:
            await server.run(stop, ready)
        finally:
            for task in following:
                task.cancel()
    say(f"ended after {server.answers} answers in {server.batches.calls} calls")
    return 0


def _show(message: Warning | str, *where: object, **more: object) -> None:
    """A warning, without the place in the code that it comes from."""
    notice(f"warning: {message}")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def _stopped_by_signals(stop: asyncio.Event):
    """While it lasts, Ctrl-C, SIGTERM and SIGHUP set `stop`; a signal that is ignored, as SIGHUP
    under `nohup`, stays so."""
    loop = asyncio.get_running_loop()
    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is None or signal.getsignal(number) is signal.SIG_IGN:
            continue
        before[number] = signal.getsignal(number)
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop.set)  # where it cannot: the signal interrupts
    try:
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.remove_signal_handler(number)
                signal.signal(number, handler)
