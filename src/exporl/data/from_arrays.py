"""Episodes from arrays in memory."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from exporl.data.episodes import LOST_STEP, LOST_SUCCESS, Episode
from exporl.data.formats.ends import (
    EPISODE_NUMBERS,
    FIRST_ROWS,
    SURE,
    TRUE_ENDS,
    Marks,
    find_marks,
    inside,
    may_mark,
    plain,
)
from exporl.data.formats.fields import action_rows
from exporl.data.formats.outcomes import Rows, compare, contradiction
from exporl.data.formats.success import from_rewards

_KNOWN = {
    "actions",
    "rewards",
    "terminals",
    "episode_ends",
    "timeouts",
    "observations",
    "next_observations",
    "successes",
    "unit_actions",
}


def from_arrays(arrays: Mapping[str, Any]) -> list[Episode]:
    """Episodes from a dictionary of arrays over all N steps of all episodes, one after the other.

    Args:
        arrays: "actions" [N, a], "rewards" [N], "terminals" [N] (true ends), "episode_ends" (number
            of steps up to each episode's end) or "timeouts" [N] (ends that are not terminal);
            "observations", an array or a dictionary of
            arrays: [N + episodes, ...] with the one after each last step, or [N, ...] beside
                "next_observations", all of which must be the observations of the following rows;
            "successes" [N], by default rewards of 1 in a single step and 0 elsewhere. Of other
                rewards `Episode.question` says that success is not known; a task answers it by its
                own rule, or asks;
            "unit_actions": whether actions are in [-1, 1] already, not in the environment's bounds.
            Other names of marks (truncations, terminateds, episode_starts, ...) are understood.

    Raises:
        ValueError: an array is missing, the lengths disagree, an end is marked inside an episode,
            or next observations do not lead on; names it.
    """
    _check_names(arrays)
    actions = np.asarray(arrays["actions"])
    steps = len(actions)
    flat = _per_step(arrays, steps)
    marks = find_marks({name: flat[name] for name in may_mark(flat)}, steps)
    ends = _episode_ends(arrays, marks, steps)
    first = _entries(arrays["observations"])
    after = _entries(arrays["next_observations"]) if "next_observations" in arrays else None
    _check_rows(first, after, steps, len(ends))
    stated, note = (False, "") if after is None else _chain(first, after, ends)
    unit, episodes, start = bool(arrays.get("unit_actions", False)), [], 0
    for index, end in enumerate(ends):
        if fault := inside(marks, start, end):
            raise ValueError(f"episode {index}: {fault}")
        terminated = bool(marks.true_ends is not None and marks.true_ends[end - 1])
        kept, notes = end, (note,) if note else ()
        if after is None:
            observations = {name: v[start + index : end + index + 1] for name, v in first.items()}
        elif stated or terminated:
            observations = {
                name: np.concatenate([values[start:end], after[name][end - 1 : end]])
                for name, values in first.items()
            }
        else:
            kept = end - 1
            observations = {name: values[start:end] for name, values in first.items()}
            notes += (_left_out(flat, kept),)
        episode = _episode(observations, actions[start:kept], flat, start, terminated)
        episodes.append(dataclasses.replace(episode, unit_actions=unit, notes=notes))
        start = end
    return episodes


def _episode(
    observations: dict[str, np.ndarray],
    actions: np.ndarray,
    flat: Mapping[str, np.ndarray],
    start: int,
    terminated: bool,
) -> Episode:
    rows = slice(start, start + len(actions))
    rewards = flat["rewards"][rows].astype(np.float32)
    successes, question = from_rewards(rewards)
    if "successes" in flat:
        successes, question = flat["successes"][rows] > 0, ""
    actions = action_rows(actions)
    return Episode(observations, actions, rewards, successes, terminated, question=question)


def _left_out(flat: Mapping[str, np.ndarray], row: int) -> str:
    lost = flat["rewards"][row] > 0 or ("successes" in flat and flat["successes"][row] > 0)
    return f"{LOST_SUCCESS if lost else LOST_STEP}."


def _chain(
    first: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], ends: list[int]
) -> tuple[bool, str]:
    """Whether next observations state the outcomes, and a sentence about what is odd.

    Raises:
        ValueError: they are not the observations of the following rows; names the first.
    """
    last, stated, notes = np.zeros(ends[-1], bool), True, []
    last[np.array(ends) - 1] = True
    for name, values in first.items():
        if after[name].shape != values.shape:
            raise ValueError(
                f"next_observations {name!r} has shape {after[name].shape}, observations "
                f"{values.shape}. They must agree."
            )
        outcomes = compare(_reader(values), _reader(after[name]), last)
        stated &= not outcomes.copied
        notes += [note] if (note := outcomes.note()) else []
        start = 0
        for index, end in enumerate(ends):
            if fault := contradiction(outcomes.jumps, start, end):
                raise ValueError(f"episode {index}, observation {name!r}: {fault}")
            start = end
    return stated, notes[0] if notes else ""


def _reader(array: np.ndarray) -> Rows:
    def rows(start: int, stop: int) -> np.ndarray:
        return array[start:stop]

    return rows


def _check_names(arrays: Mapping[str, Any]) -> None:
    unknown = sorted(name for name in set(arrays) - _KNOWN if plain(name) not in SURE)
    if unknown:
        raise ValueError(f"unknown array {unknown[0]!r}; known are {', '.join(sorted(_KNOWN))}.")
    for name in ("actions", "rewards", "terminals", "observations"):
        known = name == "terminals" and any(plain(other) in TRUE_ENDS for other in arrays)
        if name not in arrays and not known:
            raise ValueError(f"{name!r} is missing; there are {', '.join(sorted(arrays))}.")


def _per_step(arrays: Mapping[str, Any], steps: int) -> dict[str, np.ndarray]:
    """The arrays [N] of one number per step."""
    names = [name for name in arrays if name in ("rewards", "successes") or plain(name) in SURE]
    flat = {name: np.asarray(arrays[name]).reshape(-1) for name in names}
    for name, values in flat.items():
        if len(values) != steps:
            raise ValueError(
                f"{name!r} has {len(values)} entries, actions have {steps}. They must agree."
            )
    return flat


def _episode_ends(arrays: Mapping[str, Any], marks: Marks, steps: int) -> list[int]:
    """Steps up to the end of each episode."""
    if "episode_ends" in arrays:
        ends = np.asarray(arrays["episode_ends"]).reshape(-1)
    elif any(plain(name) not in TRUE_ENDS for name in marks.sources):
        # these name the first row of the next episode, so that the last end goes without saying
        starts = any(plain(name) in (*FIRST_ROWS, *EPISODE_NUMBERS) for name in marks.sources)
        ends = np.flatnonzero(marks.ends | (starts & (np.arange(steps) == steps - 1))) + 1
    else:
        raise ValueError(
            "give 'episode_ends' or 'timeouts': where episodes end that are not terminal."
        )
    if not len(ends) or ends[-1] != steps or (np.diff(ends, prepend=0) <= 0).any():
        raise ValueError(
            f"the episodes' ends must rise from above 0 to the number of steps, {steps}; got "
            f"{ends[-3:]}."
        )
    return ends.astype(int).tolist()


def _check_rows(
    first: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray] | None, steps: int, num: int
) -> None:
    """Whether observations, and next observations where there are any, have the rows they need."""
    rows = steps if after is not None else steps + num
    for which, entries in (("observations", first), ("next_observations", after or {})):
        for name, values in entries.items():
            if len(values) != rows:
                raise ValueError(
                    f"{which} {name!r} has {len(values)} rows for {steps} steps in {num} episodes. "
                    "Give [N + episodes] rows (with the observation after each last step), or [N] "
                    "and 'next_observations'."
                )
    if after is not None and after.keys() != first.keys():
        raise ValueError(
            f"observations have {sorted(first)}, next_observations {sorted(after)}. They must "
            "agree."
        )


def _entries(observations: Any) -> dict[str, np.ndarray]:
    entries = observations if isinstance(observations, Mapping) else {"state": observations}
    arrays = {name: np.asarray(values) for name, values in entries.items()}
    return {
        name: v.astype(np.float32) if v.dtype == np.float64 else v for name, v in arrays.items()
    }
