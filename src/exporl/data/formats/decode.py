"""What the readers of folders share: JSON, Arrow columns and encoded pictures, with errors that
name the place."""

import contextlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporl.data.formats.fields import one_line, refuse_stand_in
from exporl.data.formats.limits import PICTURE_EXPANSION, check_size


@contextlib.contextmanager
def readable(what: str) -> Iterator[None]:
    """Turns whatever a library stumbles over inside into one ValueError that names `what` and the
    reason."""
    try:
        yield
    except Exception as error:  # damaged files surface as nearly any exception
        raise ValueError(
            f"{what} cannot be read ({one_line(error)}). Copy or record it again."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: no such file, not JSON, or not an object; names the file.
    """
    return _object(_text(path), str(path))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of one JSON object per line.

    Raises:
        ValueError: no such file, or a line is not a JSON object; names file and line.
    """
    lines = enumerate(_text(path).split("\n"), 1)
    return [_object(line, f"{path} line {number}") for number, line in lines if line.strip()]


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path} is missing. Copy the whole folder of the data set.")
    refuse_stand_in(path)
    with readable(str(path)):
        return path.read_text(encoding="utf-8")


def _object(text: str, what: str) -> dict[str, Any]:
    with readable(what):
        content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(
            f"{what} holds {type(content).__name__}, not a JSON object. Copy it again."
        )
    return content


def count(content: Mapping[str, Any], name: str, path: Path) -> int | None:
    """A number of things stated by a JSON file, None where it states none.

    Raises:
        ValueError: what is stated is not a whole number of at least zero; names file and key.
    """
    value = content.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(
            f"{path}: {name} is {value!r}, not a whole number of at least 0. Correct it or copy it "
            "again."
        )
    return value


def chosen(names: Iterable[str], keys: tuple[str, ...]) -> list[str]:
    """The observation entries to read: `keys` in their order, or all.

    Raises:
        ValueError: one is not there; lists those that are.
    """
    names = list(names)
    for key in keys:
        if key not in names:
            raise ValueError(
                f"there is no observation {key!r}; found {', '.join(sorted(names)) or 'none'}."
            )
    return list(keys) or names


def column_array(column: Any, what: str) -> np.ndarray | None:
    """[rows, ...] of an Arrow column of numbers or truth values; lists become further axes. None
    for text and the like.

    Raises:
        ValueError: empty cells or rows of unequal length; names the column.
    """
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    shape = [len(column)]
    while True:
        if column.null_count:
            raise ValueError(
                f"{what} has {column.null_count} empty cells. Remove or repair the episode."
            )
        if pa.types.is_fixed_size_list(column.type):
            shape.append(column.type.list_size)
        elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            lengths = np.diff(column.offsets.to_numpy(zero_copy_only=False))
            if len(lengths) and lengths.min() != lengths.max():
                raise ValueError(
                    f"{what} has rows of {lengths.min()} to {lengths.max()} numbers. They must "
                    "agree."
                )
            shape.append(int(lengths[0]) if len(lengths) else 0)
        else:
            break
        column = column.flatten()
    types = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    if not any(fits(column.type) for fits in types):
        return None
    with readable(what):
        return column.to_numpy(zero_copy_only=False).reshape(shape)


def check_parquet(parquet: Any, what: str, held: int) -> None:
    """Compares what the row groups of a Parquet file would unpack to with the size of the file:
    repeated values are stored once. Lists count as one number, their lengths are not in the footer.

    Raises:
        ValueError: more than `check_size` allows, or damaged; names the file.
    """
    # From the numbers of rows: pyarrow ends the process over damaged metadata of columns.
    with readable(what):
        groups = range(parquet.metadata.num_row_groups)
        rows = [parquet.metadata.row_group(number).num_rows for number in groups]
        columns = parquet.metadata.num_columns
    for number, length in enumerate(rows):
        check_size(f"row group {number} of {what}", 8 * columns * length, held)


def pictures(encoded: Sequence[Any] | np.ndarray, what: str) -> np.ndarray:
    """[rows, H, W(, C)] uint8 of pictures as they lie in JPEG or PNG files, each given as bytes.

    Raises:
        ValueError: one is damaged, or they differ in size; names the row.
        ModuleNotFoundError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        message = (
            f"{what} holds encoded pictures, which need the package 'PIL'. Install it with: pip "
            "install pillow"
        )
        raise ModuleNotFoundError(message) from error
    frames = np.zeros((0, 0, 0, 3), np.uint8)
    for row, content in enumerate(encoded):
        with readable(f"{what} row {row}"):
            picture = Image.open(io.BytesIO(bytes(content)))
            bands = len(picture.getbands())
        size = picture.width * picture.height * bands
        check_size(f"{what} row {row}", size, len(content), PICTURE_EXPANSION)
        with readable(f"{what} row {row}"):
            frame = np.asarray(picture, np.uint8)
        if row == 0:
            held = sum(map(len, encoded))
            check_size(what, len(encoded) * frame.nbytes, held, PICTURE_EXPANSION)
            frames = np.empty((len(encoded), *frame.shape), np.uint8)
        if frame.shape != frames.shape[1:]:
            raise ValueError(
                f"{what} row {row} has shape {frame.shape}, row 0 has {frames.shape[1:]}."
            )
        frames[row] = frame
    return frames


def video_frames(
    path: Path, what: str, start: float, fps: float, length: int, rows: int
) -> np.ndarray:
    """[rows, H, W, 3] uint8: `length` frames of a video, then the last one repeated.

    Args:
        path: the file.
        what: its name in errors.
        start: second of the first frame.
        fps: frames per second.
        length: how many frames the video must have from there on.
        rows: how many come out, at least `length`.

    Raises:
        ValueError: missing, damaged, or too short; names the video.
    """
    import av

    if not path.is_file():
        raise ValueError(f"{what} is missing. Copy the whole folder of the data set.")
    refuse_stand_in(path)
    frames, seen = np.zeros((0, 0, 0, 3), np.uint8), np.zeros(length, bool)
    with readable(what), av.open(str(path)) as container:
        stream = next(iter(container.streams.video), None)
        base = None if stream is None else stream.time_base
        if stream is None or base is None:
            raise ValueError("there is no video in it")
        container.seek(round(start / base), stream=stream)  # to the key frame before
        for frame in container.decode(stream):
            position = -1 if frame.pts is None else round((float(frame.pts * base) - start) * fps)
            if position >= length:
                break
            if position >= 0:
                picture = frame.to_ndarray(format="rgb24")
                if not seen.any():
                    frames = np.empty((rows, *picture.shape), np.uint8)
                frames[position] = picture
                seen[position] = True
    if not seen.all():
        raise ValueError(
            f"{what} has {seen.sum()} of {length} frames from second {start:g} on, at {fps:g} "
            "frames per second. It was cut short; copy or record it again."
        )
    frames[length:] = frames[length - 1]
    return frames
