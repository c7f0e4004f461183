"""Bootstrap intervals, summaries of scores and seeds that are enough: against scipy, published
numbers and numbers worked out by hand."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from exporl.stats.bootstrap import interval, mean_over_strata, resampled
from exporl.stats.enough import half_width, seeds_for_difference
from exporl.stats.scores import (
    area_under_curve,
    iqm,
    iqm_of_tasks,
    performance_profile,
    probability_of_improvement,
)


def drawn(*sizes: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.random(size) for size in sizes]


@pytest.mark.parametrize("sizes", [(5,), (4, 7), (3, 3, 10)])
def test_the_stratified_interval_is_that_of_scipy(sizes):
    """scipy resamples several samples independently, which is what strata are."""
    strata = drawn(*sizes)

    def statistic(*samples, axis=-1):
        return mean_over_strata(samples)

    theirs = stats.bootstrap(
        strata,
        statistic,
        method="percentile",
        n_resamples=2_000,
        vectorized=True,
        rng=np.random.default_rng(3),
    ).confidence_interval
    mean, low, high = interval(strata, mean_over_strata, np.random.default_rng(3), resamples=2_000)
    assert mean == pytest.approx(np.mean([stratum.mean() for stratum in strata]), abs=1e-12)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.99])
def test_the_interquartile_mean_and_its_interval_are_those_of_scipy(level):
    (scores,) = drawn(23)

    def statistic(sample, axis=-1):
        return stats.trim_mean(sample, 0.25, axis=axis)

    theirs = stats.bootstrap(
        (scores,),
        statistic,
        method="percentile",
        n_resamples=1_000,
        confidence_level=level,
        rng=np.random.default_rng(1),
    ).confidence_interval
    ours = interval([scores], iqm_of_tasks, np.random.default_rng(1), resamples=1_000, level=level)
    assert ours == pytest.approx((stats.trim_mean(scores, 0.25), theirs.low, theirs.high), abs=1e-6)


def test_strata_never_mix():
    low, high = resampled([np.zeros(3), np.ones(4)], np.random.default_rng(0), resamples=50)
    assert low.shape == (50, 3) and high.shape == (50, 4)
    assert not low.any() and high.all()


def test_rows_stay_together():
    (rows,) = resampled(
        [np.array([[1, 10], [2, 20], [3, 30]])], np.random.default_rng(0), resamples=20
    )
    assert rows.shape == (20, 3, 2) and (rows[..., 1] == 10 * rows[..., 0]).all()


def test_a_task_counts_the_same_however_many_seeds_it_has():
    assert mean_over_strata([np.zeros(100), np.ones(2)]) == 0.5


@pytest.mark.parametrize("strata", [[], [np.ones(2), np.array([])]])
def test_nothing_to_resample(strata):
    with pytest.raises(ValueError, match="every stratum needs at least one value"):
        interval(strata, mean_over_strata, np.random.default_rng(0))


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5, 8, 15, 40])
def test_the_interquartile_mean_is_the_trimmed_mean_of_scipy(num):
    (scores,) = drawn(num, seed=num)
    assert iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25), abs=1e-12)


def test_the_interquartile_mean_by_hand():
    assert iqm(np.array([100.0, 1, 2, 3, 4, 5, 6, -100])) == (2 + 3 + 4 + 5) / 4


def test_the_tortoises_and_the_hares():
    """The order of arrival T HHHHH TTTTT H: 25 of 36 pairs for the hares, U = 25 and 11."""
    order = "THHHHHTTTTTH"
    places = {who: -np.flatnonzero(np.array(list(order)) == who) for who in "TH"}
    better = probability_of_improvement([places["H"], places["T"]])
    assert float(better) == 25 / 36


def test_the_probability_of_improvement_is_that_of_mann_and_whitney_over_tasks():
    x, y, v, w = drawn(5, 7, 3, 4)
    x, y = x.round(1), y.round(1)  # ties
    u = stats.mannwhitneyu(x, y).statistic / 35, stats.mannwhitneyu(v, w).statistic / 12
    assert float(probability_of_improvement([x, y, v, w])) == pytest.approx(np.mean(u), abs=1e-12)
    assert float(probability_of_improvement([x, x])) == 0.5
    assert float(probability_of_improvement([x + 2, x])) == 1.0


def test_the_profile_is_the_survival_function_of_scipy():
    one, two = drawn(9, 9)
    thresholds = np.linspace(0, 1, 21)
    theirs = (stats.ecdf(one).sf.evaluate(thresholds) + stats.ecdf(two).sf.evaluate(thresholds)) / 2
    assert performance_profile([one, two], thresholds) == pytest.approx(theirs, abs=1e-12)


def test_a_profile_counts_runs_strictly_above():
    assert performance_profile([np.array([0.5, 1.0])], [0.4, 0.5, 1.0]).tolist() == [1.0, 0.5, 0.0]


def test_the_area_is_that_of_scipy_over_the_steps_it_spans():
    steps, scores = np.array([0.0, 10, 15, 40]), np.array([0.2, 0.5, 0.4, 1.0])
    theirs = integrate.trapezoid(scores, steps) / 40
    assert area_under_curve(steps, scores) == pytest.approx(theirs, abs=1e-12)
    assert area_under_curve([100.0], [0.7]) == 0.7


@pytest.mark.parametrize(
    ("steps", "scores", "message"),
    [
        ([], [], "at least one, got 0 steps"),
        ([0.0, 1.0], [1.0], "got 2 steps and 1 scores"),
        ([0.0, 5.0, 5.0], [1.0] * 3, "must rise"),
    ],
)
def test_what_is_no_curve(steps, scores, message):
    with pytest.raises(ValueError, match=message):
        area_under_curve(steps, scores)


def scaled(d: float, num: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Two groups with exactly this Cohen's d."""
    values = np.linspace(-1, 1, num)
    values /= values.std(ddof=1)
    return values + d, values


