"""A policy of arithmetic behind a server in a thread of its own. Nothing here needs JAX."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from exporl.acting.interface import Interface
from exporl.serve.server import Listening, Server
from exporl.spec import Spec

SPEC = Spec((("state", (3,), "float32"), ("force", (2, 2), "float32")), 2, 4)
GOOD = {"state": np.array([1.0, 2.0, 3.0]), "force": np.eye(2, dtype=np.float32)}


class Chosen(NamedTuple):
    """What `exporl.Decision` is."""

    action: Any
    info: dict[str, Any]


class Arithmetic:
    """Actions are 10 times the step of the chunk, plus the sum of the observation, plus the
    seed."""

    interface = Interface("arithmetic", SPEC, {}, None, 3, 20.0, normalized=False)
    candidates = 4

    def __init__(self, checkpoint_name: str = "checkpoint-000000012"):
        self.checkpoint_name = checkpoint_name
        self.sizes: list[int] = []
        """Rows of every call."""
        self.open = threading.Event()
        """While it is not set, calls do not return."""
        self.open.set()

    def decide_each(self, batch, seeds):
        self.sizes.append(len(seeds))
        assert self.open.wait(60)
        return [self.one(*row) for row in zip(batch["state"], batch["force"], seeds, strict=True)]

    def one(self, state, force, seed):
        total = float(state.sum() + force.sum() + seed)
        if total > 1e30:
            return None
        action = total + 10 * np.arange(4.0)[:, None] + np.zeros((4, 2))
        info = {"q": np.float32(total), "index": np.int32(3), "edited": np.int32(1)}
        return Chosen(action.astype(np.float32), info)


def wanted(observation, seed):
    """The actions that `Arithmetic` gives."""
    total = np.float32(np.sum(observation["state"]) + np.sum(observation["force"]) + seed)
    return total + 10 * np.arange(3.0)[:, None] + np.zeros((3, 2))


class Running(NamedTuple):
    """A server that runs."""

    address: str
    server: Server
    said: list[str]

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.rsplit(":", 1)[1])


@contextlib.contextmanager
def serving(policy: Any, *, port: int = 0, **options: Any) -> Iterator[Running]:
    """Serves until the block ends; whatever the server raised is raised there."""
    said: list[str] = []
    known: dict[str, Any] = {}
    listens, failures = threading.Event(), []

    async def run() -> None:
        known["loop"], known["stop"] = asyncio.get_running_loop(), asyncio.Event()
        known["server"] = Server(policy, Listening(port=port, **options), say=said.append)

        def ready(address: str) -> None:
            known["address"] = address
            listens.set()

        await known["server"].run(known["stop"], ready)

    def thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failures.append(error)
            listens.set()

    running = threading.Thread(target=thread)
    running.start()
    assert listens.wait(60)
    try:
        if not failures:
            yield Running(known["address"], known["server"], said)
    finally:
        if "address" in known:
            known["loop"].call_soon_threadsafe(known["stop"].set)
        running.join(60)
    if failures:
        raise failures[0]


def until(holds: Callable[[], bool], timeout_s: float = 60) -> None:
    """Waits until something holds."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)
