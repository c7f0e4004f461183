"""Progress on the terminal."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

INTERVAL_S = 10.0
"""Between two lines where nobody watches a bar."""


class Drawn:
    """Progress with ETA: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, console: Console):
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=console,
        )  # fmt: skip
        self._task, self._name, self._note, self._done, self._first, self._total = None, "", "", 0, 0, 1
        self._began = self._printed = time.perf_counter()
        if console.is_terminal:
            self._bar.start()

    def phase(self, name: str, total: int, done: int) -> None:
        """A phase begins."""
        self._name, self._total, self._done, self._first, self._note = name, total, done, done, ""
        self._began = self._printed = time.perf_counter()
        if self._task is not None:
            self._bar.update(self._task, visible=False)
        self._task = self._bar.add_task(name, total=total, completed=done, note="")

    def advance(self, steps: int, note: str) -> None:
        """Some steps are done."""
        self._note, self._done = note or self._note, self._done + steps
        assert self._task is not None
        self._bar.update(self._task, advance=steps, note=self._note)
        now = time.perf_counter()
        if not self._console.is_terminal and now - self._printed > INTERVAL_S:
            self._printed = now
            left = (now - self._began) / max(self._done - self._first, 1) * (self._total - self._done)
            share = f"{self._done}/{self._total}"
            self._console.print(f"{self._name} {share}, about {left:.0f} s left, {self._note}", highlight=False)

    def say(self, message: str) -> None:
        """One line above the bar."""
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        self._bar.stop()
