"""LeRobotDataset folders, versions 3.0, 2.1 and 2.0, read with pyarrow, and with av where videos
are asked for.

`meta/info.json` has the features and the layout. 3.0: `meta/episodes/**.parquet` says in which of
`data/chunk-*/file-*.parquet` and of `videos/<key>/chunk-*/file-*.mp4` (and from which second of it)
each episode lies, several in one file. 2.x: `meta/episodes.jsonl`, and one Parquet file and one
video per camera for each episode.

Entries: `observation.state` -> "state", `observation.images.<camera>` -> "<camera>" (only with
`ReadOptions.images`), `observation.<name>` -> "<name>"; `state` and pictures without that prefix
keep their names. Actions are `action` or `actions`, as recorded, which may be the robot's own
units: rescale them to [-1, 1] with `adapt` of `load_episodes` or of the task. Other columns of
numbers become infos, text is left out.

Success is `next.success` (or `success`, `is_success`), otherwise it is read off a sparse
`next.reward`, see `success`. Without `next.reward` the reward is 1 in a successful step and 0
elsewhere. Where neither tells, nothing succeeds, unless `ReadOptions.assume_success` states that
all recordings are successful demonstrations: then the last step of each succeeds. A true end is
`next.terminated` (or another name of `ends`), or else `next.done` without `next.truncated` in the
last step. Where one of those is not recorded the last step must have succeeded too, because
`next.done` alone also marks time limits. Cut-offs before the last frame are refused.

T recorded observations go with T actions, so the observation after the last action is missing. The
last action is kept, with its observation repeated, when the episode truly ended (nothing is learnt
from what comes after) or succeeded there; otherwise it is left out.
"""

import functools
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from exporl.data.episodes import LOST_STEP, LOST_SUCCESS, Episode
from exporl.data.formats import fields
from exporl.data.formats.decode import (
    chosen,
    column_array,
    count,
    pictures,
    read_json,
    readable,
    video_frames,
)
from exporl.data.formats.ends import CUT_OFFS, TRUE_ENDS
from exporl.data.formats.lerobot_layout import Place, find_places, open_parquet
from exporl.data.formats.record import Format, ReadOptions, Record
from exporl.data.formats.success import from_rewards

_ASK = "ask for images too: --images (in training --data.images, in Python ReadOptions.images)"
_PLACES = ("episode_index", "frame_index", "index")
_SUCCESS = ("success", "is_success")
_LEARNT = ("next.reward", "next.success", "next.done", "next.truncated")


class _Folder(NamedTuple):
    """What all episodes of a data set share."""

    path: Path
    fps: float
    spans: Callable[[str], list[tuple[int, int]]]
    """(file) -> least and greatest episode in each of its row groups."""
    group: Callable[[str, int], Any]
    """(file, number of the row group) -> its rows; neighbouring episodes share one."""
    options: ReadOptions


