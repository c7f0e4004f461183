"""Making the trials of a search, a few runs at a time: which options come next, which trials end
early, and what each was worth."""

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from exporl.bench.fingerprint import library_code
from exporl.bench.grid import PlannedRun
from exporl.bench.pace import Clock, paces
from exporl.bench.results import seconds_of
from exporl.bench.running import (
    AGAIN,
    ELSEWHERE,
    Row,
    check_source,
    checked_code,
    left_over,
    note_code,
)
from exporl.bench.search_file import Search
from exporl.bench.space import checked_space, trial_runs, write_best
from exporl.bench.suite import Suite
from exporl.bench.trial_table import about_best
from exporl.bench.trial_values import Progression
from exporl.bench.trials import (
    COMPLETE,
    FAILED,
    PRUNED,
    RUNNING,
    Trial,
    Trials,
    best_of,
    load_optuna,
)
from exporl.files.lock import locked
from exporl.files.undo import clear_refused
from exporl.parallel.processes import Ended, Job, Skipped, Start, run_processes
from exporl.run.progress import Progress


class TrialOutcome(NamedTuple):
    """How a trial of a search ended."""

    trial: Trial
    best: Trial | None
    """The best one by now."""
    done: int
    """Trials that count by now."""
    left_s: float | None
    """Seconds until the whole search is done, where that is known."""


def run_search(
    suite: Suite,
    template: Sequence[PlannedRun],
    stop: threading.Event,
    *,
    at_once: int,
    allowed: Sequence[str],
    row: Callable[[PlannedRun], Progress],
    say: Callable[[str], None],
    told: Callable[[TrialOutcome], None],
    start: Start | None = None,
) -> list[Trial]:
    """Makes the trials that are missing. Those that were running when an earlier command ended go
    on, under their numbers.

    Args:
        suite: a suite with a search.
        template: its runs without a trial's options, checked.
        stop: set, it ends all runs after a checkpoint; their trials go on with the next command.
        at_once: processes at a time, each with its share of the cores.
        allowed: what may differ between the runs there are and the code now: "version" at most.
        row: makes what a run reports to.
        say: told what there is to know beside that.
        told: told of each trial's end.
        start: starts a run somewhere else; by default in a process on this machine.

    Returns:
        All trials, also those of earlier commands.

    Raises:
        ValueError: options that cannot be searched, a search that was begun with other settings,
            runs that were made with something else, or another process works on the suite.
        ModuleNotFoundError: Optuna is not installed.
    """
    assert suite.search is not None
    if "configuration" in allowed:
        raise ValueError(
            "--allow configuration is not for a search: its trials were judged by the steps that "
            "they had. Give the search another folder."
        )
    load_optuna()
    search = checked_space(suite, suite.search, template)
    with locked(suite.folder, ELSEWHERE), left_over(suite.folder, say, stop) as inherited:
        trials = Trials(suite.folder, search, _settings(suite, search))
        found = trials.listed()
        counting = [trial for trial in found if trial.state != FAILED]
        source = checked_code(suite, list(_begun_runs(suite, counting)), allowed)
        begun = [trial.number for trial in found if trial.state == RUNNING]
        slots: list[int | None] = [*begun, *[None] * (search.trials - len(counting))]
        team = _Searching(suite, search, template, trials, slots, at_once, row, told, source)
        if slots and not stop.is_set():
            team.run(stop, at_once, inherited, start)
        team.keep_best()
        if team.refused is not None:
            raise team.refused
        return trials.listed()


def _begun_runs(suite: Suite, trials: Sequence[Trial]) -> Iterator[PlannedRun]:
    """The runs of trials that there may be."""
    for trial in trials:
        with contextlib.suppress(ValueError):  # options that contradict each other: none began
            yield from trial_runs(suite, trial.number, trial.options)


def _settings(suite: Suite, search: Search) -> dict[str, Any]:
    runs = [[asked.task, asked.seed] for asked in suite.runs]
    return {**search.plain(), "runs": runs, "measure": suite.measure, "window": suite.window}


class _Slot:
    """A place for a trial: chosen when its first run begins."""

    def __init__(self, number: int | None):
        self.number = number
        """Of a trial that goes on, or of the one that was chosen."""
        self.runs: list[PlannedRun] = []
        self.over = False
        self.progression: Progression | None = None


