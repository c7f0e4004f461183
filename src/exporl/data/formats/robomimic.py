"""robomimic HDF5, also what MimicGen and LIBERO write: `data/demo_<i>` with one group of arrays per
demonstration.

  data                 attributes `total`, `env_args` (JSON of the environment)
  data/demo_<i>        attributes `num_samples`, `model_file` (MuJoCo XML)
    obs/<key> [t, ...]  next_obs/<key> [t, ...]
    actions [t, a]  rewards [t]  dones [t]  states [t, s]
  mask/<filter key>    names of demonstrations

Conventions, which a task may override in `Task.adapt`:
- Success is a reward of 1 (robomimic pays 1 in the state that a step leads to, 0 otherwise), unless
  an array `successes`, `success` or `is_success`, or an attribute `success`, records it. Of other
  rewards (dense ones) it is asked. Without `rewards` (MimicGen as generated) rewards are 0 and
  nothing counts as a success.
- `dones` marks true ends in some files and merely the last row in others, depending on how
  observations were extracted. An episode counts as terminated where its last row is marked and is a
  success. Arrays such as `terminated` or `truncated` are taken at their word, and refused where
  they mark a row before the last.
- Without `next_obs` the observation after a step is that of the following row, and what followed
  the last row is not known. A last step that terminated is kept with its own observation repeated,
  as nothing is bootstrapped from it; any other last step is dropped, which a note says. All of
  `next_obs` is compared with the following rows, see `outcomes`.
- `states` become `infos["states"]`, row i belonging to observation i; a group of states (IsaacLab)
  becomes `infos["states/..."]`.

Written files carry checksums and additions that robomimic does not look at and this reader prefers:
per demonstration an array `successes`, attributes `terminated` and `unit_actions`, and a group
`infos` with the rest of `Episode.infos`.
"""

import functools
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from exporl.data.episodes import LOST_STEP, LOST_SUCCESS, Episode
from exporl.data.formats import hdf5
from exporl.data.formats.fields import (
    NUMERIC,
    action_rows,
    check_rows,
    naming,
    observation,
)
from exporl.data.formats.record import Format, ReadOptions, Record
from exporl.data.formats.robomimic_outcomes import (
    checked_outcomes,
    column_of,
    successes_of,
    terminated_of,
)
from exporl.files.naming import make_folder_of

UNKNOWN_ENV = {"env_name": "unknown", "type": 2, "env_kwargs": {}}
"""`env_args` of written files where none are given; type 2 is a Gymnasium environment to
robomimic."""