def records(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The episodes of a data set, given its folder, see `Format.records`.

    Raises:
        ValueError: an unknown version, or meta/ is damaged or contradicts itself; names the file.
        ModuleNotFoundError: videos are asked for without av; names the command that installs it.
    """
    path = Path(path)
    file = path / "meta" / "info.json"
    info = read_json(file)
    version = re.fullmatch(r"v([23])\.\d+", str(info.get("codebase_version")))
    if version is None:
        raise ValueError(
            f"{file}: codebase_version is {info.get('codebase_version')!r}. Known: v3.0, v2.1, "
            "v2.0."
        )
    features, fps = info.get("features"), info.get("fps")
    if not isinstance(features, dict) or not all(
        isinstance(feature, dict) for feature in features.values()
    ):
        raise ValueError(f"{file}: features is not an object of objects. Copy the folder again.")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < 1e6:
        raise ValueError(f"{file}: fps is {fps!r}, not a rate above 0.")
    cameras = tuple(name for name, feature in features.items() if feature.get("dtype") == "video")
    if options.images and cameras and importlib.util.find_spec("av") is None:
        raise ModuleNotFoundError(
            f"videos of {path} need the package 'av'. Install it with: pip install 'exporl[video]'"
        )
    places = find_places(path, info, cameras, int(version[1]))
    for what, found in (
        ("episodes", len(places)),
        ("frames", sum(place.length for place in places)),
    ):
        stated = count(info, f"total_{what}", file)
        if stated is not None and stated != found:
            raise ValueError(
                f"{file} states {stated} {what}, meta/episodes has {found}. The recording was "
                "interrupted, or only part of the folder was copied. Copy it again, or correct"
                " info.json if the data is complete."
            )
    # episodes are read in order, so a file or row group is opened once
    once = functools.lru_cache(maxsize=1)
    folder = _Folder(
        path, float(fps), once(functools.partial(_spans, path)),
        once(functools.partial(_group, path, options.images)), options,
    )  # fmt: skip
    for place in places:
        yield Record(f"episode {place.index}", functools.partial(_read, folder, place))


def recorded_hz(path: Path) -> float | None:
    """Steps per second of a data set, as its meta/info.json says; None of anything else."""
    file = Path(path) / "meta" / "info.json"
    fps = read_json(file).get("fps") if file.is_file() else None
    return float(fps) if isinstance(fps, int | float) and not isinstance(fps, bool) else None


def _spans(path: Path, file: str) -> list[tuple[int, int]]:
    # From the column itself: pyarrow ends the process over damaged statistics instead of raising an
    # error.
    spans = []
    with open_parquet(path / file, file) as parquet:
        names = parquet.schema_arrow.names
        if "episode_index" not in names:
            raise ValueError(f"{file} lacks episode_index; it has {', '.join(names)}.")
        for number in range(parquet.num_row_groups):
            with readable(file):
                table = parquet.read_row_group(number, columns=["episode_index"])
            episodes = _numbers(table, "episode_index")
            spans += [(int(episodes.min()), int(episodes.max())) if episodes.size else (0, -1)]
    return spans


def _group(path: Path, images: bool, file: str, number: int) -> Any:
    """The rows of one row group, without text and, unless asked for, without pictures."""
    import pyarrow as pa

    kept = [pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_nested]
    with open_parquet(path / file, file) as parquet, readable(file):
        wanted = [
            field.name
            for field in parquet.schema_arrow
            if any(fits(field.type) for fits in kept)
            and (images or not pa.types.is_struct(field.type))
        ]
        table = parquet.read_row_group(number, columns=wanted)
        table.validate(full=True)
    return table


def _rows(folder: _Folder, place: Place) -> Any:
    """The rows of one episode as a table, in the order of their frames."""
    import pyarrow as pa

    tables = []
    for number, (low, high) in enumerate(folder.spans(place.data)):
        if low <= place.index <= high:
            table = folder.group(place.data, number)
            at = np.flatnonzero(_numbers(table, "episode_index").reshape(-1) == place.index)
            tables += [table.take(pa.array(at))] if len(at) else []
    found = sum(len(table) for table in tables)
    if found != place.length:
        raise ValueError(
            f"{place.data} has {found} frames of it, meta/episodes states {place.length}. The "
            "recording was interrupted, or the files are of different copies."
        )
    if found == 0:
        raise ValueError("no frames. Remove the episode.")
    with readable(place.data):
        table = pa.concat_tables(tables)
    if "frame_index" not in table.column_names:
        return table
    frames = _numbers(table, "frame_index").reshape(-1)
    order = np.argsort(frames, kind="stable")
    if not np.array_equal(frames[order], np.arange(found)):
        raise ValueError(
            f"frame_index in {place.data} does not count from 0 to {found - 1}. Frames are missing "
            "or repeated."
        )
    return table.take(pa.array(order))


def _numbers(table: Any, name: str) -> np.ndarray:
    values = column_array(table[name], name)
    if values is None:
        raise ValueError(f"{name} is not a column of numbers; it is {table[name].type}.")
    return values


def _entry(name: str, picture: bool) -> str | None:
    """The observation entry that a column or video becomes, None if it is something else."""
    for prefix in ("observation.images.", "observation."):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name if picture or name == "state" else None


def _read(folder: _Folder, place: Place) -> Episode:
    import pyarrow as pa

    table = _rows(folder, place)
    names = table.column_names
    action = next((name for name in ("action", "actions") if name in names), None)
    if action is None:
        raise ValueError(f"{place.data} lacks action; it has {', '.join(names)}.")
    actions = _numbers(table, action)
    actions = fields.action_rows(actions[:, None] if actions.ndim == 1 else actions)
    rewards, successes, question = _rewards(table, folder.options.assume_success)
    terminated, notes = _end(table, bool(successes[-1]))
    steps = len(actions) if terminated or successes[-1] else len(actions) - 1
    if steps == 0:
        raise ValueError(
            "one frame and no true end: there is no observation after its action. Remove the "
            "episode."
        )
    if steps < len(actions):
        notes.append(f"{LOST_SUCCESS if rewards[-1] > 0 else LOST_STEP}.")
    nested = {name for name in names if pa.types.is_struct(table[name].type)}
    entries: dict[str, Callable[[], np.ndarray]] = {}
    infos: dict[str, np.ndarray] = {}
    for name in names:
        entry = _entry(name, name in nested)
        if entry is not None:
            entries[entry] = functools.partial(_observation, table, name, name in nested, steps + 1)
        elif (
            name not in (action, *_PLACES, *_LEARNT)
            and (value := column_array(table[name], name)) is not None
        ):
            infos[name] = value[:steps]
    for key, (file, start) in place.videos.items() if folder.options.images else ():
        entries[_entry(key, True) or key] = functools.partial(
            video_frames, folder.path / file, file, start, folder.fps, len(actions), steps + 1
        )
    for key in {_entry(key, True) for key in place.videos}.intersection(
        folder.options.keys
    ) - entries.keys():
        raise ValueError(f"{key} is a video: {_ASK}.")
    if not entries:
        raise ValueError(f"there is no observation but pictures: {_ASK}.")
    observations = {key: entries[key]() for key in chosen(entries, folder.options.keys)}
    return Episode(
        observations,
        actions[:steps],
        rewards[:steps],
        successes[:steps],
        terminated,
        infos,
        question=question,
        notes=tuple(notes),
    )


def _rewards(table: Any, assume_success: bool) -> tuple[np.ndarray, np.ndarray, str]:
    """Rewards, success in each frame, and the question where that is not known."""
    rewards, question = None, ""
    if "next.reward" in table.column_names:
        rewards = fields.column(_numbers(table, "next.reward"), "next.reward")
    successes = _any(table, _SUCCESS)
    if successes is None and rewards is not None:
        successes, question = from_rewards(rewards)
    if successes is None:
        successes = np.zeros(len(table), bool)
        successes[-1] |= assume_success
    elif question and assume_success:
        successes[-1], question = True, ""
    return fields.floats(successes) if rewards is None else rewards, successes, question


def _end(table: Any, solved: bool) -> tuple[bool, list[str]]:
    """Whether the last frame is a true end, and sentences about ends before it.

    Raises:
        ValueError: a cut-off before the last frame, which is a reset.
    """
    done, cut, notes = _any(table, ("done",)), _any(table, CUT_OFFS), []
    true_ends = _any(table, TRUE_ENDS)
    if cut is not None and cut[:-1].any():
        raise ValueError(
            f"frame {int(cut.argmax())} of {len(cut)} is marked as truncated ({int(cut[:-1].sum())}"
            " such frames before the last). Split the episode there, or correct the mark."
        )
    for marked in (done, true_ends):
        if marked is not None and marked[:-1].any():
            early = int(marked[:-1].sum())
            notes.append(f"{early} frames before the last are marked as done; it went on there.")
    if true_ends is not None:
        return bool(true_ends[-1]), notes
    ended = bool(done is None or done[-1]) and not (cut is not None and cut[-1])
    return ended and (solved or (done is not None and cut is not None)), notes


def _any(table: Any, names: tuple[str, ...]) -> np.ndarray | None:
    """[t] bool: marked in any of the columns of these names, with "next." before them or without;
    None where there is no such column."""
    found = [name for name in table.column_names if name.removeprefix("next.").lower() in names]
    flags = [fields.column(_numbers(table, name), name) > 0 for name in found]
    return np.any(flags, axis=0) if flags else None


def _observation(table: Any, name: str, picture: bool, rows: int) -> np.ndarray:
    """An entry of `rows` rows, the last one repeated where the file has one less."""
    if picture:
        values = pictures(
            [(cell or {}).get("bytes") or b"" for cell in table[name].to_pylist()], name
        )
    else:
        values = _numbers(table, name)
        values = fields.observation(values if values.ndim > 1 else values[:, None])
    return values if len(values) == rows else np.concatenate([values, values[-1:]])


def matches(path: Path) -> bool:
    """A folder with `meta/info.json`."""
    return (path / "meta" / "info.json").is_file()


FORMAT = Format(
    "lerobot",
    "LeRobotDataset folder, v3.0, v2.1 or v2.0 (meta/info.json); `--images` decodes videos; "
    "`--assume-success` where it records demonstrations without rewards",
    matches,
    records,
    module="pyarrow",
    extra="formats",
    options=("keys", "images", "assume_success"),
)
