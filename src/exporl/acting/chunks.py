"""Playing action chunks: the only action queue in the code base."""

from collections.abc import Callable
from typing import Any

import numpy as np


class ActionQueue:
    """Plays action chunks one action at a time, for several environments at once."""

    def __init__(self, num_envs: int, execute_length: int):
        self.execute_length = execute_length
        self.chunks: list[np.ndarray] = [np.zeros((0, 0), np.float32) for _ in range(num_envs)]

    def clear(self, env: int) -> None:
        """Forgets the rest of an environment's chunk: its episode ended."""
        self.chunks[env] = self.chunks[env][:0]

    def next(self, decide: Callable[[], Any]) -> np.ndarray:
        """The next action [b, a] of every environment; `decide() -> [b, h, a]` is asked when some
        chunk is used up."""
        if any(len(chunk) == 0 for chunk in self.chunks):
            chunks = np.asarray(decide())
            if not np.isfinite(chunks).all():
                raise FloatingPointError(
                    "the policy produced NaN or infinity: training diverged. Lower the learning "
                    "rates or the update-to-data ratio; the last checkpoint is intact."
                )
            for env, chunk in enumerate(self.chunks):
                if len(chunk) == 0:
                    self.chunks[env] = np.clip(chunks[env, : self.execute_length], -1.0, 1.0)
        actions = np.stack([chunk[0] for chunk in self.chunks])
        self.chunks = [chunk[1:] for chunk in self.chunks]
        return actions
