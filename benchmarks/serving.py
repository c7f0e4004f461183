"""Latency of the policy server with 1, 4 and 16 clients, against the same policy in one's own
process.

    .venv/bin/python benchmarks/serving.py

A policy of the preset `small` with a state of 39 numbers (as Meta-World has it) and fresh weights,
which take as long as trained ones. In-process: `Policy.decide`, an observation as NumPy arrays to
an action as one. Served: `exporl.Client.infer` over the loopback interface; the server is a process
of its own, and so is all the clients together, a thread each, each asking again as soon as it has
its answer. In-process and clients take turns, block by block, so that all see the same machine.
Processor time per question is measured beside latency: robot and server of one client work one
after the other, so on a machine that does nothing else its sum is the latency, without the waiting
for other work that a busy machine adds.
Writes benchmarks/results/serving.json.
"""

import argparse
import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import write_result

CLIENTS = (1, 4, 16)
STATE = 39


def policy() -> Any:
    """What is measured."""
    from exporl import preset_config
    from exporl.acting.interface import Interface
    from exporl.acting.policy import Policy
    from exporl.acting.rows import ranked
    from exporl.algos import Measurements, find_algorithm, make_algorithm
    from exporl.policies import make_base
    from exporl.randomness import INIT, run_key
    from exporl.spec import Spec

    config = preset_config("expo", "small", "metaworld/push-v3")
    spec = Spec((("state", (STATE,), "float32"),), 4, config.chunk_length)
    base = make_base(config.base, spec, config.precision)
    options = find_algorithm("expo").resolve(config.algo, Measurements(lambda samples: False))
    algorithm = make_algorithm("expo", options, spec, base, config.precision)
    parameters = algorithm.acting(algorithm.init(run_key(0, INIT)))
    played = config.execute_length or config.chunk_length
    interface = Interface("metaworld/push-v3", spec, {}, None, played, None, normalized=False)
    return Policy(
        algorithm,
        parameters,
        interface,
        None,
        checkpoint_name="fresh",
        candidates=ranked(options, "evaluate"),
    )


def serve() -> None:
    """The process of the server: prints its address, and serves until its input ends."""
    import asyncio

    from exporl.serve.batches import compile_calls
    from exporl.serve.server import Listening, Server

    served = policy()
    compile_calls(served)

    async def run() -> None:
        stop = asyncio.Event()
        reading = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        reading.add_done_callback(lambda task: stop.set())
        server = Server(served, Listening(port=0))
        await server.run(stop, lambda address: print(address, flush=True))

    asyncio.run(run())


def asked(ask: Any, count: int) -> list[float]:
    """Milliseconds of each of `count` questions."""
    rng, taken = np.random.default_rng(0), []
    for seed in range(count):
        observation = {"state": rng.normal(size=STATE).astype(np.float32)}
        began = time.perf_counter()
        ask(observation, seed)
        taken.append(1000 * (time.perf_counter() - began))
    return taken


def together(address: str, clients: int, count: int) -> list[float]:
    """Milliseconds of all questions of several clients at once."""
    from exporl.serve.client import Client

    opened = [Client(address, deadline_s=120) for _ in range(clients)]
    taken: list[list[float]] = [[] for _ in opened]

    def ask(number: int) -> None:
        taken[number] = asked(opened[number].infer, count)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in opened:
        client.close()
    return [each for of_client in taken for each in of_client]


def worked(server: int) -> float:
    """Milliseconds of processor time that this process and the server's have used."""
    fields = Path(f"/proc/{server}/stat").read_text().rsplit(")", 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    return 1000 * (time.process_time() + ticks / os.sysconf("SC_CLK_TCK"))


def summary(taken: list[float], work: float) -> dict[str, float]:
    """Percentiles of milliseconds, and processor time per question."""
    p50, p99 = np.percentile(taken, [50, 99])
    return {
        "count": len(taken),
        "min_ms": min(taken),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "processor_ms": work / len(taken),
    }


def table(latency: dict[str, dict[str, float]]) -> str:
    """The table of docs/serving.md."""
    lines = ["| | p50, ms | p99, ms | least, ms | processor time, ms |", "|---|---|---|---|---|"]
    for name, of in latency.items():
        numbers = (of["p50_ms"], of["p99_ms"], of["min_ms"], of["processor_ms"])
        lines.append(f"| {name} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measures in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--questions", type=int, default=40, help="per client and block")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    command = [sys.executable, __file__, "--serve"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    own = policy()
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    milliseconds: dict[str, list[float]] = {}
    work: dict[str, float] = {}

    def measure(name: str, ask: Callable[[], list[float]]) -> None:
        before = worked(server.pid)
        milliseconds.setdefault(name, []).extend(ask())
        work[name] = work.get(name, 0.0) + worked(server.pid) - before

    asked(own.decide, 3)
    for _ in range(options.blocks):
        measure("in process", functools.partial(asked, own.decide, options.questions))
        for clients in CLIENTS:
            each = max(options.questions // clients, 3)
            measure(f"clients {clients}", functools.partial(together, address, clients, each))
    server.communicate("")
    found = {name: summary(taken, work[name]) for name, taken in milliseconds.items()}
    for name, record in found.items():
        print(
            f"{name:12s} p50 {record['p50_ms']:8.2f} ms   p99 {record['p99_ms']:8.2f} ms   "
            f"processor {record['processor_ms']:8.2f} ms"
        )
    result = {
        "command": "benchmarks/serving.py",
        "load_average": os.getloadavg(),
        "latency": found,
        "served_minus_in_process_ms": {
            name: found["clients 1"][name] - found["in process"][name]
            for name in ("min_ms", "p50_ms", "processor_ms")
        },
        "milliseconds": {
            name: [round(each, 3) for each in taken] for name, taken in milliseconds.items()
        },
    }
    print(write_result("serving", result))


if __name__ == "__main__":
    main()
