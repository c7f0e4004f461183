"""Minari datasets, read with h5py or pyarrow alone and written with h5py.

`<root>/<namespace>/<name>-vN/data/metadata.json` and beside it either `main_data.hdf5` with groups
`episode_<i>`, or (Arrow and Parquet storage) a folder `<i>/` per episode. Each episode has
observations [t + 1, ...], actions [t, a], rewards, terminations, truncations [t] and infos. Arrow
storage pads the latter to t + 1 rows.

A plain observation becomes the entry "state". Dictionaries become one entry per leaf, nested names
joined by "/" and tuples numbered from "0"; text is left out, a single number per step becomes one
column. Images of at least 32 x 32 may lie there as JPEG and are decoded. Success is
`infos/success`, `is_success` or `goal_achieved`; without one it is read off sparse rewards, see
`success`. Only a termination in the last step counts: after an earlier one the recording went on,
which a note says; a truncation there is refused. Infos are kept where they have t or t + 1 rows of
numbers. Written episodes have an attribute `unit_actions` where their actions are known to be in
[-1, 1].
"""

import functools
import importlib.util
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from exporl.data.episodes import Episode
from exporl.data.formats import fields
from exporl.data.formats.decode import count, read_json, readable
from exporl.data.formats.minari_storage import FILE, STORAGES, Spaces, Storage
from exporl.data.formats.record import Format, ReadOptions, Record
from exporl.data.formats.success import from_rewards
from exporl.files.naming import make_folder_of

_SUCCESS = ("success", "is_success", "goal_achieved")
_ID = re.compile(r"(?:[\w-]+/)*[\w-]+-v\d+")


