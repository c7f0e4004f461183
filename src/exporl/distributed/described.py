"""What an actor says of its environment, as spaces; and whether what it shows is that."""

import collections
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from exporl.acting.checked import UnusableValue, check_size
from exporl.actor.environment import PROTOCOL
from exporl.serve.messages import LARGEST, MessageError
from exporl.units import EXECUTED, SUCCESS_KEYS, ActionUnits

MOST_ACTIONS = 1_000
"""Numbers of an action."""
_DTYPE = re.compile(r"[<>|=]?(float(16|32|64)|u?int(8|16|32|64)|f[248]|[iu][1248])")
"""Types of numbers, as NumPy writes them."""


class Described(NamedTuple):
    """An environment elsewhere."""

    observation: tuple[tuple[str, tuple[int, ...], str], ...]
    """(name, shape, dtype) per entry; a lone Box is called ""."""
    low: tuple[float, ...]
    """Bounds of the flattened action."""
    high: tuple[float, ...]
    action_shape: tuple[int, ...]
    action_dtype: str
    max_episode_steps: int
    control_hz: float | None

    def observation_space(self) -> gymnasium.Space[Any]:
        """The space of observations, its entries in their order."""
        boxes = [(name, _box(shape, np.dtype(dtype))) for name, shape, dtype in self.observation]
        if [name for name, _ in boxes] == [""]:
            return boxes[0][1]
        return gymnasium.spaces.Dict(collections.OrderedDict(boxes))

    def action_space(self) -> gymnasium.spaces.Box:
        """The space of actions."""
        dtype: Any = np.dtype(self.action_dtype)
        low, high = (
            np.array(bound, dtype).reshape(self.action_shape) for bound in (self.low, self.high)
        )
        return gymnasium.spaces.Box(low, high, dtype=dtype)

    def shown(self, observation: Any) -> Any:
        """An observation that an actor sent, in its space.

        Raises:
            MessageError: it is not what was described; says what.
        """
        if not isinstance(observation, Mapping):
            raise MessageError("an observation is a map of arrays.")
        found = {}
        for name, shape, _ in self.observation:
            value = observation.get(name)
            if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
                raise MessageError(f"the observation has no array of numbers {name!r}.")
            if value.size != math.prod(shape):
                raise MessageError(
                    f"observation {name!r} has shape {value.shape}, and was described as {shape}."
                )
            _check_size(value, f"observation {name!r}")
            found[name] = value
        return found[""] if list(found) == [""] else found

    def executed(self, value: Any) -> np.ndarray:
        """The action that an actor says it executed, within the bounds.

        Raises:
            MessageError: it is none; says why.
        """
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
            raise MessageError("a step was answered without the action that was executed.")
        if value.size != len(self.low):
            raise MessageError(
                f"{EXECUTED!r} has shape {value.shape}, an action {self.action_shape}."
            )
        _check_size(value, repr(EXECUTED))
        return np.clip(value.ravel(), self.low, self.high)


def number(value: Any, what: str) -> float:
    """A number that an actor sent.

    Raises:
        MessageError: it is none, or too large to learn from; says what it is.
    """
    known = isinstance(value, bool | int | float | np.generic | np.ndarray)
    array = np.asarray(value) if known else np.array(None)
    if array.ndim != 0 or array.dtype.kind not in "biuf":
        raise MessageError(f"{what} is {value!r:.60}, which is no number.")
    _check_size(array, what)
    return float(array)


def told(info: Any) -> dict[str, bool]:
    """What an actor's info says of success.

    Raises:
        MessageError: it is no info; says why.
    """
    if not isinstance(info, Mapping):
        raise MessageError("an answer has no info.")
    return {key: number(info[key], repr(key)) != 0 for key in SUCCESS_KEYS if key in info}


def _check_size(value: np.ndarray, what: str) -> None:
    try:
        check_size(value, what)
    except UnusableValue as error:
        raise MessageError(f"{error}.") from error


