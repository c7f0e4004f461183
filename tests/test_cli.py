"""The command line as a user meets it: what works, what a mistake answers, where it stops and goes
on."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from exporl.cli.main import main
from helpers.runs import SMALL, SMALL_BC, wait_for


@pytest.fixture
def run(tmp_path):
    """A finished tiny run made through the command line."""
    path = tmp_path / "run"
    assert main(["train", "expo", "--task", "probe/bandit", "--run-dir", str(path), *SMALL]) == 0
    return path


@pytest.mark.slow
def test_train_eval_report_and_resume(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "expo", "--task", "probe/bandit", "--run-dir", str(run), *SMALL]) == 0
    out = capsys.readouterr().out
    assert "after: base" in out and "report.html" in out
    assert main(["eval", str(run), "--episodes", "7", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert "policy success" in out and "policy - base" in out
    record = json.loads((run / "eval_afterwards.jsonl").read_text())
    assert len(record["policy"]["success"]) == 7 and record["seed"] == 3
    assert main(["report", str(run), "--output", str(run / "again.html")]) == 0
    assert "again.html" in capsys.readouterr().out
    assert main(["train", "--resume", str(run), "--train.online-steps", "15"]) == 0
    assert "at 15 environment steps" in capsys.readouterr().out
    assert json.loads((run / "config.json").read_text())["train"]["online_steps"] == 15


@pytest.mark.slow
def test_a_folder_of_runs_that_learn_from_the_environments_rewards(tmp_path, capsys):
    runs = tmp_path / "runs"
    args = ["train", "expo", "--task", "probe/bandit", "--reward", "env", *SMALL]
    assert main([*args, "--run-dir", str(runs / "a")]) == 0
    captured = capsys.readouterr()
    assert "; return base -" in captured.out and "policy - base" in captured.out
    assert "; return policy -" in captured.err
    lines = [json.loads(line) for line in (runs / "a" / "eval.jsonl").read_text().splitlines()]
    assert [line["updates"] for line in lines] == [0, 3, 8]
    shutil.copytree(runs / "a", runs / "b")
    assert main(["eval", str(runs), "--episodes", "2"]) == 0
    out = capsys.readouterr().out
    assert f"{runs / 'a'}:\n" in out and f"{runs / 'b'}:\n" in out
    assert out.count("return policy -") == 2 and "over 2 runs, " in out
    assert json.loads((runs / "b" / "eval_afterwards.jsonl").read_text())["updates"] == 8
    shutil.rmtree(runs / "b" / "checkpoints")
    assert main(["eval", str(runs), "--episodes", "1"]) == 2
    captured = capsys.readouterr()
    assert "b tells of 10 environment steps, " in captured.err and "policy success" in captured.out
    assert main(["report", str(runs)]) == 0
    page = (runs / "report.html").read_text()
    assert "<td>a</td>" in page and "<td>b</td>" in page
    assert page.count("<h2>Return over environment steps</h2>") == 1


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train"], "name an algorithm first"),
        (["train", "expos", "--task", "probe/bandit"], "Did you mean 'expo'"),
        (["train", "expo"], "name a task"),
        (["train", "expo", "--task", "probe/bandid"], "Did you mean 'probe/bandit'"),
        (["train", "expo", "--task", "probe/bandit", "--preset", "smal"], "Did you mean 'small'"),
        (["train", "--resume", "nowhere"], "nowhere is not a run directory"),
        (
            ["train", "expo", "--task", "probe/bandit", "--data.path", ""],
            "data.path is empty: give a file",
        ),
        (
            ["train", "expo", "--task", "probe/bandit", "--data.demos", "1e15"],
            "data.demos must be in [0, 1000000]",
        ),
        (
            ["train", "expo", "--task", "probe/bandit", "--data.path", "gone.npz"],
            "no data file at gone.npz",
        ),
        (
            ["train", "expo", "--task", "probe/bandit", "--algo.num-min-qs", "9"],
            "num_min_qs must be between 1 and num_qs=4, got 9",
        ),
        (["eval", "nowhere"], "nowhere is not a run directory"),
        (["report", "nowhere"], "nowhere is not a run directory"),
        (["presets", "expo", "tinny"], "Did you mean 'tiny'"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_mistakes_are_answered(args, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(args) == 2
    error = capsys.readouterr().err
    assert expected in error and "Traceback" not in error


def test_misspelt_and_mistyped_options(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "expo", "--task", "probe/bandit", "--algo.edit-scal", "0.3"])
    assert stopped.value.code == 2
    assert "--algo.edit-scale" in "".join(capsys.readouterr())
    with pytest.raises(SystemExit):
        main(["train", "expo", "--task", "probe/bandit", "--algo.edit-scale", "much"])
    assert "edit-scale" in "".join(capsys.readouterr())


@pytest.mark.slow
def test_existing_run_and_other_configuration(run, capsys):
    assert main(["train", "expo", "--task", "probe/bandit", "--run-dir", str(run), *SMALL]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--algo.edit-scale", "0.3"]) == 2
    assert "algo.edit_scale was 0.1, now 0.3" in capsys.readouterr().err
    assert main(["train", "rlpd", "--resume", str(run)]) == 2
    assert "started with expo, not rlpd" in capsys.readouterr().err


def test_lists_teach(capsys):
    assert main([]) == 0
    assert "exporl demo" in capsys.readouterr().out
    assert main(["tasks"]) == 0
    out = capsys.readouterr().out
    assert "peg-insert-side-v3" in out.replace("\n", "") or "metaworld" in out
    assert main(["presets"]) == 0
    assert "expo robomimic" in capsys.readouterr().out
    assert main(["presets", "expo", "adroit"]) == 0
    out = capsys.readouterr().out
    assert "algo.edit_scale" in out and "0.7" in out and "Table 1" in out
    with pytest.raises(SystemExit):
        main(["train", "expo", "--help"])
    assert "Largest edit per action dimension" in " ".join(
        capsys.readouterr().out.replace("│", " ").split()
    )


@pytest.mark.slow
def test_control_c_saves_and_says_how_to_go_on(tmp_path):
    """A real process, a real SIGINT, then a real resumption."""
    steps = ["--train.online-steps", "100000", "--eval.every", "100000"]
    args = ["train", "bc", "--task", "probe/bandit", "--run-dir", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "exporl.cli", *args, *SMALL_BC, *steps],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    wait_for(tmp_path / "run" / "metrics.jsonl", '"phase": "online"')
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "everything is saved" in error and "exporl train --resume" in error
    record = max((tmp_path / "run" / "checkpoints").glob("checkpoint-*"))
    done = json.loads((record / "manifest.json").read_text())["record"]["rollout"]["env_steps"]
    assert 0 < done < 100_000
    assert (
        main(["train", "--resume", str(tmp_path / "run"), "--train.online-steps", str(done + 5)])
        == 0
    )
