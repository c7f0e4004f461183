"""Progress of several runs on one screen."""

import threading
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

INTERVAL_S = 10.0


class Board:
    """One bar with ETA per run on a terminal; elsewhere one line about all of them every few seconds."""

    def __init__(self, console: Console, interval_s: float = INTERVAL_S):
        self._console, self._interval_s, self._printed = console, interval_s, time.perf_counter()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=console,
        )  # fmt: skip
        self._rows: list[Row] = []
        self._lock = threading.Lock()
        if console.is_terminal:
            self._bar.start()

    def row(self, name: str) -> "Row":
        """A new row, for one run."""
        self._rows.append(Row(self, name, self._bar.add_task(name, total=None, note="waiting")))
        return self._rows[-1]

    def changed(self, row: "Row") -> None:
        """Draws a row anew, or prints all of them if the last time is long ago."""
        label = f"{row.name} {row.phase_name}"
        self._bar.update(row.task, description=label, total=row.total, completed=row.done, note=row.note)
        with self._lock:
            now = time.perf_counter()
            if not self._console.is_terminal and now - self._printed > self._interval_s:
                self._printed = now
                self.say(" | ".join(each.line() for each in self._rows))

    def say(self, message: str) -> None:
        """One line above the bars."""
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._console.is_terminal:
            self._bar.stop()


class Row:
    """What one run reports to."""

    def __init__(self, board: Board, name: str, task: TaskID):
        self.name, self.task, self.phase_name, self.note = name, task, "", "waiting"
        self.total, self.done, self._first, self._began = 1, 0, 0, 0.0
        self._board = board

    def phase(self, name: str, total: int, done: int) -> None:
        """A phase begins."""
        self.phase_name, self.total, self.done, self._first, self.note = name, total, done, done, ""
        self._began = time.perf_counter()
        self._board.changed(self)

    def advance(self, steps: int, note: str) -> None:
        """Some steps are done."""
        self.done, self.note = self.done + steps, note or self.note
        self._board.changed(self)

    def say(self, message: str) -> None:
        """One line, with the name of the run."""
        self._board.say(f"{self.name}: {message}")

    def line(self) -> str:
        """Where the run stands, as text."""
        made = self.done - self._first
        if not made:
            return f"{self.name} {self.phase_name or self.note}"
        left = (time.perf_counter() - self._began) / made * (self.total - self.done)
        note = f", {self.note}" if self.note else ""
        return f"{self.name} {self.phase_name} {self.done}/{self.total}, about {left:.0f} s left{note}"
