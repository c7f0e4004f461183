"""Segments: rows that change no more, written once into files that checkpoints list.

A part that grows is a ring of rows: arrays [streams, rows, ...]. A segment holds some of its rows,
wherever they lie: `at/stream` [n] and `at/row` [n] say where, `rows/<name>` [n, ...] what is there.
The part's file in the checkpoint holds the rows that are in no segment, in the same form, and
beside them `at/shape` [2], which is (streams, rows), `blank/<name>` [...], what a row holds that
was never written, and all other arrays as they are. What lies in two places is taken from the
later one: segments in their order, then the checkpoint's own file.
"""

import contextlib
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from safetensors.numpy import save as save_tensors

from exporl.files.atomic import refuse_link, replace_bytes, sync_folder
from exporl.files.mapped import Zeros
from exporl.files.tensors import CorruptCheckpointError, read_tensors

FOLDER = "segments"
"""Where they lie, beside the checkpoints of a run."""
NAME = re.compile(r"[a-z0-9_]+-[0-9a-f]{32}\.safetensors")
"""What they are called: the part, and the beginning of their SHA-256."""
STREAM, ROW, SHAPE, ROWS, BLANK = "at/stream", "at/row", "at/shape", "rows/", "blank/"
"""Names of arrays, or their beginnings."""
_TEMPORARY = re.compile(rf"\.{NAME.pattern}-[0-9a-f]{{32}}")
_MOST = 64
"""Times as large as its files a part may be: streams may differ in length."""


class Segment(NamedTuple):
    """A file of rows."""

    name: str
    sha256: str


class Placed(NamedTuple):
    """Where the rows of a part that was loaded come from."""

    segments: Sequence[Segment]
    holder: Int[np.ndarray, "streams rows"]
    """Which segment a row was taken from, counted from 1; 0: none, the checkpoint itself."""


def write_segments(
    folder: Path, part: str, pieces: Iterable[Mapping[str, np.ndarray]]
) -> list[Segment]:
    """Writes segments, one after the other, and waits until all are on the disk.

    Args:
        folder: where the run keeps its checkpoints.
        part: the part of a checkpoint that they belong to.
        pieces: the arrays of each.
    """
    place = folder / FOLDER
    refuse_link(folder)
    refuse_link(place)
    place.mkdir(parents=True, exist_ok=True)
    written = []
    for arrays in pieces:
        content = save_tensors(dict(arrays))
        digest = hashlib.sha256(content).hexdigest()
        segment = Segment(f"{part}-{digest[:32]}.safetensors", digest)
        # also where it is there already: it may have been damaged since
        replace_bytes(place / segment.name, content)
        written.append(segment)
    sync_folder(place)
    return written


def is_there(folder: Path, segment: Segment) -> bool:
    """Whether the file of a segment is still where it was written."""
    path = folder / FOLDER / segment.name
    return path.is_file() and not path.is_symlink()


def remove_unlisted(folder: Path, listed: Collection[str]) -> None:
    """Removes segments that no checkpoint lists, and what a kill has left of one that was being
    written; nothing that is called otherwise.

    Args:
        folder: where the run keeps its checkpoints.
        listed: names of segments to keep.
    """
    place = folder / FOLDER
    if place.is_symlink() or not place.is_dir():
        return
    with contextlib.suppress(OSError):
        for path in place.iterdir():
            unlisted = NAME.fullmatch(path.name) and path.name not in listed
            if unlisted or _TEMPORARY.fullmatch(path.name):
                path.unlink()
        place.rmdir()  # where nothing is left in it


def to_json(segments: Mapping[str, Sequence[Segment]]) -> dict[str, list[dict[str, str]]]:
    """What a manifest says of segments, by part. Inverse of `from_json`."""
    return {part: [segment._asdict() for segment in each] for part, each in segments.items()}


