"""What a file format of episodes is to this library."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from exporl.data.episodes import Episode


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """What to read of a file; `Format.options` says which of them a format has."""

    keys: tuple[str, ...] = ()
    """Observation entries to read, in this order; all of them by default."""
    filter_key: str | None = None
    """robomimic: read only the demonstrations listed under `mask/<filter_key>`."""
    horizon: int | None = None
    """Flat recordings (D4RL, arrays) that mark no time limits: episodes end after so many steps."""
    images: bool = False
    """Also decode image observations stored as video (LeRobot)."""
    assume_success: bool = False
    """All episodes are successful demonstrations: their last step succeeds where neither success
    nor reward is recorded (LeRobot)."""

    def asked(self) -> tuple[str, ...]:
        """The names of the options that are not at their defaults."""
        given = ((field.name, field.default) for field in dataclasses.fields(self))
        return tuple(name for name, default in given if getattr(self, name) != default)


class Record(NamedTuple):
    """One episode in a file, not read yet: a file is never held twice, and one bad episode does not
    hide the others."""

    name: str
    """As the file calls it, such as "demo_12"."""
    read: Callable[[], Episode]
    """Reads and checks it. Raises ValueError naming field and fault (not the file and not the
    episode)."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A reader, and where there is one a writer, as functions."""

    name: str
    summary: str
    """What it is and which versions, in one line."""
    matches: Callable[[Path], bool]
    """Whether a file or folder looks like this format, from its name and outermost structure. Never
    raises."""
    records: Callable[[Path, ReadOptions], Iterator[Record]]
    """(path, options) -> its episodes in order. Raises ValueError for faults of the file as a
    whole."""
    write: Callable[[Path, Iterable[Episode]], None] | None = None
    """(path, episodes): written new under a temporary name, then renamed."""
    endings: tuple[str, ...] = ()
    """Endings of file names that ask for it when a file is written; "" is a name without one."""
    module: str | None = None
    """Package that must be installed to use it."""
    extra: str | None = None
    """The extra of this distribution that installs it."""
    options: tuple[str, ...] = ()
    """Names of the `ReadOptions` that it heeds; others are refused."""
