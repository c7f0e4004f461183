"""Hostile data files of every format: damaged, lying about their sizes, packed zeros, nested
deeply, of other types, endless numbers, names that are no names, and places that are no files."""

import io
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from fuzz_process import Hostile
from fuzz_structures import hdf5_files, tables

from exporl.data.formats import FORMATS
from helpers.hostile import KINDS, bomb, builder, mutate
from helpers.recordings import (
    flat,
    write_dataset,
    write_hdf5,
    write_lerobot,
    write_npz,
)


def damaged(per_format: int) -> Iterator[Hostile]:
    """Bytes of every file of every format flipped, cut off, inserted, zeroed, exchanged."""
    for name in FORMATS:
        for index in range(per_format):

            def make(folder: Path, name: str = name, index: int = index) -> Path:
                file_name, build = builder(name)
                build(path := folder / file_name)
                rng = np.random.default_rng((11, index))
                files = [path] if path.is_file() else sorted(filter(Path.is_file, path.rglob("*")))
                victim = files[index // len(KINDS) % len(files)]
                victim.write_bytes(mutate(victim.read_bytes(), KINDS[index % len(KINDS)], rng))
                return path

            yield Hostile(f"{name}: {KINDS[index % len(KINDS)]}", make)


_INFO = b'{"codebase_version": "v2.1", "fps": 10, "features": {}, "total_episodes": 1, '
TEXTS: Mapping[str, bytes] = {
    "an array": b"[]",
    "null": b"null",
    "nothing": b"",
    "nested": b'{"a":' * 100_000,
    "nested lists": b"[" * 200_000 + b"]" * 200_000,
    "NaN": b'{"codebase_version": NaN, "fps": NaN, "features": NaN, "total_episodes": NaN}',
    "a huge number": b'{"codebase_version": "v2.1", "total_episodes": 1e999, "fps": 1e999}',
    "many digits": b'{"total_episodes": ' + b"9" * 5000 + b"}",
    "negative": b'{"codebase_version": "v2.1", "total_episodes": -1, "fps": 10, "features": {}}',
    "no UTF-8": b'{"codebase_version": "\xff\xfe"}',
    "escapes": b'{"codebase_version": "\\u001b[31mred\\u0007"}',
    "another version": b'{"codebase_version": "v99.0"}',
    "twice": b'{"codebase_version": "v2.1", "codebase_version": 3}',
    "a path": _INFO + b'"data_path": "/etc/passwd"}',
    "a template": _INFO + b'"data_path": "{episode_index.__class__.__mro__}"}',
    "a wide field": _INFO + b'"data_path": "{episode_index:0999999999d}.parquet"}',
    "spaces": b" " * 3_000_000,
}


def texts() -> Iterator[Hostile]:
    """Every text file of LeRobot and Minari folders replaced."""
    builders = {"lerobot": write_lerobot, "minari": write_dataset}
    for name, build in builders.items():
        for what, content in TEXTS.items():

            def make(
                folder: Path, build: Any = build, name: str = name, content: bytes = content
            ) -> Path:
                path = build(folder / f"{name}-v0")
                texts = [p for p in sorted(path.rglob("*")) if p.suffix in (".json", ".jsonl")]
                for file in texts[: 1 + len(content) % 2]:
                    file.write_bytes(content)
                return path

            yield Hostile(f"{name}: text with {what}", make)


def _header(shape: Any, descr: str = "<f8", length: int = 80) -> bytes:
    packed = io.BytesIO()
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    packed.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(length))
    return packed.getvalue()


def _member(name: str, content: bytes, **others: Any) -> Callable[[Path], Path]:
    """An archive of good arrays with one member's bytes replaced."""

    def make(folder: Path) -> Path:
        path = folder / "hostile.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for other, value in (flat(timeouts=np.ones(12)) | others).items():
                if other != name:
                    packed = io.BytesIO()
                    np.save(packed, np.asarray(value))
                    archive.writestr(f"{other}.npy", packed.getvalue())
            archive.writestr(f"{name}.npy", content)
        return path

    return make


def archives() -> Iterator[Hostile]:
    """`.npz` whose members lie."""
    headers: dict[str, bytes] = {
        "a shape that lies": _header("(1000000000000,)"),
        "a negative shape": _header("(-3,)"),
        "an endless shape": _header("(9" + "9" * 300 + ",)"),
        "a shape of 60 axes": _header("(" + "1," * 60 + ")"),
        "a shape that overflows": _header("(4294967296, 4294967296, 4294967296)"),
        "a shape of text": _header("('a',)"),
        "a shape of True": _header("(True,)"),
        "code in its header": _header("(__import__('os').system('touch hurt'),)"),
        "a nested header": _header("(" * 5000 + ")" * 5000),
        "objects": _header("(3,)", "|O"),
        "raw bytes": _header("(3,)", "|V10"),
        "text": _header("(3,)", "<U5"),
        "dates": _header("(10,)", "<M8[s]"),
        "complex numbers": _header("(5,)", "<c16"),
        "an endless type": _header("(3,)", "<U99999999999"),
        "an unknown type": _header("(3,)", "<q99"),
        "no array": b"hello",
        "nothing": b"",
        "another version": b"\x93NUMPY\x09\x09" + bytes(100),
        "a cut header": _header("(10,)")[:30],
    }
    for what, content in headers.items():
        for name in ("observations", "unrelated"):
            yield Hostile(f"npz: {name} with {what}", _member(name, content))
    for megabytes in (40, 300):
        for name in ("observations", "actions"):
            yield Hostile(
                f"npz: {megabytes} MB of zeros", _zeros(name, megabytes), megabytes * 10**6
            )
    yield Hostile("npz: thousands of members", _many_members)
    yield Hostile("npz: members twice", _member("rewards.npy/../rewards", _header("(10,)")))
    for name in ("../../evil", "/tmp/evil", "\x1b[31mred", "a" * 60_000, "", "é\u202e"):
        yield Hostile("npz: a strange member's name", _member(name, _header("(10,)")))