def from_json(listed: Any) -> dict[str, list[Segment]]:
    """The segments that a manifest lists, by part.

    Raises:
        ValueError: it is no such list, or names what is no segment.
    """
    try:
        found = {part: [Segment(**entry) for entry in each] for part, each in listed.items()}
    except (AttributeError, TypeError) as error:
        raise ValueError("its list of segments is none") from error
    for segment in (segment for each in found.values() for segment in each):
        if not (isinstance(segment.name, str) and NAME.fullmatch(segment.name)):
            raise ValueError(f"names {segment.name!r}, which is no segment of a checkpoint")
    return found


def load_segments(
    own: Mapping[str, np.ndarray],
    segments: Sequence[Segment],
    checkpoint: Path,
    zeros: Zeros = np.zeros,
) -> tuple[dict[str, np.ndarray], Placed]:
    """A whole part: the rows of its segments and of its file in the checkpoint.

    Args:
        own: the arrays of that file.
        segments: those that the checkpoint lists for it.
        checkpoint: its folder.
        zeros: makes the arrays of all rows.

    Raises:
        CorruptCheckpointError: a segment is missing, altered, a link, or does not fit the others;
            names it.
    """
    place = checkpoint.parent / FOLDER
    if place.is_symlink():
        raise CorruptCheckpointError(f"{checkpoint.name}: {FOLDER} is a symbolic link.")
    try:
        stored = sum(_size(place / segment.name) for segment in segments)
        arrays, holder = _blank(own, stored, zeros)
        for number, segment in enumerate(segments, 1):
            path, what = place / segment.name, f"{checkpoint.name}: {FOLDER}/{segment.name}"
            if path.is_symlink():
                raise CorruptCheckpointError(f"{what} is a symbolic link.")
            _place(read_tensors(path, segment.sha256, what), arrays, holder, number)
        _place(own, arrays, holder, 0)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        if isinstance(error, CorruptCheckpointError):
            raise
        raise CorruptCheckpointError(
            f"{checkpoint.name}: its segments do not fit together ({error})."
        ) from error
    whole = {name: array for name, array in own.items() if not _is_of_rows(name)}
    return whole | arrays, Placed(segments, holder)


def _blank(
    own: Mapping[str, np.ndarray], others: int, zeros: Zeros
) -> tuple[dict[str, np.ndarray], Int[np.ndarray, "streams rows"]]:
    """The arrays of a part before any row is placed, by name, and who holds its rows: nobody.

    `others` is how many bytes its segments have.
    """
    streams, rows = (int(length) for length in own[SHAPE])
    blanks = {name.removeprefix(BLANK): own[name] for name in own if name.startswith(BLANK)}
    row_bytes = 4 + sum(blank.nbytes for blank in blanks.values())
    needed = streams * rows * row_bytes
    stored = others + sum(array.nbytes for array in own.values())
    if min(streams, rows) < 0 or needed > _MOST * stored:
        raise ValueError(f"{streams} streams of {rows} rows are claimed, {stored} bytes are there")
    arrays = {}
    for name, blank in blanks.items():
        arrays[name] = zeros((streams, rows, *blank.shape), blank.dtype)
        if blank.any():  # zeros take no memory until they are written
            arrays[name][...] = blank
    return arrays, np.zeros((streams, rows), np.int32)


def _place(
    piece: Mapping[str, np.ndarray],
    arrays: dict[str, np.ndarray],
    holder: Int[np.ndarray, "streams rows"],
    number: int,
) -> None:
    """Puts the rows of a file where they belong."""
    streams, rows = piece[STREAM], piece[ROW]
    if len(rows) and min(streams.min(), rows.min()) < 0:
        raise ValueError("a row lies before the first one")
    holder[streams, rows] = number
    names = {name.removeprefix(ROWS) for name in piece if name.startswith(ROWS)}
    if names != arrays.keys():
        raise ValueError(f"{sorted(names ^ arrays.keys())} are not in all files")
    for name, array in arrays.items():
        values = piece[ROWS + name]
        if values.dtype != array.dtype or values.shape != (len(rows), *array.shape[2:]):
            raise ValueError(f"{name} is {values.dtype}{list(values.shape)}")
        array[streams, rows] = values


def _is_of_rows(name: str) -> bool:
    return name in (STREAM, ROW, SHAPE) or name.startswith((ROWS, BLANK))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
