"""Hostile HDF5 files and Parquet tables: links, groups, types and columns that are not what they
should be."""

import datetime
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_process import Hostile

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.recordings import write_lerobot, write_robomimic


def _robomimic(change: Callable[[Any], Any]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import h5py

        path = write_robomimic(folder / "robot.hdf5", 2)
        with h5py.File(path, "a") as file:
            change(file)
        return path

    return make


def _replace(name: str, *args: Any, **options: Any) -> Callable[[Any], Any]:
    def change(file: Any) -> None:
        if name in file:
            del file[name]
        file.create_dataset(name, *args, **options)

    return change


def _linked(name: str, link: Any) -> Callable[[Any], Any]:
    return lambda file: file["data/demo_0"].__setitem__(name, link)


ACTIONS = "data/demo_0/actions"


def _deep(file: Any) -> None:
    inner = file["data/demo_0/obs"]
    for _ in range(300):
        inner = inner.create_group("x")


def _groups(count: int) -> Callable[[Any], Any]:
    def change(file: Any) -> None:
        for index in range(count):
            file.create_group(f"data/demo_{index + 10}")

    return change


def _renamed(name: str) -> Callable[[Any], Any]:
    return lambda file: file.move("data/demo_0/obs/object", f"data/demo_0/obs/{name}")


def hdf5_files() -> Iterator[Hostile]:
    """Robomimic files in which one thing is not what it should be."""
    try:
        import h5py
    except ModuleNotFoundError:
        return
    demo, seen = "data/demo_0", "data/demo_0/obs/object"
    chunk = {"maxshape": (None, 2), "chunks": (2**26, 2), "compression": "gzip"}
    changes: dict[str, Callable[[Any], Any]] = {
        "external link": _linked("obs/away", h5py.ExternalLink("/etc/passwd", "/x")),
        "soft loop": _linked("loop", h5py.SoftLink(f"/{demo}/loop")),
        "a group in itself": lambda f: f[demo].__setitem__("obs/again", f["data"]),
        "3,000 groups": _groups(3000),
        "300 levels": _deep,
        "zeros never written": _replace(ACTIONS, (10**9, 2), "f8"),
        "packed zeros": _replace(seen, (4, 10**6), "f8", chunks=(4, 10**5), compression="gzip"),
        "one huge chunk": _replace(seen, (4, 2), "f8", **chunk),
        "text": _replace(ACTIONS, data=["a", "b", "c", "d"]),
        "records": _replace(ACTIONS, data=np.zeros(4, [("x", "f4")])),
        "lists of any length": _replace(ACTIONS, (4,), h5py.vlen_dtype("f4")),
        "references": _replace(ACTIONS, (4,), h5py.ref_dtype),
        "opaque": _replace(ACTIONS, data=np.zeros(4, "V9")),
        "an enumeration": _replace(ACTIONS, (4, 2), h5py.enum_dtype({"A": 0})),
        "nothing": _replace(ACTIONS, data=h5py.Empty("f4")),
        "a number": _replace(ACTIONS, data=3.0),
        "no rows": _replace(ACTIONS, (0, 2), "f4"),
        "no columns": _replace(ACTIONS, (4, 0), "f4"),
        "NaN": _replace(ACTIONS, data=np.full((4, 2), np.nan)),
        "1e300": _replace(seen, data=np.full((4, 2), 1e300)),
        "actions as a group": lambda f: (f[demo].pop("actions"), f[demo].create_group("actions")),
        "obs as an array": _replace(f"{demo}/obs", data=np.zeros((4, 2))),
        "data as an array": _replace("data", data=np.zeros(3)),
        "mask as an array": _replace("mask", data=np.zeros(3)),
        "30 axes": _replace(seen, data=np.zeros((4, *(1,) * 29))),
        "64 kB of attribute": lambda f: f["data"].attrs.__setitem__("env_args", "x" * 60_000),
        "nested attribute": lambda f: f["data"].attrs.__setitem__("env_args", '{"a":' * 10_000),
        "lying count": lambda f: f[demo].attrs.__setitem__("num_samples", -5),
        "endless count": lambda f: f[demo].attrs.__setitem__("num_samples", 1e308),
        "an escape as a name": _renamed("\x1b[31mred\x07"),
        "a long name": _renamed("x" * 30_000),
        "a name of dots": _renamed("...\u202e"),
        "demo without number": lambda f: f.move(demo, "data/demo_"),
        "demo of many digits": lambda f: f.move(demo, "data/demo_" + "9" * 5000),
        "demo of other digits": lambda f: f.move(demo, "data/demo_²٣"),
        "no demo": lambda f: (f.pop("data"), f.create_group("data")),
    }  # fmt: skip
    for what, change in changes.items():
        yield Hostile(f"robomimic: {what}", _robomimic(change), 2**28 if "zeros" in what else 0)


COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "text": {"action": ["a", "b", "c", "d"]},
    "nothing": {"action": [None] * 4},
    "rows of other lengths": {"action": [[0.0], [0.0, 1.0], [], [0.0]]},
    "nested rows": {"action": [[[[0.0]]]] * 4},
    "no action": {"action": None},
    "NaN": {"action": [[float("nan"), 0.0]] * 4},
    "1e300": {"observation__state": [[1e300, 0.0]] * 4},
    "empty rows": {"action": [[]] * 4},
    "negative index": {"episode_index": [-1] * 4},
    "endless index": {"episode_index": [2**62] * 4},
    "index as text": {"episode_index": ["0"] * 4},
    "index as fractions": {"frame_index": [0.5, 1.5, 2.5, 3.5]},
    "frames twice": {"frame_index": [0, 0, 0, 0]},
    "frames backwards": {"frame_index": [3, 2, 1, 0]},
    "no frames": {"frame_index": None},
    "rewards as text": {"next__reward": ["1", "2", "3", "4"]},
    "endless rewards": {"next__reward": [float("inf")] * 4},
    "ends as numbers": {"next__done": [0.0, 0.5, 2.0, float("nan")]},
    "success of nothing": {"next__success": [None] * 4},
    "a picture that is none": {"observation__image": [{"bytes": b"no", "path": None}] * 4},
    "a picture elsewhere": {"observation__image": [{"bytes": None, "path": "/etc/passwd"}] * 4},
    "a strange name": {"\x1b[31mred": [0.0] * 4},
    "booleans": {"action": [True, False, True, False]},
    "dates": {"action": [datetime.datetime(2020, 1, 1)] * 4},
}


def tables() -> Iterator[Hostile]:
    """LeRobot folders whose tables hold something else."""
    for what, columns in COLUMNS.items():

        def make(folder: Path, columns: Any = columns) -> Path:
            return write_lerobot(folder / "robot", **columns)

        yield Hostile(f"lerobot: {what}", make)
