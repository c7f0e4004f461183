"""Steps to reach a score, censored runs, and ratios of steps: every number worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from exporl.stats.reach import Reach, horizon_of, ratio_to_best, reach, restricted, smoothed

STEPS = [0.0, 10.0, 20.0, 30.0, 40.0]


@pytest.mark.parametrize(
    ("scores", "score", "window", "steps", "censored"),
    [
        ([0, 0.2, 0.9, 0.9, 1.0], 0.8, 1, 20, False),
        ([0, 0.9, 0.2, 0.9, 1.0], 0.8, 1, 30, False),  # it fell below once more
        ([0, 0.9, 0.9, 0.9, 0.7], 0.8, 1, 40, True),  # it fell below at the end
        ([0, 0.1, 0.1, 0.1, 0.1], 0.8, 1, 40, True),
        ([0, 0.1, 0.1, 0.1, 0.8], 0.8, 1, 40, False),  # in the last evaluation
        ([0.9, 0.8, 0.8, 1.0, 0.9], 0.8, 1, 0, False),  # before training
        # means of three: .0, .45, .6, .66.., .93..
        ([0, 0.9, 0.9, 0.2, 1.0], 0.6, 3, 20, False),
        # means of two: .0, .3, .7, .8, .8
        ([0, 0.6, 0.8, 0.8, 0.8], 0.7, 2, 20, False),
        # .7, .8 and .9 have the mean .8, also in floating point
        ([0.0, 0.0, 0.7, 0.8, 0.9], 0.8, 3, 40, False),
    ],
)
def test_steps_to_a_score(scores, score, window, steps, censored):
    values = [float(value) for value in scores]
    assert reach(STEPS, values, score, window) == Reach(float(steps), censored, 10.0)


def test_the_first_evaluations_are_averaged_over_those_there_are():
    assert smoothed([1.0, 0.0, 0.5, 0.0], 3) == pytest.approx([1.0, 0.5, 0.5, 1 / 6])
    assert smoothed([0.3, 0.1], 1) == pytest.approx([0.3, 0.1])
    with pytest.raises(ValueError, match="at least 1 evaluation, got 0"):
        smoothed([1.0], 0)


def test_a_run_of_one_evaluation():
    assert reach([0.0], [1.0], 0.5) == Reach(0.0, False, 0.0)
    assert reach([500.0], [0.1], 0.5) == Reach(500.0, True, 500.0)


def runs(*steps: float, censored: tuple[float, ...] = (), first: float = 10) -> list[Reach]:
    ended = [(each, False) for each in steps] + [(each, True) for each in censored]
    return [Reach(float(each), cut, float(first)) for each, cut in ended]


def test_nothing_counts_beyond_the_shortest_run_that_did_not_get_there():
    groups = [runs(20, 300), runs(50, censored=(100, 400))]
    assert horizon_of(groups) == 100
    steps, censored = restricted(groups[0], 100.0)
    assert steps.tolist() == [20, 100] and censored.tolist() == [False, True]
    steps, censored = restricted(groups[1], 100.0)
    assert steps.tolist() == [50, 100, 100] and censored.tolist() == [False, True, True]


def test_without_censored_runs_all_count():
    assert horizon_of([runs(20, 300), runs(50)]) == 300


def test_a_run_that_starts_above_counts_with_its_first_evaluation():
    """A ratio to zero steps would be infinite."""
    assert restricted(runs(0, 40), 100.0)[0].tolist() == [10, 40]


def ratio(*tasks, seed=0, **options):
    return ratio_to_best(tasks, np.random.default_rng(seed), **options)


def test_a_ratio_by_hand():
    found = ratio((runs(20, 40), {"slow": runs(90, 110), "quick": runs(50, 70)}))
    assert found.value == pytest.approx(60 / 30) and found.baselines == ("quick",)
    assert not found.baseline_censored and not found.own_censored
    assert found.low == pytest.approx(50 / 40) and found.high == pytest.approx(70 / 20)


def test_over_tasks_it_is_the_geometric_mean():
    found = ratio((runs(10), {"a": runs(80)}), (runs(10), {"a": runs(40), "b": runs(20)}))
    assert found.value == found.low == found.high == pytest.approx(math.sqrt(8 * 2))
    assert found.baselines == ("a", "b")


def test_censored_baselines_make_a_bound_from_below():
    """Means to the horizon of 100: 30 against (60 + 100) / 2."""
    found = ratio((runs(20, 40), {"a": runs(60, censored=(100,))}))
    assert found.value == pytest.approx(80 / 30)
    assert found.baseline_censored and not found.own_censored


def test_censored_runs_of_its_own_make_a_bound_from_above():
    found = ratio((runs(20, censored=(100,)), {"a": runs(60, 60)}))
    assert found.value == pytest.approx(60 / 60)
    assert found.own_censored and not found.baseline_censored


def test_runs_that_all_fail_say_nothing():
    found = ratio((runs(censored=(100, 100)), {"a": runs(censored=(100, 100))}))
    assert (found.value, found.low, found.high) == (1, 1, 1)
    assert found.own_censored and found.baseline_censored


def test_the_interval_is_that_of_scipy_with_one_baseline():
    own, other = np.array([20.0, 35, 50]), np.array([90.0, 70, 140, 100])

    def statistic(x, y, axis=-1):
        return y.mean(axis=axis) / x.mean(axis=axis)

    theirs = stats.bootstrap(
        (own, other),
        statistic,
        method="percentile",
        n_resamples=3_000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    found = ratio((runs(*own), {"a": runs(*other)}), resamples=3_000)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=1e-3)
    assert found.value == pytest.approx(100 / 35, abs=1e-12)


def test_not_knowing_the_best_baseline_lowers_the_interval():
    same = runs(50, 150, 100)
    alone, chosen = ratio((runs(50), {"a": same})), ratio((runs(50), {"a": same, "b": same}))
    assert chosen.value == alone.value and chosen.low <= alone.low and chosen.high < alone.high


def test_the_interval_covers_the_true_ratio():
    """Ten seeds of each, a true ratio of 2."""
    rng, covered = np.random.default_rng(5), 0
    for _ in range(200):
        own, other = rng.normal(100, 20, 10), rng.normal(200, 40, 10)
        found = ratio((runs(*own), {"a": runs(*other)}), resamples=400)
        covered += found.low <= 2 <= found.high
    assert 0.87 < covered / 200 < 0.99


@pytest.mark.parametrize("tasks", [[], [(runs(1), {})], [(runs(), {"a": runs(1)})]])
def test_nothing_to_compare(tasks):
    with pytest.raises(ValueError, match="needs a run of the algorithm and of each of its baselin"):
        ratio(*tasks)