def _zeros(name: str, megabytes: int) -> Callable[[Path], Path]:
    arrays = {k: np.asarray(v) for k, v in flat(timeouts=np.ones(12)).items() if k != name}
    return lambda folder: bomb(folder / "a.npz", name, megabytes * 10**6 // 8, **arrays)


def _many_members(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        for index in range(20_000):
            archive.writestr(f"traj_{index}/actions.npy", _header("(1,)", length=8))
    return folder / "a.npz"


VALUES: Mapping[str, Any] = {
    "NaN": np.full((12, 2), np.nan),
    "infinity": np.full((12, 2), -np.inf),
    "1e300": np.full((12, 2), 1e300),
    "no rows": np.zeros((0, 2)),
    "no columns": np.zeros((12, 0)),
    "one number": np.float64(3.0),
    "one axis": np.zeros(12),
    "five axes": np.zeros((12, 1, 1, 1, 2)),
    "too few rows": np.zeros((5, 2)),
    "too many rows": np.zeros((500, 2)),
    "integers": np.full((12, 2), 2**62),
    "bytes": np.full((12, 2), b"abc"),
    "truth": np.ones((12, 2), bool),
    "half precision": np.full((12, 2), 6e4, np.float16),
    "a record": np.zeros(12, [("x", "f4"), ("y", "i4")]),
    "very wide": np.zeros((12, 100_000)),
}
"""What stands in the place of an array."""


def values() -> Iterator[Hostile]:
    """Every array of flat files replaced by every value, as archive and as HDF5."""
    for index, (what, value) in enumerate(VALUES.items()):
        for turn, name in enumerate(
            ("observations", "actions", "rewards", "terminals", "timeouts")
        ):
            arrays = flat(timeouts=np.isin(np.arange(12), (3, 11))) | {name: value}
            if (index + turn) % 2:

                def make(folder: Path, arrays: Any = arrays) -> Path:
                    return write_npz(folder / "values.npz", arrays)
            else:

                def make(folder: Path, arrays: Any = arrays) -> Path:
                    return write_hdf5(folder / "values.hdf5", arrays)

            yield Hostile(f"{name}: {what}", make)


def _sparse(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.touch()
        os.truncate(path, 20 * 10**9)
        return path

    return make


def _noise(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        magic = {".hdf5": b"\x89HDF\r\n\x1a\n", ".npz": b"PK\x03\x04"}
        content = np.random.default_rng(len(name)).bytes(5000)
        (folder / name).write_bytes(magic.get(Path(name).suffix, b"") + content)
        return folder / name

    return make


def _link(name: str, target: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).symlink_to(target)
        return folder / name

    return make


def _pipe(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def _containing(
    name: str, inner: str, make_inner: Callable[[str], Callable[[Path], Path]]
) -> Callable[[Path], Path]:
    """A folder of a format, one file of which is no file."""

    def make(folder: Path) -> Path:
        path = (write_lerobot if name == "robot" else write_dataset)(folder / name)
        (path / inner).unlink()
        make_inner((path / inner).name)((path / inner).parent)
        return path

    return make


INNER = (
    ("robot", "meta/info.json"), ("robot", "meta/episodes.jsonl"),
    ("robot", "data/chunk-000/episode_000000.parquet"), ("set-v0", "data/main_data.hdf5"),
    ("set-v0", "data/metadata.json"),
)  # fmt: skip
"""Folders of two formats, and a file in each."""


def places() -> Iterator[Hostile]:
    """What is no file, or nothing of ours."""
    for end in (".npz", ".hdf5", ""):
        yield Hostile(f"20 GB of nothing{end}", _sparse("sparse" + end), refused=True)
        yield Hostile(f"noise{end}", _noise("noise" + end), refused=True)
        yield Hostile(f"a pipe{end}", _pipe("pipe" + end), refused=True)
        for target in ("/dev/zero", "/dev/stdin", "link" + end, "nowhere", "/proc/self/mem"):
            yield Hostile(f"a link to {target}", _link("link" + end, target), refused=True)
    kinds: dict[str, Callable[[str], Callable[[Path], Path]]] = {
        "a pipe": _pipe, "20 GB of nothing": _sparse, "noise": _noise,
        "a link to /dev/zero": lambda name: _link(name, "/dev/zero"),
    }  # fmt: skip
    for name, inner in INNER:
        for what, make_inner in kinds.items():
            yield Hostile(f"{inner} is {what}", _containing(name, inner, make_inner))
    for name in (
        "new\nline.npz",
        "\x1b[31mred.npz",
        "é ü.npz",
        "-x.npz",
        "a" * 250 + ".npz",
        "[red].npz",
    ):

        def strange(folder: Path, name: str = name) -> Path:
            return write_npz(folder / name, flat(rewards=np.full(12, np.nan)))

        yield Hostile("a strange name", strange)


def data_files(count: int) -> list[Hostile]:
    """A seeded choice of hostile data files, damaged ones to fill up."""
    made = [*texts(), *archives(), *values(), *hdf5_files(), *tables(), *places()]
    rest = max(count - len(made), 0)
    return [*made, *damaged(-(-rest // len(FORMATS)))][:count] if rest else made
