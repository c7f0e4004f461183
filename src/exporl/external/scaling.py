"""How a policy normalises one feature: the modes of LeRobot, with its arithmetic."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

READS: Mapping[str, tuple[str, ...]] = {
    "IDENTITY": (),
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
"""Mode -> the statistics that it reads: a centre and a spread, or two ends that become -1 and 1."""
DEVIATIONS = 3.0
"""Standard deviations around the mean that a policy knows, where least and most are not kept."""


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Statistics of a feature, float32, which broadcast to its shape; and what is done with them.

    The order of operations is that of LeRobot's `NormalizerProcessorStep`, so that results are
    equal to the bit.
    """

    mode: str
    """One of `READS`."""
    statistics: Mapping[str, np.ndarray]
    """By their names; may hold more than the mode reads."""
    eps: float = 1e-8
    """Added to a standard deviation; stands for a range of 0."""

    def normalized(self, value: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Values in their own units -> what the network reads."""
        if self.mode == "IDENTITY":
            return value
        low, high = self._ends()
        if self.mode == "MEAN_STD":
            return (value - low) / (high + self.eps)
        return 2 * (value - low) / self._width(low, high) - 1

    def own(self, value: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """What the network answers -> values in their own units."""
        if self.mode == "IDENTITY":
            return value
        low, high = self._ends()
        if self.mode == "MEAN_STD":
            return value * high + low
        if self.mode == "MIN_MAX":
            return (value + 1) / 2 * self._width(low, high) + low
        return (value + 1) * self._width(low, high) / 2 + low

    def known(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Least and greatest value that the policy met in training: as its statistics keep them,
        else the ends that it maps to -1 and 1, or the mean and `DEVIATIONS` standard deviations to
        both sides; None where there are no statistics."""
        kept = self.statistics
        for low, high in (("min", "max"), ("q01", "q99"), ("q10", "q90")):
            if low in kept and high in kept:
                return kept[low], kept[high]
        if "mean" in kept and "std" in kept:
            reach = DEVIATIONS * kept["std"]
            return kept["mean"] - reach, kept["mean"] + reach
        return None

    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        first, second = READS[self.mode]
        return self.statistics[first], self.statistics[second]

    def _width(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        width = high - low
        return np.where(width == 0, np.float32(self.eps), width)
