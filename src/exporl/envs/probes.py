"""Tiny tasks whose right answer is known, to test algorithms in seconds.

bandit: one step, reward -|a - 0.8|, demonstrations at +-0.5. Imitation earns about -0.8 on average;
0 is the optimum. delay: two steps; the first action, seen in the second observation, decides the
reward of the second step, -|a - 0.5|. terminal: one step, reward 1, then a true end: every value is
1. timeout: one step, reward 1, then a time limit: with time-outs bootstrapped every value is 1 / (1
- discount). image: as delay, with a camera frame beside the state whose brightness is the first
  action.
"""

import functools
from typing import Any

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.envs.collect import announce
from exporl.envs.task import Family, Reward, Task
from exporl.spec import Spec

SPEC = Spec((("state", (2,), "float32"),), action_dim=1)
IMAGE_SPEC = Spec((("image", (8, 8, 3), "uint8"), *SPEC.observation), action_dim=1)
NAMES = ("bandit", "delay", "terminal", "timeout", "image")
TWO_STEPS = ("delay", "image")


class Probe(gymnasium.Env[Any, np.ndarray]):
    """One of the probes. Observation {"state": [2]}: (step, first action) where there are two
    steps, else zeros.

    Action [1]. `image` adds {"image": [8, 8, 3]}, 0 to 255 for a first action of -1 to 1.
    """

    def __init__(self, name: str):
        self.name = name
        spaces: dict[str, gymnasium.Space] = {
            "state": gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        }
        if name == "image":
            spaces["image"] = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(spaces)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._first: float | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode. Nothing here is random."""
        super().reset(seed=seed)
        self._first = None
        return self._observation(0, 0.0), {"success": False}

    def step(self, action: np.ndarray):
        """One step; success means the best possible reward to within 0.1."""
        a = float(action[0])
        two, timeout = self.name in TWO_STEPS, self.name == "timeout"
        if two and self._first is None:
            self._first = a
            return self._observation(1, a), 0.0, False, False, {"success": False}
        first = 0.0 if self._first is None else self._first
        reward = -abs(first - 0.5) if two else -abs(a - 0.8) if self.name == "bandit" else 1.0
        best = 0.0 if two or self.name == "bandit" else 1.0
        observation = self._observation(1, first) if two else self._observation(0, 0.0)
        return observation, reward, not timeout, timeout, {"success": reward > best - 0.1}

    def _observation(self, step: int, first: float) -> dict[str, np.ndarray]:
        observation: dict[str, np.ndarray] = {"state": np.array([step, first], np.float32)}
        if self.name == "image":
            observation["image"] = np.full((8, 8, 3), round(127.5 * (1 + first)), np.uint8)
        return observation


def collect(name: str, episodes: int, noise: float, seed: int) -> list[Episode]:
    """Demonstrations with two modes: every action is -0.5 or +0.5, plus Gaussian noise of that
    standard deviation."""
    env, rng, result = Probe(name), np.random.default_rng(seed), []
    for _ in range(episodes):
        observation, _ = env.reset()
        seen, actions, rewards, successes, terminated, truncated = (
            [observation],
            [],
            [],
            [],
            False,
            False,
        )
        while not (terminated or truncated):
            action = np.clip(
                rng.choice([-0.5, 0.5]) + noise * rng.standard_normal(1), -1, 1
            ).astype(np.float32)
            observation, reward, terminated, truncated, info = env.step(action)
            seen.append(observation)
            actions.append(action)
            rewards.append(reward)
            successes.append(info["success"])
        observations = {entry: np.stack([o[entry] for o in seen]) for entry in seen[0]}
        paid = np.array(rewards, np.float32)
        episode = Episode(observations, np.stack(actions), paid, np.array(successes), terminated)
        result.append(announce(episode))
    return result


def make(name: str, reward: Reward) -> Task:
    """The task `probe/<name>`; its reward is its own, whatever convention is asked for."""
    return Task(
        name=f"probe/{name}",
        make_env=functools.partial(Probe, name),
        spec=IMAGE_SPEC if name == "image" else SPEC,
        reward=float,
        # the others end by themselves before any limit
        max_episode_steps=1 if name == "timeout" else 3,
        collect=functools.partial(collect, name),
        source="two-mode script",
        observation_note="step, first action" if name in TWO_STEPS else "zeros",
        reward_note="its own, see exporl.envs.probes",
        reward_range=None,
    )


FAMILY = Family(
    names=NAMES,
    make=make,
    module=None,
    extra=None,
    summary="state 2, action 1, 1-2 steps, known values; for tests",
    details=("their own reward; success is the best one to within 0.1. Data: a two-mode script"),
)
