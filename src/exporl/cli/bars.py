"""Progress of one run or of several on one screen."""

import threading
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

INTERVAL_S = 10.0
"""Between two lines where nobody watches a bar."""


class Bars:
    """One bar with ETA per run on a terminal; elsewhere one line about all of them every few
    seconds."""

    def __init__(self, console: Console, interval_s: float = INTERVAL_S):
        self._console, self._interval_s, self._printed = console, interval_s, time.perf_counter()
        self._drawn = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._bars: list[Bar] = []
        self._lock = threading.Lock()

    def add(self, name: str) -> "Bar":
        """A new bar, for one run; without a name it is the only one, and shown once its first phase
        begins."""
        task = self._drawn.add_task(name, total=None, visible=bool(name), note="waiting")
        self._bars.append(Bar(self, name, task))
        return self._bars[-1]

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

    def say(self, message: str) -> None:
        """One line above the bars."""
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._console.is_terminal:
            self._drawn.stop()

    def _print_if_due(self) -> None:
        """Where nobody watches: one line about all runs, if the last one is long ago."""
        with self._lock:
            now = time.perf_counter()
            if not self._console.is_terminal and now - self._printed > self._interval_s:
                self._printed = now
                self.say(" | ".join(bar.line() for bar in self._bars))


class Bar:
    """What one run reports to: a `Progress` of `exporl.run.progress`."""

    def __init__(self, bars: Bars, name: str, task: TaskID):
        self.name, self.task, self.note, self._phase = name, task, "waiting", ""
        self.total, self.done, self._first, self._began = 1, 0, 0, 0.0
        self._bars = bars

    @property
    def label(self) -> str:
        """The run and its phase."""
        return f"{self.name} {self._phase}".strip()

    def phase(self, name: str, total: int, done: int) -> None:
        """A phase begins."""
        self._phase, self.total, self.done, self._first, self.note = name, total, done, done, ""
        self._began = time.perf_counter()
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
        made = self.done - self._first
        if not made:
            return self.label if self._phase else f"{self.name} {self.note}".strip()
        left = (time.perf_counter() - self._began) / made * (self.total - self.done)
        note = f", {self.note}" if self.note else ""
        return f"{self.label} {self.done}/{self.total}, about {left:.0f} s left{note}"


def only_bar(console: Console) -> Bar:
    """The bar of a run that has the screen for itself."""
    return Bars(console).add("")
