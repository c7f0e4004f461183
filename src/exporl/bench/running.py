"""Making the runs of a suite: those that are not finished, a few at a time, whatever happens to
them."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from exporl.bench.fingerprint import (
    check_unmixed,
    code_of,
    keep_print,
    library_code,
    mismatches,
)
from exporl.bench.grid import PlannedRun
from exporl.bench.pace import Clock, paces
from exporl.bench.results import seconds_of
from exporl.bench.suite import Suite
from exporl.files.atomic import refuse_link
from exporl.files.lock import locked
from exporl.files.undo import clear_refused
from exporl.parallel.processes import Ended, Job, Start, run_processes
from exporl.run.progress import Progress

try:
    import fcntl
except ImportError:  # a system without it (Windows): what is left over there is not noticed
    fcntl = None

CHILDREN = ".children"
"""File in a suite's folder that its processes hold open until they end."""
AGAIN = 1
"""How often a run whose process was killed goes on by itself."""
WAIT_S = 0.5
ELSEWHERE = "Say another folder in the suite's file."
"""What to do where a suite's folder cannot be written."""


class Outcome(NamedTuple):
    """How a run of a suite ended."""

    run: PlannedRun
    ended: Ended
    place: int
    """Its turn among the runs of the suite that have ended, from 1."""
    of: int
    """Runs of the suite."""
    left_s: float | None
    """Seconds until the whole suite is done, where that is known."""


def run_suite(
    suite: Suite,
    runs: Sequence[PlannedRun],
    stop: threading.Event,
    *,
    at_once: int,
    allowed: Sequence[str],
    row: Callable[[PlannedRun], Progress],
    say: Callable[[str], None],
    told: Callable[[Outcome], None],
    start: Start | None = None,
) -> list[Outcome]:
    """Makes all runs that are not finished.

    Args:
        suite: the suite.
        runs: its runs, checked.
        stop: set, it ends all of them after a checkpoint.
        at_once: processes at a time, each with its share of the cores.
        allowed: what may differ between the runs there are and the code and file now:
            `prints.ALLOWED`.
        row: makes what a run reports to.
        say: told what there is to know beside that.
        told: told of each run's end.
        start: starts a run somewhere else; by default in a process on this machine.

    Returns:
        The runs that ended; (None, None) are those that were stopped, or not begun because of it.

    Raises:
        ValueError: runs were made with something else than they would be made with now, or another
            process works on the suite.
    """
    with locked(suite.folder, ELSEWHERE), left_over(suite.folder, say, stop) as inherited:
        source = checked_code(suite, runs, allowed)
        waiting = [run for run in runs if run.summary is None]
        clock = Clock(waiting, paces(runs), at_once)
        team = _Team(suite, waiting, len(runs), clock, row, told, source)
        if stop.is_set() or not waiting:
            return team.outcomes
        team.run(stop, at_once, inherited, start)
        return team.outcomes


def checked_code(suite: Suite, runs: Sequence[PlannedRun], allowed: Sequence[str]) -> str:
    """The digest of the source, after a look at whether the runs that have begun were made with it
    and with their configurations.

    Raises:
        ValueError: they differ in what is not allowed.
    """
    library = library_code()
    found = [
        each for run in runs for each in mismatches(suite.folder, run, code_of(run.config, library))
    ]
    check_unmixed(found, allowed)
    return library["source"]


def note_code(suite: Suite, run: PlannedRun, library: Mapping[str, Any]) -> None:
    """Notes what a run is made with, as it is now."""
    keep_print(suite.folder, run, code_of(run.config, library))


def check_source(source: str, library: Mapping[str, Any]) -> ValueError | None:
    """The error that nothing more begins with, where the source was changed since a suite was
    started.

    Args:
        source: what it was then.
        library: what it is now.
    """
    if library["source"] == source:
        return None
    return ValueError(
        f"the source of exporl was changed while the suite ran, from {source} to "
        f"{library['source']}: not begun. Start the suite again; it says what to do."
    )


