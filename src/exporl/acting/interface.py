"""What a policy takes and gives, in the environment's own units: checked, and kept beside a run."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporl.files.atomic import write_text
from exporl.files.reading import read_object
from exporl.files.run_files import POLICY
from exporl.spec import Spec
from exporl.suggest import closest
from exporl.units import ActionUnits

DTYPES = ("float32", "uint8")
"""Types of observations."""


@dataclasses.dataclass(frozen=True)
class Interface:
    """Observations in, chunks of actions out."""

    task: str
    """Name of the task, for people."""
    spec: Spec
    """The entries of an observation that the policy reads, and its chunks."""
    own_shapes: Mapping[str, tuple[int, ...]]
    """Shapes of entries as the environment gives them, where they differ from the spec's."""
    units: ActionUnits | None
    """The environment's own actions; None: they are in [-1, 1], as the library's."""
    execute_length: int
    """Actions played of each chunk."""
    control_hz: float | None
    """Actions per second; None: unknown."""
    normalized: bool
    """Whether the run's statistics normalise observations."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        observation = {
            name: {"shape": shape, "dtype": dtype, "own_shape": self.own_shapes.get(name, shape)}
            for name, shape, dtype in self.spec.observation
        }
        a = self.spec.action_dim
        units = self.units or ActionUnits((-1.0,) * a, (1.0,) * a, (a,), "float32")
        return {
            "task": self.task,
            "observation": observation,
            "action": {**dataclasses.asdict(units), "scaled": self.units is not None},
            "chunk_length": self.spec.chunk_length,
            "execute_length": self.execute_length,
            "control_hz": self.control_hz,
            "normalized": self.normalized,
            "value_range": self.spec.value_range,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Interface":
        """Inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: something else.
        """
        entries, action, value_range = data["observation"], data["action"], data["value_range"]
        chunk, played, hz = data["chunk_length"], data["execute_length"], data["control_hz"]
        if not (type(chunk) is type(played) is int and 1 <= played <= chunk):
            raise ValueError(f"{played!r} of {chunk!r} actions cannot be played")
        if hz is not None and not 0 < float(hz) < np.inf:
            raise ValueError(f"control_hz is {hz!r}, it must be above 0")
        for name, entry in entries.items():
            sizes = (*entry["shape"], *entry["own_shape"])
            if entry["dtype"] not in DTYPES or not all(type(n) is int and n >= 0 for n in sizes):
                raise ValueError(f"observation {name!r} cannot be {entry!r}")
        observation = tuple(
            (name, tuple(entry["shape"]), entry["dtype"]) for name, entry in entries.items()
        )
        low, high, shape = (tuple(action[name]) for name in ("low", "high", "shape"))
        spec = Spec(
            observation,
            len(low),
            data["chunk_length"],
            None if value_range is None else (value_range[0], value_range[1]),
        )
        return cls(
            task=data["task"],
            spec=spec,
            own_shapes={name: tuple(entry["own_shape"]) for name, entry in entries.items()},
            units=ActionUnits(low, high, shape, action["dtype"]) if action["scaled"] else None,
            execute_length=data["execute_length"],
            control_hz=data["control_hz"],
            normalized=data["normalized"],
        )

    def batch(self, observation: Any) -> tuple[dict[str, np.ndarray], bool]:
        """The entries that the policy reads, [b, ...] each, and whether many observations were
        given, not one.

        Args:
            observation: a dictionary of arrays, or the array alone where the policy reads one.

        Raises:
            ValueError: an entry is missing, has another shape, or holds NaN; names it.
        """
        given = self._entries(observation)
        result, counts = {}, {}
        for name, shape, dtype in self.spec.observation:
            value = _numbers(name, given[name], dtype)
            own = self.own_shapes.get(name, shape)
            if value.shape in (own, shape):
                counts[name], count = None, 1
            elif value.ndim and value.shape[1:] in (own, shape) and len(value):
                counts[name] = count = len(value)
            else:
                many = ", ".join(map(str, ("b", *own)))
                raise ValueError(
                    f"observation {name!r} has shape {value.shape}; the policy needs {own} for one "
                    f"observation, or ({many}) for b of them."
                )
            result[name] = value.reshape(count, *shape)
        if len(set(counts.values())) > 1:
            found = ", ".join(
                f"{name!r} has {'one' if count is None else count}"
                for name, count in counts.items()
            )
            raise ValueError(
                f"the entries of an observation must hold equally many observations: {found}."
            )
        return result, None not in counts.values()

    def _entries(self, observation: Any) -> Mapping[str, Any]:
        names = [name for name, _, _ in self.spec.observation]
        pair = isinstance(observation, tuple) and len(observation) == 2
        if pair and isinstance(observation[1], dict):
            raise ValueError(
                "that is the pair (observation, info) that reset() returns: give the first of the "
                "two."
            )
        if not isinstance(observation, Mapping):
            if len(names) == 1:
                return {names[0]: observation}
            raise ValueError(
                f"the policy reads the entries {', '.join(map(repr, names))}: give a dictionary of "
                f"them, not one {type(observation).__name__}."
            )
        missing = [name for name in names if name not in observation]
        if missing:
            has = [str(name) for name in observation]
            raise ValueError(
                f"the observation lacks {', '.join(map(repr, missing))}; it has {sorted(has)}. "
                + closest(missing[0], has, f"The policy reads {', '.join(names)}.")
            )
        return observation

    def own_actions(self, action: np.ndarray) -> np.ndarray:
        """Actions [..., a] in [-1, 1] -> [..., *shape] in the environment's own units."""
        return action if self.units is None else self.units.to_own(action)


def _numbers(name: str, value: Any, dtype: str) -> np.ndarray:
    try:
        array = np.asarray(value, dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"observation {name!r} is not an array of numbers: {error}.") from error
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(
            f"observation {name!r} holds NaN or infinity, at {where} first: the sensor or what is "
            "computed from it failed. Hold the last good value, or stop."
        )
    return array


def write_interface(run_dir: Path, interface: Interface) -> None:
    """Writes a run's policy.json."""
    write_text(Path(run_dir) / POLICY, json.dumps(interface.to_json(), indent=1))


def read_interface(run_dir: Path) -> Interface:
    """What a run's policy.json says.

    Raises:
        ValueError: it is damaged; names the file.
    """
    path = Path(run_dir) / POLICY
    data = read_object(path)
    try:
        return Interface.from_json(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} does not say what a policy takes and gives "
            f"({type(error).__name__}: {error}). Copy it from the run again."
        ) from error
