"""From one file of episodes to another, one episode at a time."""

import dataclasses
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from exporl.data.episodes import Episode, faults
from exporl.data.formats import FORMATS, Format
from exporl.data.formats.record import Record
from exporl.files.naming import make_folder_of


@dataclasses.dataclass
class Written:
    """What went into a file."""

    path: Path
    format: str
    episodes: int = 0
    steps: int = 0
    successes: int = 0
    skipped: int = 0
    changed: int = 0
    """Episodes whose actions were clipped."""
    bytes: int = 0
    notes: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """(episode, sentence): what was left out of what was read, or is not known."""


def find_writer(path: Path, name: str | None = None) -> Format:
    """The format to write: the one named, or the one that the file name's ending stands for.

    Raises:
        ValueError: unknown, cannot be written, or the ending says nothing.
    """
    writers = [format_name for format_name, record in FORMATS.items() if record.write is not None]
    if name is None:
        ending = Path(path).suffix.lower()
        name = next((writer for writer in writers if ending in FORMATS[writer].endings), None)
        if name is None:
            raise ValueError(
                f"the name {path} does not say which format to write. Add --to {'|'.join(writers)}."
            )
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}. These can be written: {', '.join(writers)}.")
    if name not in writers:
        raise ValueError(
            f"format {name!r} can be read but not written. These can: {', '.join(writers)}."
        )
    return FORMATS[name]


def action_range(
    episodes: Iterable[Episode], source: str = "the data"
) -> tuple[np.ndarray, np.ndarray]:
    """(smallest, largest) action per dimension over all episodes, [a] each.

    Args:
        episodes: to look at.
        source: where they are from, for messages.

    Raises:
        ValueError: there is no finite action.
    """
    finite = (e.actions[np.isfinite(e.actions).all(axis=-1)] for e in episodes)
    ends = [(np.min(rows, axis=0), np.max(rows, axis=0)) for rows in finite if len(rows)]
    if not ends:
        raise ValueError(f"{source} has no readable episode to take the range of actions from.")
    return np.min([low for low, _ in ends], axis=0), np.max([high for _, high in ends], axis=0)


def given_range(
    numbers: Sequence[float],
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """(low, high) of actions as they were asked for: one pair for all dimensions, or the lows of
    every dimension and then the highs.

    Raises:
        ValueError: not in pairs, or a low that is not below its high.
    """
    half = len(numbers) // 2
    low, high = np.array(numbers[:half]), np.array(numbers[half:])
    finite = all(map(math.isfinite, numbers))
    if not numbers or len(numbers) % 2 or not finite or not (low < high).all():
        raise ValueError(
            "--scale-actions takes LOW and HIGH with LOW < HIGH, both finite, or nothing, or the "
            "LOWs of all dimensions and then the HIGHs; got "
            f"{[float(number) for number in numbers]}."
        )
    return (low, high) if half > 1 else (float(low[0]), float(high[0]))


def scale_actions(episode: Episode, low: np.ndarray | float, high: np.ndarray | float) -> Episode:
    """Maps [low, high] to [-1, 1] per dimension; a dimension that never changes becomes 0.

    Raises:
        ValueError: the range has another number of dimensions, or the actions are known to be in
            [-1, 1] already.
    """
    if episode.unit_actions:
        raise ValueError(
            "the file says that its actions are in [-1, 1] already: they would be scaled a second "
            "time. Leave --scale-actions out."
        )
    dims = episode.actions.shape[-1]
    if np.ndim(low) and len(np.ravel(low)) != dims:
        raise ValueError(
            f"--scale-actions has a range for {len(np.ravel(low))} dimensions, actions have {dims}."
        )
    width = np.asarray(high, np.float64) - low
    scaled = 2 * (episode.actions - np.asarray(low, np.float64)) / np.where(width > 0, width, 1) - 1
    actions = np.where(width > 0, scaled, 0).astype(np.float32)
    return dataclasses.replace(episode, actions=actions, unit_actions=True)


def clip_actions(
    episode: Episode, low: np.ndarray | float = -1.0, high: np.ndarray | float = 1.0
) -> Episode:
    """Moves actions outside [low, high] to the nearest bound; the same episode where none is."""
    actions = np.clip(episode.actions, low, high).astype(episode.actions.dtype)
    same = np.array_equal(actions, episode.actions, equal_nan=True)
    return episode if same else dataclasses.replace(episode, actions=actions)


def good_episodes(
    records: Iterable[Record],
    written: Written,
    *,
    change: Callable[[Episode], Episode] = lambda episode: episode,
    clip: Callable[[Episode], Episode] | None = None,
    limit: int | None = None,
    skip_bad: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Episode]:
    """Episodes without faults, counted in `written` as they pass.

    Args:
        records: of a file, see `read_records`.
        written: the tally.
        change: applied to every episode first.
        clip: applied before it: moves actions outside their bounds to the nearest one.
        limit: how many episodes at most.
        skip_bad: leave damaged ones out, and say which, instead of stopping.
        say: receives one line per message.

    Raises:
        ValueError: a damaged episode, named, and `skip_bad` is off.
    """
    for record in records:
        if limit is not None and written.episodes >= limit:
            return
        try:
            recorded = record.read()
            clipped = recorded if clip is None else clip(recorded)
            written.changed += clipped is not recorded
            episode = change(clipped)
            for fault in faults(episode):
                raise ValueError(fault)
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{record.name}: {error}") from error
            written.skipped += 1
            say(f"skipped {record.name}: {error}")
            continue
        asked = (episode.question,) if episode.question else ()
        written.notes += [(record.name, note) for note in (*episode.notes, *asked)]
        yield from counted([episode], written)


def counted(episodes: Iterable[Episode], written: Written) -> Iterator[Episode]:
    """The episodes, counted in `written` as they pass."""
    for episode in episodes:
        written.episodes += 1
        written.steps += len(episode)
        written.successes += episode.success
        yield episode


def check_target(path: Path, force: bool) -> None:
    """Refuses to write over something.

    Raises:
        FileExistsError: there is something at that path and `force` is off.
    """
    if path.exists() and not force:
        raise FileExistsError(
            f"{path} exists already. Choose another name, or add --force to replace it."
        )


def write(
    path: Path, to: Format, episodes: Iterable[Episode], written: Written, *, force: bool = False
) -> Written:
    """Writes a file or folder beside its place, then moves it there: what was there before stays
    until then.

    Raises:
        FileExistsError: see `check_target`.
        ValueError: no episode, or what the format cannot hold.
    """
    path = Path(path)
    check_target(path, force)
    assert to.write is not None
    make_folder_of(path)
    folder = path.parent / f".{path.name}-{uuid.uuid4().hex}"
    folder.mkdir()
    try:
        to.write(folder / path.name, episodes)
        if not written.episodes:
            raise ValueError(f"no usable episode to write ({written.skipped} damaged).")
        _replace(folder / path.name, path, folder / f"old-{path.name}")
    finally:
        shutil.rmtree(folder)
    files = path.rglob("*") if path.is_dir() else [path]
    written.bytes = sum(file.stat().st_size for file in files if file.is_file())
    return written


def _replace(new: Path, path: Path, aside: Path) -> None:
    if not (path.exists() and (path.is_dir() or new.is_dir())):
        os.replace(new, path)
        return
    os.replace(path, aside)  # a folder cannot be replaced in one step
    try:
        os.replace(new, path)
    except OSError:
        os.replace(aside, path)
        raise
