"""The actions of an environment in its own units, and the [-1, 1] that the library works in."""

import dataclasses
import math

import numpy as np

EXECUTED = "executed_action"
"""Entry of a step's info: the action that was really executed, where an environment reports it, in
the units of the action that it was given."""
SUCCESS_KEYS = ("success", "is_success")
"""Entries of a step's info that tell of success, where nothing else is said."""


@dataclasses.dataclass(frozen=True)
class ActionUnits:
    """Bounds, shape and type of one action as the environment itself takes it."""

    low: tuple[float, ...]
    """[a], the entries in the order of the flattened action."""
    high: tuple[float, ...]
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        """Checks that the parts fit together.

        Raises:
            ValueError: they do not, or a bound is no number; names the numbers.
        """
        bounds = np.array([*self.low, *self.high], np.float64)
        if not len(self.low) == len(self.high) == math.prod(self.shape):
            raise ValueError(
                f"action bounds have {len(self.low)} and {len(self.high)} entries, an action of "
                f"shape {self.shape} has {math.prod(self.shape)}."
            )
        if not np.isfinite(bounds).all() or not (np.array(self.low) < np.array(self.high)).all():
            raise ValueError(
                f"action bounds are [{min(self.low):g}, {max(self.high):g}]; they must be finite, "
                "low below high."
            )

    def to_own(self, action: np.ndarray) -> np.ndarray:
        """Actions [..., a] in [-1, 1] (what lies outside is clipped) -> [..., *shape]."""
        low, high = np.array(self.low), np.array(self.high)
        share = (np.clip(np.asarray(action, np.float64), -1.0, 1.0) + 1) / 2
        own = (low + share * (high - low)).astype(self.dtype)
        return own.reshape(*own.shape[:-1], *self.shape)

    def scaled(self, action: np.ndarray) -> np.ndarray:
        """Actions [..., a] in own units -> in float64, those between the bounds in [-1, 1]."""
        low, high = np.array(self.low), np.array(self.high)
        return (action - low) / (high - low) * 2 - 1

    def to_unit(self, action: np.ndarray) -> np.ndarray:
        """Actions [..., a] between the bounds -> [-1, 1] in float32."""
        return np.clip(self.scaled(action), -1, 1).astype(np.float32)
