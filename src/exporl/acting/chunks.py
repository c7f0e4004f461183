"""Playing action chunks of a policy in this process."""

from collections.abc import Callable, Mapping

import numpy as np


def playable(chunks: np.ndarray, execute_length: int) -> np.ndarray:
    """The actions of decided chunks [b, h, a] that are played, within [-1, 1].

    Raises:
        FloatingPointError: the policy produced NaN or infinity.
    """
    if not np.isfinite(chunks).all():
        raise FloatingPointError(
            "the policy produced NaN or infinity: training diverged. Lower the learning rates or "
            "the update-to-data ratio."
        )
    return np.clip(chunks[:, :execute_length], -1.0, 1.0)


class Chunks:
    """Plays action chunks one action at a time, in several environments at once.

    Every environment is at its own place in its own chunk.
    """

    def __init__(self, num_envs: int, execute_length: int):
        """For `num_envs` environments, of whose chunks `execute_length` actions are played."""
        self.execute_length = execute_length
        self._left: list[np.ndarray] = [np.zeros((0, 0), np.float32) for _ in range(num_envs)]

    @property
    def used_up(self) -> list[int]:
        """The environments that have no action left."""
        return [env for env, chunk in enumerate(self._left) if len(chunk) == 0]

    def clear(self, env: int) -> None:
        """Forgets the rest of an environment's chunk: its episode ended."""
        self._left[env] = self._left[env][:0]

    def next(self, decide: Callable[[list[int]], np.ndarray]) -> np.ndarray:
        """The next action [b, a] of every environment.

        Args:
            decide: environments -> a chunk for each of them, [len(environments), h, a]. Asked about
                those whose chunk is used up, and only where there are any.

        Raises:
            FloatingPointError: the policy produced NaN or infinity.
        """
        if envs := self.used_up:
            decided = playable(np.asarray(decide(envs)), self.execute_length)
            for env, chunk in zip(envs, decided, strict=True):
                self._left[env] = chunk
        actions = np.stack([chunk[0] for chunk in self._left])
        self._left = [chunk[1:] for chunk in self._left]
        return actions

    def state(self) -> dict[str, np.ndarray]:
        """What is left of every chunk, [h, a] by the environment's number. Inverse of `load`."""
        return {str(env): chunk for env, chunk in enumerate(self._left)}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Restores `state`."""
        self._left = [state[str(env)] for env in range(len(self._left))]
