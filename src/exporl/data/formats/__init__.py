"""File formats of recorded episodes: one file each, found by looking at the file.

`load_episodes(path)` reads any of them.
"""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

from exporl.data.episodes import Episode, faults, owned
from exporl.data.formats import arrays, d4rl, lerobot, minari, ogbench, pusht, robomimic
from exporl.data.formats.arrays import load_npz, save_npz
from exporl.data.formats.record import Format, ReadOptions, Record
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

__all__ = [
    "FORMATS",
    "Format",
    "ReadOptions",
    "Record",
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
    """
    path = Path(path)
    if path.exists():
        return path
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
        known = "; ".join(f"{f.name}: {f.summary}" for f in FORMATS.values())
        raise ValueError(
            f"{path} is in no known format ({known}). Name one with --format if it is."
        )
    found = fitting[0]
    if found.module is not None and importlib.util.find_spec(found.module) is None:
        raise ModuleNotFoundError(
            f"{path} is a {found.name} file and needs the package {found.module!r}. Install it "
            f"with: pip install 'exporl[{found.extra}]'"
        )
    return found


def read_records(
    path: Path, format_name: str | None = None, options: ReadOptions | None = None
) -> Iterator[Record]:
    """The episodes of a file or folder in any format, not read yet.

    Raises:
        FileNotFoundError, ValueError, ModuleNotFoundError: see `find_format`, or the file as a
            whole is damaged.
    """
    return find_format(path, format_name).records(locate(path), options or ReadOptions())


def load_episodes(
    path: Path,
    limit: int | None = None,
    *,
    format_name: str | None = None,
    options: ReadOptions | None = None,
    adapt: Callable[[Episode], Episode] | None = None,
    spec: Spec | None = None,
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
        skip_bad: leave out damaged episodes instead of stopping at the first; `say` is told which
            and how many.
        say: receives one line per message.

    Raises:
        FileNotFoundError, ModuleNotFoundError: see `find_format`.
        ValueError: the file is damaged, or an episode is and `skip_bad` is off; names file, episode
            and field.
    """
    episodes: list[Episode] = []
    skipped = 0
    for record in read_records(path, format_name, options):
        if limit is not None and len(episodes) >= limit:
            # a few episodes must not keep all the file in memory
            episodes = [owned(episode) for episode in episodes]
            break
        try:
            episode = record.read()
            episode = episode if adapt is None else adapt(episode)
            for fault in faults(episode, spec):
                raise ValueError(fault)
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{path}, {record.name}: {error}") from error
            skipped += 1
            if say is not None:
                say(f"skipped {record.name}: {error}")
        else:
            episodes.append(episode)
    if skipped and say is not None:
        say(f"skipped {skipped} damaged episodes of {path}, read {len(episodes)}")
    if not episodes:
        raise ValueError(
            f"{path} has no usable episode" + (f" ({skipped} damaged)." if skipped else ".")
        )
    return episodes