class _Searching:
    """The trials that are to be made: job i is run i % width of the trial in slot i // width."""

    def __init__(
        self,
        suite: Suite,
        search: Search,
        template: Sequence[PlannedRun],
        trials: Trials,
        slots: Sequence[int | None],
        at_once: int,
        row: Callable[[PlannedRun], Progress],
        told: Callable[[TrialOutcome], None],
        source: str,
    ):
        self.suite, self.search, self.trials = suite, search, trials
        self.slots = [_Slot(number) for number in slots]
        self.width = len(template)
        self.all = [run for _ in slots for run in template]
        self.clock = Clock(self.all, paces(template), at_once)
        self.rows = [Row(i, row, run, self.clock) for i, run in enumerate(self.all)]
        self.refused: ValueError | None = None
        """Why nothing more was begun."""
        self._told, self._source = told, source

    def run(
        self,
        stop: threading.Event,
        at_once: int,
        inherited: Sequence[int],
        start: Start | None,
    ) -> None:
        """Makes all of them."""
        run_processes(
            [Job(run.config, run.run_dir, False) for run in self.all],
            self.rows,
            stop,
            at_once=at_once,
            again=AGAIN,
            begin=self._begin,
            evaluated=self._evaluated,
            end=self._end,
            inherited=inherited,
            start=start,
        )

    def _jobs(self, slot: _Slot) -> range:
        first = self.slots.index(slot) * self.width
        return range(first, first + self.width)

    def _begin(self, i: int) -> Job:
        """The job of a run, whose trial is chosen now if it is the first of it.

        Raises:
            Skipped: the trial is over, the run was finished by an earlier command, or the source
                was changed.
            ValueError: the trial's options contradict each other.
        """
        library = library_code()
        if self.refused is None:
            self.refused = check_source(self._source, library)
        if self.refused is not None:
            raise Skipped
        slot = self.slots[i // self.width]
        if slot.progression is None:
            self._choose(slot)
        if slot.over:
            raise Skipped
        run = slot.runs[i % self.width]
        if run.summary is not None:
            raise Skipped
        note_code(self.suite, run, library)
        self.rows[i].run = run
        return Job(run.config, run.run_dir, run.begun)

    def _choose(self, slot: _Slot) -> None:
        """A slot gets its trial; one that goes on is judged by what it has already.

        Raises:
            ValueError: its options contradict each other.
        """
        trial = self.trials.begin() if slot.number is None else self.trials.go_on(slot.number)
        slot.number = trial.number
        slot.progression = Progression(self.suite, self.search.objective, trial.reported)
        slot.runs = trial_runs(self.suite, trial.number, trial.options)
        self._judge(slot)

    def _evaluated(self, i: int) -> Collection[int]:
        """A run has made an evaluation; the jobs that are to stop."""
        slot = self.slots[i // self.width]
        if not slot.over:
            self._judge(slot)
        return self._jobs(slot) if slot.over else ()

    def _judge(self, slot: _Slot) -> None:
        """Reports what all runs of a trial have by now, and ends it where it is to end early, or
        where nothing is left of it to make."""
        assert slot.progression is not None and slot.number is not None
        # looked at first: the files of a run that is finished hold all of its evaluations
        finished = all(run.summary is not None for run in slot.runs)
        for evaluation, value, last in slot.progression.news(slot.runs):
            if self.trials.report(slot.number, evaluation, value) and not last:
                self.trials.prune(slot.number)
                self._over(slot)
                return
        if finished:
            self.trials.complete(slot.number, slot.progression.value(slot.runs))
            self._over(slot)

    def _end(self, i: int, ended: Ended) -> None:
        summary, error = ended
        slot = self.slots[i // self.width]
        run = slot.runs[i % self.width] if slot.runs else None
        took = seconds_of(run.run_dir) if run is not None and summary is not None else None
        self.clock.ended(i, took)
        self.rows[i].close()
        if slot.over or slot.number is None:
            return
        if error is not None:
            if run is not None:
                clear_refused(run.run_dir)
            self.trials.fail(slot.number, error if run is None else f"{run.asked.name}: {error}")
            self._over(slot)
        elif summary is not None:
            self._judge(slot)

    def _over(self, slot: _Slot) -> None:
        """A trial has ended, however it did."""
        slot.over = True
        for i in self._jobs(slot):
            self.clock.ended(i)
        found = self.keep_best()
        best = best_of(found)
        assert slot.number is not None
        trial = found[slot.number]
        done = sum(each.state in (COMPLETE, PRUNED) for each in found)
        self._told(TrialOutcome(trial, best, done, self.clock.left_s()))

    def keep_best(self) -> list[Trial]:
        """Writes the best configuration by now, where there is one; all trials."""
        found = self.trials.listed()
        best, about = best_of(found), about_best(self.suite, found)
        if best is not None and about is not None:
            write_best(self.suite, best.options, about)
        return found
