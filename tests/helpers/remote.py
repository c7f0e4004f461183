"""Policy servers that the tests bring: what `exporl serve` serves, without JAX, and servers of
others, which know nothing but openpi's protocol."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from websockets.sync.server import ServerConnection, serve

from exporl.acting.interface import Interface
from exporl.serve.messages import packed, unpacked
from exporl.spec import Spec
from exporl.units import ActionUnits
from helpers.serving import Chosen

SPEC = Spec((("state", (2,), "float32"),), action_dim=1)
"""Of the probe tasks."""


class Served:
    """Actions of the probe tasks, decided by the state and the seed, between some bounds."""

    candidates = None

    def __init__(self, bounds: tuple[float, float] = (-1.0, 1.0), checkpoint_name: str = "first"):
        low, high = bounds
        units = ActionUnits((low,), (high,), (1,), "float32")
        self.interface = Interface("probe/delay", SPEC, {}, units, 1, None, normalized=False)
        self.checkpoint_name = checkpoint_name
        self.asked = 0
        """Decisions so far, filling included."""
        self.open = threading.Event()
        """While it is not set, calls do not return."""
        self.open.set()

    def decide_each(self, batch: dict[str, np.ndarray], seeds: np.ndarray) -> list[Chosen]:
        self.asked += len(seeds)
        assert self.open.wait(60)
        return [self.one(*row) for row in zip(batch["state"], seeds, strict=True)]

    def one(self, state: np.ndarray, seed: int) -> Chosen:
        """What one observation is answered with."""
        assert self.interface.units is not None
        action = decided(state, int(seed))
        return Chosen(self.interface.units.to_own(action[None]), {})


def decided(state: np.ndarray, seed: int) -> np.ndarray:
    """The action [1] in [-1, 1] of a state and a seed."""
    drawn = np.random.default_rng(seed).uniform(-0.7, 0.7)
    return np.array([drawn + 0.3 * np.tanh(state[0])], np.float32)


Answer = Callable[[dict[str, Any], list[Any]], Any]
"""(observation, what was asked before on this connection) -> actions, or what is raised is told in
a text frame."""


@contextlib.contextmanager
def openpi_like(answer: Answer, metadata: dict[str, Any] | None = None) -> Iterator[str]:
    """A server of somebody else, until the block ends; its address."""

    def converse(connection: ServerConnection) -> None:
        connection.send(packed(metadata or {}))
        before: list[Any] = []
        for data in connection:
            assert isinstance(data, bytes)
            message = unpacked(data)
            try:
                connection.send(packed({"actions": answer(message, before)}))
            except ArithmeticError as error:
                connection.send(f"Traceback: {error}")
                connection.close(1011)
            before.append(message)

    with serve(converse, "127.0.0.1", 0) as server:
        running = threading.Thread(target=server.serve_forever)
        running.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            running.join(60)
