"""Steps until a score is reached for good, runs that never reach it, and how many times as many
steps another algorithm needs."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from exporl.stats.bootstrap import LEVEL, RESAMPLES, resampled
from exporl.stats.scores import check_curve


@dataclasses.dataclass(frozen=True)
class Reach:
    """When one run reached a score."""

    steps: float
    """Environment steps of the evaluation from which it stays there; of its last evaluation where
    it is censored."""
    censored: bool
    """Whether the run ended first: it would have needed more steps than these."""
    first: float
    """Its first evaluation after step 0: no run is seen to be faster."""


def smoothed(scores: Sequence[float] | np.ndarray, window: int) -> np.ndarray:
    """The mean of each evaluation and those before it, `window` in all; fewer at the start.

    Raises:
        ValueError: the window is less than 1.
    """
    if window < 1:
        raise ValueError(f"the window must be at least 1 evaluation, got {window}.")
    total = np.concatenate([[0.0], np.cumsum(np.asarray(scores, float))])
    ends = np.arange(1, len(total))
    starts = np.maximum(ends - window, 0)
    return (total[ends] - total[starts]) / (ends - starts)


ROUNDING = 1e-9
"""Sums of scores are equal up to so much: .8 is reached by the mean of .7, .8 and .9."""


def reach(
    steps: Sequence[float] | np.ndarray,
    scores: Sequence[float] | np.ndarray,
    score: float,
    window: int = 1,
) -> Reach:
    """The first evaluation from which the smoothed curve stays at or above a score, to the end.

    Args:
        steps: environment steps of the evaluations, rising.
        scores: their scores.
        score: what is to be reached.
        window: evaluations that are averaged, see `smoothed`.

    Raises:
        ValueError: steps and scores are not a curve, or the window is less than 1.
    """
    x = np.asarray(steps, float)
    check_curve(x, np.asarray(scores, float))
    below = np.flatnonzero(smoothed(scores, window) < score - ROUNDING)
    from_here = 0 if len(below) == 0 else int(below[-1]) + 1
    first = float(x[x > 0][0]) if (x > 0).any() else float(x[-1])
    if from_here == len(x):
        return Reach(float(x[-1]), True, first)
    return Reach(float(x[from_here]), False, first)


def restricted(reaches: Sequence[Reach], horizon: float) -> tuple[np.ndarray, np.ndarray]:
    """Steps [runs], none more than a horizon and none less than the first evaluation, and which of
    them are censored: the run ended or the horizon came first."""
    steps = np.array([min(max(each.steps, each.first), horizon) for each in reaches])
    return steps, np.array([each.censored or each.steps > horizon for each in reaches])


def horizon_of(groups: Sequence[Sequence[Reach]]) -> float:
    """Up to where all runs were watched: the fewest steps of a run that ended first, or else the
    most that any run needed."""
    runs = [each for group in groups for each in group]
    ended = [each.steps for each in runs if each.censored]
    return min(ended) if ended else max(max(each.steps, each.first) for each in runs)


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times as many steps the best baseline needs."""

    value: float
    low: float
    high: float
    """Ends of the interval."""
    baselines: tuple[str, ...]
    """The best baseline of every task."""
    baseline_censored: bool
    """Whether a run of a best baseline never reached the score: the ratio is at least so much."""
    own_censored: bool
    """Whether a run of the algorithm never did: the ratio is at most so much."""


Task = tuple[Sequence[Reach], Mapping[str, Sequence[Reach]]]
"""The runs of the algorithm on one task, and those of every baseline by its name."""


def ratio_to_best(
    tasks: Sequence[Task],
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Ratio:
    """Steps of the best baseline divided by those of the algorithm: above 1 the algorithm needs
    fewer.

    Per task: means over seeds of steps, none counted beyond the horizon up to which all runs of
    the task were watched (the restricted mean of survival analysis: Royston & Parmar 2013, BMC
    Med. Res. Methodol. 13:152). The best baseline is the one with the smallest mean. Over tasks:
    the geometric mean of ratios. Interval: seeds are resampled within each task and algorithm, and
    the best baseline is chosen anew in each resample, so that not knowing which it is counts as
    well.

    Raises:
        ValueError: no task, a task without baseline, an algorithm without runs on a task, or runs
            without environment steps.
    """
    if not tasks or not all(own and others and all(others.values()) for own, others in tasks):
        raise ValueError("every task needs a run of the algorithm and of each of its baselines.")
    logs, drawn, names = [], [], []
    baseline_censored = own_censored = False
    for own, others in tasks:
        horizon = horizon_of([own, *others.values()])
        steps = [restricted(group, horizon) for group in (own, *others.values())]
        values = [value for value, _ in steps]
        means = [value.mean() for value in values]
        if min(means) == 0:
            raise ValueError("runs without environment steps have none to compare.")
        best = int(np.argmin(means[1:]))
        logs.append(np.log(means[1 + best] / means[0]))
        again = [sample.mean(axis=-1) for sample in resampled(values, rng, resamples)]
        drawn.append(np.log(np.min(again[1:], axis=0) / again[0]))
        names.append(list(others)[best])
        baseline_censored |= bool(steps[1 + best][1].any())
        own_censored |= bool(steps[0][1].any())
    ends = np.quantile(np.mean(drawn, axis=0), [(1 - level) / 2, (1 + level) / 2])
    low, high = np.exp(ends).tolist()
    value = float(np.exp(np.mean(logs)))
    return Ratio(value, low, high, tuple(names), baseline_censored, own_censored)
