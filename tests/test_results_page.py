"""docs/results.md: what it says of runs whose numbers were worked out by hand, of few and of
none."""

import sys
from pathlib import Path

import pytest

from exporl.bench.collected import collected_text, read_collected
from exporl.bench.results import Results, read_results
from exporl.bench.suite import read_suite
from helpers.suites import evaluation, suite_file, write_run

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import tables_of_ablations as of_ablations
import tables_of_claim as of_claim

SUITE = """
folder = "{folder}"
seeds = 2
score = 0.5
baselines = ["rlpd", "rlpd-helped", "best-of-n", "bc"]

[algorithms.expo]
seeds = 3
[algorithms.rlpd]
[algorithms.rlpd-helped]
algorithm = "rlpd"
[algorithms.best-of-n]
algorithm = "best_of_n"
[algorithms.bc]

[tasks."probe/delay"]
[tasks."probe/bandit"]
"""
EXPO = [{0: 0.2, 10: 0.6, 20: 0.8, 30: 1.0}, {0: 0.2, 10: 0.4, 20: 0.6, 30: 0.9}]
"""Reach .5 at 10 and 20, .625 at 20 and 30: half of the failures of a base that solves .25."""
RLPD = [{0: 0.0, 10: 0.1, 20: 0.4, 30: 0.5}, {0: 0.0, 10: 0.6, 20: 0.3, 30: 0.4}]
"""Reaches .5 at 30, and never."""
FAST = [{0: 0.2, 10: 0.9, 20: 0.9, 30: 0.9}] * 2


def results(tmp_path, curves: dict[str, list[dict[int, float]]], task="probe/delay") -> Results:
    """The collected results of a suite with these runs on one task."""
    suite = read_suite(suite_file(tmp_path, SUITE))
    for run in suite.runs:
        made = curves.get(run.label, [])
        if run.task == task and run.seed < len(made):
            config = {
                "algorithm": run.algorithm,
                "task": run.task,
                "seed": run.seed,
                "train": {"online_steps": max(made[run.seed])},
                "eval": {"seed": 7},
            }
            write_run(run.run_dir, config, made[run.seed])
    path = tmp_path / "results.json"
    path.write_text(collected_text(read_results(suite)))
    return read_collected(suite, path)


def rows(text: str) -> list[list[str]]:
    """The cells of a table."""
    return [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]


def test_ratios_by_hand_with_what_is_censored(tmp_path):
    found = rows(of_claim.ratios(results(tmp_path, {"expo": EXPO, "rlpd": RLPD})))
    # steps to .5: 15 on average; rlpd 30 and at least 30
    assert found[1] == [
        "expo", "probe/delay", "0.50",
        "≥ 2.00 [1.50, 3.00] rlpd", "-", "-", "≥ 2.00 [1.50, 3.00] rlpd",
    ]  # fmt: skip
    # steps to .625: 25 on average; rlpd never
    assert found[2][2:4] == ["0.62", "≥ 1.20 [1.00, 1.50] rlpd"]
    assert found[3][:4] == ["expo", "all", "0.50", "≥ 2.00 [1.50, 3.00] rlpd"]
    assert found[4][2:4] == ["half of the failures", "≥ 1.20 [1.00, 1.50] rlpd"]


def test_every_group_has_its_own_best_baseline(tmp_path):
    curves = {"expo": EXPO, "rlpd": RLPD, "rlpd-helped": FAST, "best-of-n": EXPO}
    (_, first, *_) = rows(of_claim.ratios(results(tmp_path, curves)))
    assert first[3].endswith("] rlpd") and first[4].endswith("] rlpd-helped")
    assert first[4].startswith("0.67 [0.50, 1.00]") and first[6].endswith("] rlpd-helped")
    assert first[5].startswith("1.00 [0.50, 2.00]") and first[5].endswith("] best-of-n")


def test_steps_and_successes_of_a_task(tmp_path):
    text = of_claim.tasks(results(tmp_path, {"expo": EXPO, "rlpd": RLPD, "bc": [{0: 0.6}]}))
    assert text.startswith("### probe/delay\n")
    head, expo, rlpd, bc = rows(text)
    assert head[4:] == ["reached 0.50", "steps to 0.50", "reached 0.62", "steps to 0.62"]
    assert expo[:3] == ["expo", "2", "25"] and expo[3].startswith("95 [")
    assert expo[4:] == ["2", "15", "2", "25"]
    assert rlpd[4:] == ["1", "≥ 30", "0", "≥ 30"]
    # 12 of 20 by Wilson; imitation alone has no steps
    assert bc[3:] == ["60 [39, 78]", "1", "-", "0", "-"]


