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

from exporl.data.episodes import Episode
from exporl.data.formats.arrays import archive_names, read_archive
from exporl.data.formats.fields import NUMERIC, action_rows, check_rows, column, naming, observation
from exporl.data.formats.record import Format, ReadOptions, Record

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
    data = read_archive(path)
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
    return names.issuperset(_NEEDED) and not names & {"episode_ends", "next_observations"}


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
    return np.flatnonzero(marks)


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
    infos = {
        name: array[start : last + 1]
        for name, array in data.items()
        if name not in (*_NEEDED, "valids", "rewards")
    }
    name = "image" if seen.dtype == np.uint8 else "state"
    return Episode({name: seen}, actions, rewards, rewards > 0, terminated=False, infos=infos)


FORMAT = Format(
    "ogbench",
    "OGBench .npz: observations, actions, terminals (marking last states), qpos, qvel",
    matches,
    records,
)
