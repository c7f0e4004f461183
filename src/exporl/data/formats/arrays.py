"""Plain NumPy archives: the format that demonstrations are collected into.

Flat arrays over all N steps of all episodes:
  observations [N, o]  next_observations [N, o]  actions [N, a]  rewards [N]  terminals [N]
  episode_ends [episodes] (steps up to each end) or episode_lengths [episodes]
  successes [N] (per step) or success [episodes]; without either, a single reward of 1 among zeros
  is the success, and of other rewards it is asked, see `success`
  unit_actions [episodes]: whether actions are known to be in [-1, 1] already
  success_known [episodes]: whether `successes` says anything

Without episode_ends the arrays that `ends` knows (terminals, timeouts, truncations, episode_starts,
...) say where episodes end, and so do next observations that do not lead on, or
`ReadOptions.horizon` where no time limit is marked; with it they must agree. Every next observation
must be the observation of the following row, noise apart.

Without next_observations, the last action of an episode has no outcome. A true end is kept, with
its own observation repeated, as nothing is bootstrapped from it; any other last step is left out,
and a note says so. Where neither terminals nor next_observations are there (demonstrations as they
were teleoperated) no episode counts as terminated.

Observations with several entries are stored as `observations/<name>` and
`next_observations/<name>`; whatever else an episode has as `infos/<name>`, [N, ...] per step or
[N + episodes, ...] per observation.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from exporl.data.episodes import LOST_STEP, LOST_SUCCESS, Episode
from exporl.data.formats.archives import Archive, archive_names, open_archive, write_archive
from exporl.data.formats.ends import (
    CUT_OFFS,
    SURE,
    TRUE_ENDS,
    Marks,
    find_marks,
    may_mark,
    plain,
)
from exporl.data.formats.fields import NUMERIC, action_rows, naming
from exporl.data.formats.pieces import Piece, closed, find_pieces
from exporl.data.formats.record import Format, ReadOptions, Record
from exporl.data.formats.success import from_rewards

_NEEDED = ("actions", "rewards", "terminals", "episode_ends")
_LENGTHS = ("episode_lengths", "traj_lengths")
_PER_STEP = ("rewards", "successes")
_PER_EPISODE = ("success", "success_known", "unit_actions")
_OGBENCH = {"qpos", "qvel", "button_states", "valids"}
"""Arrays that OGBench's own files have: there `terminals` marks last states."""


def save_npz(path: Path, episodes: Iterable[Episode]) -> None:
    """Writes episodes to one archive, one at a time in memory, under a temporary name first.

    An interrupted write leaves nothing behind.

    Raises:
        ValueError: there are no episodes, or their entries, shapes or types differ.
    """
    write_archive(Path(path), _parts(episodes))


def _parts(episodes: Iterable[Episode]) -> Iterator[dict[str, np.ndarray]]:
    steps = 0
    for episode in episodes:
        steps += len(episode)
        yield _rows(episode, steps)


