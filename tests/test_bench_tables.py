"""What a suite's tables say, against numbers worked out by hand; what is left out, and why."""

import csv
import io
import json
import re

import numpy as np
import pytest

from exporl.bench.results import is_finished, read_results, seconds_of
from exporl.bench.suite import read_suite
from exporl.bench.tables import Comparison, Table, csv_text, latex, markdown, tables
from exporl.cli.main import main
from helpers.suites import suite_file, write_run

SUITE = """
folder = "{folder}"
seeds = 2
score = 0.5
baselines = ["rlpd", "bc"]

[algorithms.expo]
[algorithms.rlpd]
[algorithms.bc]

[tasks."probe/delay"]
[tasks."probe/bandit"]
score = 0.8
"""
EXPO = [{0: 0.2, 10: 0.6, 20: 0.8, 30: 1.0}, {0: 0.2, 10: 0.4, 20: 0.6, 30: 0.9}]
RLPD = [{0: 0.0, 10: 0.1, 20: 0.4, 30: 0.5}, {0: 0.0, 10: 0.6, 20: 0.3, 30: 0.4}]


def config(run, steps=30, seed=7):
    return {
        "algorithm": run.algorithm,
        "task": run.task,
        "seed": run.seed,
        "train": {"online_steps": steps},
        "eval": {"seed": seed},
    }


@pytest.fixture
def path(tmp_path):
    """A suite with the runs of expo and rlpd on one task; those on the other did not come so
    far."""
    path = suite_file(tmp_path, SUITE)
    for run in read_suite(path).runs:
        if run.task == "probe/delay" and run.label != "bc":
            curves = {"expo": EXPO, "rlpd": RLPD}[run.label]
            write_run(run.run_dir, config(run), curves[run.seed])
    return path


def cells(table: Table, *first: str) -> dict[str, str]:
    """The row that begins so, by its columns."""
    (row,) = [row for row in table.rows if row[: len(first)] == first]
    return dict(zip(table.head, row, strict=True))


def made(path) -> dict[str, Table]:
    return {table.title: table for table in tables(read_results(read_suite(path)))}


def test_steps_to_a_score_by_hand(path):
    table = made(path)["Steps to a score"]
    expo = cells(table, "probe/delay", "expo")
    assert expo["reached"] == "2 of 2" and expo["steps"] == "15"  # 10 and 20
    rlpd = cells(table, "probe/delay", "rlpd")
    # 30, and never: counted with the 30 steps that it was watched
    assert rlpd["reached"] == "1 of 2" and rlpd["steps"] == "≥ 30"
    assert rlpd["ratio"] == "-" and rlpd["best baseline"] == "-"
    assert expo["ratio"] == "≥ 2.00 [1.50, 3.00]" and expo["best baseline"] == "rlpd"
    assert expo["final"].startswith("0.95 [") and rlpd["final"].startswith("0.45 [")
    # (.2 + .6) / 2 + (.6 + .8) / 2 + (.8 + 1) / 2 = 2.0, and 1.55: thirds of them
    assert expo["mean over training"].startswith(f"{(2.0 + 1.55) / 6:.2f} [")


def test_over_all_tasks_by_hand(path):
    table = made(path)["Over all tasks"]
    expo = cells(table, "expo")
    assert (expo["tasks"], expo["runs"]) == ("1", "2")
    assert expo["better than the best baseline"] == "1.00 [1.00, 1.00]"
    assert cells(table, "rlpd")["final, IQM"].startswith("0.45 [")


def test_paired_starts_by_hand(path):
    """Of 20 starts: expo solves 18 with both seeds and 2 with one; rlpd 8 and 2."""
    paired = cells(made(path)["At the end, on the same starts"], "probe/delay", "expo")
    assert paired["starts"] == "20" and paired["baseline"] == "rlpd"
    assert paired["difference"].startswith("+0.50 [+0.")


def test_other_starts_do_not_pair(path):
    run = read_suite(path).runs[0]
    write_run(run.run_dir, config(run, seed=8), EXPO[0])
    assert "At the end, on the same starts" not in made(path)


def test_the_profile_by_hand(path):
    table = made(path)["Performance profile"]
    assert list(cells(table, "expo").values())[1:] == ["1.00", "1.00", "1.00", "0.50"]
    assert list(cells(table, "rlpd").values())[1:] == ["1.00", "0.00", "0.00", "0.00"]


def test_imitation_alone_has_no_steps_to_compare(path):
    for run in read_suite(path).runs:
        if run.label == "bc" and run.task == "probe/delay":
            write_run(run.run_dir, config(run, steps=0), {0: 0.6})
    found = made(path)
    bc = cells(found["Steps to a score"], "probe/delay", "bc")
    assert bc["steps"] == "-" and bc["final"] == "0.60 [0.60, 0.60]"
    expo = cells(found["Steps to a score"], "probe/delay", "expo")
    assert expo["ratio"] == "≥ 2.00 [1.50, 3.00]" and expo["best baseline"] == "rlpd"
    # but it is the baseline that ends highest
    assert cells(found["At the end, on the same starts"], "probe/delay")["baseline"] == "bc"


def test_a_task_that_nobody_solves_says_nothing_about_steps(path):
    for run in read_suite(path).runs:
        if run.task == "probe/bandit" and run.label != "bc":
            write_run(run.run_dir, config(run), {0: 0.0, 30: 0.1})
    found = made(path)
    bandit = cells(found["Steps to a score"], "probe/bandit", "expo")
    assert (bandit["reached"], bandit["steps"], bandit["ratio"]) == ("0 of 2", "≥ 30", "-")
    assert cells(found["Over all tasks"], "expo")["ratio"] == "≥ 2.00 [1.50, 3.00]"


