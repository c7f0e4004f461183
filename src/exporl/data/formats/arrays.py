"""Plain NumPy archives: the format that demonstrations are collected into.

Flat arrays over all N steps of all episodes:
  observations [N, o]  next_observations [N, o]  actions [N, a]  rewards [N]  terminals [N]
  episode_ends [episodes]
  successes [N] (per step) or success [episodes]; without either, success means a positive reward.
A recording without next_observations and terminals (demonstrations as they were teleoperated) is
read too: the last action of every episode, whose outcome is unknown, is left out, and no episode
counts as terminated. Observations with several entries are stored as `observations/<name>` and
`next_observations/<name>`; whatever else an episode has as `infos/<name>`, [N, ...] per step or [N
+ episodes, ...] per observation.
"""

import functools
import itertools
import os
import shutil
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from exporl.data.episodes import Episode
from exporl.data.formats.record import Format, ReadOptions, Record

_NEEDED = ("actions", "rewards", "terminals", "episode_ends")
_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every member: the same episodes always make the same file."""


class _Column:
    """Rows of one array, appended to a file, so that nothing is held in memory."""

    def __init__(self, path: Path, first: np.ndarray):
        self.dtype, self.tail, self.rows, self.path = first.dtype, first.shape[1:], 0, path
        self._file = path.open("wb")

    def append(self, name: str, rows: np.ndarray) -> None:
        if (rows.dtype, rows.shape[1:]) != (self.dtype, self.tail):
            raise ValueError(
                f"{name} is {rows.dtype} {rows.shape[1:]} in one episode and {self.dtype} "
                f"{self.tail} in those before."
            )
        self._file.write(np.ascontiguousarray(rows).data if rows.size else b"")
        self.rows += len(rows)

    def close(self) -> None:
        self._file.close()

    def copy_to(self, member: Any) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(member, header | {"shape": (self.rows, *self.tail)})
        with self.path.open("rb") as file:
            shutil.copyfileobj(file, member, 1 << 20)


def save_npz(path: Path, episodes: Iterable[Episode]) -> None:
    """Writes episodes to one archive, one at a time in memory, under a temporary name first.

    An interrupted write leaves nothing behind.

    Raises:
        ValueError: there are no episodes, or their entries, shapes or types differ.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    columns: dict[str, _Column] = {}
    folder.mkdir()
    try:
        steps = 0
        for index, episode in enumerate(episodes):
            steps += len(episode)
            rows = _rows(episode, steps)
            if columns and rows.keys() != columns.keys():
                raise ValueError(
                    f"episode {index} has {sorted(rows)}, those before have {sorted(columns)}."
                )
            for name, array in rows.items():
                if name not in columns:
                    columns[name] = _Column(folder / str(len(columns)), array)
                columns[name].append(name, array)
        if not columns:
            raise ValueError(f"no episodes to write to {path}.")
        with (folder / "archive").open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, column in columns.items():
                    column.close()
                    info = zipfile.ZipInfo(f"{name}.npy", _DATE)
                    info.compress_type = zipfile.ZIP_DEFLATED
                    with archive.open(info, "w", force_zip64=True) as member:
                        column.copy_to(member)
            file.flush()
            os.fsync(file.fileno())
        os.replace(folder / "archive", path)
    finally:
        for column in columns.values():
            column.close()
        shutil.rmtree(folder)


def _rows(episode: Episode, end: int) -> dict[str, np.ndarray]:
    """The episode's part of every array; `end` counts all steps up to its last."""
    steps = len(episode)
    rows = {
        "actions": episode.actions.astype(np.float32),
        "rewards": episode.rewards.astype(np.float32),
        "successes": episode.successes.astype(np.float32),
        "terminals": np.r_[np.zeros(steps - 1), episode.terminated].astype(np.float32),
        "episode_ends": np.array([end]),
    }
    names = list(episode.observations)
    for name in names:
        suffix = "" if names == ["state"] else f"/{name}"
        rows[f"observations{suffix}"] = episode.observations[name][:-1]
        rows[f"next_observations{suffix}"] = episode.observations[name][1:]
    return rows | {f"infos/{name}": values for name, values in episode.infos.items()}


