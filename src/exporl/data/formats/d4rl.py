"""D4RL HDF5: flat arrays over the n steps of all episodes.

  observations [n, o]  actions [n, a]  rewards [n] or [n, 1]  terminals [n] or [n, 1]
  optional: timeouts [n], next_observations [n, o], infos/<name> [n, ...] (goal, qpos, qvel);
  metadata/* is not read

Conventions:
- An episode ends at a terminal (a true end) or a timeout, under any name that `ends` knows. Files
  that mark no timeouts end their episodes after `ReadOptions.horizon` steps. The rows after the
  last mark are an episode cut short.
- The observation after a step is that of the following row, and after the last step of an episode
  it is not in the file. A terminal step is kept with its own observation repeated, as nothing is
  bootstrapped from it; any other last step is dropped, which a note says, and with it an episode of
  one row.
- With `next_observations` every step is kept, and an episode also ends where the next observation
  is not the observation of the following row, noise apart (see `outcomes`).
- Success is read off sparse rewards, see `success`; a task with other rewards measures success
  itself in `Task.adapt`, if need be from `infos`, whose row i belongs to observation i.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from exporl.data.episodes import LOST_STEP, LOST_SUCCESS, Episode
from exporl.data.formats import hdf5
from exporl.data.formats.ends import (
    ONLY_TRUE_ENDS,
    SURE,
    TRUE_ENDS,
    Marks,
    check_doubtful,
    find_marks,
    horizon_ends,
    may_mark,
    plain,
)
from exporl.data.formats.fields import (
    NUMERIC,
    action_rows,
    check_rows,
    column,
    naming,
    observation,
)
from exporl.data.formats.outcomes import Outcomes, compare
from exporl.data.formats.record import Format, ReadOptions, Record
from exporl.data.formats.success import from_rewards

_NEEDED = ("observations", "actions", "rewards", "terminals")
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
        for index, piece in enumerate(pieces):
            yield Record(
                f"episode {index}", functools.partial(_episode, source, tuple(arrays), piece)
            )


def matches(path: Path) -> bool:
    """An HDF5 file with arrays `observations` and `actions` at its root."""
    return hdf5.looks_like(
        path,
        lambda root: all(hdf5.has_array(root, name) for name in ("observations", "actions")),
    )


def _arrays(root: Any) -> dict[str, Any]:
    """Everything in the file that has one row per step, not read yet."""
    found = hdf5.names(root, "the file")
    signs = may_mark(found)
    names = (*_NEEDED, "next_observations", *signs)
    arrays = {name: hdf5.child(root, name) for name in dict.fromkeys(names)}
    lacking = [name for name in _NEEDED if arrays[name] is None]
    if any(plain(name) in TRUE_ENDS for name in signs):
        lacking = [name for name in lacking if name != "terminals"]
    if lacking:
        doubtful = [name for name in signs if plain(name) not in TRUE_ENDS]
        hint = (
            f" {doubtful[0]} does not say which ends are true: store those as terminals, others as "
            "timeouts."
            if "terminals" in lacking and doubtful
            else ""
        )
        raise ValueError(f"{', '.join(lacking)} is missing; found {', '.join(found)}.{hint}")
    arrays = {name: array for name, array in arrays.items() if array is not None}
    infos = hdf5.child(root, "infos")
    for name, array in ({} if infos is None else hdf5.leaves(infos, "infos")).items():
        if hdf5.shape_of(array, f"infos/{name}"):  # single numbers and texts describe the file
            arrays[f"infos/{name}"] = array
    steps = hdf5.rows_of(arrays["actions"], "actions")
    arrays = {
        name: array
        for name, array in arrays.items()
        if plain(name) in (*SURE, *_NEEDED) or name not in signs or _is_column(array, steps)
    }
    check_rows({name: hdf5.rows_of(array, name) for name, array in arrays.items()}, steps)
    if steps == 0:
        raise ValueError("actions has no rows.")
    hdf5.check_total(arrays)
    shapes = {name: hdf5.shape_of(array, name) for name, array in arrays.items()}
    if shapes.get("next_observations", shapes["observations"]) != shapes["observations"]:
        raise ValueError(
            f"next_observations has shape {shapes['next_observations']}, observations has "
            f"{shapes['observations']}."
        )
    return arrays


def _is_column(array: Any, steps: int) -> bool:
    """Whether something is one number per step."""
    if not hdf5.is_dataset(array) or array.dtype.kind not in NUMERIC:
        return False
    return hdf5.shape_of(array, "it") in ((steps,), (steps, 1))


class _Piece(NamedTuple):
    """An episode that has a step."""

    start: int
    stop: int
    """Its rows in the file."""
    terminated: bool
    notes: tuple[str, ...] = ()


def _pieces(arrays: dict[str, Any], horizon: int | None) -> list[_Piece]:
    """Every episode that has a step; `arrays` loses next observations that state nothing."""
    rows = len(arrays["actions"])
    marks = find_marks({name: hdf5.read(arrays[name], name) for name in may_mark(arrays)}, rows)
    assert marks.true_ends is not None  # `_arrays` has seen to that
    ends, jumps, notes = _ends(arrays, marks, horizon)
    check_doubtful(marks, ends)
    stops = np.flatnonzero(ends) + 1
    stops = stops if stops[-1] == rows else np.r_[stops, rows]
    pieces, alone = [], 0
    for start, stop in zip(np.r_[0, stops[:-1]].tolist(), stops.tolist(), strict=True):
        terminated = bool(marks.true_ends[stop - 1])
        if "next_observations" not in arrays and not terminated and stop - start == 1:
            alone += 1
            continue
        said = [] if pieces else notes
        if marks.cut_offs and stop < rows and jumps[stop - 1]:
            said = [*said, "ends where next_observations does not lead on, which no array marks."]
        pieces.append(_Piece(start, stop, terminated, tuple(said)))
    if not pieces:
        raise ValueError(
            "every row ends an episode and none has a next observation: there is no step to learn "
            "from."
        )
    if alone:
        left = f"{alone} episodes of a single row without an outcome are left out."
        pieces[0] = pieces[0]._replace(notes=(*pieces[0].notes, left))
    return pieces


def _ends(
    arrays: dict[str, Any], marks: Marks, horizon: int | None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rows that end an episode, those among them that only their outcome shows, and sentences."""
    ends, jumps, notes = marks.ends.copy(), np.zeros(len(marks.ends), bool), []
    if not marks.cut_offs and horizon is not None:
        ends |= horizon_ends(ends, horizon)
    if "next_observations" in arrays:
        outcomes = _outcomes(arrays, ends)
        notes = [note] if (note := outcomes.note()) else []
        if outcomes.copied:
            del arrays["next_observations"]
        else:
            jumps = outcomes.jumps & ~ends
            ends |= jumps
    if not ends.any():
        raise ValueError(
            f"no row of its {len(ends)} is marked as the end of an episode, in terminals or "
            "timeouts. Give the time limit of the environment in steps with --horizon (in training "
            "--data.horizon)."
        )
    if "next_observations" not in arrays and not marks.cut_offs and horizon is None:
        notes.append(ONLY_TRUE_ENDS)
    return ends, jumps, notes