def test_what_is_not_finished_is_left_out_and_said(path):
    results = read_results(read_suite(path))
    assert len(results.runs) == 4
    assert results.problems[0] == "8 of 12 runs are not finished and are left out."
    run = read_suite(path).runs[0]
    assert is_finished(run.run_dir) and seconds_of(run.run_dir) == 3.0 + 4
    write_run(run.run_dir, config(run, steps=40), EXPO[0])
    assert not is_finished(run.run_dir)
    assert read_results(read_suite(path)).problems[0].startswith("9 of 12 runs")


def test_a_damaged_run_is_left_out_and_said(path):
    lines = read_suite(path).runs[0].run_dir / "eval.jsonl"
    lines.write_text("{]\n" + lines.read_text())
    results = read_results(read_suite(path))
    assert len(results.runs) == 3
    assert "expo on probe/delay, seed 0 is left out: " in results.problems[1]
    assert "eval.jsonl, line 1" in results.problems[1]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"preset": "tiny"}, "made with preset 'tiny', and 'small' is asked for now"),
        (
            {"options": {"chunk_length": 3}},
            "made with chunk_length = 3, and the preset's value is asked for now",
        ),
    ],
)
def test_a_run_made_with_other_options_is_left_out_and_said(path, asked, said):
    suite = read_suite(path)
    (suite.folder / "fingerprints").mkdir()
    kept = {"asked": {**suite.runs[0].plain(), **asked}, "configuration": {}, "earlier": []}
    kept |= {"versions": {}, "source": "1", "outside": {}}
    file = suite.folder / "fingerprints" / "expo-probe-delay-s0.json"
    file.write_text(json.dumps(kept))
    assert said in read_results(suite).problems[1]
    file.write_text(json.dumps({**kept, "asked": suite.runs[0].plain()}))
    assert len(read_results(suite).runs) == 4
    file.write_text("{}")
    assert "has no proper 'asked'" in read_results(suite).problems[1]


def test_scores_may_be_returns(path):
    path.write_text('measure = "return"\n' + path.read_text().replace("= 0.5", "= -0.5"))
    found = made(path)
    assert "Performance profile" not in found
    expo = cells(found["Steps to a score"], "probe/delay", "expo")
    assert expo["steps"] == "15" and expo["final"].startswith("-0.05 [")  # a success is worth 1


def test_the_same_runs_give_the_same_table(path):
    once, again = (markdown(tables(read_results(read_suite(path)))) for _ in range(2))
    assert once == again


def test_seeds_enough_by_hand(path):
    """ln 10 and ln 20 against 3.40 (30 and 30): d^2 = 1.039^2 / (.240 / 2), n = 2.7."""
    found = Comparison(read_results(read_suite(path)))
    steps = np.log([10, 20]), np.log([30, 30])
    d2 = (steps[0].mean() - steps[1].mean()) ** 2 / (steps[0].var(ddof=1) / 2)
    assert found.seeds_enough("expo", "probe/delay", "rlpd") == str(
        int(np.ceil(2 * 7.8489 / d2 + 0.9604))
    )


def test_markdown_through_the_command(path, capsys, tmp_path):
    assert main(["bench", str(path), "--table"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("**8 of 12 runs are not finished and are left out.**\n\n### Steps to a")
    assert "| probe/delay | expo | 2 of 2 | 15 | ≥ 2.00 [1.50, 3.00] | rlpd |" in out
    for table in re.findall(r"(?:^\|.*\n)+", out, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    table = tmp_path / "new" / "t.md"
    assert main(["bench", str(path), "--table", "--output", str(table)]) == 0
    assert table.read_text() == out


def test_latex_through_the_command(path, capsys):
    assert main(["bench", str(path), "--latex"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("% 8 of 12 runs")
    assert r"probe/delay & expo & 2 of 2 & 15 & $\geq$ 2.00 [1.50, 3.00] & rlpd" in out
    assert out.count(r"\begin{table}") == out.count(r"\end{table}") == out.count(r"\toprule") == 4


def test_signs_of_latex_are_escaped():
    text = latex([Table("a_b", ("50%",), (("x & y",), ("{~^\\}",)), "#$")])
    for said in (r"a\_b", r"50\%", r"x \& y", r"\{\textasciitilde{}\textasciicircum{}", r"\#\$"):
        assert said in text


def test_the_long_form_has_every_evaluation(path):
    results = read_results(read_suite(path))
    rows = list(csv.DictReader(io.StringIO(csv_text(results))))
    assert len(rows) == 4 * 4 * 2  # runs, evaluations, policy and base
    row = next(r for r in rows if r["algorithm"] == "expo" and r["env_steps"] == "20")
    assert (row["who"], row["seed"], row["success_rate"], row["episodes"]) == (
        "policy", "0", "0.8", "20",
    )  # fmt: skip


def test_the_long_form_through_the_command(path, capsys):
    assert main(["bench", str(path), "--csv"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("algorithm,task,seed,env_steps,who,")
    assert "8 of 12 runs are not finished" in shown.err


def test_a_suite_without_finished_runs_has_no_tables(tmp_path, capsys):
    assert main(["bench", str(suite_file(tmp_path, SUITE)), "--table"]) == 0
    assert capsys.readouterr().out == "**12 of 12 runs are not finished and are left out.**\n"
