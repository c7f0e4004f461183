"""How long the runs of a suite take: from those that are finished, from what its file says, and
from those that go on."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from exporl.bench.grid import PlannedRun, of_pairs
from exporl.bench.results import seconds_of

Pair = tuple[str, str]


class Pace(NamedTuple):
    """Seconds per step of one algorithm on one task."""

    seconds: float | None
    """None where nothing is known."""
    source: str
    """Where it is from, in a few words."""


def paces(runs: Sequence[PlannedRun]) -> dict[Pair, Pace]:
    """Algorithm and task -> seconds per step: the mean of finished runs, or else what the suite's
    file says."""
    return {pair: _pace(group) for pair, group in of_pairs(runs).items()}


def _pace(group: Sequence[PlannedRun]) -> Pace:
    measured = [
        seconds / run.steps
        for run in group
        if run.steps and run.summary and (seconds := seconds_of(run.run_dir)) is not None
    ]
    if measured:
        return Pace(sum(measured) / len(measured), f"measured, {len(measured)} finished")
    given = group[0].asked.seconds_per_step
    return Pace(given, "the suite's file") if given is not None else Pace(None, "not known yet")


class Clock:
    """The time that is left of a suite, while it goes on."""

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        known: dict[Pair, Pace],
        at_once: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._runs, self._at_once, self._clock = list(runs), at_once, clock
        self._seconds = {pair: pace.seconds for pair, pace in known.items()}
        self._left = {i: 1.0 for i in range(len(runs))}
        self._begun: dict[int, tuple[float, int]] = {}

    def phase(self, i: int, name: str, total: int, done: int) -> None:
        """A phase of a run begins. What is left is told by its last: the environment steps, or
        imitation where there are none."""
        self._begun.pop(i, None)
        config = self._runs[i].config
        if name == (config.algorithm if config.train.online_steps else "imitation"):
            self._begun[i] = self._clock(), done
            self._left[i] = 1 - done / max(total, 1)

    def moved(self, i: int, done: int) -> None:
        """A run has made so many steps of its phase."""
        if i not in self._begun:
            return
        run, (since, before) = self._runs[i], self._begun[i]
        self._left[i] = 1 - done / max(run.steps, 1)
        if done > before and self._seconds.get(run.asked.pair) is None:
            self._seconds[run.asked.pair] = (self._clock() - since) / (done - before)

    def ended(self, i: int, seconds: float | None = None) -> None:
        """A run has ended, however it did; `seconds` is what it took where it finished."""
        self._left[i], run = 0.0, self._runs[i]
        if seconds is not None and run.steps:
            self._seconds[run.asked.pair] = seconds / run.steps

    def left_s(self) -> float | None:
        """Seconds until all runs have ended; None as long as no speed is known. Runs of unknown
        speed count like the mean of the others per step."""
        known = [seconds for seconds in self._seconds.values() if seconds is not None]
        if not known:
            return None
        mean = sum(known) / len(known)
        each = []
        for i, run in enumerate(self._runs):
            seconds = self._seconds.get(run.asked.pair)
            each.append(self._left[i] * run.steps * (mean if seconds is None else seconds))
        return max(sum(each) / self._at_once, max(each, default=0.0))
