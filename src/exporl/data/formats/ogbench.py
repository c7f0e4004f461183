"""OGBench .npz: flat arrays over the n states of all trajectories.

  observations [n, o] (uint8 [n, h, w, c] in visual tasks)  actions [n, a]  terminals [n]
  qpos [n, ...]  qvel [n, ...]  button_states [n, ...]: simulator states, row i for observation i

`terminals` marks the last state of each trajectory, whose action leads nowhere: a trajectory of k
states has k - 1 steps. In the compact form, which `ogbench` makes of its files, `terminals` also
marks the state before, and `valids` is 0 at the last state.

Nothing in these files is a true end, and rewards depend on the task: they are 0 and no step a
success unless the file has `rewards`. A task computes both from `Episode.infos`, which holds every
other array of the file.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from exporl.data.episodes import LOST_SUCCESS, Episode
from exporl.data.formats.archives import archive_names, read_archive
from exporl.data.formats.arrays import is_flat
from exporl.data.formats.ends import check_doubtful, find_marks, inside, may_mark
from exporl.data.formats.fields import NUMERIC, action_rows, check_rows, column, naming, observation
from exporl.data.formats.record import Format, ReadOptions, Record
from exporl.data.formats.success import from_rewards

_NEEDED = ("observations", "actions", "terminals")


def records(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The trajectories of an archive, see `Format.records`. Every array is held once, episodes are
    views of it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such an archive, an array is missing, lengths disagree, or no trajectory
            ends; names the file and the array.
    """
    path = Path(path)
    data = {name: np.atleast_1d(array) for name, array in read_archive(path).items()}
    with naming(path):
        lasts = _last_states(data)
    for index, (start, last) in enumerate(zip(np.r_[0, lasts[:-1] + 1], lasts, strict=True)):
        yield Record(
            f"trajectory {index}", functools.partial(_episode, data, int(start), int(last))
        )


def matches(path: Path) -> bool:
    """An .npz file with observations, actions and terminals, and neither ends nor next
    observations."""
    names = archive_names(path)
    others = {"episode_ends", "next_observations"}
    return names.issuperset(_NEEDED) and not names & others and not is_flat(names)


def _last_states(data: dict[str, np.ndarray]) -> np.ndarray:
    """The row of the last state of every trajectory; the file's last row if it is not marked."""
    missing = [name for name in _NEEDED if name not in data]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing; found {', '.join(sorted(data))}.")
    for name, array in data.items():
        if array.dtype.kind not in NUMERIC:
            raise ValueError(f"{name} is not an array of numbers (type {array.dtype}).")
    rows = len(data["actions"])
    check_rows({name: len(array) for name, array in data.items()}, rows)
    if rows == 0:
        raise ValueError("actions has no rows.")
    name = "valids" if "valids" in data else "terminals"
    marks = column(data[name], name)
    if not np.isfinite(marks).all():
        raise ValueError(f"{name} row {int(np.argmin(np.isfinite(marks)))} holds NaN or infinity.")
    marks = marks <= 0 if name == "valids" else marks > 0
    if not marks.any():
        raise ValueError(f"no row of its {rows} is marked in {name} as the last of a trajectory.")
    marks[-1] = True
    lasts = np.flatnonzero(marks)
    _check_others(data, lasts)
    return lasts


def _check_others(data: dict[str, np.ndarray], lasts: np.ndarray) -> None:
    """Other arrays may mark last states, or the last steps before them, and nothing else."""
    rows = len(data["actions"])
    known = np.isin(np.arange(rows), np.r_[lasts, lasts - 1])
    others = [name for name in may_mark(data) if name not in (*_NEEDED, "valids")]
    marks = find_marks({name: data[name] for name in others}, rows)
    check_doubtful(marks, known)
    start = 0
    for last in lasts.tolist():
        if fault := inside(marks, start, last):
            raise ValueError(fault)
        start = last + 1


def _episode(data: dict[str, np.ndarray], start: int, last: int) -> Episode:
    steps = last - start
    if steps == 0:
        raise ValueError("a single state without a step. Remove the trajectory.")
    seen = observation(data["observations"][start : last + 1])
    actions = action_rows(data["actions"][start:last])
    rewards = (
        column(data["rewards"][start:last], "rewards")
        if "rewards" in data
        else np.zeros(steps, np.float32)
    )
    lost = "rewards" in data and bool((data["rewards"][last] > 0).any())
    successes, question = from_rewards(rewards)
    infos = {
        name: array[start : last + 1]
        for name, array in data.items()
        if name not in (*_NEEDED, "valids", "rewards")
    }
    name = "image" if seen.dtype == np.uint8 else "state"
    return Episode(
        {name: seen},
        actions,
        rewards,
        successes,
        terminated=False,
        infos=infos,
        question=question,
        notes=(f"{LOST_SUCCESS}.",) if lost else (),
    )


FORMAT = Format(
    "ogbench",
    "OGBench .npz: observations, actions, terminals (marking last states), qpos, qvel",
    matches,
    records,
)