@pytest.mark.parametrize(
    ("curves", "head", "said"),
    [
        (
            {"expo": EXPO, "rlpd": RLPD},
            "ahead of the best baseline on 1 of 1 tasks",
            "- probe/delay: EXPO needs fewer steps than rlpd, ratio ≥ 2.00 [1.50, 3.00] to reach "
            "0.50; at the end 95% against 45% of rlpd, probability of improvement 1.00 [1.00, 1",
        ),
        (
            {"expo": EXPO, "rlpd": FAST},
            "on 0 of 1 tasks",
            "no difference from rlpd is shown, ratio 0.67 [0.50, 1.00] to reach 0.50;",
        ),
        (
            {"expo": RLPD, "rlpd": FAST},
            "on 0 of 1 tasks",
            "**EXPO is behind rlpd**, ratio ≤ 0.33 [0.33, 0.33] to reach 0.50; at the end 45%",
        ),
        (
            {"expo": EXPO[:1], "rlpd": RLPD},
            "on 0 of 1 tasks",
            "one seed shows no difference from rlpd, ratio ≥ 3.00 (one seed) to reach 0.50;",
        ),
        (
            {"expo": [{0: 0.1, 30: 0.2}] * 2, "rlpd": [{0: 0.1, 30: 0.3}] * 2},
            "on 0 of 1 tasks",
            "nobody reached 0.50 or 0.62; at the end 20% against 30% of rlpd",
        ),
    ],
)  # fmt: skip
def test_sentences_say_no_more_than_the_interval(tmp_path, curves, head, said):
    text = of_claim.sentences(results(tmp_path, curves))
    assert head in text.splitlines()[0] and said in text


def test_what_was_never_reached_does_not_put_expo_ahead(tmp_path):
    """A seed of EXPO that never gets there could need any number of steps."""
    slow = [{0: 0.2, 10: 0.9, 20: 0.9, 30: 0.9}, {0: 0.2, 10: 0.3, 20: 0.3, 30: 0.4}]
    never = [{0: 0.0, 10: 0.1, 20: 0.1, 30: 0.2}] * 2
    text = of_claim.sentences(results(tmp_path, {"expo": slow, "rlpd": never}))
    assert "ratio ~ 1.50 [1.00, 3.00]" in text and "on 0 of 1 tasks" in text


def test_what_is_missing_is_counted(tmp_path):
    found = results(tmp_path, {"expo": EXPO, "rlpd": RLPD[:1]})
    assert rows(of_claim.cells(found))[1:4] == [
        ["expo", "2/3", "0/3"],
        ["rlpd", "1/2", "0/2"],
        ["rlpd-helped", "0/2", "0/2"],
    ]


def test_the_gain_is_divided(tmp_path):
    """The base solves .25 before and after, on the first starts; EXPO ends at .95."""
    (_, row) = rows(of_claim.gains(results(tmp_path, {"expo": EXPO, "rlpd": RLPD})))
    assert row[:5] == ["probe/delay", "2", "25", "25", "95"] and row[5].startswith("+70 [+")


def test_without_runs_every_part_says_so(tmp_path):
    none = results(tmp_path, {})
    assert of_claim.sentences(none).startswith("Nothing can be compared yet")
    parts = (of_claim.tasks, of_claim.ratios, of_claim.overall, of_claim.gains)
    more = (of_ablations.ablations, of_ablations.base_gain, of_ablations.base_starts)
    for part in (*parts, *more):
        assert part(none) == of_claim.NO_RUNS
    assert of_claim.state(none, "claim") == "No run is there yet. 22 are asked for."
    alone = results(tmp_path, {"expo": EXPO})
    assert of_claim.sentences(alone).startswith("Nothing can be compared yet")
    assert rows(of_claim.ratios(alone))[1][3:] == ["-"] * 4


ABLATIONS = """
folder = "{folder}"
seeds = 2
score = 0.8
[algorithms.preset]
algorithm = "expo"
[algorithms.frozen-base]
algorithm = "expo"
[tasks."probe/delay"]
"""


def test_ablations_by_hand(tmp_path):
    suite = read_suite(suite_file(tmp_path, ABLATIONS))
    ends = {("preset", 0): 0.9, ("preset", 1): 0.8, ("frozen-base", 0): 0.7}
    for run in suite.runs:
        if (run.label, run.seed) in ends:
            config = {"algorithm": "expo", "task": run.task, "seed": run.seed}
            config |= {"train": {"online_steps": 20}, "eval": {"seed": 7}}
            write_run(run.run_dir, config, {0: 0.2, 20: ends[run.label, run.seed]})
    found = read_results(suite)
    assert rows(of_ablations.ablations(found))[1:] == [
        ["probe/delay", of_ablations.CHANGED["preset"], "2", "85", "52", "-", "25", ""],
        ["probe/delay", of_ablations.CHANGED["frozen-base"], "1", "70", "45", "-", "25", "-20"],
    ]
    assert rows(of_ablations.base_gain(found))[1][2:] == ["25", "25", "85", "+60"]


def test_every_row_of_the_ablations_says_what_it_changes():
    suite = read_suite(of_claim.SUITES / "ablations.toml")
    assert set(suite.labels) == set(of_ablations.CHANGED)


def test_base_starts_by_hand(tmp_path):
    text = ABLATIONS.replace("preset]", "noise-7]").replace("frozen-base]", "noise-3]")
    suite = read_suite(suite_file(tmp_path, text))
    for run in suite.runs[:2]:
        config = {"algorithm": "expo", "task": run.task, "seed": run.seed}
        write_run(run.run_dir, config | {"train": {"online_steps": 0}}, {0: 0.2})
    assert evaluation(0, 0.2)["base"]["success_rate"] == 0.25
    assert rows(of_ablations.base_starts(read_results(suite)))[1:] == [
        ["probe/delay", ".3", "25 [11, 47]"],
        ["probe/delay", ".7", "25 [11, 47]"],
    ]
