"""Actors in real Ray processes: to the end, with actors that are lost, and with the process that
learns and evaluates killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from helpers.faulty import RUN, TASK, faults_of
from helpers.runs import SMALL, newest

pytest.importorskip("ray", reason="needs Ray: pip install 'exporl[ray]'")
pytestmark = pytest.mark.slow
LONG = [*SMALL, "--train.online-steps", "200", "--log.every", "20", "--log.save-every", "40"]
LONG += ["--eval.every", "60", "--train.actors", "2", "--num-envs", "2"]


def begin(run: Path, *args: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "exporl.cli", "train", *args]
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), RUN: str(run)}
    with (run.parent / "out.txt").open("a") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env=environment)


def new(run: Path, **faults: str) -> subprocess.Popen:
    faults_of(run).mkdir()
    for name, text in faults.items():
        (faults_of(run) / name.replace("_", "-")).write_text(text)
    return begin(run, "expo", "--task", TASK, "--run-dir", str(run), *LONG)


def ended(process: subprocess.Popen, run: Path) -> dict:
    status = process.wait(1800)
    assert status == 0, (run.parent / "out.txt").read_text()
    assert not list(faults_of(run).iterdir())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["env_steps"] == 200
    assert lines[-1]["updates"] == 200 - 2  # update_after
    return lines[-1]


def test_lost_actors_are_replaced_and_the_run_ends(tmp_path):
    run = tmp_path / "run"
    last = ended(new(run, actor_1_killed="", actor_2_raises=""), run)
    assert last["actors/restarts"] == last["actors/number"] == 2
    assert last["actors/lost_steps"] == 20
    assert "actors/staleness_updates/1" in last
    said = (tmp_path / "out.txt").read_text()
    assert "the environment's step raised RuntimeError: it broke" in said


def test_a_killed_learner_goes_on_from_its_checkpoint(tmp_path):
    run = tmp_path / "run"
    process = new(run, learner='"env_steps": 60')
    started = set[psutil.Process]()
    while process.poll() is None:
        started |= set(psutil.Process(process.pid).children(recursive=True))
        time.sleep(0.1)
    assert int(newest(run).name.split("-")[1]) >= 10 + 40  # imitation, then environment steps
    _, left = psutil.wait_procs(started, timeout=300)
    assert not left, "processes outlive their learner"
    ended(begin(run, "--resume", str(run), "--trust"), run)
