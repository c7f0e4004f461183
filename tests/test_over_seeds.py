"""Intervals over seeds: against what is known of them, and the words that they allow."""

import numpy as np
import pytest

from exporl.report.findings import findings
from exporl.report.page import write_report
from exporl.report.run_data import read_run
from exporl.stats.intervals import Z95, paired_difference, wilson
from exporl.stats.over_seeds import over_seeds, shown, success_over_seeds
from helpers.reports import chart, fake_run


def test_of_one_seed_it_is_the_bootstrap_over_its_episodes():
    values = np.random.default_rng(0).normal(size=50).tolist()
    mean, low, high = over_seeds([values], 20_000)
    expected = paired_difference(values, [0.0] * 50, 20_000)
    assert (mean, low, high) == pytest.approx(expected, abs=0.02)


def test_the_spread_of_seeds_widens_it_as_in_theory():
    """Var of the mean over k seeds: (variance between seeds + within / n) / k."""
    rng = np.random.default_rng(1)
    of_seed = rng.normal(0, 1, 40)
    values = [(each + rng.normal(0, 2, 100)).tolist() for each in of_seed]
    mean, low, high = over_seeds(values)
    half = Z95 * np.std([np.mean(v) for v in values], ddof=1) / np.sqrt(40)
    assert (high - low) / 2 == pytest.approx(half, rel=0.12)
    assert mean == pytest.approx(np.mean(values))
    pooled = np.ravel(values).tolist()
    assert (high - low) > 3 * np.subtract(*paired_difference(pooled, [0.0] * 4000, 2000)[:0:-1])


def test_seeds_count_the_same_however_many_episodes_they_have():
    assert over_seeds([[1.0] * 90, [0.0] * 10])[0] == 0.5


def test_it_repeats_and_covers_the_mean_of_all_seeds():
    rng, covered = np.random.default_rng(2), []
    for _ in range(150):
        rates = rng.beta(4, 4, 8)
        values = [(rng.random(20) < rate).tolist() for rate in rates]
        _, low, high = over_seeds(values, 500)
        covered.append(low <= 0.5 <= high)
    assert over_seeds(values) == over_seeds(values)
    assert 0.85 < np.mean(covered) < 0.99


def test_no_episodes_are_refused():
    for values in ([], [[True], []]):
        with pytest.raises(ValueError, match="at least one episode"):
            over_seeds(values)


def test_success_of_one_seed_has_wilsons_interval_and_is_never_certain_at_its_ends():
    one = [True] * 7 + [False] * 3
    assert success_over_seeds([one]) == (0.7, *wilson(7, 10))
    assert success_over_seeds([[True] * 10] * 3) == (1.0, *wilson(30, 30))
    apart = success_over_seeds([[True] * 10, [False] * 10])
    assert apart == (0.5, 0.0, 1.0)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ((0.2, 0.1, 0.3), "better"),
        ((-0.2, -0.6, 0.0), "no difference is shown, the interval includes 0"),
        ((0.2, 0.0, 0.4), "no difference is shown, the interval includes 0"),
        ((-0.2, -0.3, -0.1), "worse"),
    ],
)
def test_words_follow_the_interval(found, words):
    assert shown(found, "better", "worse") == words


def page_of(tmp_path, *policies, base=(9, 9)):
    runs = [
        fake_run(tmp_path / f"s{seed}", policy, list(base), seed=seed)
        for seed, policy in enumerate(policies)
    ]
    return write_report(runs, tmp_path / "report.html").read_text()


def test_a_report_over_seeds_begins_with_all_of_them(tmp_path):
    page = page_of(tmp_path, [9, 20], [9, 18], [9, 19])
    headline = "EXPO, 3 seeds</b>: +50 points ["
    assert headline in page and page.index(headline) < page.index("EXPO, seed 0</b>")
    assert (
        "(3 seeds of 20 paired starts, interval over seeds): better than its base policy." in page
    )


def test_seeds_that_disagree_show_no_difference(tmp_path):
    """Pooled over 40 episodes a gain would be shown; of two seeds one gains, one loses."""
    page = page_of(tmp_path, [2, 20], [2, 1], base=(2, 2))
    assert "interval over seeds): no difference is shown, the interval includes 0." in page
    before = ([True] * 2 + [False] * 18) * 2
    _, low, _ = paired_difference([True] * 21 + [False] * 19, before)
    assert low > 0


def test_a_dip_is_called_one_only_where_its_interval_shows_it(tmp_path):
    few = fake_run(tmp_path / "few", [3, 2], [3, 3], episodes=5)
    assert "-20 points [-60, +0]" in findings([read_run(few)])
    assert "no difference is shown" in findings([read_run(few)])
    assert "a dip" not in findings([read_run(few)])
    deep = fake_run(tmp_path / "deep", [15, 3], [15, 15])
    assert "a dip below the base" in findings([read_run(deep)])


def test_bands_of_several_seeds_are_those_over_seeds(tmp_path):
    together, apart = tmp_path / "one", tmp_path / "two"
    together.mkdir(), apart.mkdir()
    equal, unequal = page_of(together, [9, 10], [9, 10]), page_of(apart, [9, 19], [9, 1])
    for page in (equal, unequal):
        assert chart(page, "Success over")["lines"]["EXPO"]["y"][-1] == 0.5
    assert height_of_band(unequal) > 1.5 * height_of_band(equal)


def height_of_band(page: str) -> float:
    """Of the interval over all seeds at the last evaluation."""
    line = chart(page, "Success over")["lines"]["EXPO"]
    return line["high"][-1] - line["low"][-1]
