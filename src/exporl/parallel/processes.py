"""One process per core: each trains one run, and tells its parent how it goes, one JSON line at a
time."""

import contextlib
import functools
import io
import json
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from exporl.acting.failures import in_words
from exporl.files.run_files import CONFIG, OUTPUT
from exporl.parallel.spawn import Child, spawn
from exporl.run.callbacks import Callback
from exporl.run.config import RunConfig, from_json, to_json
from exporl.run.loop import train
from exporl.run.progress import Progress
from exporl.run.stopping import Interrupted
from exporl.speed.compile_ahead import compiling
from exporl.speed.cores import usable_cores

_KEPT = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
"""Where this process keeps compiled programs, its children do."""
_CHILD = "from exporl.parallel.processes import child; child()"
_INTERVAL_S = 0.2


class Job(NamedTuple):
    """One run to make, or to go on with."""

    config: RunConfig[Any]
    run_dir: Path
    resume: bool


class Skipped(Exception):
    """A job that need not be made any more."""


Start = Callable[[Job, Sequence[int], Sequence[int]], Any]
"""Starts a job on some cores, with open files to inherit; what it returns has, of a
`subprocess.Popen`, stdin to be closed, the lines of stdout, `wait` and `kill`."""
Ended = tuple[dict[str, Any] | None, str | None]
"""(summary, None) of a finished run, (None, error) of a failed one, (None, None) of a stopped
one."""


def run_processes(
    jobs: Sequence[Job],
    rows: Sequence[Progress],
    stop: threading.Event,
    *,
    at_once: int | None = None,
    again: int = 0,
    begin: Callable[[int], Job | None] | None = None,
    evaluated: Callable[[int], Collection[int]] | None = None,
    end: Callable[[int, Ended], None] | None = None,
    inherited: Sequence[int] = (),
    start: Start | None = None,
) -> list[Ended]:
    """Trains every job in a process of its own, as many at a time as there are cores.

    Args:
        jobs: what to train.
        rows: what each of them reports to.
        stop: set, it makes all of them stop after a checkpoint.
        at_once: how many at a time, at most one per core; each has the same share of the cores,
            however many jobs there are. By default the cores are shared among the jobs.
        again: how often a job whose process a signal killed goes on from its last checkpoint.
        begin: told of each job before its process starts; returns what to make instead, or None. A
            ValueError makes it fail, `Skipped` ends it as a stop does.
        evaluated: told of each job that has appended to its eval.jsonl; returns the jobs that are
            to stop after a checkpoint, those that do not run among them or not.
        end: told how each job ended; by default failures are said on the job's row.
        inherited: open files that the processes keep open until they end.
        start: starts a job somewhere else, `at_once` at a time whatever the cores here; by default
            in a process on this machine.
    """
    cores = usable_cores()
    if start is not None:
        free = [cores] * (len(jobs) if at_once is None else at_once)
    else:
        workers = min(len(cores), len(jobs)) if at_once is None else min(len(cores), at_once)
        free = [cores[i::workers] for i in range(workers)]
    tell = end if end is not None else functools.partial(_say_failure, jobs, rows)
    pool = _Pool(list(jobs), rows, free, again, begin, evaluated, tell, inherited, start)
    try:
        while pool.running or (pool.waiting and not stop.is_set()):
            if stop.is_set():
                pool.ask_to_stop()
            else:
                pool.start_waiting(stop)
            pool.hear(stop)
    finally:
        pool.kill()
    return pool.ended


def _say_failure(jobs: Sequence[Job], rows: Sequence[Progress], i: int, ended: Ended) -> None:
    if ended[1] is not None:
        rows[i].say(f"seed {jobs[i].config.seed} failed: {ended[1]}")


