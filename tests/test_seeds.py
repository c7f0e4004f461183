"""Many seeds: each equals its own single run, resumes singly and together, fails alone, stops with
the others."""

import dataclasses
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from exporl.cli.bars import Bars
from exporl.cli.main import main
from exporl.envs.registry import make_task
from exporl.files import checkpoint
from exporl.files.atomic import read_lines
from exporl.parallel.seeds import train_seeds
from exporl.run.config import override
from exporl.run.directory import finished
from exporl.run.loop import train
from exporl.run.progress import Silent
from exporl.run.stopping import Interrupted
from helpers.runs import SMALL_BC, StopAt, newest, tiny, wait_for


@pytest.fixture
def no_key_checker():
    """The key-reuse checker takes every `scan` over keys inside `vmap` for a reuse (jax 0.10): off
    for that."""
    jax.config.update("jax_debug_key_reuse", False)
    yield
    jax.config.update("jax_debug_key_reuse", True)


def assert_close_runs(one: Path, two: Path) -> None:
    """Parameters, replay, counters and metrics, to float32 reordering."""
    for part in ("learner", "replay", "rollout"):
        left, right = (load_file(newest(run) / f"{part}.safetensors") for run in (one, two))
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_allclose(
                left[name], right[name], rtol=1e-4, atol=1e-5, err_msg=f"{part} {name}"
            )
    assert checkpoint.load(newest(one))[1]["updates"] == checkpoint.load(newest(two))[1]["updates"]
    lines, others = (read_lines(run / "metrics.jsonl") for run in (one, two))
    assert len(lines) == len(others) > 3
    for line, other in zip(lines, others, strict=True):
        assert line.keys() == other.keys()
        for name, value in line.items():
            if isinstance(value, float) and not name.startswith("time/"):
                assert value == pytest.approx(other[name], rel=1e-3, abs=1e-4), name


@pytest.mark.slow
def test_seeds_in_one_program_equal_single_runs(tmp_path, no_key_checker):
    config = tiny(seed=3)
    rows: dict[str, Silent] = {}
    results = train_seeds(
        config, tmp_path / "many", 3, mode="vmap", progress=lambda n: rows.setdefault(n, Silent())
    )
    assert [result.seed for result in results] == [3, 4, 5] and list(rows) == ["s3", "s4", "s5"]
    for result in results:
        assert (
            result.error is None
            and result.summary is not None
            and result.summary["after"]["env_steps"] == 24
        )
        train(tiny(seed=result.seed), tmp_path / f"single{result.seed}")
        assert_close_runs(result.run_dir, tmp_path / f"single{result.seed}")
    assert (tmp_path / "many" / "report.html").is_file()
    before = newest(tmp_path / "many" / "s4").stat().st_mtime_ns
    assert (
        train_seeds(config, tmp_path / "many", 3, mode="vmap", resume=True)[1].summary
        == results[1].summary
    )
    assert newest(tmp_path / "many" / "s4").stat().st_mtime_ns == before, (
        "finished seeds are not repeated"
    )


@pytest.mark.slow
def test_seeds_stop_at_one_step_and_resume_singly_and_together(tmp_path, no_key_checker):
    """One seed goes on alone, then the rest together, each as if nothing had happened; a new seed
    joins."""
    config = tiny(seed=3)
    with pytest.raises(Interrupted, match="stopped 2 of 2 seeds; everything is saved"):
        train_seeds(
            config,
            tmp_path / "many",
            2,
            mode="vmap",
            progress=lambda n: StopAt(9) if n == "s3" else Silent(),
        )
    steps = [
        checkpoint.load(newest(tmp_path / "many" / f"s{s}"))[1]["rollout"]["env_steps"]
        for s in (3, 4)
    ]
    assert steps[0] == steps[1] and 0 < steps[0] < 24
    train(tiny(seed=4), tmp_path / "many" / "s4", resume=True)
    results = train_seeds(config, tmp_path / "many", 3, mode="vmap", resume=True)
    assert [result.error for result in results] == [None] * 3
    for seed in (3, 4):
        train(tiny(seed=seed), tmp_path / f"single{seed}")
        assert_close_runs(tmp_path / "many" / f"s{seed}", tmp_path / f"single{seed}")


class Heard(Silent):
    """Keeps what was said."""

    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)


@pytest.mark.slow
def test_a_task_is_given_to_every_seed(tmp_path, no_key_checker):
    """One that no name leads to: it is what every seed trains on, whose demonstrations it has."""
    probe, made = make_task(tiny("bc").task), []

    def make_env():
        made.append(probe.make_env())
        return made[-1]

    config = dataclasses.replace(tiny("bc"), task="nowhere/mine")
    mine = dataclasses.replace(probe, name="nowhere/mine", make_env=make_env)
    results = train_seeds(config, tmp_path / "many", 2, task=mine)
    assert [result.error for result in results] == [None, None] and len(made) >= 2
    demonstrations = [result.run_dir / "demonstrations.npz" for result in results]
    assert demonstrations[0].read_bytes() == demonstrations[1].read_bytes()
    again = train_seeds(config, tmp_path / "many", 2, task=mine, resume=True)
    assert [result.summary for result in again] == [result.summary for result in results]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["vmap", "processes"])
