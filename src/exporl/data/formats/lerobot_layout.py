"""Where the episodes of a LeRobot folder lie: the file templates of `meta/info.json` and the lists
in `meta/`."""

import contextlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from exporl.data.formats.decode import check_parquet, count, read_jsonl, readable
from exporl.data.formats.fields import refuse_stand_in

_DATA = {2: "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
         3: "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"}  # fmt: skip
_VIDEO = {2: "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
          3: "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"}  # fmt: skip


class Place(NamedTuple):
    """Where one episode lies; files are relative to the folder."""

    index: int
    length: int
    data: str
    videos: dict[str, tuple[str, float]]
    """Video key -> file, and the second at which the episode starts."""


def find_places(
    path: Path, info: dict[str, Any], cameras: tuple[str, ...], version: int
) -> list[Place]:
    """The episodes of a folder in their order.

    Args:
        path: the folder.
        info: its `meta/info.json`.
        cameras: features that are videos.
        version: 2 or 3.

    Raises:
        ValueError: the lists in `meta/` or the templates in `info` are damaged; names the file.
    """
    places = sorted(
        (_places_3 if version == 3 else _places_2)(path, info, cameras),
        key=lambda place: place.index,
    )
    for place, after in itertools.pairwise(places):
        if place.index == after.index:
            raise ValueError(
                f"{path / 'meta'} lists episode {place.index} twice. Copy the folder again."
            )
    return places


def _fill(template: Any, what: str, **values: Any) -> str:
    """A path template of info.json with its fields filled in; only plain `{name}` and `{name:03d}`
    are known."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ValueError(f"{what} in meta/info.json has the unknown field {match[1]!r}.")
        return str(values[match[1]]).zfill(int(match[2] or 0))

    if not isinstance(template, str):
        raise ValueError(f"{what} in meta/info.json is {template!r}, not a path.")
    filled = re.sub(r"\{(\w+)(?::0?(\d{1,2})d)?\}", value, template)
    parts = Path(filled).parts
    if any(len(part.encode(errors="replace")) > 255 for part in parts):
        raise ValueError(
            f"{what} in meta/info.json makes a name of more than 255 letters: {filled[:40]}..."
        )
    if Path(filled).is_absolute() or ".." in parts:
        raise ValueError(f"{what} in meta/info.json leads out of the folder: {filled}.")
    return filled


def _whole(row: dict[str, Any], name: str, file: Path) -> int:
    found = count(row, name, file)
    if found is None:
        raise ValueError(f"{file}: an episode lacks {name}; it has {', '.join(sorted(row))}.")
    return found


def _places_2(path: Path, info: dict[str, Any], cameras: tuple[str, ...]) -> list[Place]:
    file = path / "meta" / "episodes.jsonl"
    chunk_size = count(info, "chunks_size", path / "meta" / "info.json") or 1000
    places = []
    for row in read_jsonl(file):
        index = _whole(row, "episode_index", file)
        where = {"episode_index": index, "episode_chunk": index // chunk_size}
        videos = {
            key: (
                _fill(info.get("video_path") or _VIDEO[2], "video_path", video_key=key, **where),
                0.0,
            )
            for key in cameras
        }
        data = _fill(info.get("data_path") or _DATA[2], "data_path", **where)
        places.append(Place(index, _whole(row, "length", file), data, videos))
    return places


def _places_3(path: Path, info: dict[str, Any], cameras: tuple[str, ...]) -> list[Place]:
    wanted = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    wanted += [
        f"videos/{key}/{part}"
        for key in cameras
        for part in ("chunk_index", "file_index", "from_timestamp")
    ]
    places = []
    files = sorted((path / "meta" / "episodes").rglob("*.parquet"))
    if not files:
        raise ValueError(
            f"{path / 'meta' / 'episodes'} has no .parquet file. Copy the whole folder of the data "
            "set."
        )
    for file in files:
        with open_parquet(file, str(file)) as parquet, readable(str(file)):
            rows = parquet.read(
                columns=[name for name in wanted if name in parquet.schema_arrow.names]
            ).to_pylist()
        for row in rows:
            where = {
                part: _whole(row, f"data/{part}", file) for part in ("chunk_index", "file_index")
            }
            data = _fill(info.get("data_path") or _DATA[3], "data_path", **where)
            videos = {}
            for key in cameras:
                start = row.get(f"videos/{key}/from_timestamp")
                if start is None:  # such an episode has no video of this camera
                    continue
                if (
                    isinstance(start, bool)
                    or not isinstance(start, int | float)
                    or not 0 <= start < 1e9
                ):
                    raise ValueError(
                        f"{file}: videos/{key}/from_timestamp is {start!r}, not a second of the "
                        "video."
                    )
                where = {
                    part: _whole(row, f"videos/{key}/{part}", file)
                    for part in ("chunk_index", "file_index")
                }
                videos[key] = (
                    _fill(
                        info.get("video_path") or _VIDEO[3], "video_path", video_key=key, **where
                    ),
                    float(start),
                )
            places.append(
                Place(_whole(row, "episode_index", file), _whole(row, "length", file), data, videos)
            )
    return places


@contextlib.contextmanager
def open_parquet(file: Path, what: str) -> Iterator[Any]:
    """An open Parquet file.

    Raises:
        ValueError: missing, without a footer (an interrupted recording) or damaged; calls it
            `what`.
    """
    import pyarrow.parquet as pq

    if not file.is_file():
        raise ValueError(f"{what} is missing. Copy the whole folder of the data set.")
    refuse_stand_in(file)
    with file.open("rb") as source:
        source.seek(max(file.stat().st_size - 4, 0))
        if source.read() != b"PAR1":
            raise ValueError(
                f"{what} has no Parquet footer: its recording was interrupted before the file was "
                "closed (LeRobot's finalize() was never called), or the copy was. The frames in"
                " it are lost; copy or record them again."
            )
    with readable(what):
        parquet = pq.ParquetFile(file)
    try:
        check_parquet(parquet, what, file.stat().st_size)
        yield parquet
    finally:
        parquet.close()
