"""Recordings such as other programs write them, made small, and what became of them.

Observations say where they belong: 100 times the episode plus the row, so that a step from one
episode into another shows as a jump of about 100.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from exporl.data.episodes import Episode
from exporl.data.formats import load_episodes
from exporl.data.formats.minari import write as write_minari

LENGTHS = (4, 4, 4)
LASTS = (3, 7, 11)
ROWS = 12


def steps(lengths=LENGTHS, width: int = 2) -> np.ndarray:
    """[n, width] observations of episodes one after the other."""
    rows = [
        [100.0 * e + t] + [float(t)] * (width - 1) for e, n in enumerate(lengths) for t in range(n)
    ]
    return np.array(rows, np.float32)


def marks(*rows: int, of: int = ROWS) -> np.ndarray:
    """[of] bool: true in those rows."""
    return np.isin(np.arange(of), rows)


def flat(**changes: Any) -> dict[str, Any]:
    """Arrays of three episodes of four rows: the second ends truly, the others at a time limit that
    nothing marks. None leaves one out."""
    arrays = {
        "observations": steps(),
        "actions": np.full((ROWS, 1), 0.3, np.float32),
        "rewards": np.zeros(ROWS, np.float32),
        "terminals": marks(7),
    } | changes
    return {name: array for name, array in arrays.items() if array is not None}


def leading_on(noise: float = 0.0) -> np.ndarray:
    """Next observations that lead on within each episode of `flat`, and beyond its last row."""
    return steps() + 1 + np.random.default_rng(0).normal(0, noise, (ROWS, 2)).astype(np.float32)


def write_npz(path: Path, arrays: dict[str, Any]) -> Path:
    """An archive."""
    np.savez(path, **{name: np.asarray(value) for name, value in arrays.items()})
    return path


def write_hdf5(path: Path, arrays: dict[str, Any], **attributes: Any) -> Path:
    """Arrays at the root of an HDF5 file."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[name] = value
        file.attrs.update(attributes)
    return path


def write_robomimic(
    path: Path, demos: int = 2, attributes: dict | None = None, **changes: Any
) -> Path:
    """Demonstrations of four steps without next observations; None leaves an array out."""
    import h5py

    with h5py.File(path, "w") as file:
        for index in range(demos):
            demo = file.create_group(f"data/demo_{index}")
            arrays = {
                "actions": np.zeros((4, 2), np.float32),
                "obs/object": steps((4,)) + 100 * index,
                "rewards": np.zeros(4),
            } | {name.replace("__", "/"): value for name, value in changes.items()}
            for name, value in arrays.items():
                if value is not None:
                    demo[name] = value
            demo.attrs.update(attributes or {})
    return path


def write_dataset(path: Path, **changes: Any) -> Path:
    """A Minari dataset of one episode of four steps, with arrays exchanged."""
    import h5py

    made = Episode(
        {"state": steps((5,))}, np.zeros((4, 2), np.float32), np.zeros(4), np.zeros(4, bool), False
    )
    write_minari(path, [made])
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        for name, value in changes.items():
            name = f"episode_0/{name.replace('__', '/')}"
            if name in file:
                del file[name]
            if value is not None:
                file[name] = value
    return path


def write_lerobot(path: Path, **columns: Any) -> Path:
    """A LeRobot folder, v2.1, of one episode of four frames, with columns added or exchanged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (path / "meta").mkdir(parents=True)
    (path / "data" / "chunk-000").mkdir(parents=True)
    info = {"codebase_version": "v2.1", "fps": 10, "features": {}, "total_episodes": 1}
    (path / "meta" / "info.json").write_text(json.dumps(info))
    (path / "meta" / "episodes.jsonl").write_text('{"episode_index": 0, "length": 4}\n')
    table = {
        "observation.state": steps((4,)).tolist(),
        "action": [[0.0, 0.1]] * 4,
        "episode_index": [0] * 4,
        "frame_index": [0, 1, 2, 3],
    } | {name.replace("__", "."): value for name, value in columns.items()}
    table = {name: value for name, value in table.items() if value is not None}
    pq.write_table(pa.table(table), path / "data" / "chunk-000" / "episode_000000.parquet")
    return path


def states(episode: Episode) -> list[float]:
    """The first number of every observation."""
    return next(iter(episode.observations.values())).reshape(len(episode) + 1, -1)[:, 0].tolist()


def crossings(episodes: list[Episode]) -> list[tuple[float, float]]:
    """Steps that lead from one recorded episode into another."""
    pairs = [pair for e in episodes for pair in zip(states(e)[:-1], states(e)[1:], strict=True)]
    return [(a, b) for a, b in pairs if a // 100 != b // 100]


def refusal(act: Callable[..., Any], *args: Any, **options: Any) -> str:
    """The message of the ValueError that a call ends in."""
    try:
        act(*args, **options)
    except ValueError as error:
        return str(error)
    raise AssertionError("it was accepted")


def heard(path: Path, **options: Any) -> tuple[list[Episode], str]:
    """The episodes of a file, and everything said while they were read."""
    said: list[str] = []
    return load_episodes(path, say=said.append, **options), "\n".join(said)
