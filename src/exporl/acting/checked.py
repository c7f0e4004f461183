"""What an environment gives, checked before anything else looks at it: a normaliser would clip an
infinite sensor to an ordinary number."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from exporl.data.episodes import within
from exporl.spec import Spec
from exporl.units import EXECUTED

LARGEST_SEEN = 1e15
"""Largest observation or reward: squares of it, as optimisers keep them, are still float32
numbers."""


class UnusableValue(Exception):
    """A value that cannot be learnt from; says which entry, and what it is."""


class Checked(gymnasium.Wrapper):
    """An environment whose observations, rewards and flags are looked at as they come.

    `reset` and `step` raise `UnusableValue` for NaN, infinity, huge numbers, wrong shapes, wrong
    types, and for rewards outside the range that the task states.
    """

    def __init__(self, env: gymnasium.Env, spec: Spec, reward_range: tuple[float, float] | None):
        """Around an environment.

        Args:
            env: as the task makes it.
            spec: the observations that it must show.
            reward_range: least and greatest reward, as `Task.reward_range`.
        """
        super().__init__(env)
        self._spec, self._rewards = spec, reward_range

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode."""
        answer = self.env.reset(seed=seed, options=options)
        observation, info = _parts(answer, "(observation, info)", 2)
        _check_observation(self._spec, observation)
        return observation, _info(info)

    def step(self, action: np.ndarray):
        """One step; the reward is a float, the flags are bool."""
        answer = self.env.step(action)
        what = "(observation, reward, terminated, truncated, info)"
        observation, reward, terminated, truncated, info = _parts(answer, what, 5)
        _check_observation(self._spec, observation)
        paid = _reward(reward, self._rewards)
        ends = _flag("terminated", terminated), _flag("truncated", truncated)
        info = _info(info)
        if EXECUTED in info:
            _check_executed(info[EXECUTED], self._spec.action_dim)
        return observation, paid, *ends, info


def _parts(answer: Any, what: str, count: int) -> tuple[Any, ...]:
    if not isinstance(answer, tuple | list) or len(answer) != count:
        size = f" of {len(answer)}" if isinstance(answer, tuple | list) else ""
        raise UnusableValue(f"a {type(answer).__name__}{size} instead of {what}")
    return tuple(answer)


def _check_observation(spec: Spec, observation: Any) -> None:
    if not isinstance(observation, Mapping):
        names = ", ".join(name for name, _, _ in spec.observation)
        raise UnusableValue(
            f"the observation {_short(observation)} instead of a dictionary of {names}"
        )
    for name, shape, dtype in spec.observation:
        if name not in observation:
            raise UnusableValue(f"an observation without {name!r}; it has {sorted(observation)}")
        value = _array(observation[name], f"observation[{name!r}]")
        if value.shape != shape:
            raise UnusableValue(
                f"observation[{name!r}] of shape {value.shape}; the task says {shape}"
            )
        if dtype == "uint8" and value.dtype != np.uint8:
            raise UnusableValue(f"observation[{name!r}] as {value.dtype}; the task says uint8")
        check_size(value, f"observation[{name!r}]")


def _array(value: Any, what: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise UnusableValue(f"{what} that is no array ({error})") from error
    if array.dtype.kind not in "biuf":
        raise UnusableValue(f"{what} = {_short(value)}, which is not a number")
    return array


def check_size(value: np.ndarray, what: str) -> None:
    """Refuses NaN, infinity and numbers that no float32 network can learn from."""
    if value.dtype.kind != "f" or (np.abs(value) <= LARGEST_SEEN).all():
        return
    bad = ~(np.abs(value) <= LARGEST_SEEN)
    where = f" at {np.argwhere(bad)[0].tolist()}" if value.ndim else ""
    raise UnusableValue(
        f"{what} = {float(value[bad][0]):g}{where}; finite numbers up to {LARGEST_SEEN:g} can be "
        "learnt from"
    )


def _check_executed(action: Any, action_dim: int) -> None:
    value = _array(action, f"info[{EXECUTED!r}]")
    if value.shape != (action_dim,):
        raise UnusableValue(
            f"info[{EXECUTED!r}] of shape {value.shape}; an action has shape {(action_dim,)}"
        )
    check_size(value, f"info[{EXECUTED!r}]")


def _reward(reward: Any, bounds: tuple[float, float] | None) -> float:
    value = _array(reward, "the reward")
    if value.size != 1:
        raise UnusableValue(f"a reward of shape {value.shape} instead of one number")
    check_size(value, "the reward")
    paid = float(value.reshape(()))
    if bounds is not None and not within(paid, bounds):
        raise UnusableValue(
            f"the reward {paid:g}, outside [{bounds[0]:g}, {bounds[1]:g}], which the task "
            "states (Task.reward_range) and which bounds all values"
        )
    return paid


def _flag(name: str, value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biu" or array.reshape(()) not in (0, 1):
        raise UnusableValue(f"{name} = {_short(value)} instead of True or False")
    return bool(array.reshape(()))


def _info(info: Any) -> Mapping[str, Any]:
    if not isinstance(info, Mapping):
        raise UnusableValue(f"the info {_short(info)} instead of a dictionary")
    return info


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
