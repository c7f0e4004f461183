"""Intervals of success rates against solved equations, published numbers and simulated
experiments."""

import math

import numpy as np
import pytest

from exporl.stats.intervals import Z95, paired_difference, wilson


def solved(successes: int, trials: int) -> tuple[float, float]:
    """The rates p with (successes / trials - p)^2 = z^2 p (1 - p) / trials: roots of a
    quadratic."""
    rate, z2 = successes / trials, Z95**2
    low, high = sorted(np.roots([1 + z2 / trials, -(2 * rate + z2 / trials), rate**2]).real)
    return low, high


def test_the_quantile():
    assert math.erf(Z95 / math.sqrt(2)) == pytest.approx(0.95, abs=1e-7)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (45, 50, 0.7864, 0.9565),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_wilson_intervals(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("trials", [1, 2, 10, 50, 1_000])
def test_wilson_solves_its_quadratic(trials):
    for successes in range(0, trials + 1, max(1, trials // 10)):
        low, high = wilson(successes, trials)
        assert (low, high) == pytest.approx(solved(successes, trials), abs=1e-9)
        assert 0 <= low <= successes / trials + 1e-12
        assert successes / trials - 1e-12 <= high <= 1
        assert wilson(trials - successes, trials) == pytest.approx((1 - high, 1 - low))


def test_wilson_narrows_with_more_trials():
    widths = [high - low for low, high in (wilson(3 * n, 4 * n) for n in (1, 5, 25, 125))]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.85, 0.98])
def test_wilson_covers_the_true_rate(rate):
    trials, repeats = 50, 4_000
    intervals = np.array([wilson(successes, trials) for successes in range(trials + 1)])
    low, high = intervals[np.random.default_rng(0).binomial(trials, rate, repeats)].T
    assert 0.91 < np.mean((low <= rate) & (rate <= high)) < 0.99


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (1, 0), (3, 2), (-1, 5), (0, -1)])
def test_impossible_counts(successes, trials):
    with pytest.raises(ValueError, match=f"got {successes} of {trials}"):
        wilson(successes, trials)


def test_paired_difference_of_a_constant():
    assert paired_difference([1.0, 0.5, 0.25], [0.75, 0.25, 0.0]) == (0.25, 0.25, 0.25)


def test_paired_difference_repeats_and_changes_sign():
    rng = np.random.default_rng(0)
    a, b = rng.random(40).tolist(), rng.random(40).tolist()
    mean, low, high = paired_difference(a, b)
    assert paired_difference(a, b) == (mean, low, high)
    assert mean == pytest.approx(np.mean(a) - np.mean(b))
    assert low < mean < high
    assert paired_difference(b, a) == pytest.approx((-mean, -high, -low), abs=1e-12)


def test_the_bootstrap_interval_is_that_of_a_large_sample():
    a = np.random.default_rng(3).normal(size=2_000)
    mean, low, high = paired_difference(a.tolist(), [0.0] * len(a), 2_000)
    half = Z95 * a.std() / math.sqrt(len(a))
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.1 * half)


def test_pairing_removes_what_both_share():
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 5, 100)
    a, b = hard + 0.3 + rng.normal(0, 0.1, 100), hard
    paired, unpaired = (
        paired_difference(a.tolist(), b.tolist()),
        paired_difference(a.tolist(), b[::-1].tolist()),
    )
    assert 0.25 < paired[1] < 0.3 < paired[2] < 0.35
    assert unpaired[2] - unpaired[1] > 10 * (paired[2] - paired[1])


def test_paired_difference_covers_the_true_mean():
    rng, covered = np.random.default_rng(2), []
    for _ in range(300):
        a, b = rng.random(60) < 0.8, rng.random(60) < 0.5
        _, low, high = paired_difference(a.astype(float).tolist(), b.astype(float).tolist(), 500)
        covered.append(low <= 0.3 <= high)
    assert 0.89 < np.mean(covered) < 0.99


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0, 0.0]), ([], [])])
def test_results_that_do_not_pair(a, b):
    with pytest.raises(ValueError, match=f"same episodes, got {len(a)} and {len(b)}"):
        paired_difference(a, b)
