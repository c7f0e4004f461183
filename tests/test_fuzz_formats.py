"""Damaged files of every format end in a valid read or an error of ours: never another exception,
never a hang.

Every format's file is mutated in a process of its own, so that a crash inside a library for HDF5 or
Parquet would show.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exporl.data.episodes import Episode, faults
from exporl.data.formats import FORMATS, read_records
from helpers.episodes import random_episode

MUTATIONS = 60
LIMIT_S = 10
KINDS = ("flip", "truncate", "insert", "zero", "swap")


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


def builder(name: str):
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


def attack(name: str, folder: Path) -> None:
    """Runs all mutations of one format; prints which one runs and what went wrong."""
    import signal

    file_name, build = builder(name)
    path = folder / file_name
    build(path)
    for record in read_records(path, name):
        assert not list(faults(record.read())), "the undamaged file has faults"
    files = sorted(f for f in (path.rglob("*") if path.is_dir() else [path]) if f.is_file())
    refused = 0
    for index in range(MUTATIONS):
        rng, kind = np.random.default_rng((7, index)), KINDS[index % len(KINDS)]
        victim = files[index // len(KINDS) % len(files)]
        content = victim.read_bytes()
        victim.write_bytes(mutate(content, kind, rng))
        print("try", index, kind, victim.name, flush=True)
        signal.alarm(LIMIT_S)  # ends the process: a hang shows as its last line
        try:
            for record in read_records(path, name):
                try:
                    list(faults(record.read()))
                except ValueError as error:
                    assert str(error), "an error without a message"
                    refused += 1
        except (ValueError, FileNotFoundError) as error:
            refused += 1
            if path.name not in str(error):
                print("BAD no file named:", type(error).__name__, error, flush=True)
        except Exception as error:
            print("BAD", type(error).__name__, error, flush=True)
        finally:
            signal.alarm(0)
            victim.write_bytes(content)
    print("refused", refused, flush=True)


def test_every_format_is_attacked():
    assert all(builder(name) for name in FORMATS) and set(BUILDERS) <= set(FORMATS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damage_ends_in_a_clean_error_or_a_valid_read(name, tmp_path):
    if FORMATS[name].module is not None:
        pytest.importorskip(FORMATS[name].module)
    result = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", __file__, name, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = result.stdout.splitlines()
    bad = [f"{lines[i - 1]}: {line}" for i, line in enumerate(lines) if line.startswith("BAD")]
    assert not bad, "\n".join(bad)
    assert lines and lines[-1].startswith("refused"), (
        f"stopped at {lines[-1:]}: {result.stderr[-600:]}"
    )
    assert sum(line.startswith("try") for line in lines) == MUTATIONS
    assert int(lines[-1].split()[1]) > MUTATIONS // 6, "the damage hardly ever matters"


if __name__ == "__main__":
    attack(sys.argv[1], Path(sys.argv[2]))
