"""One process per core: each trains one run, and tells its parent how it goes, one JSON line at a
time."""

import contextlib
import io
import json
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from exporl.acting.failures import in_words
from exporl.files.atomic import refuse_link
from exporl.files.run_files import OUTPUT
from exporl.run.config import RunConfig, from_json, to_json
from exporl.run.loop import train
from exporl.run.progress import Progress
from exporl.run.stopping import Interrupted
from exporl.speed.compile_ahead import compiling
from exporl.speed.tuning import usable_cores

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_KEPT = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
"""Where this process keeps compiled programs, its children do."""
_CHILD = "from exporl.parallel.processes import child; child()"
_INTERVAL_S = 0.2


class Job(NamedTuple):
    """One run to make, or to go on with."""

    config: RunConfig[Any]
    run_dir: Path
    resume: bool


Ended = tuple[dict[str, Any] | None, str | None]
"""(summary, None) of a finished run, (None, error) of a failed one, (None, None) of a stopped
one."""


def run_processes(
    jobs: Sequence[Job], rows: Sequence[Progress], stop: threading.Event
) -> list[Ended]:
    """Trains every job in a process of its own, as many at a time as there are cores.

    Args:
        jobs: what to train.
        rows: what each of them reports to.
        stop: set, it makes all of them stop after a checkpoint.
    """
    cores = usable_cores()
    workers = min(len(cores), len(jobs))
    free = [cores[i::workers] for i in range(workers)]
    waiting, running = list(range(len(jobs))), {}
    news: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
    ended: list[Ended] = [(None, None)] * len(jobs)
    try:
        while running or (waiting and not stop.is_set()):
            while waiting and free and not stop.is_set():
                i, own = waiting.pop(0), free.pop(0)
                running[i] = _start(jobs[i], own), own
                threading.Thread(target=_listen, args=(i, running[i][0], news), daemon=True).start()
            if stop.is_set():
                for process, _ in running.values():
                    with contextlib.suppress(OSError):  # it has ended by itself
                        process.stdin.close()
            with contextlib.suppress(queue.Empty):
                i, message = news.get(timeout=_INTERVAL_S)
                if message is not None:
                    _tell(rows[i], message)
                    ended[i] = _outcome(message, ended[i])
                else:
                    process, own = running.pop(i)
                    free.append(own)
                    if _end(process) != 0 and ended[i] == (None, None):
                        log = jobs[i].run_dir / OUTPUT
                        ended[i] = (
                            None,
                            f"its process ended with status {process.returncode}; see {log}",
                        )
                    if ended[i][1] is not None:
                        rows[i].say(f"seed {jobs[i].config.seed} failed: {ended[i][1]}")
    finally:
        for process, _ in running.values():
            process.kill()
            _end(process)
    return ended


def _start(job: Job, cores: list[int]) -> subprocess.Popen[str]:
    """A child on these cores, in a session of its own: the terminal's Ctrl-C reaches it through us
    only."""
    job.run_dir.mkdir(parents=True, exist_ok=True)
    env = (
        os.environ
        | {name: str(len(cores)) for name in _THREADS}
        | {
            name.upper(): str(value)
            for name in _KEPT
            if (value := jax.config.values[name]) is not None
        }
    )
    refuse_link(job.run_dir / OUTPUT)
    with (job.run_dir / OUTPUT).open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            env=env,
            start_new_session=True,
        )
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # not allowed here: the scheduler places it
            os.sched_setaffinity(process.pid, cores)
    assert process.stdin is not None
    order = {"config": to_json(job.config), "run_dir": str(job.run_dir), "resume": job.resume}
    with contextlib.suppress(BrokenPipeError):  # it has failed already, and will be found to
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
    return process


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
        pipe.write(summary=train(config, run_dir, pipe, resume=order["resume"], stop=stop))
    except Interrupted:
        pass
    except Exception as error:
        traceback.print_exc()
        pipe.write(error=in_words(error))
    if compiling():  # nobody needs that program any more
        sys.stderr.flush()
        os._exit(0)
