"""Intervals over several seeds: training differs from seed to seed by more than evaluation episodes
tell, so seeds are resampled, and within each of them its episodes."""

from collections.abc import Sequence

import numpy as np

from exporl.stats.intervals import wilson

RESAMPLES = 4_000
Found = tuple[float, float, float]
"""A mean and the ends of its 95% interval."""


def over_seeds(
    values: Sequence[Sequence[float] | Sequence[bool]], resamples: int = RESAMPLES
) -> Found:
    """Mean over seeds of the mean over episodes, with its 95% percentile bootstrap interval.

    Every resample draws as many seeds as there are, and of each drawn seed as many of its episodes
    as it has (fixed seed of the draws). Few seeds tell little about their spread: the interval of
    two or three is too narrow rather than too wide.

    Args:
        values: per seed what its episodes came to; paired differences, say.
        resamples: how many.

    Raises:
        ValueError: no seeds, or one without episodes.
    """
    if not values or not all(len(each) for each in values):
        raise ValueError(
            f"every seed needs at least one episode, got {[len(each) for each in values]}."
        )
    arrays, rng = [np.asarray(each, float) for each in values], np.random.default_rng(0)
    drawn = rng.integers(len(arrays), size=(resamples, len(arrays)))
    means = np.empty(drawn.shape)
    for seed, episodes in enumerate(arrays):
        of_seed = drawn == seed
        again = rng.integers(len(episodes), size=(int(of_seed.sum()), len(episodes)))
        means[of_seed] = episodes[again].mean(axis=1)
    low, high = np.quantile(means.mean(axis=1), [0.025, 0.975])
    return float(np.mean([each.mean() for each in arrays])), float(low), float(high)


def success_over_seeds(successes: Sequence[Sequence[bool]]) -> Found:
    """A success rate with its 95% interval: Wilson's for one seed. For several seeds never narrower
    than Wilson's over all episodes, for at 0 and 1 there is nothing to resample.

    Raises as `over_seeds` does.
    """
    mean, low, high = over_seeds(successes)
    least, most = wilson(sum(map(sum, successes)), sum(map(len, successes)))
    if len(successes) == 1:
        return mean, least, most
    return mean, min(low, least), max(high, most)


def shown(found: Found, better: str, worse: str) -> str:
    """What the interval of a difference shows: words only where it leaves 0 out.

    Args:
        found: the difference with its interval.
        better: said where all of it is above 0.
        worse: said where all of it is below 0.
    """
    _, low, high = found
    if low > 0:
        return better
    return worse if high < 0 else "no difference is shown, the interval includes 0"
