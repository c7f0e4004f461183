"""The task record and the registry of task families."""

import dataclasses
import difflib
import importlib.util
from collections.abc import Callable
from typing import Literal

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.types import Spec

Reward = Literal["-1/0", "0/1", "env"]
"""-1 per step and 0 at success, 0 per step and 1 at success, or whatever the environment pays."""


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment, its reward convention and where its data comes from.

    Environments have dictionary observations and actions in [-1, 1]; `reset(seed=s)` fixes everything that happens
    in the episode up to the agent's actions, so that an interrupted run can be resumed inside an episode; the info of
    every step has a boolean "success".
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
    """Turns an episode as the domain's files have it into this task's observations, actions and rewards (which
    entries make up "state", action ranges, rewards computed from simulator states). Leaves one that already fits as
    it is. Raises ValueError naming what the episode lacks."""
    observation_note: str = ""
    """What the observation consists of, in a few words."""
    reward_note: str = "0/1 success"
    """What the environment pays, before `reward`."""
    control_hz: float | None = None
    """Actions per second of simulated or real time."""


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


def _families() -> dict[str, Family]:
    from exporl.envs import (  # the families import this file
        adroit,
        antmaze,
        driving,
        metaworld,
        mimicgen,
        ogbench,
        probes,
        pusht,
        robomimic,
    )

    return {
        "adroit": adroit.FAMILY,
        "antmaze": antmaze.FAMILY,
        "driving": driving.FAMILY,
        "metaworld": metaworld.FAMILY,
        "mimicgen": mimicgen.FAMILY,
        "ogbench": ogbench.FAMILY,
        "probe": probes.FAMILY,
        "pusht": pusht.FAMILY,
        "robomimic": robomimic.FAMILY,
    }


def sparse_reward(kind: Reward, default: Reward = "-1/0") -> Callable[[float], float]:
    """The transform of a 0/1 success reward into a convention.

    Raises:
        ValueError: unknown convention.
    """
    transforms = {"-1/0": lambda r: r - 1.0, "0/1": lambda r: r, "env": lambda r: r}
    if kind not in transforms:
        raise ValueError(f"reward must be one of {', '.join(transforms)}; got {kind!r}.")
    return transforms[kind]


def value_range(kind: Reward, discount: float) -> tuple[float, float]:
    """(lowest, highest) value that a reward convention allows, whatever the policy and the length of an episode.

    For tasks that pay between 0 and 1, as `sparse_reward` takes them. One that ends at success has values up to 0
    (-1/0) or 1 (0/1); the upper end for 0/1 also holds where success is paid at every further step.

    Raises:
        ValueError: the environment's own reward, which has no known range; an unknown convention; or a discount outside
            [0, 1), with which returns have no bound.
    """
    sparse_reward(kind)  # raises for an unknown one
    if kind == "env":
        raise ValueError(
            "reward 'env' is whatever the environment pays: its values have no known range. Give the bounds, or use "
            "reward '-1/0' or '0/1'."
        )
    if not 0 <= discount < 1:
        raise ValueError(f"discount must lie in [0, 1) for values to have a range, got {discount}.")
    most = 1 / (1 - discount)
    return (-most, 0.0) if kind == "-1/0" else (0.0, most)


def state_spec(spec: Spec) -> Spec:
    """What networks for states see: the low-dimensional entries, [o] floats, without images.

    Raises:
        ValueError: there are none.
    """
    low = tuple(entry for entry in spec.observation if len(entry[1]) == 1 and entry[2].startswith("float"))
    if not low:
        found = ", ".join(f"{name} {dtype}{list(shape)}" for name, shape, dtype in spec.observation)
        raise ValueError(
            f"the observation holds only {found}, and the networks read vectors of floats: images alone cannot be learnt "
            "from yet. Add a low-dimensional entry, such as {'state': float32 [o]}, to the task."
        )
    return dataclasses.replace(spec, observation=low)


def list_tasks() -> list[tuple[str, Family]]:
    """All task names, `family/name`, with their family."""
    return [(f"{family}/{name}", record) for family, record in _families().items() for name in record.names]


def make_task(name: str, reward: Reward = "-1/0") -> Task:
    """A task by name.

    Args:
        name: `family/name`, see `exporl tasks`, or `module:function` of your own, see `exporl.envs.custom`.
        reward: the learning reward.

    Raises:
        ValueError: unknown task (names the closest), unknown reward convention, or a module that is of no use.
        ModuleNotFoundError: the task's package is not installed; names the command that installs it.
    """
    if ":" in name:
        from exporl.envs.custom import import_task  # it imports this file

        return import_task(name, reward)
    known = dict(list_tasks())
    if name not in known:
        match = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"Did you mean {match[0]!r}? " if match else ""
        raise ValueError(f"unknown task {name!r}. {hint}`exporl tasks` lists all {len(known)}.")
    family = known[name]
    if family.module is not None and importlib.util.find_spec(family.module) is None:
        raise ModuleNotFoundError(
            f"task {name!r} needs the package {family.module!r}. Install it with: pip install 'exporl[{family.extra}]'"
        )
    return family.make(name.split("/", 1)[1], reward)


def env_seed(*counters: int) -> int:
    """A seed for one episode from non-negative counters (run seed, stream, episode): well mixed and reproducible."""
    return int(np.random.SeedSequence(counters).generate_state(1)[0])
