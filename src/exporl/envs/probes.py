"""Tiny tasks whose right answer is known, to test algorithms in seconds.

bandit: one step, reward -|a - 0.8|, demonstrations at +-0.5. Imitation earns about -0.8 on average; 0 is the optimum.
delay: two steps; the first action, seen in the second observation, decides the reward of the second step, -|a - 0.5|.
terminal: one step, reward 1, then a true end: every value is 1.
timeout: one step, reward 1, then a time limit: with time-outs bootstrapped every value is 1 / (1 - discount).
"""

import functools
from typing import Any

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.envs.collect import announce
from exporl.envs.task import Family, Reward, Task
from exporl.types import Spec

SPEC = Spec((("state", (2,), "float32"),), action_dim=1)
NAMES = ("bandit", "delay", "terminal", "timeout")


class Probe(gymnasium.Env[Any, np.ndarray]):
    """One of the probes. Observation {"state": [2]}: (step, first action) for `delay`, zeros otherwise; action [1]."""

    def __init__(self, name: str):
        self.name = name
        self.observation_space = gymnasium.spaces.Dict({"state": gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)})
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._first: float | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode. Nothing here is random."""
        super().reset(seed=seed)
        self._first = None
        return {"state": np.zeros(2, np.float32)}, {"success": False}

    def step(self, action: np.ndarray):
        """One step; success means the best possible reward to within 0.1."""
        a = float(action[0])
        if self.name == "delay" and self._first is None:
            self._first = a
            return {"state": np.array([1, a], np.float32)}, 0.0, False, False, {"success": False}
        first = 0.0 if self._first is None else self._first
        reward = {"bandit": -abs(a - 0.8), "delay": -abs(first - 0.5)}.get(self.name, 1.0)
        best = {"bandit": 0.0, "delay": 0.0}.get(self.name, 1.0)
        timeout = self.name == "timeout"
        state = np.array([1, first], np.float32) if self.name == "delay" else np.zeros(2, np.float32)
        return {"state": state}, reward, not timeout, timeout, {"success": reward > best - 0.1}


def collect(name: str, episodes: int, noise: float, seed: int) -> list[Episode]:
    """Demonstrations with two modes: every action is -0.5 or +0.5, plus Gaussian noise of that standard deviation."""
    env, rng, result = Probe(name), np.random.default_rng(seed), []
    for _ in range(episodes):
        observation, _ = env.reset()
        states, actions, rewards, successes, terminated, truncated = [observation["state"]], [], [], [], False, False
        while not (terminated or truncated):
            action = np.clip(rng.choice([-0.5, 0.5]) + noise * rng.standard_normal(1), -1, 1).astype(np.float32)
            observation, reward, terminated, truncated, info = env.step(action)
            states.append(observation["state"])
            actions.append(action)
            rewards.append(reward)
            successes.append(info["success"])
        episode = Episode(
            {"state": np.stack(states)}, np.stack(actions), np.array(rewards, np.float32), np.array(successes),
            terminated,
        )  # fmt: skip
        result.append(announce(episode))
    return result


def make(name: str, reward: Reward) -> Task:
    """The task `probe/<name>`; its reward is its own, whatever convention is asked for."""
    return Task(
        name=f"probe/{name}",
        make_env=functools.partial(Probe, name),
        spec=SPEC,
        reward=float,
        max_episode_steps=1 if name == "timeout" else 3,  # the others end by themselves before any limit
        collect=functools.partial(collect, name),
        source="two-mode script",
    )


FAMILY = Family(
    names=NAMES,
    make=make,
    module=None,
    extra=None,
    summary="state 2, action 1, 1-2 steps, known values; for tests",
)
