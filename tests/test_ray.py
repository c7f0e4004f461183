"""Actors in real Ray processes: to the end, killed, and the learner killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from helpers.runs import SMALL, newest, wait_for

pytest.importorskip("ray", reason="needs Ray: pip install 'exporl[ray]'")
pytestmark = pytest.mark.slow
LONG = [*SMALL, "--train.online-steps", "200", "--log.every", "20", "--log.save-every", "40"]
LONG += ["--eval.every", "1000", "--train.actors", "2", "--num-envs", "2"]


def begin(run: Path, *args: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "exporl.cli", "train", *args]
    with (run.parent / "out.txt").open("a") as out:
        return subprocess.Popen(command, stdout=out, stderr=out)


def new(run: Path) -> subprocess.Popen:
    return begin(run, "expo", "--task", "probe/delay", "--run-dir", str(run), *LONG)


def actors_of(process: subprocess.Popen) -> list[psutil.Process]:
    below = psutil.Process(process.pid).children(recursive=True)
    return [each for each in below if "RemoteActor" in " ".join(each.cmdline()[:1])]


def ended(process: subprocess.Popen, run: Path) -> dict:
    status = process.wait(900)
    assert status == 0, (run.parent / "out.txt").read_text()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["env_steps"] == 200
    assert lines[-1]["updates"] == 200 - 2  # update_after
    return lines[-1]


def test_a_killed_actor_is_replaced_and_the_run_ends(tmp_path):
    run = tmp_path / "run"
    process = new(run)
    wait_for(run / "metrics.jsonl", '"phase": "online"', 900)
    os.kill(actors_of(process)[0].pid, signal.SIGKILL)
    last = ended(process, run)
    assert last["actors/restarts"] == 1 and last["actors/number"] == 2
    assert 0 < last["actors/lost_steps"] <= 10
    assert "actors/staleness_updates/1" in last


def test_a_killed_learner_goes_on_from_its_checkpoint(tmp_path):
    run = tmp_path / "run"
    process = new(run)
    wait_for(run / "metrics.jsonl", '"env_steps": 60', 900)
    left = actors_of(process)
    process.kill()
    process.wait()
    assert int(newest(run).name.split("-")[1]) >= 10 + 40  # imitation, then environment steps
    end = time.monotonic() + 60
    while any(each.is_running() for each in left):
        assert time.monotonic() < end, "actors outlive their learner"
        time.sleep(0.1)
    ended(begin(run, "--resume", str(run)), run)