class _Team:
    """The runs that are to be made, their rows, and how they end."""

    def __init__(
        self,
        suite: Suite,
        runs: Sequence[PlannedRun],
        of: int,
        clock: Clock,
        row: Callable[[PlannedRun], Progress],
        told: Callable[[Outcome], None],
        source: str,
    ):
        self.suite, self.runs, self.of, self.clock = suite, list(runs), of, clock
        self.outcomes: list[Outcome] = []
        self.rows = [Row(i, row, run, self.clock) for i, run in enumerate(self.runs)]
        self._told, self._source = told, source

    def run(
        self,
        stop: threading.Event,
        at_once: int,
        inherited: Sequence[int],
        start: Start | None,
    ) -> None:
        """Makes all of them."""
        jobs = [Job(run.config, run.run_dir, run.begun) for run in self.runs]
        run_processes(
            jobs,
            self.rows,
            stop,
            at_once=at_once,
            again=AGAIN,
            begin=self._begin,
            end=self._end,
            inherited=inherited,
            start=start,
        )

    def _begin(self, i: int) -> None:
        """Notes what a run is made with.

        Raises:
            ValueError: the source was changed since the suite was started.
        """
        library = library_code()
        if (changed := check_source(self._source, library)) is not None:
            raise changed
        note_code(self.suite, self.runs[i], library)

    def _end(self, i: int, ended: Ended) -> None:
        took = seconds_of(self.runs[i].run_dir) if ended[0] is not None else None
        self.clock.ended(i, took)
        self.rows[i].close()
        if ended[1] is not None:
            clear_refused(self.runs[i].run_dir)
        place = self.of - len(self.runs) + len(self.outcomes) + 1
        outcome = Outcome(self.runs[i], ended, place, self.of, self.clock.left_s())
        self.outcomes.append(outcome)
        self._told(outcome)


class Row:
    """What one run reports to: its own progress, made when it begins, and the clock of the
    suite."""

    def __init__(
        self, i: int, row: Callable[[PlannedRun], Progress], run: PlannedRun, clock: Clock
    ):
        self.run = run
        """The run that the row is about; another one until the row is made."""
        self._i, self._make, self._clock = i, row, clock
        self._made: Progress | None = None
        self._done = 0

    def _shown(self) -> Progress:
        if self._made is None:
            self._made = self._make(self.run)
        return self._made

    def phase(self, name: str, total: int, done: int) -> None:
        """A phase begins."""
        self._done = done
        self._clock.phase(self._i, name, total, done)
        self._shown().phase(name, total, done)

    def advance(self, steps: int, note: str) -> None:
        """Some steps are done."""
        self._done += steps
        self._clock.moved(self._i, self._done)
        self._shown().advance(steps, note)

    def say(self, message: str) -> None:
        """One line."""
        self._shown().say(message)

    def close(self) -> None:
        """The run has ended."""
        close = getattr(self._made, "close", None)
        if close is not None:
            close()


@contextlib.contextmanager
def left_over(
    folder: Path, say: Callable[[str], None], stop: threading.Event
) -> Iterator[tuple[int, ...]]:
    """While it lasts, an open file for the suite's processes to inherit. It begins once those of an
    earlier command, which may have been killed, have ended: they hold the same file."""
    if fcntl is None:
        yield ()
        return
    refuse_link(folder / CHILDREN)
    descriptor = os.open(folder / CHILDREN, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _wait(descriptor, say, stop)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield (descriptor,)
    finally:
        os.close(descriptor)


def _wait(descriptor: int, say: Callable[[str], None], stop: threading.Event) -> None:
    """Until nobody else holds the file, or a stop."""
    assert fcntl is not None
    said = False
    while not stop.is_set():
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not said:
                say("runs of an earlier `exporl bench` are still saving: waiting for their end")
            said = True
            stop.wait(WAIT_S)
