"""Arrays that say where episodes end, under the names that other programs give them.

What a name surely means is read: true ends, cut-offs, ends of either kind, first rows, and numbers
of episodes. What only sounds like it is compared with the ends that are known, and refused where it
would add another: episodes are never joined across a reset.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from exporl.data.formats.fields import column

TRUE_ENDS = (
    "terminals", "terminal", "terminations", "termination", "terminateds", "terminated",
    "is_terminal",
)  # fmt: skip
CUT_OFFS = (
    "timeouts", "timeout", "truncations", "truncation", "truncateds", "truncated", "is_truncated",
    "timelimit.truncated",
)  # fmt: skip
LAST_ROWS = ("is_last", "last_step")
FIRST_ROWS = ("episode_starts", "episode_start", "is_first", "first_step")
EPISODE_NUMBERS = (
    "episode_ids", "episode_id", "episode_index", "episode_indices", "episode_numbers",
    "traj_ids", "traj_id", "traj_index", "trajectory_ids", "trajectory_id", "trajectory_index",
)  # fmt: skip
DOUBTFUL = (
    "dones", "done", "dones_float", "done_flags", "ends", "end", "is_done", "is_end", "resets",
    "reset", "masks", "mask", "not_done", "not_dones", "nonterminals", "discounts", "discount",
    "last", "first", "episode_over", "over", "time_limits", "boundaries", "valids", "valid",
)  # fmt: skip
SURE = (*TRUE_ENDS, *CUT_OFFS, *LAST_ROWS, *FIRST_ROWS, *EPISODE_NUMBERS)


ONLY_TRUE_ENDS = (
    "only true ends are marked: if episodes also end at a time limit, mark those rows in timeouts "
    "or give --horizon (in training --data.horizon); otherwise they are joined across the reset."
)


class Marks(NamedTuple):
    """What the arrays of a file say about the ends of its episodes."""

    true_ends: np.ndarray | None
    """[n] bool: rows that are true ends; None where no array says which are."""
    ends: np.ndarray
    """[n] bool: rows that surely end an episode, true ends included."""
    cut_offs: bool
    """Whether an array marks any end that need not be a true one."""
    sources: tuple[str, ...]
    """Names of the arrays that were read."""
    doubtful: dict[str, np.ndarray]
    """Names of arrays that may mark ends -> [n] bool, the rows that they single out."""


def plain(name: str) -> str:
    """The name that the tables above list: lower case, without the group it lies in."""
    return name.rsplit("/", 1)[-1].lower()


def may_mark(names: Iterable[str]) -> list[str]:
    """Those of the names that say, or may say, where episodes end."""
    found = []
    for name in names:
        known = (*SURE, *DOUBTFUL) if "/" not in name else ("timelimit.truncated",)
        if plain(name) in known:
            found.append(name)
    return found


def find_marks(arrays: Mapping[str, np.ndarray], rows: int) -> Marks:
    """What arrays, picked by `may_mark`, say about the ends of episodes in `rows` rows.

    Raises:
        ValueError: one whose meaning is sure has another length, more than one number per row, or
            NaN; names it.
    """
    true_ends, ends, cut_offs = None, np.zeros(rows, bool), False
    sources, doubtful = [], {}
    for name, array in arrays.items():
        kind = plain(name)
        if kind in DOUBTFUL:
            doubtful |= _singled_out(name, array, rows)
            continue
        marked = _marked(name, kind, array, rows)
        sources.append(name)
        if kind in TRUE_ENDS:
            true_ends = marked if true_ends is None else true_ends | marked
        else:
            cut_offs |= bool(marked.any())
        ends |= marked
    return Marks(true_ends, ends, cut_offs, tuple(sources), doubtful)


def _marked(name: str, kind: str, array: np.ndarray, rows: int) -> np.ndarray:
    """[n] bool: rows that an array of known meaning says are the last of their episode."""
    if len(array) != rows:
        raise ValueError(f"{name} has {len(array)} rows, actions has {rows}. They must agree.")
    values = column(array, name)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} row {int(np.argmin(np.isfinite(values)))} holds NaN or infinity.")
    if kind in FIRST_ROWS:
        return np.r_[values[1:] > 0, False]
    if kind in EPISODE_NUMBERS:
        numbers = array.reshape(rows)  # as they are: float32 would join large ones
        return np.r_[numbers[1:] != numbers[:-1], False]
    return values > 0


def _singled_out(name: str, array: np.ndarray, rows: int) -> dict[str, np.ndarray]:
    """The rows in which an array of two values has the rarer one; nothing for any other array."""
    if len(array) != rows or array.size != rows or array.dtype.kind not in "biuf":
        return {}
    values, counts = np.unique(array.reshape(rows), return_counts=True)
    if len(values) != 2:
        return {}
    return {name: array.reshape(rows) == values[int(np.argmin(counts))]}


def check_doubtful(marks: Marks, ends: np.ndarray) -> None:
    """Refuses arrays that may mark ends where there are none.

    Args:
        marks: of the file.
        ends: [n] bool, the last rows of all episodes.

    Raises:
        ValueError: names the array, the row, and how to say what is meant.
    """
    around = ends | np.r_[True, ends[:-1]]  # last rows, and the first rows after them
    for name, marked in marks.doubtful.items():
        odd = marked & ~around
        if odd.any():
            raise ValueError(
                f"{name} singles out row {int(odd.argmax())} ({int(odd.sum())} such rows), where "
                "no episode is known to end. If it marks ends, store true ends as terminals and "
                "other ends as timeouts; if it means something else, rename it or put it under "
                "infos/."
            )


def horizon_ends(ends: np.ndarray, horizon: int) -> np.ndarray:
    """[n] bool: rows that lie `horizon` steps after the start of their episode, and multiples.

    Raises:
        ValueError: a horizon below 1.
    """
    if horizon < 1:
        raise ValueError(f"the horizon must be at least 1 step, got {horizon}.")
    rows = np.arange(len(ends))
    starts = np.maximum.accumulate(np.where(np.r_[True, ends[:-1]], rows, 0))
    return (rows - starts) % horizon == horizon - 1


def inside(marks: Marks, start: int, stop: int) -> str:
    """A sentence where an end is marked before the last of the rows from start to stop, else ""."""
    early = np.flatnonzero(marks.ends[start : stop - 1])
    if not len(early):
        return ""
    row = start + int(early[0])
    return (
        f"{' or '.join(marks.sources)} marks row {row} as the end of an episode, inside an episode "
        f"of rows {start} to {stop - 1} ({len(early)} such rows). End the episode there, or "
        "correct the mark."
    )
