"""How many seeds are enough, from the spread that was observed."""

import math
from collections.abc import Sequence

import numpy as np

from exporl.stats.intervals import Z95

Z80 = 0.8416212
"""80% quantile of the standard normal distribution: the power that is usual."""
FEWEST = 2
"""Seeds below which there is no spread to speak of."""


def seeds_for_difference(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Seeds per algorithm with which a two-sided t test at 5% would tell two algorithms apart with
    power 80%, if they differ by as much and spread as much as these values do.

    n = 2 (z.975 + z.80)^2 / d^2 + z.975^2 / 4 with Cohen's d of the values (Guenther 1981, The
    American Statistician 35:243): within one seed of the exact numbers of the noncentral t
    distribution. Infinite where the means are equal; `FEWEST` where nothing spreads.

    Args:
        a: one value per seed: scores, or logarithms of steps.
        b: likewise, of the other algorithm.

    Raises:
        ValueError: fewer than two values of one: their spread is not known.
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    if min(len(x), len(y)) < 2:
        raise ValueError(
            f"spread needs at least two seeds of each algorithm, got {len(x)} and {len(y)}."
        )
    freedom = len(x) + len(y) - 2
    variance = ((len(x) - 1) * x.var(ddof=1) + (len(y) - 1) * y.var(ddof=1)) / freedom
    difference = float(x.mean() - y.mean())
    if difference == 0:
        return math.inf
    exact = 2 * (Z95 + Z80) ** 2 * float(variance) / difference**2 + Z95**2 / 4
    return float(max(math.ceil(exact), FEWEST))


def half_width(values: Sequence[float] | np.ndarray, seeds: int) -> float:
    """Half of the 95% interval of a mean over so many seeds, if they spread as these values do
    (normal approximation).

    Raises:
        ValueError: fewer than two values, or no seeds.
    """
    if len(values) < 2 or seeds < 1:
        raise ValueError(
            f"need at least two values and one seed, got {len(values)} values and {seeds} seeds."
        )
    return float(Z95 * np.asarray(values, float).std(ddof=1) / math.sqrt(seeds))
