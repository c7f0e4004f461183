"""File formats of recorded episodes: one file each, found by looking at the file.

`load_episodes(path)` reads any of them.
"""

import contextlib
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from exporl.data.episodes import Episode, Range, adapted, faults, kinds, owned
from exporl.data.formats import arrays, d4rl, hdf5, lerobot, minari, ogbench, pusht, robomimic
from exporl.data.formats.archives import archive_names
from exporl.data.formats.arrays import load_npz, save_npz
from exporl.data.formats.fields import refuse_stand_in
from exporl.data.formats.record import Format, ReadOptions, Record
from exporl.data.formats.success import ADVICE
from exporl.spec import Spec

FORMATS: dict[str, Format] = {
    record.name: record
    for record in (
        pusht.FORMAT,  # also has episode_ends, so it comes before arrays
        arrays.FORMAT,
        minari.FORMAT,
        lerobot.FORMAT,
        ogbench.FORMAT,
        d4rl.FORMAT,
        robomimic.FORMAT,
    )
}
"""Name -> format, in the order in which they are tried on an unknown file."""
FEW = 8
"""Names shown of what an unknown file holds."""

__all__ = [
    "FORMATS",
    "Format",
    "ReadOptions",
    "Record",
    "check_reading",
    "find_format",
    "load_episodes",
    "load_npz",
    "locate",
    "read_records",
    "save_npz",
]


def locate(path: Path) -> Path:
    """The path itself if there is something, otherwise the local Minari dataset that it is the id
    of.

    Raises:
        FileNotFoundError: there is neither; says where it was looked for.
        ValueError: it is a pipe or a device, which might never end; or no path at all.
    """
    path = Path(path)
    if path.is_file() or path.is_dir():
        return path
    if path.exists():
        raise ValueError(f"{path} is neither a file nor a folder. Give one of them.")
    if minari.is_id(path.as_posix()):
        return minari.resolve_id(path.as_posix())
    raise FileNotFoundError(
        f"no data file at {path}. Check the path, or leave it out to collect demonstrations."
    )


def find_format(path: Path, name: str | None = None) -> Format:
    """The format of a file or folder: the one named, or the first that it looks like.

    Raises:
        FileNotFoundError: there is nothing at that path.
        ValueError: an unknown name, or no format fits; lists what was tried.
        ModuleNotFoundError: the format's package is not installed; names the command that installs
            it.
    """
    if name is not None and name not in FORMATS:
        raise ValueError(f"unknown format {name!r}. Known: {', '.join(FORMATS)}.")
    path = locate(path)
    fitting = (
        [FORMATS[name]] if name is not None else [f for f in FORMATS.values() if f.matches(path)]
    )
    if not fitting:
        refuse_stand_in(path)
        raise ValueError(
            f"{path} is in no known format. {_content(path)}Known are {', '.join(FORMATS)} (see "
            "docs/data.md); name one with --format (in training --data.format) if it is. Otherwise "
            "read the arrays yourself, give them to exporl.from_arrays and write a file with "
            "exporl.save_npz."
        )
    found = fitting[0]
    if found.module is not None and importlib.util.find_spec(found.module) is None:
        raise ModuleNotFoundError(
            f"{path} is a {found.name} file and needs the package {found.module!r}. Install it "
            f"with: pip install 'exporl[{found.extra}]'"
        )
    return found


def check_reading(path: Path, format_name: str | None, options: ReadOptions) -> Format:
    """The format of a file or folder that is to be read with some options; nothing is read yet.

    Raises:
        FileNotFoundError, ModuleNotFoundError: see `find_format`.
        ValueError: no format fits, or it does not have one of the options.
    """
    found = find_format(path, format_name)
    for name in options.asked():
        if name not in found.options:
            has = (
                f"Its options are {', '.join(found.options)}." if found.options else "It has none."
            )
            others = ", ".join(each.name for each in FORMATS.values() if name in each.options)
            raise ValueError(
                f"{path} is read as {found.name}, which has no option {name} (that is for "
                f"{others}). {has} Leave {name} out, or name another format."
            )
    return found


