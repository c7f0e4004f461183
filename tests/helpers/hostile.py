"""Files of every format, made small, and what damages them or makes them hostile."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from exporl.data.episodes import Episode
from exporl.data.formats import FORMATS
from helpers.episodes import random_episode

KINDS = ("flip", "truncate", "insert", "zero", "swap")
"""The damages of `mutate`."""


def episodes() -> list[Episode]:
    return [random_episode(n, terminated=n % 2 == 0) for n in (4, 1, 3)]


def write_ogbench(path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez_compressed(
        path, observations=rng.normal(size=(9, 3)), actions=rng.uniform(-1, 1, (9, 2)),
        terminals=np.isin(np.arange(9), (3, 8)), qpos=rng.normal(size=(9, 6)),
    )  # fmt: skip


def write_d4rl(path: Path) -> None:
    import h5py

    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as root:
        for name, array in {
            "observations": rng.normal(size=(9, 3)),
            "actions": rng.uniform(-1, 1, (9, 2)),
            "rewards": np.ones(9),
            "terminals": np.arange(9) == 3,
            "timeouts": np.arange(9) == 8,
            "infos/qpos": rng.normal(size=(9, 4)),
        }.items():
            root.create_dataset(name, data=array, compression="gzip")


def write_lerobot(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (path / "meta/episodes/chunk-000").mkdir(parents=True)
    (path / "data/chunk-000").mkdir(parents=True)
    lengths, rng = (4, 2), np.random.default_rng(0)
    index = [i for i, n in enumerate(lengths) for _ in range(n)]
    info = {
        "codebase_version": "v3.0",
        "fps": 10,
        "total_episodes": 2,
        "total_frames": 6,
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "features": {"action": {"dtype": "float32", "shape": [2], "names": None}},
    }
    (path / "meta/info.json").write_text(json.dumps(info))
    rows = {
        "observation.state": rng.normal(size=(6, 3)).tolist(),
        "action": rng.uniform(-1, 1, (6, 2)).tolist(),
        "next.reward": [1.0] * 6,
        "next.done": [False, False, False, True, False, True],
        "episode_index": index,
        "frame_index": [0, 1, 2, 3, 0, 1],
        "index": list(range(6)),
        "timestamp": [0.1 * i for i in range(6)],
    }
    pq.write_table(pa.table(rows), path / "data/chunk-000/file-000.parquet")
    meta = {
        "episode_index": [0, 1],
        "length": [4, 2],
        "data/chunk_index": [0, 0],
        "data/file_index": [0, 0],
        "dataset_from_index": [0, 4],
        "dataset_to_index": [4, 6],
    }
    pq.write_table(pa.table(meta), path / "meta/episodes/chunk-000/file-000.parquet")


def write_pusht(path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez_compressed(
        path,
        action=rng.uniform(0, 512, (9, 2)).astype(np.float32),
        episode_ends=np.array([4, 9]),
        state=rng.uniform(0, 5, (9, 5)).astype(np.float32),
        keypoint=rng.uniform(0, 512, (9, 9, 2)).astype(np.float32),
    )


BUILDERS = {
    "pusht": ("p.npz", write_pusht),
    "ogbench": ("o.npz", write_ogbench),
    "d4rl": ("d.hdf5", write_d4rl),
    "lerobot": ("l", write_lerobot),
}


def builder(name: str) -> tuple[str, Callable[[Path], Any]]:
    """(file name, what writes it) of a format: of its own writer where it has one."""
    if name in BUILDERS:
        return BUILDERS[name]
    record = FORMATS[name]
    assert record.write is not None, f"{name} only reads: add to BUILDERS what makes a file of it"
    return f"written-v0{record.endings[0]}", lambda path: record.write(path, episodes())


def mutate(content: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """One seeded damage of a kind."""
    data, at = bytearray(content), int(rng.integers(len(content)))
    if kind == "flip":
        for position in rng.integers(len(data), size=int(rng.integers(1, 4))):
            data[position] ^= 1 << int(rng.integers(8))
    elif kind == "truncate":
        del data[at:]
    elif kind == "insert":
        data[at:at] = rng.bytes(int(rng.integers(1, 20)))
    elif kind == "zero":
        end = min(at + int(rng.integers(1, 200)), len(data))
        data[at:end] = bytes(end - at)
    else:
        size = int(rng.integers(1, 100))
        other = int(rng.integers(len(data)))
        data[at : at + size], data[other : other + size] = (
            data[other : other + size],
            data[at : at + size],
        )
    return bytes(data)


def bomb(path: Path, name: str, count: int, dtype="f8", **arrays) -> Path:
    """An archive in which one array is `count` zeros, packed to next to nothing."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for other, value in arrays.items():
            with archive.open(f"{other}.npy", "w") as member:
                np.save(member, value)
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (count, 1)}
            np.lib.format.write_array_header_1_0(member, header)
            block = bytes(2**20)
            for _ in range(count * np.dtype(dtype).itemsize // len(block)):
                member.write(block)
    return path
