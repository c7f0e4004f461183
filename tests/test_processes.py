"""Runs in processes of their own: what goes over the pipes, and that no end of a child is
missed."""

import io
import json
import os
import queue
import subprocess
import sys
import threading

import jax
import pytest

from exporl.files.run_files import OUTPUT
from exporl.parallel import processes
from exporl.parallel.processes import Job, run_processes
from exporl.run.config import to_json
from exporl.run.progress import Silent
from helpers.runs import tiny


def lines(file: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in file.getvalue().splitlines()]


class Heard(Silent):
    """Keeps what was reported."""

    def __init__(self):
        self.told: list[tuple] = []

    def phase(self, name, total, done):
        self.told.append(("phase", name, total, done))

    def advance(self, steps, note):
        self.told.append(("advance", steps, note))

    def say(self, message):
        self.told.append(("say", message))


def test_steps_are_gathered_and_none_is_lost():
    """Hundreds of steps per second are a few lines; a note is sent at once, with the steps before
    it."""
    file = io.StringIO()
    pipe = processes._Pipe(file)
    pipe.phase("expo", 10, 2)
    pipe._sent = float("inf")  # as if a line had just been sent
    for _ in range(5):
        pipe.advance(1, "")
    pipe.advance(1, "fast")
    pipe.say("evaluated")
    assert lines(file) == [
        {"phase": ["expo", 10, 2]},
        {"advance": [6, "fast"]},
        {"say": ["evaluated"]},
    ]


def test_what_is_written_arrives_at_the_row():
    file, row = io.StringIO(), Heard()
    pipe = processes._Pipe(file)
    pipe.phase("expo", 10, 2)
    pipe.advance(3, "note")
    pipe.say("two\nlines")
    for message in lines(file):
        processes._tell(row, message)
    assert row.told == [("phase", "expo", 10, 2), ("advance", 3, "note"), ("say", "two\nlines")]


def test_a_pipe_without_reader_is_no_error():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(os.dup(write), "w", buffering=1) as file:
        processes._Pipe(file).say("nobody there")
        # so that what is left can be flushed
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    os.close(write)


@pytest.mark.parametrize(
    ("message", "before", "after"),
    [
        ({"summary": {"a": 1}}, (None, None), ({"a": 1}, None)),
        ({"error": "no"}, (None, None), (None, "no")),
        ({"say": ["x"]}, (None, "no"), (None, "no")),
    ],
)
def test_how_a_run_ended(message, before, after):
    assert processes._outcome(message, before) == after


def test_a_line_cut_off_is_left_out_and_the_end_still_told():
    news: queue.Queue = queue.Queue()
    code = "print('{\"say\": [\"a\"]}'); print('{\"sa', end='')"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    processes._listen(7, process, news)
    assert [news.get_nowait() for _ in range(2)] == [(7, {"say": ["a"]}), (7, None)]
    assert processes._end(process) == 0 and process.stdout.closed and process.stdin.closed


@pytest.mark.parametrize(
    ("code", "summary", "error"),
    [
        ("import os; os._exit(3)", None, "its process ended with status 3; see "),
        ('print(\'{"error": "no room"}\')', None, "no room"),
        ('print(\'{"summary": {"a": 1}}\')', {"a": 1}, None),
    ],
)
def test_every_end_of_a_child_is_noticed(tmp_path, monkeypatch, code, summary, error):
    """Stand-ins for the child, more of them than cores; all are waited for, and no pipe stays
    open."""
    started, start = [], processes._start
    monkeypatch.setattr(processes, "_CHILD", code)
    monkeypatch.setattr(processes, "usable_cores", lambda: [min(os.sched_getaffinity(0))])
    monkeypatch.setattr(
        processes, "_start", lambda *args: started.append(start(*args)) or started[-1]
    )
    rows = [Heard(), Heard()]
    jobs = [Job(tiny(seed=s), tmp_path / f"s{s}", False) for s in (0, 1)]
    ended = run_processes(jobs, rows, threading.Event())
    assert [result for result, _ in ended] == [summary] * 2
    for seed, (_, reason) in enumerate(ended):
        assert reason is None if error is None else error in reason
        assert (("say", f"seed {seed} failed: {reason}") in rows[seed].told) == (error is not None)
        assert (tmp_path / f"s{seed}" / OUTPUT).is_file()
    assert all(p.returncode is not None and p.stdin.closed and p.stdout.closed for p in started)


