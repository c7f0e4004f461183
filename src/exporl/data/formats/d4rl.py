"""D4RL HDF5: flat arrays over the n steps of all episodes.

  observations [n, o]  actions [n, a]  rewards [n] or [n, 1]  terminals [n] or [n, 1]
  optional: timeouts [n], next_observations [n, o], infos/<name> [n, ...] (goal, qpos, qvel);
  metadata/* is not read

Conventions:
- An episode ends at a terminal (a true end) or a timeout. Files that mark no timeouts end their
  episodes after `ReadOptions.horizon` steps. The rows after the last mark are an episode cut short.
- The observation after a step is that of the following row, and after the last step of an episode
  it is not in the file. A terminal step is kept with its own observation repeated, as nothing is
  bootstrapped from it; any other last step is dropped, and with it an episode of one row.
- With `next_observations` every step is kept, and an episode also ends where the next observation
  is not the observation of the following row.
- Success is a positive reward, which suits the 0/1 rewards of AntMaze; a task with dense rewards
  measures success itself in `Task.adapt`, if need be from `infos`, whose row i belongs to
  observation i.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from exporl.data.episodes import Episode
from exporl.data.formats import hdf5
from exporl.data.formats.fields import action_rows, check_rows, column, naming, observation
from exporl.data.formats.record import Format, ReadOptions, Record

_NEEDED = ("observations", "actions", "rewards", "terminals")
_OPTIONAL = ("timeouts", "next_observations")
_BLOCK_ROWS = 16_384
"""Rows compared at a time, so that the file is never held as a whole."""


def records(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The episodes of a file, see `Format.records`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such a file, an array is missing, lengths disagree, or nothing marks the
            ends of episodes; names the file and the array.
    """
    source = hdf5.Source(path)
    with source.open() as root:
        with naming(path):
            arrays = _arrays(root)
            pieces = _pieces(arrays, options.horizon)
        for index, (start, stop, terminated) in enumerate(pieces):
            yield Record(
                f"episode {index}",
                functools.partial(_episode, source, tuple(arrays), start, stop, terminated),
            )


def matches(path: Path) -> bool:
    """An HDF5 file with arrays `observations` and `actions` at its root."""
    return hdf5.looks_like(
        path,
        lambda root: all(
            hdf5.is_dataset(hdf5.child(root, name)) for name in ("observations", "actions")
        ),
    )


def _arrays(root: Any) -> dict[str, Any]:
    """Everything in the file that has one row per step, not read yet."""
    arrays = {name: hdf5.child(root, name) for name in (*_NEEDED, *_OPTIONAL)}
    missing = [name for name in _NEEDED if arrays[name] is None]
    if missing:
        raise ValueError(
            f"{', '.join(missing)} is missing; found {', '.join(hdf5.names(root, 'the file'))}."
        )
    arrays = {name: array for name, array in arrays.items() if array is not None}
    infos = hdf5.child(root, "infos")
    for name, array in ({} if infos is None else hdf5.leaves(infos, "infos")).items():
        if hdf5.shape_of(array, f"infos/{name}"):  # single numbers and texts describe the file
            arrays[f"infos/{name}"] = array
    lengths = {name: hdf5.rows_of(array, name) for name, array in arrays.items()}
    check_rows(lengths, lengths["actions"])
    if lengths["actions"] == 0:
        raise ValueError("actions has no rows.")
    shapes = {name: hdf5.shape_of(array, name) for name, array in arrays.items()}
    if shapes.get("next_observations", shapes["observations"]) != shapes["observations"]:
        raise ValueError(
            f"next_observations has shape {shapes['next_observations']}, observations has "
            f"{shapes['observations']}."
        )
    return arrays


def _pieces(arrays: dict[str, Any], horizon: int | None) -> list[tuple[int, int, bool]]:
    """First row, row after the last, and whether it is a true end, of every episode that has a
    step."""
    rows = len(arrays["actions"])
    flags = {
        name: _flags(arrays[name], name) for name in ("terminals", "timeouts") if name in arrays
    }
    terminals = flags["terminals"]
    ends = terminals.copy()
    if "timeouts" in flags and flags["timeouts"].any():
        ends |= flags["timeouts"]
    elif horizon is not None:
        if horizon < 1:
            raise ValueError(f"the horizon must be at least 1 step, got {horizon}.")
        ends |= _steps_since(ends) % horizon == horizon - 1
    if "next_observations" in arrays:
        ends |= _jumps(arrays["observations"], arrays["next_observations"])
    if not ends.any():
        raise ValueError(
            f"no row of its {rows} is marked as the end of an episode, in terminals or timeouts. "
            "Give the time limit of the environment in steps with --horizon; to train on it, run"
            " `exporl data convert` with --horizon first."
        )
    stops = np.flatnonzero(ends) + 1
    stops = stops if stops[-1] == rows else np.r_[stops, rows]
    pieces = [
        (int(a), int(b), bool(terminals[b - 1]))
        for a, b in zip(np.r_[0, stops[:-1]], stops, strict=True)
    ]
    if "next_observations" not in arrays:
        pieces = [
            (start, stop, terminated)
            for start, stop, terminated in pieces
            if terminated or stop - start > 1
        ]
    if not pieces:
        raise ValueError(
            "every row ends an episode and none has a next observation: there is no step to learn "
            "from."
        )
    return pieces


def _flags(array: Any, name: str) -> np.ndarray:
    values = column(hdf5.read(array, name), name)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} row {int(np.argmin(np.isfinite(values)))} holds NaN or infinity.")
    return values > 0


def _steps_since(ends: np.ndarray) -> np.ndarray:
    """[n]: how many rows lie between each row and the start of its episode."""
    rows = np.arange(len(ends))
    starts = np.where(np.r_[True, ends[:-1]], rows, 0)
    return rows - np.maximum.accumulate(starts)


def _jumps(observations: Any, following: Any) -> np.ndarray:
    """[n] bool: rows whose next observation is not the observation of the following row; the last
    row is one."""
    jumps = np.ones(len(observations), bool)
    for start in range(0, len(jumps) - 1, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(jumps) - 1)
        now = hdf5.read(observations, "observations", start + 1, stop + 1)
        then = hdf5.read(following, "next_observations", start, stop)
        with np.errstate(all="ignore"):
            same = np.isclose(now, then, rtol=1e-5, atol=1e-6, equal_nan=True)
        jumps[start:stop] = ~same.reshape(stop - start, -1).all(axis=1)
    return jumps


def _episode(
    source: hdf5.Source, names: tuple[str, ...], start: int, stop: int, terminated: bool
) -> Episode:
    with source.open() as root:
        part = {
            name: hdf5.read(
                source.array(root, name),
                name,
                stop - 1 if name == "next_observations" else start,
                stop,
            )
            for name in names
            if name not in ("terminals", "timeouts")
        }
    seen = part.pop("observations")
    last = part.pop("next_observations", seen[-1:] if terminated else seen[:0])
    seen = observation(np.concatenate([seen, last]))
    steps = len(seen) - 1
    actions = action_rows(part.pop("actions"))[:steps]
    rewards = column(part.pop("rewards"), "rewards")[:steps]
    infos = {name.removeprefix("infos/"): value for name, value in part.items()}
    name = "image" if seen.dtype == np.uint8 else "state"
    return Episode({name: seen}, actions, rewards, rewards > 0, terminated, infos)


FORMAT = Format(
    "d4rl", "D4RL HDF5: flat observations, actions, rewards, terminals, with or without timeouts",
    matches, records, module="h5py", extra="formats",
)  # fmt: skip
