"""What a run tells while it goes on, and how it says times."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """What the loop reports to; the command line draws it."""

    def phase(self, name: str, total: int, done: int) -> None:
        """A phase of `total` steps begins, `done` of them already made."""

    def advance(self, steps: int, note: str) -> None:
        """`steps` more are done; `note` says how it goes."""

    def say(self, message: str) -> None:
        """One line worth reading."""


class Silent:
    """A `Progress` that shows nothing."""

    def phase(self, name: str, total: int, done: int) -> None:
        """Ignored."""

    def advance(self, steps: int, note: str) -> None:
        """Ignored."""

    def say(self, message: str) -> None:
        """Ignored."""


def duration(seconds: float) -> str:
    """A time to wait in words: 40 s, 12 min, 3.4 h; never none."""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
