"""Progress of one run or of several on one screen."""

import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from exporl.cli.status import plain
from exporl.run.progress import duration

INTERVAL_S = 10.0
"""Between two lines where nobody watches a bar."""
WIDE = 100
"""Columns from which there is room for a bar beside the numbers."""


class Bars:
    """One bar with ETA per run on a terminal; elsewhere one line about all of them every few
    seconds."""

    def __init__(
        self,
        console: Console,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._console, self._interval_s = console, interval_s
        self._clock, self._printed = clock, clock()
        self._drawn = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            *([BarColumn(bar_width=20)] if console.width >= WIDE else []),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            # what does not fit is cut off here, not in the numbers before it
            TextColumn(
                "{task.fields[note]}",
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            console=console,
            get_time=clock,
            expand=True,
        )
        self._bars: list[Bar] = []
        self._lock = threading.Lock()

    def add(self, name: str) -> "Bar":
        """A new bar, for one run; without a name it is the only one, and shown once its first phase
        begins."""
        task = self._drawn.add_task(name, total=None, visible=bool(name), note="waiting")
        self._bars.append(Bar(self, name, task))
        return self._bars[-1]

    def drop(self, bar: "Bar") -> None:
        """Takes a bar off the screen: its run has ended."""
        self._bars.remove(bar)
        self._drawn.remove_task(bar.task)

    def begun(self, bar: "Bar") -> None:
        """Draws a bar from its start, with a new estimate of the time left."""
        if self._console.is_terminal:
            self._drawn.start()
        self._drawn.reset(
            bar.task,
            description=bar.label,
            total=bar.total,
            completed=bar.done,
            visible=True,
            note=bar.note,
        )
        self._print_if_due()

    def moved(self, bar: "Bar") -> None:
        """Draws a bar anew."""
        self._drawn.update(bar.task, completed=bar.done, note=bar.note)
        self._print_if_due()

    def left_s(self, bar: "Bar") -> float | None:
        """Seconds that a bar will take to its end, from the speed of its last steps; None as long
        as that is not known."""
        drawn = next(task for task in self._drawn.tasks if task.id == bar.task)
        return None if drawn.time_remaining is None else float(drawn.time_remaining)

    def say(self, message: str) -> None:
        """One line above the bars."""
        self._console.print(plain(message), highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._console.is_terminal:
            self._drawn.stop()

    def _print_if_due(self) -> None:
        """Where nobody watches: one line about all runs, if the last one is long ago."""
        with self._lock:
            now = self._clock()
            if not self._console.is_terminal and now - self._printed > self._interval_s:
                self._printed = now
                self.say(" | ".join(bar.line() for bar in self._bars))


class Bar:
    """What one run reports to: a `Progress` of `exporl.run.progress`."""

    def __init__(self, bars: Bars, name: str, task: TaskID):
        self.name, self.task, self.note, self._phase = name, task, "waiting", ""
        self.total, self.done = 1, 0
        self._bars = bars

    @property
    def label(self) -> str:
        """The run and its phase."""
        return f"{self.name} {self._phase}".strip()

    def phase(self, name: str, total: int, done: int) -> None:
        """A phase begins."""
        self._phase, self.total, self.done, self.note = name, total, done, ""
        self._bars.begun(self)

    def advance(self, steps: int, note: str) -> None:
        """Some steps are done."""
        self.done, self.note = self.done + steps, note or self.note
        self._bars.moved(self)

    def say(self, message: str) -> None:
        """One line, with the name of the run if it has one."""
        self._bars.say(f"{self.name}: {message}" if self.name else message)

    def close(self) -> None:
        """Leaves the terminal as it was; the next phase draws again."""
        self._bars.close()

    def line(self) -> str:
        """Where the run stands, as text."""
        if not self._phase:
            return f"{self.name} {self.note}".strip()
        left = self._bars.left_s(self) if self.done < self.total else None
        parts = [f"{self.label} {self.done}/{self.total}"]
        parts += [] if left is None else [f"about {duration(left)} left"]
        return ", ".join(parts + ([self.note] if self.note else []))


def only_bar(console: Console) -> Bar:
    """The bar of a run that has the screen for itself."""
    return Bars(console).add("")
