"""Hostile run directories: files that hold something else, options that are none, manifests that
are signed and lie, links and pipes in the place of files."""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_files import TEXTS
from fuzz_process import Hostile
from safetensors.numpy import load as load_tensors

from exporl.files.run_files import (
    CHECKPOINTS,
    CONFIG,
    EVAL,
    GLOSSARY,
    METRICS,
    POLICY,
    STATISTICS,
    SUMMARY,
    TUNING,
)

RUN = "run"
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, float("nan"), float("inf"), "", "banana", [], [1], {}, {"a": 1},
    "os:system", "\x1b[31mred", "x" * 100_000, 10**30, [[[[]]]], "../../x", 0.5,
)  # fmt: skip
"""What stands in the place of a value."""


def run_directories(run: Path, count: int, seed: int) -> list[Hostile]:
    """A seeded choice of hostile copies of a run."""
    rng = random.Random(seed)
    made = [*_texts(run), *_values(run, rng), *_manifests(run, rng), *_tensors(run), *_places(run)]
    return rng.sample(made, count)


def _copy(run: Path, change: Callable[[Path], Any]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        shutil.copytree(run, folder / RUN)
        change(folder / RUN)
        return folder / RUN

    return make


def newest(run: Path) -> Path:
    """The newest checkpoint of a run."""
    return max((run / CHECKPOINTS).iterdir())


def _texts(run: Path) -> Iterator[Hostile]:
    names = (CONFIG, POLICY, STATISTICS, TUNING, SUMMARY, GLOSSARY, METRICS, EVAL)
    for name in filter(lambda name: (run / name).is_file(), names):
        for what, content in TEXTS.items():
            yield Hostile(
                f"{name}: {what}",
                _copy(run, lambda path, name=name, c=content: (path / name).write_bytes(c + b"\n")),
            )
    for what, content in TEXTS.items():
        yield Hostile(
            f"manifest: {what}",
            _copy(run, lambda path, c=content: (newest(path) / "manifest.json").write_bytes(c)),
        )


def _leaves(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value within JSON, objects and lists among them."""
    if way:
        yield way
    inner = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        inner = enumerate(value[:2])
    for key, each in inner:
        yield from _leaves(each, (*way, key))


def _put(value: Any, way: tuple[Any, ...], new: Any) -> None:
    for key in way[:-1]:
        value = value[key]
    if new is _MISSING:
        del value[way[-1]]
    else:
        value[way[-1]] = new


_MISSING = object()


def _values(run: Path, rng: random.Random) -> Iterator[Hostile]:
    """One value of a JSON file replaced by something else, or removed."""
    for name in filter(lambda name: (run / name).is_file(), (CONFIG, POLICY, SUMMARY, GLOSSARY)):
        content = json.loads((run / name).read_text())
        ways = list(_leaves(content))
        for way in rng.sample(ways, min(60, len(ways))):
            new = rng.choice([*VALUES, _MISSING])

            def change(path: Path, name: str = name, way: Any = way, new: Any = new) -> None:
                data = json.loads((path / name).read_text())
                _put(data, way, new)
                (path / name).write_text(json.dumps(data))

            yield Hostile(f"{name}: a value", _copy(run, change))
    for name in filter(lambda name: (run / name).is_file(), (METRICS, EVAL)):
        lines = (run / name).read_text().splitlines()
        for way in rng.sample(ways := list(_leaves(json.loads(lines[-1]))), min(20, len(ways))):
            new = rng.choice([*VALUES, _MISSING])

            def change_line(path: Path, name: str = name, way: Any = way, new: Any = new) -> None:
                lines = (path / name).read_text().splitlines()
                data = json.loads(lines[-1])
                _put(data, way, new)
                (path / name).write_text("\n".join([*lines[:-1], json.dumps(data)]) + "\n")

            yield Hostile(f"{name}: a value", _copy(run, change_line))


def signed(manifest: dict[str, Any]) -> bytes:
    """A manifest with the digest that fits."""
    body = json.loads(json.dumps({k: v for k, v in manifest.items() if k != "self"}))
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "self": digest}).encode()


def _manifests(run: Path, rng: random.Random) -> Iterator[Hostile]:
    """A manifest that lies, with a digest that fits."""
    ways = list(_leaves(json.loads((newest(run) / "manifest.json").read_text())))
    for way in rng.sample(ways, min(120, len(ways))):
        new = rng.choice([*VALUES, _MISSING])

        def change(path: Path, way: Any = way, new: Any = new) -> None:
            file = newest(path) / "manifest.json"
            manifest = json.loads(file.read_text())
            _put(manifest, way, new)
            for older in (path / CHECKPOINTS).iterdir():
                if older != file.parent:
                    shutil.rmtree(older)
            file.write_bytes(signed(manifest))

        yield Hostile(f"a signed manifest: {'.'.join(map(str, way[:2]))}", _copy(run, change))


OTHER_ARRAYS: dict[str, Callable[[Any], Any]] = {
    "other shapes": lambda array: array[None],
    "other types": lambda array: array.astype("float64"),
    "all bits set": lambda array: np.frombuffer(b"\xff" * array.nbytes, array.dtype).reshape(
        array.shape
    ),
}


def _tensors(run: Path) -> Iterator[Hostile]:
    """Parameters that are something else, with digests that fit."""
    header = {"x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}
    text = json.dumps(header).encode()
    contents = {
        "a length that lies": (2**62).to_bytes(8, "little") + b"{}",
        "an array that lies": len(text).to_bytes(8, "little") + text,
        "nothing": b"",
        "no arrays": (2).to_bytes(8, "little") + b"{}",
        "nested": (200_000).to_bytes(8, "little") + b'{"a":' * 40_000,
    }
    for part in sorted(path.name for path in newest(run).glob("*.safetensors")):
        for what, content in contents.items():
            yield Hostile(
                f"{part}: {what}", _copy(run, lambda p, n=part, c=content: _tensor(p, n, c))
            )
        arrays = load_tensors((newest(run) / part).read_bytes())
        for what, other in OTHER_ARRAYS.items():
            changed = {name: other(array) for name, array in arrays.items()}
            yield Hostile(
                f"{part}: {what}", _copy(run, lambda p, n=part, c=changed: _tensor(p, n, c))
            )


def _tensor(run: Path, name: str, content: Any) -> None:
    from safetensors.numpy import save

    content = content if isinstance(content, bytes) else save(content)
    (newest(run) / name).write_bytes(content)
    file = newest(run) / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
    file.write_bytes(signed(manifest))


NO_FILES: dict[str, Callable[[Path], Any]] = {
    "a link": lambda path: path.symlink_to("/etc/passwd"),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a loop": lambda path: path.symlink_to(path.name),
}
NO_CHECKPOINTS = (
    "checkpoint-", "checkpoint-abc", "checkpoint-" + "9" * 100, "checkpoint--1", ".old-x", ".tmp-x",
    "checkpoint-\x1b[31m",
)  # fmt: skip


def _places(run: Path) -> Iterator[Hostile]:
    """Links, pipes, folders and too much of everything."""
    names = [p.name for p in run.iterdir()] + [f"{CHECKPOINTS}/{newest(run).name}/manifest.json"]
    for name in names:
        for what, put in NO_FILES.items():

            def change(path: Path, name: str = name, put: Any = put) -> None:
                file = path / name
                shutil.rmtree(file) if file.is_dir() else file.unlink()
                put(file)

            yield Hostile(f"{name} is {what}", _copy(run, change))
    for name in NO_CHECKPOINTS:
        yield Hostile(
            "a strange checkpoint", _copy(run, lambda p, n=name: (p / CHECKPOINTS / n).mkdir())
        )
    yield Hostile("3,000 checkpoints", _copy(run, _many))
    yield Hostile(
        "20 MB in one line",
        _copy(run, lambda p: (p / METRICS).write_bytes(b"[" * 20_000_000 + b"\n")),
    )
    yield Hostile("20 GB of nothing", _copy(run, lambda p: os.truncate(p / METRICS, 20 * 10**9)))
    yield Hostile("20 GB of nothing", _copy(run, lambda p: os.truncate(p / CONFIG, 20 * 10**9)))
    yield Hostile(
        "20 GB of nothing",
        _copy(run, lambda p: os.truncate(newest(p) / "learner.safetensors", 20 * 10**9)),
    )


def _many(run: Path) -> None:
    for index in range(3000):
        (run / CHECKPOINTS / f"checkpoint-{index + 10**6:09d}").mkdir()
