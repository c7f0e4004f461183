"""A user's own gymnasium environment as a task."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, cast

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.envs.custom_data import Recorded, Success
from exporl.envs.task import Reward, Task, sparse_reward
from exporl.nested import Way, entry_at
from exporl.outside import load_module
from exporl.spec import Spec
from exporl.suggest import closest
from exporl.units import EXECUTED, SUCCESS_KEYS, ActionUnits


def custom_task(
    make_env: Callable[[], gymnasium.Env],
    *,
    name: str = "custom",
    reward: Reward | Callable[[float], float] = "-1/0",
    success: Success | None = None,
    max_episode_steps: int | None = None,
    recorded_actions: Literal["env", "unit"] = "env",
    collect: Callable[[int, float, int], list[Episode]] | None = None,
    normalize: bool = True,
    source: str = "",
    control_hz: float | None = None,
) -> Task:
    """A task around any gymnasium environment with continuous actions.

    Box observations become {"state": float32}, or {"image": uint8} for [H, W, C] images; entries of
    a Dict keep their names, those within another Dict joined by "/". Actions are scaled to [-1, 1].

    Args:
        make_env: returns a new environment.
        name: for messages and run directories.
        reward: "-1/0" and "0/1" pay by success alone; "env" and a function take what the
            environment pays.
        success: name of a boolean entry of every step's info, or a function of (reward, terminated,
            info) of a step. Default: the info's "success" or "is_success"; where what the
            environment pays is learnt from, it may have neither: nothing counts as success then.
        max_episode_steps: time limit; by default that of the environment's own specification, or of
            a TimeLimit around it.
        recorded_actions: whether data files hold actions in the environment's own bounds or in [-1,
            1]. Files that say it themselves (written by `exporl data`) are believed.
        collect: (episodes, action noise, seed) -> demonstrations, recorded in an environment of
            this task.
        normalize: whether observations are normalised with statistics of the demonstrations.
        source: where the demonstrations come from.
        control_hz: actions per second.

    Raises:
        ValueError: the environment cannot be made into a task; says what to change.
    """
    observation, own_shapes, units, limit = _shapes(make_env(), name, max_episode_steps)
    own = callable(reward) or reward == "env"
    bounds = (np.array(units.low), np.array(units.high)) if recorded_actions == "env" else None
    return Task(
        name=name,
        make_env=functools.partial(_make, make_env, name, success, limit, own),
        spec=Spec(observation, action_dim=len(units.low)),
        reward=reward if callable(reward) else sparse_reward(reward),
        max_episode_steps=limit,
        collect=None if collect is None else functools.partial(_collected, collect),
        normalize=normalize,
        source=source,
        adapt=Recorded(observation, bounds, own, success),
        observation_note="as the environment has it",
        reward_note="the environment's own" if own else "0/1 success",
        reward_range=None if own else (0.0, 1.0),
        control_hz=control_hz,
        action_units=units,
        own_shapes=own_shapes,
    )


def _shapes(env: Any, name: str, max_episode_steps: int | None) -> Any:
    """Observation entries and their shapes in the environment, units of actions, and time limit of
    an environment, which is closed."""
    if not isinstance(env, gymnasium.Env):
        raise ValueError(f"{name}: make_env() returned {type(env).__name__}, not a gymnasium.Env.")
    try:
        entries, units = _entries(env, name), _units(env, name)
        leaves = [space for _, space in _leaves(env.observation_space)]
        own_shapes = {key: leaf.shape for (key, _, _), leaf in zip(entries, leaves, strict=True)}
        return entries, own_shapes, units, _time_limit(env, name, max_episode_steps)
    finally:
        env.close()


def _collected(
    collect: Callable[[int, float, int], list[Episode]], episodes: int, noise: float, seed: int
) -> list[Episode]:
    """Demonstrations, marked as recorded in an environment of the task: in [-1, 1]."""
    made = collect(episodes, noise, seed)
    return [dataclasses.replace(episode, unit_actions=True) for episode in made]


def _time_limit(env: gymnasium.Env, name: str, chosen: int | None) -> int:
    limit = chosen or min(_own_limits(env), default=None)
    if limit is None or limit < 1:
        raise ValueError(
            f"{name}: no time limit (got {limit}). Give custom_task(..., max_episode_steps=N), or "
            "wrap the environment in gymnasium.wrappers.TimeLimit."
        )
    return limit


def _own_limits(env: gymnasium.Env) -> Iterator[int]:
    """Time limits that the environment, or a wrapper around it, has of its own."""
    layer: Any = env
    while True:
        for holder, name in (
            (layer.spec, "max_episode_steps"),
            (layer, "max_episode_steps"),
            (layer, "_max_episode_steps"),
        ):
            value = getattr(holder, name, None)
            if isinstance(value, int | np.integer) and not isinstance(value, bool):
                yield int(value)
        if not isinstance(layer, gymnasium.Wrapper):
            return
        layer = layer.env


def import_task(name: str, reward: Reward) -> Task:
    """The task `module:function`: the function returns a `Task` (whose own reward stands), or a new
    environment.

    Modules are looked for in the current directory first.

    Raises:
        ValueError: no such module or function, it fails, or it returns something else.
    """
    module_name, _, function_name = name.partition(":")
    module = load_module(name, "task")
    function: Any = getattr(module, function_name, None)
    if not callable(function):
        known = [
            key
            for key, value in vars(module).items()
            if callable(value) and not key.startswith("_")
        ]
        raise ValueError(
            f"{module_name} has no function {function_name!r}. {closest(function_name, known)}"
        )
    try:
        made = function()
    except (Exception, SystemExit) as error:  # it may exit as well
        raise ValueError(
            f"{name}() raised {type(error).__name__}: {error}. It must take no arguments and return"
            " a gymnasium.Env or a Task."
        ) from error
    if isinstance(made, Task):
        return dataclasses.replace(made, name=name)
    if isinstance(made, gymnasium.Env):
        made.close()
        return custom_task(cast(Callable[[], gymnasium.Env], function), name=name, reward=reward)
    raise ValueError(
        f"{name}() returned {type(made).__name__}; it must return a gymnasium.Env or a Task."
    )


def _leaves(space: gymnasium.Space, path: Way = ()) -> Iterator[tuple[Way, gymnasium.Space]]:
    """Every space within Dicts and Tuples, and the way to it."""
    if isinstance(space, gymnasium.spaces.Dict):
        for key, part in space.items():
            yield from _leaves(part, (*path, key))
    elif isinstance(space, gymnasium.spaces.Tuple):
        for index, part in enumerate(space):
            yield from _leaves(part, (*path, index))
    else:
        yield path, space


def _key(path: Way) -> str:
    return "/".join(map(str, path))


def _entries(env: gymnasium.Env, name: str) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    """What the observations become: (name, shape, dtype) per entry, nested names joined by "/"."""
    leaves = list(_leaves(env.observation_space))
    if [path for path, _ in leaves] != [()]:
        return tuple(
            (_key(path), *_entry(space, f"{name}: observation {_key(path)!r}"))
            for path, space in leaves
        )
    shape, dtype = _entry(env.observation_space, f"{name}: the observation")
    return (("image" if dtype == "uint8" and len(shape) == 3 else "state", shape, dtype),)


def _entry(space: gymnasium.Space, what: str) -> tuple[tuple[int, ...], str]:
    if not isinstance(space, gymnasium.spaces.Box):
        raise ValueError(
            f"{what} is {space}; it must be a Box, or Dicts of Boxes. Flatten it, for example with "
            "gymnasium.wrappers.FlattenObservation."
        )
    if space.dtype == np.uint8 and len(space.shape) == 3:
        return space.shape, "uint8"
    return (math.prod(space.shape),), "float32"


def _units(env: gymnasium.Env, name: str) -> ActionUnits:
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise ValueError(
            f"{name}: the action space is {space}; actions must be continuous (a Box of floats)."
        )
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(
            f"{name}: action bounds are [{low.min():g}, {high.max():g}]; they must be finite, low "
            "below high. Give the environment the bounds that its actuators have."
        )
    lowest, highest = (tuple(bound.ravel().tolist()) for bound in (low, high))
    return ActionUnits(lowest, highest, space.shape, str(space.dtype))


def _make(
    make_env: Callable[[], gymnasium.Env],
    name: str,
    success: Success | None,
    limit: int,
    own_reward: bool,
) -> gymnasium.Env:
    return CanonicalEnv(make_env(), name, success, limit, own_reward)


class CanonicalEnv(gymnasium.Wrapper):
    """A user's environment with everything that a `Task` promises."""

    def __init__(
        self, env: gymnasium.Env, name: str, success: Success | None, limit: int, own_reward: bool
    ):
        super().__init__(env)
        self._name, self._success, self._limit, self._own_reward, self._steps = (
            name,
            success,
            limit,
            own_reward,
            0,
        )
        self._entries, self._units = _entries(env, name), _units(env, name)
        self._ways = [path for path, _ in _leaves(env.observation_space)]
        boxes: dict[str, gymnasium.Space] = {
            key: gymnasium.spaces.Box(0, 255, shape, np.uint8)
            if dtype == "uint8" else gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)
            for key, shape, dtype in self._entries
        }  # fmt: skip
        self.observation_space = gymnasium.spaces.Dict(boxes)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (len(self._units.low),), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode; the environment must fix everything by its seed."""
        try:
            answer = self.env.reset(seed=seed, options=options)
        except TypeError as error:
            raise ValueError(
                f"{self._name}: reset(seed=..., options=...) raised {error}. Give reset the "
                "signature of gymnasium: reset(self, *, seed=None, options=None)."
            ) from error
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise ValueError(
                f"{self._name}: reset() must return (observation, info), as gymnasium has it."
            )
        self._steps = 0
        return self._observation(answer[0]), {**answer[1], "success": False}

    def step(self, action: np.ndarray):
        """One step; truncated at the time limit, with a boolean "success" in the info."""
        own = self._units.to_own(np.ravel(action))
        answer: Any = self.env.step(own)
        if not (isinstance(answer, tuple) and len(answer) == 5):
            raise ValueError(
                f"{self._name}: step() must return (observation, reward, terminated, truncated, "
                "info), as gymnasium has it."
            )
        observation, paid, terminated, truncated, info = answer
        if not isinstance(info, Mapping):
            raise ValueError(
                f"{self._name}: the info of step() is {type(info).__name__}, not a dictionary."
            )
        paid = self._number(paid, "the reward", "float(reward)")
        terminated = bool(self._number(terminated, "terminated", "bool(terminated)"))
        truncated = bool(self._number(truncated, "truncated", "bool(truncated)"))
        self._steps += 1
        success = self._solved(paid, terminated, dict(info))
        truncated = not terminated and (truncated or self._steps >= self._limit)
        reward = paid if self._own_reward else float(success)
        if EXECUTED in info:
            info = {**info, EXECUTED: self._executed(info[EXECUTED], own, action)}
        return (
            self._observation(observation),
            reward,
            terminated,
            truncated,
            {**info, "success": success},
        )

    def _executed(self, executed: Any, own: np.ndarray, action: np.ndarray) -> np.ndarray:
        """The action in [-1, 1] that was executed; as it was given where nothing else was."""
        try:
            found = np.asarray(executed, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self._name}: {EXECUTED!r} in the info of step() is no array of numbers: {error}."
            ) from error
        if found.size != own.size:
            raise ValueError(
                f"{self._name}: {EXECUTED!r} in the info of step() has shape {found.shape}, an "
                f"action has {own.shape}."
            )
        if np.array_equal(found.ravel(), own.ravel()):
            return np.ravel(action)
        return self._units.to_unit(found.ravel())

    def _number(self, value: Any, what: str, cure: str) -> float:
        """One number of what step() returned; anything else is named."""
        try:
            if value is not None and np.ndim(value) == 0:
                return float(value)
            shape = "" if value is None else f" of shape {np.shape(value)}"
        except (TypeError, ValueError):
            shape = ""
        raise ValueError(
            f"{self._name}: {what} of step() is {type(value).__name__}{shape}, {str(value)[:40]}; "
            f"it must be one number. Return {cure}."
        )

    def _observation(self, observation: Any) -> dict[str, np.ndarray]:
        result = {}
        for (key, shape, dtype), way in zip(self._entries, self._ways, strict=True):
            try:
                value = entry_at(observation, way, key)
            except ValueError as error:
                raise ValueError(f"{self._name}: {error}") from error
            value = np.array(value, dtype)  # a copy: many environments write into one array
            if value.size != math.prod(shape):
                raise ValueError(
                    f"{self._name}: observation {key!r} has shape {value.shape}, its space says "
                    f"{shape}."
                )
            result[key] = value.reshape(shape)
        return result

    def _solved(self, reward: float, terminated: bool, info: dict[str, Any]) -> bool:
        if callable(self._success):
            return bool(self._success(reward, terminated, info))
        keys = SUCCESS_KEYS if self._success is None else (self._success,)
        for key in keys:
            if key in info:
                return bool(info[key])
        if self._own_reward and self._success is None:
            return False
        raise ValueError(
            f"{self._name}: the info of a step has no {' or '.join(map(repr, keys))} (it has "
            f"{sorted(info)}). Set info['success'], or return custom_task(make_env, success=...)"
            " with another entry's name or a function of (reward, terminated, info); or learn from "
            "what the environment pays, which needs neither: reward 'env' (--reward env)."
        )