def _rows(episode: Episode, end: int) -> dict[str, np.ndarray]:
    """The episode's part of every array; `end` counts all steps up to its last."""
    steps = len(episode)
    rows = {
        "actions": episode.actions.astype(np.float32),
        "rewards": episode.rewards.astype(np.float32),
        "successes": episode.successes.astype(np.float32),
        "terminals": np.r_[np.zeros(steps - 1), episode.terminated].astype(np.float32),
        "episode_ends": np.array([end]),
        "unit_actions": np.array([episode.unit_actions]),
        "success_known": np.array([not episode.question]),
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


class _Content(NamedTuple):
    """All arrays, checked. Observations come in the order they were made, each episode's last
    outcome among them: episodes are views, nothing is held twice."""

    data: dict[str, np.ndarray]
    entries: list[str]
    pieces: list[Piece]


def records(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The episodes of an archive, see `Format.records`. Raises as `load_npz` does."""
    with open_archive(Path(path)) as archive:
        content = _load(archive, options.keys, options.horizon)
    for index, piece in enumerate(content.pieces):
        yield Record(f"episode {index}", functools.partial(_episode, content, index, piece))


def _load(archive: Archive, keys: tuple[str, ...], horizon: int | None) -> _Content:
    path, names = archive.path, archive.names
    stated = any(name.startswith("next_observations") for name in names)
    signs = may_mark(names)
    bare = not stated and not any(plain(name) in TRUE_ENDS for name in signs)
    _check_names(path, names, signs, bare)
    suffixes = _suffixes(path, keys, names)
    data = {"actions": _read(archive, "actions")}
    steps = len(data["actions"])
    for name in (*_PER_STEP, *_PER_EPISODE, *_LENGTHS):
        if name in names:
            data[name] = _read(archive, name)
    for name in _PER_STEP:
        if name in data:
            _check_length(path, name, data[name], steps)
    stops = _stated_stops(path, names, archive, data, steps)
    must_state = stated or (not bare and stops is not None)
    kinds = ("observations", "next_observations") if must_state else ("observations",)
    entries = [f"{kind}{suffix}" for suffix in suffixes.values() for kind in kinds]
    if lost := [entry for entry in entries if entry not in names]:
        raise _lacks(path, lost[0], names)
    marks = _marks(path, archive, signs, steps)
    seen, after = {}, {}
    for name, suffix in suffixes.items():
        for kept, kind in zip((seen, after), kinds, strict=False):
            kept[name] = _check_length(
                path, f"{kind}{suffix}", _read(archive, f"{kind}{suffix}"), steps
            )
    with naming(path):
        pieces, closing = find_pieces(seen, after, marks, stops, bare, horizon)
    if bare and stops is not None and any(piece.steps == 0 for piece in pieces):
        raise ValueError(
            f"{path} has an episode of one step and no next_observations: nothing of it can be "
            "used."
        )
    for name in suffixes:
        finals = (after if after else seen)[name][closing - 1]
        after.pop(name, None)  # at no time is there more than was read
        data[f"observations/{name}"] = closed(seen.pop(name), finals, closing)
    data |= _infos(path, archive, steps, len(pieces))
    _check_episodes(path, data, len(pieces))
    return _Content(data, list(suffixes), pieces)


def _read(archive: Archive, name: str) -> np.ndarray:
    return np.atleast_1d(archive.read(name))


def _check_names(path: Path, names: list[str], signs: list[str], bare: bool) -> None:
    """Whether the arrays that are needed are there."""
    ends = {*_LENGTHS, "episode_ends"} & set(names) or any(plain(name) in SURE for name in signs)
    missing = [name for name in ("actions", "rewards") if name not in names]
    if not bare and not any(plain(name) in TRUE_ENDS for name in signs):
        missing.append("terminals")
    if not ends or (missing and "episode_ends" not in names):
        missing.append("episode_ends")
    if missing:
        doubtful = [name for name in signs if plain(name) not in SURE]
        hint = (
            f" {doubtful[0]} may mark ends, but not which of them are true: store true ends as "
            "terminals and other ends as timeouts."
            if doubtful
            else ""
        )
        raise ValueError(f"{_lacks(path, ', '.join(missing), names)}{hint}")


def _lacks(path: Path, what: str, names: list[str]) -> ValueError:
    return ValueError(f"{path} lacks {what}; it has {', '.join(sorted(names))}.")


def _suffixes(path: Path, keys: tuple[str, ...], names: list[str]) -> dict[str, str]:
    """Name of an observation entry -> what follows "observations" in the name of its array."""
    if "observations" in names:
        suffixes = {"state": ""}
    else:
        found = [key.split("/", 1)[1] for key in names if key.startswith("observations/")]
        suffixes = {name: f"/{name}" for name in found}
    if not suffixes:
        raise _lacks(path, "observations", names)
    return {name: suffixes.get(name, f"/{name}") for name in keys or suffixes}


def _check_length(path: Path, name: str, array: np.ndarray, steps: int) -> np.ndarray:
    if len(array) != steps:
        raise ValueError(
            f"{path}: {name} has {len(array)} rows, actions have {steps}. They must agree."
        )
    if array.dtype.kind not in NUMERIC:
        raise ValueError(f"{path}: {name} is not an array of numbers (type {array.dtype}).")
    return array


def _marks(path: Path, archive: Archive, signs: list[str], steps: int) -> Marks:
    columns = {name: _read(archive, name) for name in signs}
    for name, column in columns.items():
        if plain(name) in SURE:
            _check_length(path, name, column, steps)
    with naming(path):
        return find_marks(columns, steps)


def _stated_stops(
    path: Path, names: list[str], archive: Archive, data: dict[str, np.ndarray], steps: int
) -> np.ndarray | None:
    """Rows up to the end of each episode as one array has them; None if none does."""
    if "episode_ends" in names:
        what, array = "episode_ends", _read(archive, "episode_ends")
    elif found := [name for name in _LENGTHS if name in data]:
        what, array = f"the sums of {found[0]}", np.cumsum(data[found[0]].reshape(-1))
    else:
        return None
    numbers = array.dtype.kind in NUMERIC
    stops = array.reshape(-1).astype(np.float64) if numbers else np.zeros(0)
    outside = len(stops) == 0 or stops[-1] != steps
    if outside or (stops % 1 != 0).any() or (np.diff(stops, prepend=0) <= 0).any():
        raise ValueError(f"{path}: {what} must rise from above 0 to the number of steps, {steps}.")
    return stops.astype(np.int64)


def _infos(path: Path, archive: Archive, steps: int, episodes: int) -> dict[str, np.ndarray]:
    """Whatever else the episodes have: one row per step, or per observation."""
    infos = {key: _read(archive, key) for key in archive.names if key.startswith("infos/")}
    for key, values in infos.items():
        if len(values) not in (steps, steps + episodes):
            raise ValueError(
                f"{path}: {key} has {len(values)} rows for {steps} steps. They must agree."
            )
    return infos


def _check_episodes(path: Path, data: dict[str, np.ndarray], episodes: int) -> None:
    for name in _PER_EPISODE:
        if name in data and len(data[name]) != episodes and not (
            name == "success" and "successes" in data
        ):  # fmt: skip
            raise ValueError(
                f"{path}: {name} has {len(data[name])} rows for {episodes} episodes. They must "
                "agree."
            )


def _episode(content: _Content, index: int, piece: Piece) -> Episode:
    if piece.fault:
        raise ValueError(piece.fault)
    if piece.steps == 0:
        raise ValueError(
            "a single row, and the observation after it is not recorded: there is no step. Remove "
            "the episode."
        )
    data, steps = content.data, len(content.data["actions"])
    rows = slice(piece.start, piece.start + piece.steps)
    whole = data["rewards"][piece.start : piece.stop].reshape(-1).astype(np.float32)
    successes, question = _successes(data, index, piece, whole)
    seen = slice(piece.first, piece.first + piece.steps + 1)
    along = slice(piece.start + index, piece.start + index + piece.steps + 1)
    infos = {
        key.removeprefix("infos/"): values[rows if len(values) == steps else along]
        for key, values in data.items() if key.startswith("infos/")
    }  # fmt: skip
    notes = piece.notes
    if piece.start + piece.steps < piece.stop:
        flagged = "successes" in data and bool(data["successes"][piece.stop - 1] > 0)
        notes += (f"{LOST_SUCCESS if flagged or whole[-1] > 0 else LOST_STEP}.",)
    return Episode(
        {name: data[f"observations/{name}"][seen] for name in content.entries},
        action_rows(data["actions"][rows]),
        whole[: piece.steps],
        successes,
        piece.terminated,
        infos,
        unit_actions="unit_actions" in data and bool(data["unit_actions"][index]),
        question=question,
        notes=notes,
    )


def _successes(
    data: dict[str, np.ndarray], index: int, piece: Piece, rewards: np.ndarray
) -> tuple[np.ndarray, str]:
    """Success in each step that is kept, and the question where it is not known."""
    known = "success_known" not in data or bool(data["success_known"][index])
    if "successes" in data and known:
        flags = data["successes"][piece.start : piece.start + piece.steps]
        return flags.reshape(-1) > 0, ""
    if "success" in data and known:
        successes = np.zeros(piece.steps, bool)
        successes[-1] = bool(data["success"][index])
        return successes, ""
    return from_rewards(rewards[: piece.steps])


def is_flat(names: set[str]) -> bool:
    """Whether arrays of these names are steps of episodes one after the other, as here, without
    `episode_ends`: an OGBench file, where marks stand elsewhere, is not."""
    if "actions" not in names or not any(n.split("/")[0] == "observations" for n in names):
        return False
    signs = {plain(name) for name in may_mark(names)}
    if signs & set(CUT_OFFS) or names & set(_LENGTHS):
        return True
    return "rewards" in names and bool(signs & set(SURE)) and not names & _OGBENCH


def matches(path: Path) -> bool:
    """An .npz file with `episode_ends`, or with rewards and another array that marks ends."""
    names = archive_names(path)
    return "episode_ends" in names or is_flat(names)


FORMAT = Format(
    "arrays",
    "plain .npz: observations, next_observations, actions, rewards, terminals, episode_ends",
    matches,
    records,
    save_npz,
    endings=(".npz",),
    options=("keys", "horizon"),
)
