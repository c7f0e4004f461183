"""One process trains in a run directory at a time."""

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from exporl.bench.running import ELSEWHERE
from exporl.files.lock import check_place, locked
from exporl.run.loop import train
from helpers.runs import content_of, tiny

HOLDER = """
import sys, time
from pathlib import Path
from exporl.files.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
ORPHAN = """
import os, sys, time
from pathlib import Path
from exporl.files.lock import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(600)
    os.kill(os.getpid(), 9)
"""
pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks need a POSIX system")


def start(code: str, folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
    )
    return process


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message), locked(folder):
        pass


def test_a_second_process_is_refused_and_told_who_trains(tmp_path):
    run = tmp_path / "run"
    with start(HOLDER, run) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        before = content_of(run)
        who = f"process {holder.pid} on {platform.node()} trains in {run}"
        for resume in (False, True):
            with pytest.raises(ValueError, match=rf"{who}\. Wait for it, or stop it \(kill"):
                train(tiny(), run, resume=resume)
        assert content_of(run) == before
        holder.send_signal(signal.SIGKILL)
    assert (run / ".lock").exists(), "it had no time to tidy up"
    with locked(run):
        assert json.loads((run / ".lock").read_text())["pid"] == os.getpid()
    assert not (run / ".lock").exists()


def test_the_same_process_is_refused_as_well(tmp_path):
    with locked(tmp_path):
        refused(tmp_path, f"process {os.getpid()} on")
    with locked(tmp_path):
        pass


def test_a_child_that_a_dead_process_left_behind_does_not_count(tmp_path):
    """It has inherited the lock, and trains nothing."""
    with start(ORPHAN, tmp_path) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        assert holder.wait() == -signal.SIGKILL
        try:
            with locked(tmp_path):
                assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_lock_of_another_machine_is_not_taken_over(tmp_path):
    """The process cannot be seen from here: the file system's word counts."""
    with locked(tmp_path):
        (tmp_path / ".lock").write_text(json.dumps({"pid": 2**22 + 1, "host": "another"}))
        refused(tmp_path, "process 4194305 on another trains in")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x", "host": 3}'])
def test_a_damaged_lock_file_says_nothing_and_stops_nobody(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    with locked(tmp_path):
        (tmp_path / ".lock").write_text(content)
        refused(tmp_path, "another process trains in")


def test_a_refused_run_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match=r"train\.batch_size must be at least 1"):
        train(tiny(**{"train.batch_size": 0}), tmp_path / "new" / "run")
    assert not (tmp_path / "new" / "run").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused(tmp_path / "file" / "run", r"cannot write to run directory .*file/run: Not a direc")
    advice = pytest.raises(ValueError, match=r"file: File exists\. Say another folder in the suite")
    with advice, locked(tmp_path / "file", ELSEWHERE):
        pass


@pytest.mark.parametrize("name", ["file", "file/runs"])
def test_a_look_at_a_place_says_what_taking_it_would_say(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    said = []
    for look in (lambda: check_place(tmp_path / name, "Move."), lambda: taken(tmp_path / name)):
        with pytest.raises(ValueError) as refused:
            look()
        said.append(str(refused.value))
    assert said[0] == said[1] and said[0].endswith(". Move.")


def taken(folder):
    with locked(folder, "Move."):
        pass


def test_a_look_at_a_place_makes_nothing(tmp_path):
    check_place(tmp_path, "")
    check_place(tmp_path / "new" / "runs", "")
    assert list(tmp_path.iterdir()) == []