@pytest.mark.parametrize(("d", "published"), [(0.2, 393), (0.5, 64), (0.8, 26)])
def test_seeds_that_are_enough_are_those_of_cohen(d, published):
    """Cohen, "A power primer" (1992), Table 2: two means, power .80, alpha .05."""
    assert abs(seeds_for_difference(*scaled(d)) - published) <= 1


@pytest.mark.parametrize("d", [0.4, 0.7, 1.0, 1.5, 2.5])
def test_so_many_seeds_have_the_power_by_the_noncentral_t_distribution(d):
    def power(n: int) -> float:
        limit, shift = stats.t.ppf(0.975, 2 * n - 2), d * math.sqrt(n / 2)
        return stats.nct.sf(limit, 2 * n - 2, shift) + stats.nct.cdf(-limit, 2 * n - 2, shift)

    exact = next(n for n in range(2, 1_000) if power(n) >= 0.8)
    assert abs(seeds_for_difference(*scaled(d)) - exact) <= 1


def test_seeds_where_nothing_spreads_or_nothing_differs():
    assert seeds_for_difference([1.0, 1.0], [0.0, 0.0]) == 2
    assert seeds_for_difference([1.0, 0.0], [1.0, 0.0]) == math.inf
    with pytest.raises(ValueError, match="at least two seeds of each algorithm, got 3 and 1"):
        seeds_for_difference([1.0, 2.0, 3.0], [1.0])


def test_the_half_width_shrinks_with_the_root_of_seeds():
    values = [0.1, 0.5, 0.9]
    assert half_width(values, 4) == pytest.approx(half_width(values, 1) / 2)
    low, high = stats.norm.interval(0.95, scale=0.4 / math.sqrt(3))
    assert half_width(values, 3) == pytest.approx((high - low) / 2, abs=1e-6)
    with pytest.raises(ValueError, match="got 1 values and 3 seeds"):
        half_width([0.1], 3)