def _outcomes(arrays: dict[str, Any], ends: np.ndarray) -> Outcomes:
    def now(start: int, stop: int) -> np.ndarray:
        return hdf5.read(arrays["observations"], "observations", start, stop)

    def following(start: int, stop: int) -> np.ndarray:
        return hdf5.read(arrays["next_observations"], "next_observations", start, stop)

    return compare(now, following, ends, _BLOCK_ROWS)


def _episode(source: hdf5.Source, names: tuple[str, ...], piece: _Piece) -> Episode:
    signs = may_mark(names)
    start, stop, terminated, notes = piece
    with source.open() as root:
        part = {
            name: hdf5.read(
                source.array(root, name),
                name,
                stop - 1 if name == "next_observations" else start,
                stop,
            )
            for name in names
            if name not in signs
        }
    seen = part.pop("observations")
    last = part.pop("next_observations", seen[-1:] if terminated else seen[:0])
    seen = observation(np.concatenate([seen, last]))
    steps = len(seen) - 1
    actions = action_rows(part.pop("actions"))[:steps]
    whole = column(part.pop("rewards"), "rewards")
    successes, question = from_rewards(whole[:steps])
    if steps < len(whole):
        notes += (f"{LOST_SUCCESS if whole[-1] > 0 else LOST_STEP}.",)
    return Episode(
        {"image" if seen.dtype == np.uint8 else "state": seen},
        actions,
        whole[:steps],
        successes,
        terminated,
        {name.removeprefix("infos/"): value for name, value in part.items()},
        question=question,
        notes=notes,
    )


FORMAT = Format(
    "d4rl",
    "D4RL HDF5: flat observations, actions, rewards, terminals, with or without timeouts; "
    "`--horizon` where nothing marks ends",
    matches,
    records,
    module="h5py",
    extra="formats",
    options=("horizon",),
)