class _Pool:
    """Jobs that wait, run in their processes, and have ended."""

    def __init__(
        self,
        jobs: list[Job],
        rows: Sequence[Progress],
        free: list[list[int]],
        again: int,
        begin: Callable[[int], Job | None] | None,
        evaluated: Callable[[int], Collection[int]] | None,
        end: Callable[[int, Ended], None],
        inherited: Sequence[int],
        start: Start | None,
    ):
        self._start = _start if start is None else start
        self.jobs, self.rows, self.free, self.inherited = jobs, rows, free, inherited
        self.waiting = list(range(len(jobs)))
        self.running: dict[int, tuple[Any, list[int]]] = {}
        self.ended: list[Ended] = [(None, None)] * len(jobs)
        self._again = [again] * len(jobs)
        self._begin, self._evaluated, self._end = begin, evaluated, end
        self._news: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()

    def start_waiting(self, stop: threading.Event) -> None:
        """Starts as many processes as there are free cores."""
        while self.waiting and self.free and not stop.is_set():
            i = self.waiting.pop(0)
            try:
                if self._begin is not None:
                    self.jobs[i] = self._begin(i) or self.jobs[i]
            except Skipped:
                self._end(i, self.ended[i])
                continue
            except ValueError as error:
                self.ended[i] = None, in_words(error)
                self._end(i, self.ended[i])
                continue
            own = self.free.pop(0)
            process = self._start(self.jobs[i], own, self.inherited)
            self.running[i] = process, own
            listening = threading.Thread(target=_listen, args=(i, process, self._news), daemon=True)
            listening.start()

    def ask_to_stop(self, jobs: Collection[int] | None = None) -> None:
        """The end of its standard input makes a child stop after a checkpoint: those of some jobs,
        or all."""
        for i, (process, _) in self.running.items():
            if jobs is not None and i not in jobs:
                continue
            with contextlib.suppress(OSError):  # it has ended by itself
                process.stdin.close()

    def hear(self, stop: threading.Event) -> None:
        """Waits a moment for what the children say next."""
        with contextlib.suppress(queue.Empty):
            i, message = self._news.get(timeout=_INTERVAL_S)
            if message is None:
                self._let_go(i, stop)
            else:
                _tell(self.rows[i], message)
                if "evaluated" in message and self._evaluated is not None:
                    self.ask_to_stop(self._evaluated(i))
                self.ended[i] = _outcome(message, self.ended[i])

    def _let_go(self, i: int, stop: threading.Event) -> None:
        """A child has ended: how, or once more where it was killed."""
        process, own = self.running.pop(i)
        self.free.append(own)
        status, job = _end(process), self.jobs[i]
        if status < 0 and self.ended[i] == (None, None) and self._again[i] and not stop.is_set():
            self._again[i] -= 1
            self.rows[i].say(f"its process was killed (status {status}); it goes on once more")
            self.jobs[i] = job._replace(resume=(job.run_dir / CONFIG).is_file())
            self.waiting.insert(0, i)
            return
        if status != 0 and self.ended[i] == (None, None):
            log = job.run_dir / OUTPUT
            self.ended[i] = None, f"its process ended with status {status}; see {log}"
        self._end(i, self.ended[i])

    def kill(self) -> None:
        """Ends whatever still runs."""
        for process, _ in self.running.values():
            process.kill()
            _end(process)


def child_of(job: Job) -> Child:
    """What a process of its own is to do for a job."""
    kept = {
        name.upper(): str(value) for name in _KEPT if (value := jax.config.values[name]) is not None
    }
    order = {"config": to_json(job.config), "run_dir": str(job.run_dir), "resume": job.resume}
    return Child(_CHILD, json.dumps(order), str(job.run_dir), kept)


def _start(job: Job, cores: Sequence[int], inherited: Sequence[int] = ()) -> subprocess.Popen[str]:
    """A child on these cores."""
    return spawn(child_of(job), cores, inherited)


def _listen(i: int, process: Any, news: queue.Queue[Any]) -> None:
    with process.stdout:
        for line in process.stdout:
            with contextlib.suppress(ValueError):  # cut off: it was killed while writing
                news.put((i, json.loads(line)))
    news.put((i, None))


def _end(process: Any) -> int:
    """Lets go of a process that ends: its status."""
    with contextlib.suppress(OSError):  # it did not read all of its order
        process.stdin.close()
    return process.wait()


def _tell(row: Progress, message: Mapping[str, Any]) -> None:
    for name in ("phase", "advance", "say"):
        if name in message:
            getattr(row, name)(*message[name])


def _outcome(message: Mapping[str, Any], before: Ended) -> Ended:
    if "summary" in message:
        return message["summary"], None
    return (None, message["error"]) if "error" in message else before


class _Pipe:
    """A `Progress` that writes JSON lines, a few per second."""

    def __init__(self, file: io.TextIOBase):
        self._file, self._steps, self._sent, self._lock = file, 0, 0.0, threading.Lock()

    def write(self, **message: Any) -> None:
        # the parent has gone: `child` stops the run
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._file.write(json.dumps(message) + "\n")
            self._file.flush()

    def phase(self, name: str, total: int, done: int) -> None:
        self._steps = 0
        self.write(phase=[name, total, done])

    def advance(self, steps: int, note: str) -> None:
        self._steps += steps
        if note or time.monotonic() - self._sent > _INTERVAL_S:
            self.write(advance=[self._steps, note])
            self._steps, self._sent = 0, time.monotonic()

    def say(self, message: str) -> None:
        self.write(say=[message])


class _Evaluations(Callback):
    """Tells the parent of every evaluation; what it found lies in the run directory."""

    def __init__(self, pipe: _Pipe):
        self._pipe = pipe

    def on_evaluation(self, record: Mapping[str, Any]) -> None:
        self._pipe.write(evaluated=record["env_steps"])


def child() -> None:
    """What a child process does: reads its job from standard input, trains, and reports on standard
    output.

    When standard input ends, because the parent closed it or died, the run stops after a
    checkpoint.
    """
    pipe = _Pipe(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)  # what simulators print goes to the file of the errors
    order, stop = json.loads(sys.stdin.readline()), threading.Event()
    # Nothing follows the order, so this waits for the end; a thread inside `sys.stdin` could not be
    # left at exit.
    threading.Thread(target=lambda: (os.read(0, 1), stop.set()), daemon=True).start()
    try:
        config, run_dir = from_json(order["config"]), Path(order["run_dir"])
        telling, resume = [_Evaluations(pipe)], order["resume"]
        summary = train(config, run_dir, pipe, resume=resume, stop=stop, callbacks=telling)
        pipe.write(summary=summary)
    except Interrupted:
        pass
    except Exception as error:
        traceback.print_exc()
        pipe.write(error=in_words(error))
    if compiling():  # nobody needs that program any more
        sys.stderr.flush()
        os._exit(0)
