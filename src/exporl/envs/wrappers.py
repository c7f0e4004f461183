"""Environment wrappers that tasks share."""

from typing import Any

import gymnasium
import numpy as np

from exporl.data.episodes import Normalizer


class NormalizedObservation(gymnasium.Wrapper):
    """Normalises every observation with stored statistics, so nothing above sees raw units."""

    def __init__(self, env: gymnasium.Env, normalizer: Normalizer):
        super().__init__(env)
        self.normalizer = normalizer

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self.normalizer(observation), info

    def step(self, action: np.ndarray):
        """One step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self.normalizer(observation), reward, terminated, truncated, info