def records(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The demonstrations of a file in numeric order, see `Format.records`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such a file, no demonstrations, or an unknown filter key; names the file.
    """
    source = hdf5.Source(path)
    with source.open() as root:
        with naming(path):
            found = _demonstrations(root, options.filter_key)
        for name in found:
            yield Record(name, functools.partial(_episode, source, name, options.keys))


def read_env_args(path: Path) -> dict[str, Any]:
    """The environment that a file was recorded in: `env_name`, `type`, `env_kwargs`; empty if the
    file does not say.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a readable file, or `env_args` is not JSON; names the file.
    """
    with hdf5.Source(path).open() as root, naming(path):
        text = hdf5.attribute(_group(root, "data"), "env_args")
        try:
            value = json.loads(text) if text is not None else {}
        except (TypeError, ValueError) as error:
            raise ValueError(f"env_args of group data is not JSON ({error}).") from error
        if not isinstance(value, dict):
            raise ValueError("env_args of group data is not a JSON object.")
    return value


def read_model_file(path: Path, name: str) -> str | None:
    """The MuJoCo XML that a demonstration was recorded with, None if the file does not have it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a readable file, or no demonstration of that name; names the file.
    """
    with hdf5.Source(path).open() as root, naming(path):
        text = hdf5.attribute(_group(_group(root, "data"), name), "model_file")
    return None if text is None else str(text)


def matches(path: Path) -> bool:
    """An HDF5 file with a group `data` of `demo_*`, or one too damaged to look into."""
    return hdf5.looks_like(path, _has_demonstrations, damaged=True)


def _has_demonstrations(root: Any) -> bool:
    data = hdf5.child(root, "data")
    return hdf5.is_group(data) and any(name.startswith("demo") for name in hdf5.names(data, "data"))


def _group(parent: Any, name: str) -> Any:
    node = hdf5.child(parent, name)
    if not hdf5.is_group(node):
        raise ValueError(
            f"there is no group {name!r}; found "
            f"{', '.join(hdf5.names(parent, 'the group')) or 'nothing'}."
        )
    return node


def _demonstrations(root: Any, filter_key: str | None) -> list[str]:
    found = hdf5.names(_group(root, "data"), "data")
    if filter_key is not None:
        masks = _group(root, "mask")
        if filter_key not in hdf5.names(masks, "mask"):
            raise ValueError(
                f"no filter key {filter_key!r}; found {', '.join(hdf5.names(masks, 'mask'))}."
            )
        found = hdf5.strings(hdf5.child(masks, filter_key), f"mask/{filter_key}")
    if not found:
        raise ValueError("there are no demonstrations in group data.")
    return sorted(found, key=_number)


def _number(name: str) -> tuple[int, str]:
    digits = re.fullmatch(r"\D*(\d{1,15})", name)
    return (int(digits[1]) if digits else 10**15, name)


def _episode(source: hdf5.Source, name: str, keys: tuple[str, ...]) -> Episode:
    with source.open() as root:
        demo = _group(_group(root, "data"), name)
        actions = action_rows(_needed(demo, "actions"))
        steps = len(actions)
        claimed = hdf5.attribute(demo, "num_samples")
        if claimed is not None and np.ravel(claimed).tolist() != [steps]:
            raise ValueError(
                f"attribute num_samples says {claimed}, actions has {steps} rows. They must agree."
            )
        now, following = _entries(demo, keys, steps)
        seen = {key: hdf5.read(array, f"obs/{key}") for key, array in now.items()}
        following, notes = checked_outcomes(seen, following, steps)
        rewards = column_of(demo, "rewards", steps)
        solved, question = successes_of(demo, rewards, steps)
        terminated = terminated_of(demo, bool(solved[-1]), bool(following), steps)
        unit_actions = hdf5.flag(demo, "unit_actions")
        infos = _infos(demo, steps)
        last = {
            key: hdf5.read(array, f"next_obs/{key}", steps - 1) for key, array in following.items()
        }
    rewards = np.zeros(steps, np.float32) if rewards is None else rewards
    kept = steps
    if not last and not terminated:
        if steps == 1:
            raise ValueError(
                "next_obs is missing: what followed its only step is not known. Remove the "
                "demonstration."
            )
        observations, kept = seen, steps - 1
        lost = solved[-1] or rewards[-1] > 0
        notes.append(f"{LOST_SUCCESS if lost else LOST_STEP}.")
    else:
        last = last or {key: value[-1:] for key, value in seen.items()}
        observations = {key: np.concatenate([value, last[key]]) for key, value in seen.items()}
    return Episode(
        {key: observation(value) for key, value in observations.items()},
        actions[:kept],
        rewards[:kept],
        solved[:kept],
        terminated,
        {key: value[: kept + 1] for key, value in infos.items()},
        unit_actions=unit_actions,
        question=question,
        notes=tuple(notes),
    )


def _needed(demo: Any, name: str) -> np.ndarray:
    value = hdf5.array(demo, name)
    if value is None:
        raise ValueError(
            f"{name} is missing; found {', '.join(hdf5.names(demo, 'the demonstration'))}."
        )
    return value


def _entries(demo: Any, keys: tuple[str, ...], steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays under obs and next_obs that are to be read; the latter empty unless it has all of
    them."""
    group = hdf5.child(demo, "obs")
    if group is None:
        raise ValueError(
            "obs is missing: this is a raw file with simulator states only. Extract observations "
            "first (robomimic's dataset_states_to_obs.py)."
        )
    now = hdf5.leaves(group, "obs")
    chosen = keys or tuple(now)
    if not chosen:
        raise ValueError("obs has no entries.")
    for key in chosen:
        if key not in now:
            raise ValueError(f"obs/{key} is missing; found {', '.join(now)}.")
    group = hdf5.child(demo, "next_obs")
    later = {} if group is None else hdf5.leaves(group, "next_obs")
    now = {key: now[key] for key in chosen}
    later = {key: later[key] for key in chosen} if all(key in later for key in chosen) else {}
    for prefix, arrays in (("obs", now), ("next_obs", later)):
        check_rows(
            {f"{prefix}/{key}": hdf5.rows_of(a, f"{prefix}/{key}") for key, a in arrays.items()},
            steps,
        )
    hdf5.check_total(
        {f"obs/{k}": a for k, a in now.items()} | {f"next_obs/{k}": a for k, a in later.items()}
    )
    for key, array in later.items():
        shape, expected = hdf5.shape_of(array, key), hdf5.shape_of(now[key], key)
        if shape != expected:
            raise ValueError(f"next_obs/{key} has shape {shape}, obs/{key} has {expected}.")
    return now, later


def _infos(demo: Any, steps: int) -> dict[str, np.ndarray]:
    """Simulator states and whatever else there is, one row per step or per observation."""
    states, group = hdf5.child(demo, "states"), hdf5.child(demo, "infos")
    arrays = {} if states is None or hdf5.is_group(states) else {"states": states}
    arrays |= {} if group is None else hdf5.leaves(group, "infos")
    infos = {}
    for name, array in arrays.items():
        if hdf5.rows_of(array, name) not in (steps, steps + 1):
            raise ValueError(f"{name} has {len(array)} rows, actions has {steps}. They must agree.")
    if hdf5.is_group(states):  # as IsaacLab has it; nothing asks for them, so what fits is kept
        for name, array in hdf5.leaves(states, "states").items():
            if (hdf5.shape_of(array, name) or (0,))[0] in (steps, steps + 1):
                arrays |= {f"states/{name}": array} if array.dtype.kind in NUMERIC else {}
    hdf5.check_total(arrays)
    for name, array in arrays.items():
        infos[name] = hdf5.read(array, name)
    return infos


def write_robomimic(
    path: Path, episodes: Iterable[Episode], env_args: dict[str, Any] | None = None
) -> None:
    """Writes episodes one by one to a file that robomimic reads, under a temporary name first.

    Args:
        path: the file; its folder is made.
        episodes: consumed once; only one is held at a time.
        env_args: `env_name`, `type` and `env_kwargs` of the environment, in robomimic's meaning.

    Raises:
        ValueError: there are no episodes.
    """
    h5py = hdf5.package()
    path = Path(path)
    make_folder_of(path)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    total = count = 0
    try:
        with h5py.File(temporary, "w") as root:
            data = root.create_group("data")
            for count, episode in enumerate(episodes, start=1):
                _write_episode(data.create_group(f"demo_{count - 1}"), episode)
                total += len(episode)
            if count == 0:
                raise ValueError(f"there are no episodes to write to {path}.")
            data.attrs["total"] = total
            data.attrs["env_args"] = json.dumps(env_args or UNKNOWN_ENV)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_episode(demo: Any, episode: Episode) -> None:
    steps = len(episode)
    demo.attrs["num_samples"] = steps
    demo.attrs["terminated"] = episode.terminated
    demo.attrs["unit_actions"] = episode.unit_actions
    _store(demo, "actions", episode.actions)
    _store(demo, "rewards", episode.rewards)
    if not episode.question:
        _store(demo, "successes", episode.successes)
    _store(demo, "dones", np.r_[np.zeros(steps - 1, np.int64), int(episode.terminated)])
    for name, value in episode.observations.items():
        _store(demo, f"obs/{name}", value[:-1])
        _store(demo, f"next_obs/{name}", value[1:])
    for name, value in episode.infos.items():
        if name == "states":
            _store(demo, name, value[:steps])
        if name != "states" or len(value) > steps:
            _store(demo, f"infos/{name}", value)


def _store(demo: Any, name: str, value: np.ndarray) -> None:
    """With checksums, so that damage is noticed; images compressed and frame by frame, as they are
    read singly."""
    image = value.dtype == np.uint8 and value.ndim >= 4
    chunks = (1, *value.shape[1:]) if image else value.shape
    demo.create_dataset(
        name, data=value, chunks=chunks, fletcher32=True, compression="gzip" if image else None
    )


FORMAT = Format(
    "robomimic",
    "robomimic HDF5 (low_dim v1.4.1, v1.5, MimicGen): data/demo_<i> with obs, actions, rewards, "
    "dones; `--filter-key`",
    matches,
    records,
    write_robomimic,
    endings=(".hdf5", ".h5"),
    module="h5py",
    extra="formats",
    options=("keys", "filter_key"),
)