def _box(shape: tuple[int, ...], dtype: np.dtype) -> gymnasium.spaces.Box:
    low, high = -np.inf, np.inf
    if dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    kind: Any = dtype.type
    return gymnasium.spaces.Box(low, high, shape, kind)


def described(message: Any) -> Described:
    """What an actor's answer to "describe" says.

    Raises:
        ValueError: it is none; says what is wrong.
    """
    if not isinstance(message, Mapping) or "protocol" not in message:
        raise MessageError(
            "this is a training that waits for actors, and no actor answered: the command on a "
            "robot's machine is exporl actor --env module:function --address HOST:PORT."
        )
    protocol = message["protocol"]
    if type(protocol) is not int or protocol != PROTOCOL:
        raise MessageError(
            f"the actor speaks version {protocol!r:.60} of the calls, this training {PROTOCOL}: "
            "install the same version of exporl on both."
        )
    action, listed = message.get("action"), message.get("observation")
    if not isinstance(action, Mapping) or not isinstance(listed, list) or not listed:
        raise MessageError("an actor describes an action and the entries of its observation.")
    low, high = _bound(action.get("low")), _bound(action.get("high"))
    entries = _entries(listed)
    dtype = _dtype(action.get("dtype"), "the action")
    if low.shape != high.shape or dtype.kind != "f":
        raise MessageError(
            f"actions must be a Box of floats; the actor has {dtype} with bounds of shapes "
            f"{low.shape} and {high.shape}."
        )
    ActionUnits(tuple(low.ravel().tolist()), tuple(high.ravel().tolist()), low.shape, str(dtype))
    limit, hz = message.get("max_episode_steps"), message.get("control_hz")
    if type(limit) is not int or limit < 1:
        raise MessageError(f"max_episode_steps must be a whole number above 0, got {limit!r:.60}.")
    if hz is not None and not (isinstance(hz, int | float) and 0 < hz < math.inf):
        raise MessageError(f"control_hz must be a number above 0, got {hz!r:.60}.")
    return Described(
        entries,
        tuple(low.ravel().tolist()),
        tuple(high.ravel().tolist()),
        low.shape,
        str(dtype),
        limit,
        hz,
    )


def _entries(listed: list[Any]) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    entries = tuple(map(_entry, listed))
    names = [name for name, _, _ in entries]
    if len(set(names)) < len(names):
        raise MessageError(f"two entries of the observation have one name: {names!r:.200}.")
    if sum(math.prod(shape) * np.dtype(dtype).itemsize for _, shape, dtype in entries) > LARGEST:
        raise MessageError(f"an observation has more than the {LARGEST} bytes of a message.")
    return entries


def _entry(entry: Any) -> tuple[str, tuple[int, ...], str]:
    if not (isinstance(entry, list) and len(entry) == 3 and isinstance(entry[0], str)):
        raise MessageError(
            f"an entry of the observation is (name, shape, dtype), not {entry!r:.60}."
        )
    name, shape, dtype = entry
    kind = _dtype(dtype, f"observation {name!r}")
    lengths = isinstance(shape, list) and all(type(n) is int and 0 < n < 2**31 for n in shape)
    if not lengths or math.prod(shape) * kind.itemsize > LARGEST:
        raise MessageError(f"observation {name!r} has the shape {shape!r:.60}, which is none.")
    return name, tuple(shape), str(kind)


def _dtype(name: Any, what: str) -> np.dtype:
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise MessageError(f"{what} has the type {name!r:.60}, which is no number.")
    return np.dtype(name.lstrip("<>|="))


def _bound(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf" or value.size == 0:
        raise MessageError("the bounds of the action are no arrays of numbers.")
    if value.size > MOST_ACTIONS:
        raise MessageError(f"an action has {value.size} numbers; {MOST_ACTIONS} are the most.")
    return value.astype(np.float64)
