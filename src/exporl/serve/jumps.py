"""A limit on how far an action may be from the one before it."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class JumpLimiter:
    """Keeps every dimension of an action within a distance of the action played before.

    played = before + clip(wanted - before, -most, most), dimension by dimension: what is wanted too
    far away is approached step by step. The first action after the beginning or a `reset` without
    a start has nothing before it and is played as it is.
    """

    def __init__(self, most: float | Sequence[float] | np.ndarray):
        """Has played nothing.

        Args:
            most: largest change of a dimension from one action to the next, in the action's own
                units: one number, or one per dimension in the action's shape.

        Raises:
            ValueError: it is not above 0.
        """
        self.most = np.asarray(most, np.float64)
        """Largest change per step."""
        if self.most.size == 0 or not (np.isfinite(self.most) & (self.most > 0)).all():
            raise ValueError(f"the largest change per step must be above 0, got {most}.")
        self.limited = 0
        """Actions that were held back so far."""
        self._before: np.ndarray | None = None

    def reset(self, start: Any = None) -> None:
        """An episode begins.

        Args:
            start: the action that the robot stands at, such as the pose that it was moved to; None:
                unknown, and the first action is played as it is.

        Raises:
            ValueError: the start holds NaN or infinity.
        """
        self._before = None if start is None else _finite(np.asarray(start, np.float64), "start")

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """The action to play instead of the one that is wanted, of the same shape and type.

        Raises:
            ValueError: it holds NaN or infinity, or has another shape than the limit or the action
                before.
        """
        wanted = _finite(np.asarray(action, np.float64), "action")
        before = wanted if self._before is None else self._before
        if before.shape != wanted.shape or self.most.shape not in ((), wanted.shape):
            raise ValueError(
                f"an action of shape {wanted.shape} does not fit: the one before has "
                f"{before.shape}, the largest change {self.most.shape}."
            )
        played = before + np.clip(wanted - before, -self.most, self.most)
        self.limited += bool((played != wanted).any())
        self._before = played
        return played.astype(np.asarray(action).dtype)


def _finite(value: np.ndarray, what: str) -> np.ndarray:
    if not np.isfinite(value).all():
        raise ValueError(f"the {what} holds NaN or infinity: it is not played.")
    return value