def datasets_root() -> Path:
    """Where Minari keeps its datasets: $MINARI_DATASETS_PATH, or ~/.minari/datasets."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def is_id(name: str) -> bool:
    """Whether a name looks like a Minari dataset, such as "D4RL/door/human-v2"."""
    return _ID.fullmatch(name) is not None


def resolve_id(dataset_id: str) -> Path:
    """The folder of a Minari dataset, given its id.

    Raises:
        FileNotFoundError: it is not on this machine; says where it was looked for.
    """
    folder = datasets_root() / dataset_id
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no data at {dataset_id}: there is no such path, and no Minari dataset of that id at "
            f"{folder}. Nothing is downloaded by itself: fetch it with `minari download"
            f" {dataset_id}`, copy it there, or set MINARI_DATASETS_PATH to the folder that has it."
        )
    return folder


def records(path: Path, options: ReadOptions) -> Iterator[Record]:
    """The episodes of a dataset, given its folder, the `data` folder in it or the HDF5 file, see
    `Format.records`.

    Raises:
        ValueError: damaged, or metadata.json does not agree with the data; names the file.
        ModuleNotFoundError: Arrow or Parquet storage without pyarrow; names the command that
            installs it.
    """
    path = Path(path)
    folder = (
        path.parent if path.name == FILE else path / "data" if (path / "data").is_dir() else path
    )
    metadata = read_json(folder / "metadata.json")
    spaces = _spaces(metadata, "observation_space", folder)
    for name, space in _spaces(metadata, "action_space", folder).items():
        if name != "state" or space.get("type") not in (None, "Box"):
            raise ValueError(
                f"{folder} has actions of type {space.get('type')}. Only continuous actions (Box) "
                "are read."
            )
    kind = metadata.get("data_format", "hdf5")
    if not isinstance(kind, str) or kind not in STORAGES:
        raise ValueError(f"{folder} is stored as {kind!r}. Known: {', '.join(STORAGES)}.")
    if kind != "hdf5" and importlib.util.find_spec("pyarrow") is None:
        message = (
            f"{folder} needs the package 'pyarrow'. Install it with: pip install 'exporl[formats]'"
        )
        raise ModuleNotFoundError(message)
    storage = STORAGES[kind]
    names = storage.names(folder)
    for what, found in (("episodes", len(names)), ("steps", storage.steps(folder, names))):
        stated = count(metadata, f"total_{what}", folder / "metadata.json")
        if stated is not None and found is not None and stated != found:
            raise ValueError(
                f"{folder}: metadata.json states {stated} {what}, the data has {found}. Copy the "
                "dataset again, or correct metadata.json if the data is complete."
            )
    for name in names:
        yield Record(name, functools.partial(_read, storage, folder, name, spaces, options))


def _spaces(metadata: dict[str, Any], name: str, folder: Path) -> Spaces:
    """Entry -> its space, as metadata.json describes it in a string; empty where it does not."""
    text = metadata.get(name)
    if text is None:
        return {}
    with readable(f"{folder / 'metadata.json'}: {name}"):
        leaves = dict(_space_leaves(json.loads(text), ""))
        for space in leaves.values():
            shape = space.get("shape", [])
            if not isinstance(shape, list) or any(not isinstance(n, int) or n < 0 for n in shape):
                raise ValueError(f"shape {shape}")
    return leaves


def _space_leaves(space: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    parts = space.get("subspaces")
    if parts is None:
        yield prefix or "state", space
        return
    for name, part in parts.items() if isinstance(parts, dict) else enumerate(parts):
        yield from _space_leaves(part, f"{prefix}/{name}" if prefix else str(name))


def _read(
    storage: Storage, folder: Path, name: str, spaces: Spaces, options: ReadOptions
) -> Episode:
    content = storage.read(folder, name, spaces, options.keys)
    observations, infos = content.observations, content.infos
    actions = fields.action_rows(content.actions)
    steps = len(actions)
    rewards = fields.column(content.rewards, "rewards")
    terminations = fields.column(content.terminations, "terminations")
    fields.check_rows({"rewards": len(rewards), "terminations": len(terminations)}, steps)
    for key, value in observations.items():
        if len(value) != steps + 1:
            raise ValueError(
                f"observations[{key!r}] has {len(value)} rows for {steps} actions. There must be "
                "one more."
            )
    successes, question = _recorded_successes(infos, rewards, steps)
    return Episode(
        {
            key: fields.observation(value if value.ndim > 1 else value[:, None])
            for key, value in observations.items()
        },
        actions,
        rewards,
        successes,
        bool(terminations[-1] > 0),
        {key: value for key, value in infos.items() if len(value) in (steps, steps + 1)},
        unit_actions=content.unit_actions,
        question=question,
        notes=_inner_ends(terminations, content.truncations, steps),
    )


def _inner_ends(
    terminations: np.ndarray, truncations: np.ndarray | None, steps: int
) -> tuple[str, ...]:
    """A sentence about terminations before the last step, after which the recording went on.

    Raises:
        ValueError: a truncation there, which is a reset.
    """
    if truncations is not None:
        cut = fields.column(truncations, "truncations")
        fields.check_rows({"truncations": len(cut)}, steps)
        if (early := np.flatnonzero(cut[:-1] > 0)).size:
            raise ValueError(
                f"truncations marks step {int(early[0])} of {steps} as the end of the episode "
                f"({early.size} such steps). Split the episode there, or correct the mark."
            )
    early = int((terminations[:-1] > 0).sum())
    if not early:
        return ()
    return (f"terminations marks {early} steps before the last one; the recording went on.",)


def _recorded_successes(
    infos: dict[str, np.ndarray], rewards: np.ndarray, steps: int
) -> tuple[np.ndarray, str]:
    """Success in each step, and the question where it is not known."""
    for key in _SUCCESS:
        if key in infos:
            return _successes(infos[key], key, steps), ""
    return from_rewards(rewards)


def _successes(values: np.ndarray, name: str, steps: int) -> np.ndarray:
    if len(values) not in (steps, steps + 1):
        raise ValueError(
            f"infos/{name} has {len(values)} rows for {steps} actions. There must be as many or one"
            " more."
        )
    reached = np.any(values.reshape(len(values), -1) > 0, axis=1)
    return np.asarray(reached)[-steps:]  # row 0 of t + 1 belongs to the reset


def write(path: Path, episodes: Iterable[Episode]) -> None:
    """Writes a dataset that `minari.load_dataset` reads, in HDF5 storage, one episode at a time.

    The id is the path below `datasets_root()`, or its last part elsewhere; it must end in a
    version, such as "-v0". Successes become `infos/success`, with False for the reset.

    Raises:
        ValueError: there is something at the path, its name has no version, or there are no
            episodes or unequal ones.
    """
    path = Path(path)
    if not is_id(path.name):
        raise ValueError(
            f"Minari datasets are named like door-v0; got {path.name!r}. Add a version to the name."
        )
    if path.exists():
        raise ValueError(
            f"there already is something at {path}. Remove it, or write another version."
        )
    root = datasets_root().absolute()
    absolute = path.absolute()
    dataset_id = (
        absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else path.name
    )
    make_folder_of(path)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        (temporary / "data").mkdir(parents=True)
        metadata = _write_data(temporary / "data" / FILE, episodes) | {"dataset_id": dataset_id}
        with (temporary / "data" / "metadata.json").open("w", encoding="utf-8") as file:
            json.dump(metadata, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_data(file: Path, episodes: Iterable[Episode]) -> dict[str, Any]:
    """Writes the episodes, returns the metadata without the id."""
    import h5py

    first: Episode | None = None
    low, high, total_steps, index = np.float32(-1), np.float32(1), 0, -1
    with h5py.File(file, "w", track_order=True) as data:
        for index, episode in enumerate(episodes):
            first = first or episode
            if len(episode) == 0:
                raise ValueError(f"episode {index} has no steps. Leave it out.")
            shapes, wanted = (
                {n: v.shape[1:] for n, v in e.observations.items()} for e in (episode, first)
            )
            if shapes != wanted:
                raise ValueError(
                    f"episode {index} has observations {shapes}, episode 0 has {wanted}. They must "
                    "agree."
                )
            group = data.create_group(f"episode_{index}")
            group.attrs.update({"id": index, "total_steps": len(episode)})
            group.attrs["unit_actions"] = episode.unit_actions
            arrays = _arrays(episode)
            for name, value in arrays.items():
                group.create_dataset(name, data=value)
            total_steps += len(episode)
            low, high = min(low, episode.actions.min()), max(high, episode.actions.max())
    if first is None:
        raise ValueError("there are no episodes to write.")
    with file.open("rb") as written:
        os.fsync(written.fileno())
    images = any(value.dtype == np.uint8 for value in first.observations.values())
    action = {"type": "Box", "dtype": "float32", "shape": list(first.actions.shape[1:])}
    action |= {
        "low": np.full(action["shape"], low).tolist(),
        "high": np.full(action["shape"], high).tolist(),
    }
    return {
        "total_episodes": index + 1,
        "total_steps": total_steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(_describe(first.observations)),
        "action_space": json.dumps(action),
        "minari_version": "0.5.4" if images else "0.5.0",  # earlier ones take every image for JPEG
        "dataset_size": round(file.stat().st_size / 1e6, 1),
    }


def _arrays(episode: Episode) -> dict[str, np.ndarray]:
    """What is written of one episode."""
    plain = list(episode.observations) == ["state"]
    observations = {
        "observations" if plain else f"observations/{name}": value
        for name, value in episode.observations.items()
    }
    infos = {
        f"infos/{name}": value
        for name, value in episode.infos.items()
        if value.dtype.kind in fields.NUMERIC
    }
    last = np.r_[np.zeros(len(episode) - 1, bool), True]
    return {
        "actions": episode.actions.astype(np.float32),
        "rewards": episode.rewards.astype(np.float64),
        "terminations": last & episode.terminated,
        "truncations": last & (not episode.terminated),
        **observations,
        **infos,
        **({} if episode.question else {"infos/success": np.r_[False, episode.successes]}),
    }


def _describe(observations: dict[str, np.ndarray]) -> dict[str, Any]:
    """The observation space as Minari spells it in JSON."""
    described: dict[str, Any] = {"type": "Dict", "subspaces": {}}
    for name, value in observations.items():
        shape = value.shape[1:]
        box = {"type": "Box", "dtype": str(value.dtype), "shape": list(shape)}
        kind = np.iinfo(value.dtype) if value.dtype.kind in "iu" else None
        limits = (kind.min, kind.max) if kind else (-np.inf, np.inf)
        box |= {
            side: np.full(shape, limit).tolist()
            for side, limit in zip(("low", "high"), limits, strict=True)
        }
        if list(observations) == ["state"]:
            return box
        *parents, last = name.split("/")
        space = described
        for parent in parents:
            space = space["subspaces"].setdefault(parent, {"type": "Dict", "subspaces": {}})
        space["subspaces"][last] = box
    return described


def matches(path: Path) -> bool:
    """A folder with `metadata.json` beside episodes, its parent, or `main_data.hdf5`."""
    if path.name == FILE:
        return path.is_file()
    for folder in (path / "data", path):
        if (folder / FILE).is_file():
            return True
        if (folder / "metadata.json").is_file() and any(folder.glob("[0-9]*/metadata.json")):
            return True
    return False


FORMAT = Format(
    "minari",
    "Minari dataset folder or id, HDF5, Arrow or Parquet storage (0.4 and 0.5)",
    matches,
    records,
    write,
    endings=("",),
    module="h5py",
    extra="formats",
    options=("keys",),
)
