"""A task under examination: episodes of random actions, and what is known so far."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.envs.task import Task


class Skip(Exception):
    """The check does not apply here."""


class Play(NamedTuple):
    """What an environment answered in one episode; observations and infos from the reset on."""

    observations: list[dict[str, np.ndarray]]
    infos: list[dict[str, Any]]
    rewards: list[Any]
    endings: list[tuple[Any, Any]]
    altered: str
    """Name of an observation that was changed after it had been returned, if any."""


@dataclasses.dataclass
class Case:
    """A task under examination and what is known about it so far."""

    task: Task
    env: gymnasium.Env
    seed: int
    episodes: Sequence[Episode] | None
    demos: int
    demo_noise: float
    long: Play | None = None
    took_s: float = 0.0


def random_actions(task: Task, seed: int, steps: int, corners: bool = True) -> np.ndarray:
    """Uniformly random actions [steps, a]; the first two lie in corners, where bounds would
    bite."""
    actions = (
        np.random.default_rng((seed, 1))
        .uniform(-1, 1, (steps, task.spec.action_dim))
        .astype(np.float32)
    )
    if corners:
        actions[:1], actions[1:2] = -1, 1
    return actions


def play_episode(env: gymnasium.Env, seed: int, actions: np.ndarray) -> Play:
    """One episode, ended by the environment or by the end of the actions."""
    observation, info = env.reset(seed=seed)
    observations, infos, rewards, endings, altered = [_copy(observation)], [dict(info)], [], [], ""
    for action in actions:
        before, kept = observation, observations[-1]
        observation, reward, terminated, truncated, info = env.step(action.copy())
        changed = [
            name
            for name in kept
            if not np.array_equal(before[name], kept[name], equal_nan=floats(kept[name]))
        ]
        altered = altered or "".join(changed[:1])
        observations.append(_copy(observation))
        infos.append(dict(info))
        rewards.append(reward)
        endings.append((terminated, truncated))
        if terminated or truncated:
            break
    return Play(observations, infos, rewards, endings, altered)


def _copy(observation: Any) -> dict[str, np.ndarray]:
    if not isinstance(observation, dict):
        raise TypeError(
            f"observations must be dictionaries of arrays, got {type(observation).__name__}"
        )
    return {name: np.array(value) for name, value in observation.items()}


def floats(value: np.ndarray) -> bool:
    """Whether an entry is floating point."""
    return np.issubdtype(value.dtype, np.floating)


def long_play(case: Case) -> Play:
    """An episode of random actions, one step longer than the time limit allows."""
    if case.long is None:
        raise Skip("no episode could be played, see 'plays'")
    return case.long
