"""`exporl train --listen`: a run whose environments are actors on other machines."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from exporl.cli.keys import check_host, read_key
from exporl.cli.train_request import Listen
from exporl.distributed.place import Deadlines
from exporl.distributed.pool import ActorPool
from exporl.distributed.remote_actors import remote_actors
from exporl.distributed.remote_env import remote_task
from exporl.envs.registry import REMOTE
from exporl.envs.task import Task
from exporl.run.actors import MakeActors
from exporl.run.config import RunConfig, check
from exporl.run.directory import open_run
from exporl.run.prior import check_file
from exporl.serve.client import check_packages


class Joined(NamedTuple):
    """What `train` takes in the place of a task that its name leads to."""

    task: Task
    actors: MakeActors


def for_actors(config: RunConfig[Any], listen: Listen | None, many: bool) -> RunConfig[Any]:
    """The configuration of a run with actors on other machines, which evaluate it as well: no more
    episodes at a time than there are actors.

    Raises:
        ValueError: task, actors and seeds do not go together; says what to change.
    """
    remote = config.task.startswith(REMOTE)
    if listen is None:
        if remote:
            raise ValueError(
                f"the environments of {config.task} are actors on other machines: add --listen "
                "HOST:PORT."
            )
        return config
    if not remote or config.task == REMOTE:
        raise ValueError(
            f"--listen {listen.address} is for environments on other machines, which say what the "
            f"task is: give it a name of yours, --task {REMOTE}NAME."
        )
    if many:
        raise ValueError("--listen is for one run: leave --seeds out.")
    if config.train.actors:
        raise ValueError("--actors are processes on Ray, and --listen waits for others: leave one.")
    check(config)
    most = min(config.eval.num_envs, config.num_envs)
    return dataclasses.replace(config, eval=dataclasses.replace(config.eval, num_envs=most))


@contextlib.contextmanager
def joined(
    config: RunConfig[Any],
    run_dir: Path,
    listen: Listen,
    say: Callable[[str], None],
    *,
    resume: bool,
) -> Iterator[Joined]:
    """Waits for the actors of a run; in the end they are told that it is over.

    Args:
        config: of the run.
        run_dir: of the run.
        listen: where actors join.
        say: told who comes and goes.
        resume: whether the run has begun already.

    Raises:
        ValueError: the address is none, or anybody could come; says what to do.
        TimeoutError: not all joined in time.
        FileExistsError, FileNotFoundError: see `run.loop.train`: nobody waits in vain.
    """
    check_packages()
    open_run(config, run_dir, resume=resume)
    check_file(config)
    host, port = _split(listen.address)
    key = None if listen.key_file is None else read_key(listen.key_file)
    check_host(host, key, listen.is_open, "take part in the run")
    deadlines = Deadlines(join_s=listen.join_s)
    with ActorPool(config.num_envs, host, port, api_key=key, say=say, deadlines=deadlines) as pool:
        pool.wait_until_full()
        yield Joined(remote_task(pool, config.task, config.reward), remote_actors(pool))


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"--listen must be HOST:PORT, such as 0.0.0.0:8765, got {address!r}.")
    return host, int(port)
