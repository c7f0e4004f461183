"""Plain NumPy archives: the format that demonstrations are collected into.

Flat arrays over all N steps of all episodes:
  observations [N, o]  next_observations [N, o]  actions [N, a]  rewards [N]  terminals [N]  episode_ends [episodes]
  successes [N] (per step) or success [episodes]; without either, success means a positive reward.
Observations with several entries are stored as `observations/<name>` and `next_observations/<name>`.
"""

import functools
import itertools
import os
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from exporl.data.episodes import Episode
from exporl.data.formats.record import Format, ReadOptions, Record

_NEEDED = ("actions", "rewards", "terminals", "episode_ends")


def save_npz(path: Path, episodes: Sequence[Episode]) -> None:
    """Writes episodes to one archive, under a temporary name first, so an interrupted write leaves nothing behind."""
    arrays: dict[str, np.ndarray] = {
        "actions": np.concatenate([e.actions for e in episodes]).astype(np.float32),
        "rewards": np.concatenate([e.rewards for e in episodes]).astype(np.float32),
        "successes": np.concatenate([e.successes for e in episodes]).astype(np.float32),
        "terminals": np.concatenate([np.r_[np.zeros(len(e) - 1), e.terminated] for e in episodes]).astype(np.float32),
        "episode_ends": np.cumsum([len(e) for e in episodes]),
    }
    names = list(episodes[0].observations)
    for name in names:
        suffix = "" if names == ["state"] else f"/{name}"
        arrays[f"observations{suffix}"] = np.concatenate([e.observations[name][:-1] for e in episodes])
        arrays[f"next_observations{suffix}"] = np.concatenate([e.observations[name][1:] for e in episodes])
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_npz(path: Path, limit: int | None = None) -> list[Episode]:
    """Reads the first `limit` episodes (all by default) in file order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such an archive, an array is missing, or the lengths disagree; names the file and the array.
    """
    return [record.read() for record in itertools.islice(records(path, ReadOptions()), limit)]


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz archive, each read once; single numbers become arrays of one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such an archive, or damaged; names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no data file at {path}. Check the path, or leave it out to collect demonstrations.")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: np.atleast_1d(archive[name]) for name in archive.files}
    except Exception as error:  # damage surfaces as whatever zipfile, zlib or NumPy stumble over
        raise ValueError(f"{path} is not a readable .npz archive ({error}). Copy or collect it again.") from error


def archive_names(path: Path) -> set[str]:
    """Names of the arrays in an .npz archive without reading them; none for anything else. Never raises."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception:  # a damaged directory surfaces in many ways
        return set()


def records(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The episodes of an archive, see `Format.records`. Raises as `load_npz` does."""
    path = Path(path)
    data = read_archive(path)
    missing = [name for name in _NEEDED if name not in data]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it has {', '.join(sorted(data))}.")
    names = {"state": ""} if "observations" in data else {
        key.split("/", 1)[1]: "/" + key.split("/", 1)[1] for key in data if key.startswith("observations/")
    }  # fmt: skip
    if not names:
        raise ValueError(f"{path} lacks observations; it has {', '.join(sorted(data))}.")
    steps, ends = len(data["actions"]), data["episode_ends"].reshape(-1).astype(np.float64)
    per_step = ["rewards", "terminals", *(["successes"] if "successes" in data else [])]
    for suffix in names.values():
        per_step += [f"observations{suffix}", f"next_observations{suffix}"]
    for name in per_step:
        if name not in data:
            raise ValueError(f"{path} lacks {name}; it has {', '.join(sorted(data))}.")
        if len(data[name]) != steps:
            raise ValueError(f"{path}: {name} has {len(data[name])} rows, actions have {steps}. They must agree.")
    if len(ends) == 0 or ends[-1] != steps or (ends % 1 != 0).any() or (np.diff(ends, prepend=0) <= 0).any():
        raise ValueError(f"{path}: episode_ends must rise from above 0 to the number of steps, {steps}.")
    ends = ends.astype(np.int64)
    if "successes" not in data and "success" in data and len(data["success"]) != len(ends):
        raise ValueError(f"{path}: success has {len(data['success'])} rows for {len(ends)} episodes. They must agree.")
    for index, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        yield Record(f"episode {index}", functools.partial(_episode, data, names, index, int(start), int(end)))


def _episode(data: dict[str, np.ndarray], names: dict[str, str], index: int, start: int, end: int) -> Episode:
    rows = slice(start, end)
    rewards = data["rewards"][rows].reshape(-1).astype(np.float32)
    if "successes" in data:
        successes = data["successes"][rows].reshape(-1) > 0
    elif "success" in data:
        successes = np.zeros(len(rewards), bool)
        successes[-1] = bool(data["success"][index])
    else:
        successes = rewards > 0
    observations = {
        name: np.concatenate([data[f"observations{s}"][rows], data[f"next_observations{s}"][end - 1 : end]])
        for name, s in names.items()
    }
    terminated = bool(data["terminals"][end - 1] > 0)
    return Episode(observations, data["actions"][rows].astype(np.float32), rewards, successes, terminated)


def matches(path: Path) -> bool:
    """An .npz file with `episode_ends`."""
    return "episode_ends" in archive_names(path)


FORMAT = Format(
    "arrays", "plain .npz: observations, next_observations, actions, rewards, terminals, episode_ends", matches,
    records, lambda path, episodes: save_npz(path, list(episodes)),
)  # fmt: skip
