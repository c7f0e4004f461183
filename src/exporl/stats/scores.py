"""Summaries of scores over seeds and tasks, after Agarwal et al., "Deep RL at the edge of the
statistical precipice" (arXiv 2108.13264)."""

from collections.abc import Sequence

import numpy as np


def iqm(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean along the last axis: the mean without the lowest and the highest quarter.

    Of n values, floor(n / 4) are left out at each end, as `scipy.stats.trim_mean(x, 0.25)` does.
    """
    ordered = np.sort(np.asarray(scores, float), axis=-1)
    cut = ordered.shape[-1] // 4
    return np.asarray(ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1))


def iqm_of_tasks(strata: Sequence[np.ndarray]) -> np.ndarray:
    """Interquartile mean over the scores of all tasks together: a statistic for
    `stats.bootstrap.interval`."""
    return iqm(np.concatenate([np.asarray(stratum, float) for stratum in strata], axis=-1))


def probability_of_improvement(strata: Sequence[np.ndarray]) -> np.ndarray:
    """How likely a run of X scores higher than a run of Y on a task picked at random; ties count
    half. On one task it is the Mann-Whitney U statistic divided by the number of pairs.

    Args:
        strata: X on the first task, Y on the first task, X on the second, Y on the second, ...:
            each [..., seeds].
    """
    pairs = zip(strata[::2], strata[1::2], strict=True)
    return np.asarray(np.mean([_better(np.asarray(x), np.asarray(y)) for x, y in pairs], axis=0))


def _better(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    difference = x[..., :, None] - y[..., None, :]
    return np.asarray(((difference > 0) + 0.5 * (difference == 0)).mean(axis=(-2, -1)))


def performance_profile(
    strata: Sequence[np.ndarray], thresholds: Sequence[float] | np.ndarray
) -> np.ndarray:
    """The share of runs that score more than each threshold, averaged over tasks.

    Args:
        strata: the scores of one task each [seeds].
        thresholds: [t].

    Returns:
        [t], falling from 1 to 0 as thresholds rise.
    """
    above = [
        (np.asarray(stratum)[:, None] > np.asarray(thresholds)[None, :]).mean(axis=0)
        for stratum in strata
    ]
    return np.asarray(np.mean(above, axis=0))


def area_under_curve(
    steps: Sequence[float] | np.ndarray, scores: Sequence[float] | np.ndarray
) -> float:
    """The mean score over all of training: the area under a learning curve by trapezoids, divided
    by the steps it spans. A curve of one evaluation has its score.

    Raises:
        ValueError: no evaluations, not one score per evaluation, or steps that do not rise.
    """
    x, y = np.asarray(steps, float), np.asarray(scores, float)
    check_curve(x, y)
    if len(x) == 1:
        return float(y[0])
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / (x[-1] - x[0]))


def check_curve(steps: np.ndarray, scores: np.ndarray) -> None:
    """Whether steps and scores are a learning curve.

    Raises:
        ValueError: no evaluations, not one score per evaluation, or steps that do not rise.
    """
    if len(steps) != len(scores) or len(steps) == 0:
        raise ValueError(
            "a curve needs one score per evaluation and at least one, got "
            f"{len(steps)} steps and {len(scores)} scores."
        )
    if (np.diff(steps) <= 0).any():
        raise ValueError(f"the steps of a curve must rise, got {steps.tolist()}.")
