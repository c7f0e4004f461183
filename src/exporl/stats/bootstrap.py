"""Stratified percentile bootstrap: seeds are resampled within each stratum (a task of an
algorithm), never across."""

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 10_000
"""Resamples of an interval unless told otherwise."""
LEVEL = 0.95
"""Confidence of an interval unless told otherwise."""

Statistic = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Strata, each an array [..., n of the stratum], to one number per resample [...]."""


def resampled(
    strata: Sequence[np.ndarray], rng: np.random.Generator, resamples: int = RESAMPLES
) -> list[np.ndarray]:
    """Every stratum drawn from itself with replacement: [n] becomes [resamples, n].

    Rows of a two-dimensional stratum [n, k] stay together: it becomes [resamples, n, k].

    Raises:
        ValueError: there is no stratum, or one is empty.
    """
    if not strata or any(len(stratum) == 0 for stratum in strata):
        sizes = [len(stratum) for stratum in strata]
        raise ValueError(f"every stratum needs at least one value, got strata of sizes {sizes}.")
    return [
        stratum[rng.integers(0, len(stratum), size=(resamples, len(stratum)))]
        for stratum in map(np.asarray, strata)
    ]


def interval(
    strata: Sequence[np.ndarray],
    statistic: Statistic,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[float, float, float]:
    """A statistic of all strata with its percentile bootstrap interval: (value, low, high).

    Args:
        strata: values of one stratum each, usually one per seed.
        statistic: computes along the last axis of its strata; the axes before it are resamples.
        rng: where the draws come from.
        resamples: how many.
        level: confidence, in (0, 1).

    Raises:
        ValueError: there is no stratum, or one is empty.
    """
    values = statistic(resampled(strata, rng, resamples))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(statistic([np.asarray(stratum) for stratum in strata])), float(low), float(high)


def mean_over_strata(strata: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of the means of all strata: every task counts the same, however many seeds it
    has."""
    return np.asarray(np.mean([stratum.mean(axis=-1) for stratum in strata], axis=0))
