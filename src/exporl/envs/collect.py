"""Recording demonstrations of scripted or trained experts."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.randomness import env_seed

Expert = Callable[[dict[str, np.ndarray], dict[str, Any]], np.ndarray]
"""(observation, info) -> wanted action [a]; what lies outside [-1, 1] is clipped."""
_watcher: contextvars.ContextVar[Callable[[Episode], None] | None] = contextvars.ContextVar(
    "watcher", default=None
)


@contextlib.contextmanager
def watched(on_episode: Callable[[Episode], None]) -> Iterator[None]:
    """Inside, `on_episode` receives every episode as soon as it is recorded, whichever task's
    `collect` runs.

    So progress can be shown without every task handing a callback through.
    """
    token = _watcher.set(on_episode)
    try:
        yield
    finally:
        _watcher.reset(token)


def announce(episode: Episode) -> Episode:
    """Shows a recorded episode to whoever watches and returns it; `collect_episodes` does so by
    itself."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(episode)
    return episode


def collect_episodes(
    env: gymnasium.Env,
    make_expert: Callable[[gymnasium.Env], Expert],
    episodes: int,
    noise: float,
    seed: int,
) -> list[Episode]:
    """Plays an expert and records everything, failures included.

    Args:
        env: an environment of a `Task`: dictionary observations, actions in [-1, 1],
            info["success"].
        make_expert: called after every reset, so that an expert may keep state within its episode.
        episodes: how many.
        noise: standard deviation of Gaussian noise added to every action before clipping to [-1,
            1].
        seed: fixes starts and noise.
    """
    return [announce(_play(env, make_expert, noise, seed, index)) for index in range(episodes)]


def _play(
    env: gymnasium.Env,
    make_expert: Callable[[gymnasium.Env], Expert],
    noise: float,
    seed: int,
    index: int,
) -> Episode:
    rng = np.random.default_rng((seed, index))
    observation, info = env.reset(seed=env_seed(seed, index))
    expert = make_expert(env)
    seen = {name: [value] for name, value in observation.items()}
    actions, rewards, successes, terminated, truncated = [], [], [], False, False
    while not (terminated or truncated):
        wanted = np.asarray(expert(observation, info))
        action = np.clip(wanted + noise * rng.standard_normal(wanted.shape), -1.0, 1.0).astype(
            np.float32
        )
        observation, reward, terminated, truncated, info = env.step(action)
        for name, value in observation.items():
            seen[name].append(value)
        actions.append(action)
        rewards.append(reward)
        successes.append(bool(info["success"]))
    observations = {name: np.stack(values) for name, values in seen.items()}
    return Episode(
        observations,
        np.stack(actions),
        np.array(rewards, np.float32),
        np.array(successes),
        bool(terminated),
    )