def load_npz(path: Path, limit: int | None = None) -> list[Episode]:
    """Reads the first `limit` episodes (all by default) in file order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such an archive, an array is missing, or the lengths disagree; names the
            file and the array.
    """
    return [record.read() for record in itertools.islice(records(path, ReadOptions()), limit)]


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz archive, each read once; single numbers become arrays of one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such an archive, or damaged; names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no data file at {path}. Check the path, or leave it out to collect demonstrations."
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: np.atleast_1d(archive[name]) for name in archive.files}
    except Exception as error:  # damage surfaces as whatever zipfile, zlib or NumPy stumble over
        raise ValueError(
            f"{path} is not a readable .npz archive ({error}). Copy or collect it again."
        ) from error


def archive_names(path: Path) -> set[str]:
    """Names of the arrays in an .npz archive without reading them; none for anything else. Never
    raises."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception:  # a damaged directory surfaces in many ways
        return set()


def records(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The episodes of an archive, see `Format.records`. Raises as `load_npz` does."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no data file at {path}. Check the path, or leave it out to collect demonstrations."
        )
    data, names, ends = _load(path, options.keys)
    for index, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        yield Record(
            f"episode {index}",
            functools.partial(_episode, data, names, index, int(start), int(end)),
        )


def _load(path: Path, keys: tuple[str, ...]) -> tuple[dict[str, np.ndarray], list[str], np.ndarray]:
    """All arrays, checked, and the names of the observation entries.

    Observations come as [N + episodes, ...], in the order they were made: episodes are views of it,
    nothing is held twice.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for member in archive.zip.namelist():
                archive.zip.open(member).close()  # a damaged name would hide an array
            return _checked(path, keys, archive.files, lambda name: np.atleast_1d(archive[name]))
    except _Fault as fault:
        raise ValueError(str(fault)) from fault
    except Exception as error:  # damage surfaces as whatever zipfile, zlib or NumPy stumble over
        raise ValueError(
            f"{path} is not a readable .npz archive ({error}). Copy or collect it again."
        ) from error


class _Fault(Exception):
    """Readable, but not what it should be."""


def _checked(
    path: Path, keys: tuple[str, ...], files: list[str], read: Callable[[str], np.ndarray]
) -> tuple[dict[str, np.ndarray], list[str], np.ndarray]:
    bare = "terminals" not in files and not any(f.startswith("next_observations") for f in files)
    needed = tuple(name for name in _NEEDED if not (bare and name == "terminals"))
    if missing := [name for name in needed if name not in files]:
        raise _lacks(path, ", ".join(missing), files)
    suffixes = _suffixes(path, keys, files)
    data = {name: read(name) for name in (*needed, *({"successes", "success"} & set(files)))}
    steps = len(data["actions"])
    for name in sorted({"rewards", "terminals", "successes"} & set(data)):
        _check_length(path, name, data[name], steps)
    kinds = ("observations",) if bare else ("observations", "next_observations")
    entries = [f"{kind}{suffix}" for suffix in suffixes.values() for kind in kinds]
    if lost := [entry for entry in entries if entry not in files]:
        raise _lacks(path, lost[0], files)
    ends = _checked_ends(path, data, steps)

    def column(name: str) -> np.ndarray:
        return _check_length(path, name, read(name), steps)

    for name, suffix in suffixes.items():
        values = column(f"observations{suffix}")
        if not bare:
            final = column(f"next_observations{suffix}")[ends - 1]
            values = _with_final(path, suffix, values, final, ends)
        data[f"observations/{name}"] = values
    data |= _infos(path, files, read, (steps, steps + len(ends)))
    if bare:
        ends_without = ends - np.arange(1, len(ends) + 1)
        return _without_last_actions(path, data, ends), list(suffixes), ends_without
    return data, list(suffixes), ends


