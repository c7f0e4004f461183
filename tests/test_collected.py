"""The results of a suite in one file: what it keeps is enough for the tables, and small."""

import json

import pytest

from exporl.bench.collected import collected_text, read_collected
from exporl.bench.results import read_results
from exporl.bench.suite import read_suite
from exporl.bench.tables import tables
from exporl.cli.main import main
from helpers.suites import suite_file, write_run

SUITE = """
folder = "{folder}"
seeds = 3
score = 0.5
baselines = ["rlpd"]
options.chunk_length = 2

[algorithms.expo]
[algorithms.rlpd]

[tasks."probe/delay"]
"""
CURVES = {"expo": {0: 0.2, 10: 0.6, 20: 0.9}, "rlpd": {0: 0.0, 10: 0.1, 20: 0.55}}


@pytest.fixture
def suite(tmp_path):
    """A suite of which seed 2 was not made."""
    suite = read_suite(suite_file(tmp_path, SUITE))
    for run in suite.runs[:4]:
        config = {
            "algorithm": run.algorithm,
            "task": run.task,
            "seed": run.seed,
            "train": {"online_steps": 20},
            "eval": {"seed": 7},
            "versions": {"machine": "a machine, 2 cores"},
        }
        write_run(run.run_dir, config, CURVES[run.label])
    return suite


def collected(suite, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(collected_text(read_results(suite)))
    return path


def test_tables_are_the_same_without_the_runs(suite, tmp_path):
    kept = read_collected(suite, collected(suite, tmp_path))
    assert tables(kept) == tables(read_results(suite))
    assert kept.problems == ("2 of 6 runs are not there yet.",)


def test_tables_of_returns_are_the_same_without_the_runs(suite, tmp_path):
    suite.path.write_text('measure = "return"\n' + suite.path.read_text().replace("0.5", "-0.5"))
    other = read_suite(suite.path)
    kept = collected(other, tmp_path)
    assert tables(read_collected(other, kept)) == tables(read_results(other))
    with pytest.raises(ValueError, match=r"holds 'return', and .*suite.toml is about 'success'"):
        read_collected(suite, kept)


def test_a_run_is_a_line(suite, tmp_path):
    text = collected(suite, tmp_path).read_text()
    found = json.loads(text)
    assert found["runs_of_the_suite"] == 6 and found["machines"] == ["a machine, 2 cores"]
    assert found["codes"] == ["code that nobody noted"]
    run = found["runs"][0]
    assert (run["algorithm"], run["task"], run["seed"], run["starts"]) == (
        "expo", "probe/delay", 0, 7,
    )  # fmt: skip
    assert run["env_steps"] == [0, 10, 20]
    assert run["success_rate"] == {"policy": [0.2, 0.6, 0.9], "base": [0.25, 0.25, 0.25]}
    assert run["episodes"][0]["policy"] == "1" * 4 + "0" * 16
    assert run["episodes"][1]["policy"] == "1" * 18 + "00"
    assert (run["train_s"], run["eval_s"]) == (2.0, 3.0)
    assert sum(line.startswith("  {") for line in text.splitlines()) == 4


def test_hundreds_of_runs_stay_below_a_megabyte(suite, tmp_path):
    """441 runs of 11 evaluations of 50 episodes by three policies."""
    line = json.loads(collected(suite, tmp_path).read_text())["runs"][0]
    who = ("policy", "base", "unguarded")
    line["env_steps"] = [1000 * i for i in range(11)]
    line["success_rate"] = {name: [0.98] * 11 for name in who}
    line["episodes"] = [{name: "1" * 50 for name in who}] * 2
    assert 441 * len(json.dumps(line)) < 1_000_000


def test_runs_that_the_suite_has_otherwise_are_left_out_and_said(suite, tmp_path):
    kept = collected(suite, tmp_path)
    text = suite.path.read_text()
    suite.path.write_text(text.replace("[algorithms.rlpd]", "[algorithms.rlpd]\npreset = 'demo'"))
    found = read_collected(read_suite(suite.path), kept)
    assert {run.asked.label for run in found.runs} == {"expo"}
    assert found.problems[0] == "4 of 6 runs are not there yet."
    assert "rlpd on probe/delay, seed 0: the suite asks for other options now." in found.problems
    suite.path.write_text(text.replace("seeds = 3", "seeds = 1"))
    found = read_collected(read_suite(suite.path), kept)
    assert len(found.runs) == 2
    assert "expo on probe/delay, seed 1: the suite has no such run." in found.problems


@pytest.mark.parametrize("runs", ["", ', "runs": [{}]'])
def test_another_file_is_refused_with_what_to_do(suite, tmp_path, runs):
    path = tmp_path / "results.json"
    path.write_text('{"measure": "success"' + runs + "}")
    with pytest.raises(ValueError, match=r"no file of collected runs .*--json --output"):
        read_collected(suite, path)


def test_through_the_command(suite, tmp_path, capsys):
    path = tmp_path / "new" / "results.json"
    assert main(["bench", str(suite.path), "--json", "--output", str(path)]) == 0
    assert path.read_text() == collected_text(read_results(suite))
    assert "2 of 6 runs are not finished" in capsys.readouterr().err
    assert main(["bench", str(suite.path), "--json", "--only", "rlpd,seed=1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(run["algorithm"], run["seed"]) for run in found["runs"]] == [("rlpd", 1)]
    assert main(["bench", str(suite.path), "--table", "--only", "rlpq"]) == 2
    assert "Did you mean 'rlpd'?" in capsys.readouterr().err
