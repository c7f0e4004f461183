"""Intervals for success rates: small samples, paired starts."""

import math
from collections.abc import Sequence

import numpy as np

from exporl.stats.bootstrap import RESAMPLES, interval, mean_over_strata

Z95 = 1.959964
"""Two-sided 95% quantile of the standard normal distribution."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95% Wilson score interval of a success rate; honest at 0 and 1, unlike p +- standard error.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"need 0 <= successes <= trials and at least one trial, got {successes} of {trials}."
        )
    p, z2 = successes / trials, Z95**2
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference(
    a: Sequence[float] | Sequence[bool],
    b: Sequence[float] | Sequence[bool],
    resamples: int = RESAMPLES,
) -> tuple[float, float, float]:
    """Mean of a - b over paired episodes, with its 95% percentile bootstrap interval (fixed seed).

    Raises:
        ValueError: the two do not pair up.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"paired results need the same episodes, got {len(a)} and {len(b)}.")
    difference = np.asarray(a, float) - np.asarray(b, float)
    rng = np.random.default_rng(0)
    return interval([difference], mean_over_strata, rng, resamples=resamples)
