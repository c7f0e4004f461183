"""What a demonstration in robomimic's layout says about success, its end and its outcomes."""

from typing import Any

import numpy as np

from exporl.data.formats import hdf5
from exporl.data.formats.ends import SURE, find_marks, inside, may_mark, plain
from exporl.data.formats.fields import check_rows, column
from exporl.data.formats.outcomes import compare, contradiction
from exporl.data.formats.success import from_rewards

_SUCCESS = ("successes", "success", "is_success")


def column_of(demo: Any, name: str, steps: int) -> np.ndarray | None:
    """One number per step, None where there is no array of that name.

    Raises:
        ValueError: it has another length or shape; names it.
    """
    value = hdf5.array(demo, name)
    if value is None:
        return None
    check_rows({name: len(value)}, steps)
    return column(value, name)


def successes_of(demo: Any, rewards: np.ndarray | None, steps: int) -> tuple[np.ndarray, str]:
    """Success in each step, and the question where it is not known."""
    for name in _SUCCESS:
        if hdf5.is_dataset(hdf5.child(demo, name)):
            flags = column_of(demo, name, steps)
            return np.zeros(steps, bool) if flags is None else flags > 0, ""
    if hdf5.attribute(demo, "success") is not None:
        return np.arange(steps) == (steps - 1 if hdf5.flag(demo, "success") else steps), ""
    if rewards is None:
        return np.zeros(steps, bool), ""
    return from_rewards(rewards, several=True)


def terminated_of(demo: Any, solved: bool, stated: bool, steps: int) -> bool:
    """Whether the last row is a true end.

    Args:
        demo: the demonstration.
        solved: whether that row is a success.
        stated: whether its outcome is in the file.
        steps: number of rows.

    Raises:
        ValueError: a row before the last is marked as the end of an episode.
    """
    signs = [name for name in may_mark(hdf5.names(demo, "it")) if plain(name) in SURE]
    columns = {name: hdf5.array(demo, name) for name in signs}
    marks = find_marks({n: v for n, v in columns.items() if v is not None}, steps)
    if fault := inside(marks, 0, steps):
        raise ValueError(fault)
    said, dones = hdf5.attribute(demo, "terminated"), column_of(demo, "dones", steps)
    if said is not None:
        return hdf5.flag(demo, "terminated")
    if marks.true_ends is not None:
        return bool(marks.true_ends[-1])
    if dones is not None:
        return bool(dones[-1] > 0 and solved)
    # Nothing marks the end of a demonstration that the file calls a success: it ended there.
    return bool(not stated and solved and hdf5.flag(demo, "success"))


def checked_outcomes(
    seen: dict[str, np.ndarray], following: dict[str, Any], steps: int
) -> tuple[dict[str, Any], list[str]]:
    """The next observations, empty where they state nothing, and sentences about small differences
    between them and the rows that follow.

    Raises:
        ValueError: large ones; names the entry.
    """
    notes, copied = [], False
    for key, array in following.items():

        def now(start: int, stop: int, key: str = key) -> np.ndarray:
            return seen[key][start:stop]

        def after(start: int, stop: int, key: str = key, array: Any = array) -> np.ndarray:
            return hdf5.read(array, f"next_obs/{key}", start, stop)

        outcomes = compare(now, after, np.arange(steps) == steps - 1)
        copied |= outcomes.copied
        if fault := contradiction(outcomes.jumps, 0, steps):
            raise ValueError(f"{key}: {fault}")
        notes += [f"{key}: {note}"] if (note := outcomes.note()) else []
    return {} if copied else following, notes
