"""NumPy archives (.npz): sizes are compared before anything is unpacked, columns written row by
row."""

import contextlib
import math
import os
import shutil
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporl.data.formats.fields import refuse_stand_in
from exporl.data.formats.limits import check_size
from exporl.files.naming import make_folder_of, naming

_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every member: the same episodes always make the same file."""
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Archive:
    """An open archive, every array of which has passed the comparison of its sizes."""

    def __init__(self, path: Path, content: zipfile.ZipFile):
        self.path, self._content = path, content
        self._members = {
            member.filename.removesuffix(".npy"): member
            for member in content.infolist()
            if member.filename.endswith(".npy")
        }

    @property
    def names(self) -> list[str]:
        """Names of the arrays."""
        return list(self._members)

    def read(self, name: str) -> np.ndarray:
        """A whole array.

        Raises:
            ValueError: it is damaged; names the file.
        """
        with _readable(self.path), self._content.open(self._members[name]) as member:
            return np.lib.format.read_array(member, allow_pickle=False)

    def check_sizes(self) -> None:
        """Compares what every array says of its size with what the archive holds.

        Raises:
            ValueError: they differ, or it would unpack to more than `check_size` allows.
        """
        total = 0
        for name, member in self._members.items():
            with _readable(self.path):
                stated, held = self._sizes(member)
                if stated != held:
                    raise ValueError(f"{name} states {stated} bytes, there are {held}")
            total += stated
            check_size(f"{self.path}: {name}", stated, member.compress_size)
        check_size(f"{self.path}: all of it", total, self.path.stat().st_size)

    def _sizes(self, member: zipfile.ZipInfo) -> tuple[int, int]:
        """Bytes of the numbers by an array's own header, and by the archive's directory."""
        with self._content.open(member) as file:
            version = np.lib.format.read_magic(file)
            if version not in _HEADERS:
                raise ValueError(f"{member.filename} has the unknown version {version}")
            shape, _, dtype = _HEADERS[version](file)
            held = member.file_size - file.tell()
        # Reading refuses what holds objects before it looks at them.
        return (held if dtype.hasobject else math.prod(shape) * dtype.itemsize), held


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """An archive, its sizes compared.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such an archive, damaged, or made to fill the memory; names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no data file at {path}. Check the path, or leave it out to collect demonstrations."
        )
    with contextlib.ExitStack() as stack:
        with _readable(path):
            content = stack.enter_context(zipfile.ZipFile(path))
            for member in content.namelist():
                content.open(member).close()  # a damaged name would hide an array
        archive = Archive(path, content)
        archive.check_sizes()
        yield archive


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # damage surfaces as whatever zipfile, zlib or NumPy stumble over
        refuse_stand_in(path)
        raise ValueError(
            f"{path} is not a readable .npz archive ({error}). Copy or collect it again."
        ) from error


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz archive, each read once.

    Raises as `open_archive` does.
    """
    with open_archive(Path(path)) as archive:
        return {name: archive.read(name) for name in archive.names}


def archive_names(path: Path) -> set[str]:
    """Names of the arrays in an .npz archive without reading them; none for anything else. Never
    raises."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception:  # a damaged directory surfaces in many ways
        return set()


class _Column:
    """Rows of one array, appended to a file, so that nothing is held in memory."""

    def __init__(self, path: Path, first: np.ndarray):
        self.dtype, self.tail, self.rows, self.path = first.dtype, first.shape[1:], 0, path
        self._file = path.open("wb")

    def append(self, name: str, rows: np.ndarray) -> None:
        if (rows.dtype, rows.shape[1:]) != (self.dtype, self.tail):
            raise ValueError(
                f"{name} is {rows.dtype} {rows.shape[1:]} in one episode and {self.dtype} "
                f"{self.tail} in those before."
            )
        self._file.write(np.ascontiguousarray(rows).data if rows.size else b"")
        self.rows += len(rows)

    def close(self) -> None:
        self._file.close()

    def copy_to(self, member: Any) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(member, header | {"shape": (self.rows, *self.tail)})
        with self.path.open("rb") as file:
            shutil.copyfileobj(file, member, 1 << 20)


def write_archive(path: Path, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Writes arrays, of which each episode gives some rows, under a temporary name first.

    An interrupted write leaves nothing behind.

    Raises:
        ValueError: there are no episodes, or their arrays, shapes or types differ.
    """
    make_folder_of(path)
    folder = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    columns: dict[str, _Column] = {}
    folder.mkdir()
    try:
        with naming(path):
            _write(folder, path, parts, columns)
    finally:
        for column in columns.values():
            column.close()
        shutil.rmtree(folder)


def _write(
    folder: Path,
    path: Path,
    parts: Iterable[Mapping[str, np.ndarray]],
    columns: dict[str, _Column],
) -> None:
    """Writes the archive within a folder of its own, then moves it to its place."""
    for index, rows in enumerate(parts):
        if columns and rows.keys() != columns.keys():
            raise ValueError(
                f"episode {index} has {sorted(rows)}, those before have {sorted(columns)}."
            )
        for name, array in rows.items():
            if name not in columns:
                columns[name] = _Column(folder / str(len(columns)), array)
            columns[name].append(name, array)
    if not columns:
        raise ValueError(f"no episodes to write to {path}.")
    _pack(folder / "archive", columns)
    os.replace(folder / "archive", path)


def _pack(path: Path, columns: Mapping[str, _Column]) -> None:
    with path.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, column in columns.items():
                column.close()
                info = zipfile.ZipInfo(f"{name}.npy", _DATE)
                info.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(info, "w", force_zip64=True) as member:
                    column.copy_to(member)
        file.flush()
        os.fsync(file.fileno())