def test_children_keep_programs_where_their_parent_does(tmp_path, monkeypatch):
    code = (
        "import json, os; print(json.dumps({'summary': {'folder': "
        "os.environ['JAX_COMPILATION_CACHE_DIR']}}))"
    )
    monkeypatch.setattr(processes, "_CHILD", code)
    ((summary, error),) = run_processes(
        [Job(tiny(), tmp_path / "s0", False)], [Heard()], threading.Event()
    )
    assert error is None and summary == {"folder": jax.config.values["jax_compilation_cache_dir"]}


KILLED = """
import json, os, pathlib, signal, sys
order = json.loads(sys.stdin.readline())
tries = pathlib.Path(order["run_dir"]) / "tries"
tries.write_text((tries.read_text() if tries.is_file() else "") + str(int(order["resume"])))
(tries.parent / "config.json").write_text("{}")
if len(tries.read_text()) < 3:
    os.kill(os.getpid(), signal.SIGKILL)
print(json.dumps({"summary": {}}))
"""


@pytest.mark.parametrize(("again", "tries"), [(0, "0"), (1, "01"), (2, "011")])
def test_a_killed_child_goes_on_as_often_as_asked(tmp_path, monkeypatch, again, tries):
    monkeypatch.setattr(processes, "_CHILD", KILLED)
    jobs, row = [Job(tiny(), tmp_path / "s0", False)], Heard()
    ((summary, error),) = run_processes(jobs, [row], threading.Event(), again=again)
    assert (tmp_path / "s0" / "tries").read_text() == tries
    assert (summary, error is None) == ({} if again == 2 else None, again == 2)
    assert error is None or "ended with status -9" in error
    assert sum("was killed (status -9)" in str(told) for told in row.told) == again


def test_ends_are_told_and_a_job_that_may_not_begin_fails(tmp_path, monkeypatch):
    def begin(i):
        if i == 1:
            raise ValueError("not this one")

    monkeypatch.setattr(processes, "_CHILD", "print('{\"summary\": {}}')")
    told, rows = [], [Heard() for _ in range(3)]
    jobs = [Job(tiny(seed=s), tmp_path / f"s{s}", False) for s in range(3)]
    ended = run_processes(
        jobs,
        rows,
        threading.Event(),
        at_once=1,
        begin=begin,
        end=lambda i, how: told.append((i, how)),
    )
    assert ended == [({}, None), (None, "not this one"), ({}, None)]
    assert sorted(told) == list(enumerate(ended)) and not (tmp_path / "s1").exists()
    assert not any(row.told for row in rows)


def test_files_to_inherit_stay_open_in_the_children(tmp_path, monkeypatch):
    code = (
        "import os, json; print(json.dumps({'summary': {'kept': os.readlink('/proc/self/fd/%d')}}))"
    )
    with (tmp_path / "kept").open("w") as file:
        monkeypatch.setattr(processes, "_CHILD", code % file.fileno())
        ((summary, _),) = run_processes(
            [Job(tiny(), tmp_path / "s0", False)],
            [Heard()],
            threading.Event(),
            inherited=[file.fileno()],
        )
    assert summary == {"kept": str(tmp_path / "kept")}


def test_nothing_starts_after_a_stop(tmp_path):
    stop = threading.Event()
    stop.set()
    assert run_processes([Job(tiny(), tmp_path / "s0", False)], [Heard()], stop) == [(None, None)]
    assert not (tmp_path / "s0").exists()


@pytest.mark.slow
def test_child_reports_its_error_as_one_line(tmp_path):
    """The real child: standard output carries JSON only, the traceback goes to the errors."""
    order = {
        "config": to_json(tiny(**{"train.batch_size": 0})),
        "run_dir": str(tmp_path / "s0"),
        "resume": False,
    }
    done = subprocess.run(
        [sys.executable, "-c", processes._CHILD],
        input=json.dumps(order) + "\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    (message,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert "train.batch_size must be at least 1" in message["error"] and "Traceback" in done.stderr
    assert done.returncode == 0
