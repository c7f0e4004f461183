"""PushT's human demonstrations in Diffusion Policy's layout, as .npz.

Flat arrays over all N steps of all episodes:
  action [N, 2] pixels, 0-512   state [N, 5] finger x, y, block x, y (pixels), block angle (radians)
  episode_ends [episodes], cumulative   keypoint [N, k, 2] pixels, optional
An episode of n rows yields n - 1 steps, because no observation follows the last action;
infos["action"] has all n. Rewards are not recorded: the task computes them. The original zarr store
is not read: save its arrays with `numpy.savez` under these names.
"""

import functools
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from exporl.data.episodes import Episode
from exporl.data.formats.archives import read_archive
from exporl.data.formats.ends import Marks, check_doubtful, find_marks, inside, may_mark
from exporl.data.formats.fields import naming
from exporl.data.formats.record import Format, ReadOptions, Record

_WIDTHS = {"action": (2,), "state": (5,)}


def records(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The episodes, see `Format.records`: observation "pose" [t + 1, 5], and "keypoint" if asked
    for with `keys`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such an archive, an array is missing or of another shape; names the file and
            the array.
    """
    path = Path(path)
    data = read_archive(path)
    missing = [name for name in ("action", "state", "episode_ends") if name not in data]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it has {', '.join(sorted(data))}.")
    steps = len(np.atleast_1d(data["action"]))
    for name, width in _WIDTHS.items():
        if data[name].shape != (steps, *width) or not np.issubdtype(data[name].dtype, np.number):
            raise ValueError(
                f"{path}: {name} has shape {data[name].shape} and type {data[name].dtype}; numbers "
                f"of shape {(steps, *width)} are needed, as in Diffusion Policy's PushT data."
            )
    ends = data["episode_ends"].reshape(-1)
    ends = ends.astype(np.float64) if np.issubdtype(ends.dtype, np.number) else np.zeros(0)
    if (
        len(ends) == 0
        or ends[-1] != steps
        or (ends % 1 != 0).any()
        or (np.diff(ends, prepend=0) <= 0).any()
    ):
        raise ValueError(
            f"{path}: episode_ends must rise from above 0 to the number of steps, {steps}."
        )
    with naming(path):
        marks = find_marks({name: data[name] for name in may_mark(data)}, steps)
        check_doubtful(marks, np.isin(np.arange(steps), ends - 1))
    keypoint = "keypoint" in options.keys
    if keypoint and ("keypoint" not in data or len(data["keypoint"]) != steps):
        raise ValueError(
            f"{path} has no keypoint with {steps} rows; it has {', '.join(sorted(data))}."
        )
    starts = np.r_[0, ends[:-1]].astype(np.int64)
    for index, (start, end) in enumerate(zip(starts, ends.astype(np.int64), strict=True)):
        yield Record(
            f"episode {index}",
            functools.partial(_episode, data, marks, slice(int(start), int(end)), keypoint),
        )


def _episode(data: dict[str, np.ndarray], marks: Marks, rows: slice, keypoint: bool) -> Episode:
    if fault := inside(marks, rows.start, rows.stop):
        raise ValueError(fault)
    steps = rows.stop - rows.start - 1
    if steps == 0:
        raise ValueError(
            "action has a single row, so no step with an observation after it. Remove the episode."
        )
    observations = {"pose": data["state"][rows].astype(np.float32)}
    if keypoint:
        observations["keypoint"] = data["keypoint"][rows].reshape(steps + 1, -1).astype(np.float32)
    actions = data["action"][rows].astype(np.float32) / 256.0 - 1.0
    return Episode(
        observations,
        actions[:-1],
        np.zeros(steps, np.float32),
        np.zeros(steps, bool),
        False,
        {"action": actions},
    )


def matches(path: Path) -> bool:
    """An .npz file with `action`, `state` and `episode_ends`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"action.npy", "state.npy", "episode_ends.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


FORMAT = Format(
    "pusht",
    "Diffusion Policy's PushT data as .npz: action (pixels), state, episode_ends",
    matches,
    records,
    options=("keys",),
)
