"""What a run tells while it goes on."""

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