def test_a_failing_seed_is_reported_and_the_others_go_on(tmp_path, mode, no_key_checker):
    rows: list[Heard] = []
    (tmp_path / "many" / "s1").mkdir(parents=True)
    (tmp_path / "many" / "s1" / "checkpoints").write_text("in the way")
    results = train_seeds(
        tiny("bc"),
        tmp_path / "many",
        2,
        mode=mode,
        progress=lambda _: rows.append(Heard()) or rows[-1],
    )
    assert results[0].summary is not None and results[0].error is None
    assert results[1].summary is None and "File exists" in str(results[1].error)
    assert any("seed 1 failed: " in line and "File exists" in line for line in rows[1].said)
    assert finished(tmp_path / "many" / "s0", tiny("bc")) and not finished(
        tmp_path / "many" / "s1", tiny("bc")
    )


@pytest.mark.slow
@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGINT, False), (signal.SIGHUP, True)])
def test_a_signal_stops_all_processes_and_resume_goes_on(tmp_path, capsys, number, to_all):
    """Real processes, a real signal to the command alone or, as terminals send it, to its children
    as well; then a real resumption."""
    folder, steps = tmp_path / "many", ["--train.online-steps", "100000", "--eval.every", "100000"]
    args = ["train", "bc", "--task", "probe/bandit", "--run-dir", str(folder), "--seeds", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "exporl.cli", *args, *SMALL_BC, *steps],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for seed in (0, 1):
            wait_for(folder / f"s{seed}" / "metrics.jsonl", '"phase": "online"')
        os.killpg(process.pid, number) if to_all else process.send_signal(number)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert (
        "stopped 2 of 2 seeds; everything is saved" in error
        and f"exporl train --resume {folder}" in error
    )
    done = [
        checkpoint.load(newest(folder / f"s{seed}"))[1]["rollout"]["env_steps"] for seed in (0, 1)
    ]
    assert all(0 < made < 100_000 for made in done)
    capsys.readouterr()
    assert main(["train", "--resume", str(folder), "--train.online-steps", str(max(done) + 5)]) == 0
    out = capsys.readouterr().out
    assert f"at {max(done) + 5} environment steps" in out and "s1: " in out and "report.html" in out
    assert main(["report", str(folder), "--output", str(tmp_path / "page.html")]) == 0


@pytest.mark.parametrize(
    ("changes", "call", "message"),
    [
        ({}, {"num_seeds": 0}, r"number of seeds must be in \[1, 10000\], got 0"),
        ({}, {"num_seeds": 10**9}, r"number of seeds must be in \[1, 10000\], got 1000000000"),
        ({}, {"mode": "threads"}, "must be one of auto, processes, vmap; got 'threads'"),
        ({"train.asynchronous": True}, {"mode": "vmap"}, "choose the mode processes"),
        ({"train.batch_size": 0}, {}, "train.batch_size must be at least 1"),
        (
            {},
            {"mode": "processes", "task": make_task("probe/bandit")},
            "cannot be given the task 'probe/bandit' itself.*config.task name the function",
        ),
    ],
)
def test_requests_that_cannot_be_met_are_refused(tmp_path, changes, call, message):
    with pytest.raises(ValueError, match=message):
        train_seeds(tiny(**changes), tmp_path / "many", **{"num_seeds": 2, **call})
    assert not (tmp_path / "many").exists()


@pytest.mark.slow
def test_existing_seeds_are_refused_and_other_options_too(tmp_path, capsys):
    train(tiny(), tmp_path / "many" / "s0")
    with pytest.raises(FileExistsError, match=r"already holds runs.*--resume"):
        train_seeds(tiny(), tmp_path / "many", 2)
    with pytest.raises(ValueError, match=r"algo.edit_scale was 0.1, now 0.3"):
        train_seeds(tiny(**{"algo.edit_scale": 0.3}), tmp_path / "many", 2, resume=True)
    assert not finished(tmp_path / "many" / "s0", override(tiny(), {"train.online_steps": 25}))
    assert main(["train", "expo", "--task", "probe/bandit", "--seeds", "many"]) == 2
    assert "--seeds must be a number of seeds, got 'many'" in capsys.readouterr().err


def test_progress_of_all_seeds_in_one_line():
    out = io.StringIO()
    bars = Bars(Console(file=out, width=200), interval_s=0.0)
    one, two = bars.add("s0"), bars.add("s1")
    one.phase("expo", 100, 40)
    one.advance(20, "5 env steps/s")
    one.advance(10, "")
    two.say("collecting")
    bars.close()
    last, said = out.getvalue().splitlines()[-2:]
    assert last.startswith("s0 expo 70/100, about ") and last.endswith(
        "s left, 5 env steps/s | s1 waiting"
    )
    assert said == "s1: collecting"