def read_records(
    path: Path, format_name: str | None = None, options: ReadOptions | None = None
) -> Iterator[Record]:
    """The episodes of a file or folder in any format, not read yet.

    Raises:
        FileNotFoundError, ValueError, ModuleNotFoundError: see `check_reading`, or the file as a
            whole is damaged.
    """
    options = options or ReadOptions()
    return check_reading(path, format_name, options).records(locate(path), options)


def load_episodes(
    path: Path,
    limit: int | None = None,
    *,
    format_name: str | None = None,
    options: ReadOptions | None = None,
    adapt: Callable[[Episode], Episode] | None = None,
    spec: Spec | None = None,
    paid: Range = None,
    skip_bad: bool = False,
    say: Callable[[str], None] | None = None,
) -> list[Episode]:
    """Reads the first `limit` episodes (all by default) in file order.

    Args:
        path: a file or folder, or the id of a Minari dataset.
        limit: how many good episodes at most.
        format_name: a key of `FORMATS`; recognised by default.
        options: what to read.
        adapt: turns an episode as recorded into the task's units, see `Task.adapt`.
        spec: of the task that the episodes have to fit; any episode by default.
        paid: what its environment pays, see `Task.reward_range`; any rewards by default.
        skip_bad: leave out damaged episodes instead of stopping at the first; `say` is told which
            and how many.
        say: receives one line per message.

    Raises:
        FileNotFoundError, ModuleNotFoundError: see `find_format`.
        ValueError: the file is damaged, or an episode is and `skip_bad` is off; names file, episode
            and field.
    """
    say = say or _nothing
    episodes, notes = list[Episode](), list[tuple[str, str]]()
    skipped, records = 0, read_records(path, format_name, options)
    for record in records:
        if limit is not None and len(episodes) >= limit:
            # a few episodes must not keep all the file in memory
            episodes = [owned(episode) for episode in episodes]
            total = len(episodes) + skipped + 1 + sum(1 for _ in _rest(records))
            say(f"{path}: {len(episodes)} of its {total} episodes are used")
            break
        try:
            episode = adapted(record.read(), adapt)
            for fault in faults(episode, spec, paid):
                raise ValueError(fault)
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{path}, {record.name}: {error}") from error
            skipped += 1
            say(f"skipped {record.name}: {error}")
        else:
            episodes.append(episode)
            notes += [(record.name, note) for note in episode.notes]
    for message in _remarks(episodes, notes, adapt is not None):
        say(f"{path}: {message}")
    if skipped:
        say(f"skipped {skipped} damaged episodes of {path}, read {len(episodes)}")
    if not episodes:
        raise _nothing_usable(path, skipped)
    return episodes


def _nothing_usable(path: Path, skipped: int) -> ValueError:
    damaged = f" ({skipped} damaged)" if skipped else ""
    return ValueError(f"{path} has no usable episode{damaged}.")


def _remarks(
    episodes: list[Episode], notes: list[tuple[str, str]], for_a_task: bool
) -> Iterator[str]:
    """What is worth knowing before anything is learnt from these episodes."""
    for example, count, first in kinds(notes):
        yield f"{count} x, first in {first}: {example}"
    if for_a_task and episodes and not any(episode.success for episode in episodes):
        yield f"none of the {len(episodes)} episodes used is a success. {ADVICE}"


def _nothing(message: str) -> None:
    """Says nothing."""


def _rest(records: Iterator[Record]) -> Iterator[Record]:
    """The records that are left, up to where the file turns out to be damaged."""
    with contextlib.suppress(ValueError):
        yield from records


def _content(path: Path) -> str:
    """What a file or folder holds at its outermost, in a sentence; "" where that cannot be seen."""
    names = sorted(archive_names(path)) or hdf5.root_names(path)
    if not names and path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
    if not names:
        return ""
    few = ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")
    groups = [name for name in names if re.match(r"[A-Za-z_]*\d+\b", name)]
    each = " (one group per trajectory)" if len(groups) == len(names) else ""
    return f"It holds {few}{each}. "