def _infos(
    path: Path, files: list[str], read: Callable[[str], np.ndarray], lengths: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Whatever else the episodes have: one row per step, or per observation."""
    infos = {key: read(key) for key in files if key.startswith("infos/")}
    for key, values in infos.items():
        if len(values) not in lengths:
            raise _Fault(
                f"{path}: {key} has {len(values)} rows for {lengths[0]} steps. They must agree."
            )
    return infos


def _lacks(path: Path, what: str, files: list[str]) -> _Fault:
    return _Fault(f"{path} lacks {what}; it has {', '.join(sorted(files))}.")


def _suffixes(path: Path, keys: tuple[str, ...], files: list[str]) -> dict[str, str]:
    """Name of an observation entry -> what follows "observations" in the name of its array."""
    if "observations" in files:
        suffixes = {"state": ""}
    else:
        found = [key.split("/", 1)[1] for key in files if key.startswith("observations/")]
        suffixes = {name: f"/{name}" for name in found}
    if not suffixes:
        raise _lacks(path, "observations", files)
    return {name: suffixes.get(name, f"/{name}") for name in keys or suffixes}


def _check_length(path: Path, name: str, array: np.ndarray, steps: int) -> np.ndarray:
    if len(array) != steps:
        raise _Fault(
            f"{path}: {name} has {len(array)} rows, actions have {steps}. They must agree."
        )
    return array


def _checked_ends(path: Path, data: dict[str, np.ndarray], steps: int) -> np.ndarray:
    """Steps up to the end of each episode."""
    ends = data["episode_ends"].reshape(-1).astype(np.float64)
    outside = len(ends) == 0 or ends[-1] != steps
    if outside or (ends % 1 != 0).any() or (np.diff(ends, prepend=0) <= 0).any():
        raise _Fault(
            f"{path}: episode_ends must rise from above 0 to the number of steps, {steps}."
        )
    if "successes" not in data and "success" in data and len(data["success"]) != len(ends):
        raise _Fault(
            f"{path}: success has {len(data['success'])} rows for {len(ends)} episodes. They must "
            "agree."
        )
    return ends.astype(np.int64)


def _with_final(
    path: Path, suffix: str, values: np.ndarray, final: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """Observations with the one after each episode's last step put where it belongs."""
    if final.shape[1:] != values.shape[1:]:
        raise _Fault(
            f"{path}: observations{suffix} and next_observations{suffix} have rows of different "
            "shapes."
        )
    return np.insert(values, ends, final, axis=0)


def _without_last_actions(
    path: Path, data: dict[str, np.ndarray], ends: np.ndarray
) -> dict[str, np.ndarray]:
    """Every observation serves as the outcome of the action before it; the last action of an
    episode has none."""
    if (np.diff(ends, prepend=0) < 2).any():
        raise _Fault(
            f"{path} has an episode of one step and no next_observations: nothing of it can be "
            "used."
        )
    known = np.delete(np.arange(ends[-1]), ends - 1)
    steps = len(data["actions"])
    kept = {
        name: (
            values[known]
            if name in ("actions", "rewards", "successes") or name.startswith("infos/")
            else values
        )
        for name, values in data.items()
        if not (name.startswith("infos/") and len(values) != steps)
    }
    return kept | {"terminals": np.zeros(len(known), np.float32)}


def _episode(
    data: dict[str, np.ndarray], names: list[str], index: int, start: int, end: int
) -> Episode:
    rows, seen = slice(start, end), slice(start + index, end + index + 1)
    rewards = data["rewards"][rows].reshape(-1).astype(np.float32)
    if "successes" in data:
        successes = data["successes"][rows].reshape(-1) > 0
    elif "success" in data:
        successes = np.zeros(len(rewards), bool)
        successes[-1] = bool(data["success"][index])
    else:
        successes = rewards > 0
    observations = {name: data[f"observations/{name}"][seen] for name in names}
    steps = len(data["actions"])
    infos = {
        key.removeprefix("infos/"): values[rows if len(values) == steps else seen]
        for key, values in data.items() if key.startswith("infos/")
    }  # fmt: skip
    actions, terminated = (
        data["actions"][rows].astype(np.float32, copy=False),
        bool(data["terminals"][end - 1] > 0),
    )
    return Episode(observations, actions, rewards, successes, terminated, infos)


def matches(path: Path) -> bool:
    """An .npz file with `episode_ends`."""
    return "episode_ends" in archive_names(path)


FORMAT = Format(
    "arrays",
    "plain .npz: observations, next_observations, actions, rewards, terminals, episode_ends",
    matches,
    records,
    save_npz,
)
