"""What a policy server says of its policy, as far as a base policy needs to know."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from exporl.serve.client import SAMPLES, SEED
from exporl.spec import Spec
from exporl.units import ActionUnits

Entry = tuple[str, tuple[int, ...], str]
"""(name, shape, dtype) of an observation entry."""


@dataclasses.dataclass(frozen=True)
class Told:
    """What a server's metadata says; servers of others than exporl may say nothing."""

    observation: tuple[Entry, ...] | None = None
    """Entries that the policy reads, in the environment's own shapes; None: unknown."""
    units: ActionUnits | None = None
    """What its actions are scaled by; None: unknown, they are taken as they are."""
    horizon: int | None = None
    """Actions of an answer; None: unknown until it answers."""
    seeded: bool = False
    """Whether a request may say what decides its draws."""
    most_samples: int = 0
    """Samples that one request may ask for; 0: it may not ask for several."""
    statistics: str | None = None
    """Digest of what observations are normalised with."""
    control_hz: float | None = None
    """Actions per second; None: unknown."""

    def described(self) -> bytes:
        """What tells the policy apart from others, as JSON; nothing where the server says nothing.
        Parameters are not told apart: a server that follows a run serves newer ones."""
        said = dataclasses.asdict(dataclasses.replace(self, seeded=False, most_samples=0))
        return json.dumps(said, sort_keys=True).encode() if any(said.values()) else b""

    def fitted(self, task: Spec | None) -> Spec | None:
        """Shapes of the policy, told as a task's where sizes are the same; None where too little
        is known.

        Args:
            task: what the task shows, and the chunks of the run: an answer may hold more actions,
                and its first ones are used. None: unknown.
        """
        shown = {} if task is None else {name: shape for name, shape, _ in task.observation}
        if self.observation is not None:
            observation = tuple(
                (name, shown[name] if _same_size(shown.get(name), shape) else shape, dtype)
                for name, shape, dtype in self.observation
            )
        else:
            observation = None if task is None else task.observation
        known = len(self.units.low) if self.units is not None else None
        action_dim = known if task is None else known or task.action_dim
        length = self.horizon if task is None else task.chunk_length
        if observation is None or action_dim is None or length is None:
            return None
        return Spec(observation, action_dim, min(length, self.horizon or length))


def _same_size(shape: tuple[int, ...] | None, other: tuple[int, ...]) -> bool:
    return shape is not None and _size(shape) == _size(other)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def read_told(metadata: Mapping[str, Any], address: str) -> Told:
    """What a server's metadata says.

    Raises:
        ValueError: an entry that exporl knows says something else; names the server.
    """
    expo = metadata.get("expo")
    expo = expo if isinstance(expo, Mapping) else {}
    extras = expo.get("extras", ())
    try:
        return Told(
            observation=_observation(expo.get("observation")),
            units=_units(expo.get("action")),
            horizon=_horizon(metadata.get("action_horizon")),
            seeded=SEED in extras,
            most_samples=max(int(expo.get("most_samples", 1)), 0) if SAMPLES in extras else 0,
            statistics=_text(expo.get("statistics_sha256")),
            control_hz=float(expo.get("control_hz") or 0) or None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"the policy server at {address} does not say what its policy takes and gives "
            f"({type(error).__name__}: {error}): see its metadata in docs/serving.md."
        ) from error


def _observation(said: Any) -> tuple[Entry, ...] | None:
    if said is None:
        return None
    return tuple(
        (str(name), tuple(map(int, entry["shape"])), str(entry["dtype"]))
        for name, entry in said.items()
    )


def _units(said: Any) -> ActionUnits | None:
    if said is None:
        return None
    low, high = (tuple(map(float, said[name])) for name in ("low", "high"))
    return ActionUnits(low, high, tuple(map(int, said["shape"])), str(said["dtype"]))


def _horizon(said: Any) -> int | None:
    return said if type(said) is int and said >= 1 else None


def checkpoint_of(said: Mapping[str, Any]) -> str | None:
    """The checkpoint that an answer, or a server's metadata, names."""
    expo = said.get("expo")
    inner = expo.get("checkpoint") if isinstance(expo, Mapping) else None
    return _text(said.get("expo/checkpoint", inner))


def _text(said: Any) -> str | None:
    return said if isinstance(said, str) and said else None
