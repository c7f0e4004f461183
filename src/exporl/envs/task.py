"""The record of a task, and what families of tasks share."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.spec import Spec
from exporl.units import ActionUnits

Reward = Literal["-1/0", "0/1", "env"]
"""-1 per step and 0 at success, 0 per step and 1 at success, or whatever the environment pays."""


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment, its reward convention and where its data comes from.

    Environments have dictionary observations and actions in [-1, 1]; `reset(seed=s)` fixes
    everything that happens in the episode up to the agent's actions, so that an interrupted run can
    be resumed inside an episode; the info of every step has a boolean "success".
    """

    name: str
    make_env: Callable[[], gymnasium.Env]
    """A new environment."""
    spec: Spec
    """Shapes of observations and of one action (chunk length 1)."""
    reward: Callable[[float], float]
    """Environment reward -> learning reward; applied to data and environment alike."""
    max_episode_steps: int
    """Time limit in steps."""
    collect: Callable[[int, float, int], list[Episode]] | None = None
    """(episodes, action noise, seed) -> demonstrations."""
    normalize: bool = False
    """Whether observations are normalised with statistics of the demonstrations."""
    source: str = ""
    """Where the demonstrations come from, in a few words."""
    adapt: Callable[[Episode], Episode] | None = None
    """Turns an episode as the domain's files have it into this task's observations, actions and
    rewards (which entries make up "state", action ranges, rewards computed from simulator states).
    Leaves one that already fits as it is. Raises ValueError naming what the episode lacks."""
    observation_note: str = ""
    """What the observation consists of, in a few words."""
    reward_note: str = "0/1 success"
    """What the environment pays, before `reward`."""
    reward_range: tuple[float, float] | None = (0.0, 1.0)
    """Least and most that the environment pays for a step, before `reward`; None: unknown."""
    control_hz: float | None = None
    """Actions per second of simulated or real time."""
    action_units: ActionUnits | None = None
    """What the actions in [-1, 1] are scaled to before the environment itself gets them; None:
    it takes them as they are."""
    own_shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    """Shapes of observation entries as the environment itself gives them, where they differ from
    the spec's."""


@dataclasses.dataclass(frozen=True)
class Family:
    """Tasks that share a constructor."""

    names: tuple[str, ...]
    make: Callable[[str, Reward], Task]
    module: str | None
    """Package that must be installed, or None."""
    extra: str | None
    """The extra of this distribution that installs it."""
    summary: str
    """Observation, action, horizon, reward and data in one line."""
    details: str = ""
    """More of that for the documents, in Markdown: what is paid, what counts as success, where
    data comes from."""


def value_range(task: Task, discount: float) -> tuple[float, float] | None:
    """Least and greatest discounted return in the learning reward; None where the rewards' range
    is unknown.

    With rewards from l to h, any number of them until an episode ends: min(l, l / (1 - discount))
    and max(h, h / (1 - discount)); a discount of 1 leaves values without bounds.
    """
    if task.reward_range is None or discount >= 1:
        return None
    paid = sorted(task.reward(end) for end in task.reward_range)
    low, high = (reward / (1 - discount) for reward in paid)
    return min(paid[0], low), max(paid[1], high)


def sparse_reward(kind: Reward, default: Reward = "-1/0") -> Callable[[float], float]:
    """The transform of a 0/1 success reward into a convention.

    Raises:
        ValueError: unknown convention.
    """
    transforms: dict[str, Callable[[float], float]] = {
        "-1/0": _minus_one,
        "0/1": _as_it_is,
        "env": _as_it_is,
    }
    if kind not in transforms:
        raise ValueError(f"reward must be one of {', '.join(transforms)}; got {kind!r}.")
    return transforms[kind]


def _minus_one(reward: float | np.floating) -> float:
    return float(reward) - 1.0


def _as_it_is(reward: float | np.floating) -> float:
    return float(reward)
