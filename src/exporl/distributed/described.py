"""What an actor says of its environment, as spaces; and whether what it shows is that."""

import collections
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from exporl.actor.environment import PROTOCOL
from exporl.serve.messages import LARGEST, MessageError
from exporl.units import ActionUnits


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
            found[name] = value
        return found[""] if list(found) == [""] else found


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
    if message["protocol"] != PROTOCOL:
        raise MessageError(
            f"the actor speaks version {message['protocol']!r} of the calls, this training "
            f"{PROTOCOL}: install the same version of exporl on both."
        )
    action, entries = message.get("action"), message.get("observation")
    if not isinstance(action, Mapping) or not isinstance(entries, list) or not entries:
        raise MessageError("an actor describes an action and the entries of its observation.")
    low, high = _bound(action.get("low")), _bound(action.get("high"))
    dtype = _dtype(action.get("dtype"), "the action")
    if low.shape != high.shape or dtype.kind != "f":
        raise MessageError(
            f"actions must be a Box of floats; the actor has {dtype} with bounds of shapes "
            f"{low.shape} and {high.shape}."
        )
    ActionUnits(tuple(low.ravel().tolist()), tuple(high.ravel().tolist()), low.shape, str(dtype))
    names = [entry[0] for entry in map(_entry, entries)]
    if len(set(names)) < len(names):
        raise MessageError(f"two entries of the observation have one name: {names!r:.200}.")
    limit, hz = message.get("max_episode_steps"), message.get("control_hz")
    if type(limit) is not int or limit < 1:
        raise MessageError(f"max_episode_steps must be a whole number above 0, got {limit!r:.60}.")
    if hz is not None and not (isinstance(hz, int | float) and 0 < hz < math.inf):
        raise MessageError(f"control_hz must be a number above 0, got {hz!r:.60}.")
    return Described(
        tuple(map(_entry, entries)),
        tuple(low.ravel().tolist()),
        tuple(high.ravel().tolist()),
        low.shape,
        str(dtype),
        limit,
        hz,
    )


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
    try:
        kind = np.dtype(name) if isinstance(name, str) else None
    except TypeError:
        kind = None
    if kind is None or kind.kind not in "iuf":
        raise MessageError(f"{what} has the type {name!r:.60}, which is no number.")
    return kind


def _bound(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf" or value.size == 0:
        raise MessageError("the bounds of the action are no arrays of numbers.")
    return value.astype(np.float64)
