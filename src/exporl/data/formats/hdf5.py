"""HDF5 files written by others: opened once, read in slices, and every fault of theirs a
ValueError."""

import contextlib
import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporl.data.formats.fields import NUMERIC, one_line, refuse_stand_in
from exporl.data.formats.limits import check_size

SIGNATURE = b"\x89HDF\r\n\x1a\n"
CHUNK_CACHE_BYTES = 16 * 2**20
"""Decompressed chunks kept per open array, so that neighbouring episodes do not decompress them
again."""
MAX_DEPTH = 8
"""Groups within groups; damage can make a group contain itself."""
MAX_ARRAYS = 20_000
"""Arrays under one group: a group that contains itself several times has more than can be listed.
"""
MAX_NAMES = 1_000_000
"""Names in one list."""


def package() -> Any:
    """The module h5py.

    Raises:
        ModuleNotFoundError: it is not installed; names the command that installs it.
    """
    try:
        return importlib.import_module("h5py")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "HDF5 files need the package 'h5py'. Install it with: pip install 'exporl[formats]'"
        ) from error


class Source:
    """A file that stays open while its records are listed, and is opened again for a record read
    after that."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self._root: Any = None
        self._arrays: dict[str, Any] = {}
        if not self.path.is_file():
            raise FileNotFoundError(f"no data file at {self.path}. Check the path.")

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        """The root group; everything within the outermost `with` shares one handle.

        Raises:
            ValueError: not a readable HDF5 file.
            ModuleNotFoundError: h5py is not installed.
        """
        if self._root is not None:
            yield self._root
            return
        h5py = package()
        try:
            self._root = h5py.File(self.path, "r", rdcc_nbytes=CHUNK_CACHE_BYTES)
        except Exception as error:  # damage surfaces as whatever h5py stumbles over
            refuse_stand_in(self.path)
            raise ValueError(
                f"{self.path} is not a readable HDF5 file ({one_line(error)}). Copy or download it "
                "again."
            ) from error
        try:
            yield self._root
        finally:
            root, self._root = self._root, None
            self._arrays.clear()
            with contextlib.suppress(Exception):  # closing what was only read loses nothing
                root.close()

    def array(self, root: Any, name: str) -> Any:
        """As `child` of the root group, but open as long as the file, so that its decompressed
        chunks are kept."""
        if name not in self._arrays:
            self._arrays[name] = child(root, name)
        return self._arrays[name]


def looks_like(path: Path, test: Callable[[Any], bool], damaged: bool = False) -> bool:
    """Whether a file has the HDF5 signature and its root group passes a test; never raises.

    Args:
        path: any path.
        test: of the root group.
        damaged: the answer for a file with the signature that cannot be looked into: damaged, or
            h5py is missing.
    """
    try:
        with Path(path).open("rb") as file:
            if file.read(len(SIGNATURE)) != SIGNATURE:
                return False
    except OSError:
        return False
    try:
        with Source(path).open() as root:
            return test(root)
    except Exception:  # so damaged that it cannot be looked at; its reader says so
        return damaged


def root_names(path: Path) -> list[str]:
    """Names at the root of an HDF5 file, with what is in a first group; none for anything else.
    Never raises."""
    try:
        with Source(path).open() as root:
            found = names(root, "the file")
            first = child(root, found[0]) if found else None
            inner = names(first, found[0])[:MAX_DEPTH] if is_group(first) else []
            return [f"{found[0]} (with {', '.join(inner)})", *found[1:]] if inner else found
    except Exception:  # not such a file, or so damaged that it cannot be looked at
        return []


def is_group(node: Any) -> bool:
    """Whether a node of the file is a group."""
    return isinstance(node, package().Group)


def is_dataset(node: Any) -> bool:
    """Whether a node of the file is an array."""
    return isinstance(node, package().Dataset)


def child(group: Any, name: str) -> Any:
    """A group or array by name or path, None if there is none of that name.

    Nothing is followed out of the file: other files' content would end up in the output.

    Raises:
        ValueError: it is there and cannot be opened, or lies outside the file; names it.
    """
    return _resolved(group, name, 0)


def _resolved(group: Any, name: str, followed: int) -> Any:
    node = group
    for part in name.strip("/").split("/"):
        if not is_group(node):
            return None
        node = _linked(node, part, followed)
    return node


def _linked(group: Any, name: str, followed: int) -> Any:
    """What a group has under a name; soft links are followed step by step, within the file."""
    h5py = package()
    try:
        link = group.get(name, getlink=True)
        soft = link.path if isinstance(link, h5py.SoftLink) else ""
        hard = isinstance(link, h5py.HardLink)
        node: Any = group[name] if hard else None
        outside = isinstance(node, h5py.Dataset) and bool(node.external or node.is_virtual)
    except Exception as error:
        raise ValueError(
            f"{name} cannot be opened ({one_line(error)}). The file is damaged."
        ) from error
    if isinstance(link, h5py.ExternalLink):
        raise ValueError(
            f"{name} is a link to {link.path} in another file, {link.filename}, which is not "
            "followed. Copy the content into the file (h5repack, or h5py's copy with "
            "expand_external)."
        )
    if outside:
        kind = "a virtual data set of other files" if node.is_virtual else "stored in another file"
        raise ValueError(
            f"{name} is {kind} ({_sources(node)}), which is not opened. Copy the content into the "
            "file, for example by writing data[...] to a new one."
        )
    if soft:
        if followed >= MAX_DEPTH:
            raise ValueError(f"{name} is a link that leads through more than {MAX_DEPTH} others.")
        return _resolved(group.file if soft.startswith("/") else group, soft, followed + 1)
    return node


def _sources(dataset: Any) -> str:
    """Names of the files that an array takes its numbers from."""
    if dataset.is_virtual:
        files = [source.file_name for source in dataset.virtual_sources()]
    else:
        files = [entry[0] for entry in dataset.external]
    return ", ".join(dict.fromkeys(map(str, files)))


def has_array(group: Any, name: str) -> bool:
    """Whether a group has an array of that name, or something in its place that is not opened."""
    try:
        return is_dataset(child(group, name))
    except ValueError:
        return True  # reading it says why


def names(group: Any, what: str) -> list[str]:
    """Names in a group, in the file's order.

    Raises:
        ValueError: the group is damaged.
    """
    try:
        return [
            name.decode(errors="replace") if isinstance(name, bytes) else name for name in group
        ]
    except Exception as error:
        raise ValueError(
            f"{what} cannot be listed ({one_line(error)}). The file is damaged."
        ) from error


def leaves(group: Any, prefix: str, depth: int = 0) -> dict[str, Any]:
    """All arrays under a group by their path within it.

    Raises:
        ValueError: it is damaged, or lies outside the file; names what cannot be opened.
    """
    if not is_group(group):
        raise ValueError(f"{prefix} is not a group of arrays.")
    if depth > MAX_DEPTH:
        raise ValueError(f"{prefix} is nested more than {MAX_DEPTH} deep. The file is damaged.")
    found: dict[str, Any] = {}
    for name in names(group, prefix):
        node = child(group, name)
        if is_group(node):
            inner = leaves(node, f"{prefix}/{name}", depth + 1)
            found.update({f"{name}/{key}": value for key, value in inner.items()})
        elif is_dataset(node):
            found[name] = node
        if len(found) > MAX_ARRAYS:
            raise ValueError(f"{prefix} has more than {MAX_ARRAYS:,} arrays. The file is damaged.")
    return found


def check_total(arrays: Mapping[str, Any]) -> None:
    """Compares the size of arrays that are read together with that of the file.

    Raises:
        ValueError: they would unpack to more than `check_size` allows; names the largest.
    """
    sizes = {name: _stated(dataset, name) for name, dataset in arrays.items()}
    if not sizes:
        return
    largest = max(sizes, key=lambda name: sizes[name])
    try:
        held = next(iter(arrays.values())).file.id.get_filesize()
    except Exception as error:
        raise ValueError(f"the file's size is not known ({one_line(error)}).") from error
    what = f"{largest} and {len(sizes) - 1} more arrays" if len(sizes) > 1 else largest
    check_size(what, sum(sizes.values()), held)


def _stated(dataset: Any, what: str) -> int:
    """Bytes of an array once it is unpacked."""
    try:
        return math.prod(shape_of(dataset, what)) * max(1, dataset.dtype.itemsize)
    except Exception as error:
        raise ValueError(
            f"{what} cannot be opened ({one_line(error)}). The file is damaged."
        ) from error


def shape_of(dataset: Any, what: str) -> tuple[int, ...]:
    """The shape of an array, () of a single value.

    Raises:
        ValueError: it is a group, or damaged.
    """
    if not is_dataset(dataset):
        raise ValueError(f"{what} is not an array.")
    try:
        return dataset.shape or ()
    except Exception as error:
        raise ValueError(
            f"{what} cannot be opened ({one_line(error)}). The file is damaged."
        ) from error


def rows_of(dataset: Any, what: str) -> int:
    """Number of rows of an array of numbers.

    Raises:
        ValueError: it has no rows, is no array of numbers, or claims more than the file can hold.
    """
    shape = shape_of(dataset, what)
    try:
        dtype, kept = dataset.dtype, dataset.id.get_storage_size()
        chunk = math.prod(dataset.chunks or ()) * dtype.itemsize
    except Exception as error:
        raise ValueError(
            f"{what} cannot be opened ({one_line(error)}). The file is damaged."
        ) from error
    if dtype.kind not in NUMERIC or not shape:
        raise ValueError(
            f"{what} is not an array of numbers with one row per step (type {dtype}, shape "
            f"{shape})."
        )
    check_size(what, math.prod(shape) * dtype.itemsize, kept)
    check_size(f"a chunk of {what}", chunk, kept)  # it is unpacked as a whole for a single row
    return shape[0]


def read(dataset: Any, what: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows start to stop of an array that passed `rows_of`, which takes long where there are many
    chunks.

    Raises:
        ValueError: the rows cannot be read.
    """
    try:
        return dataset[start:stop]
    except Exception as error:
        raise ValueError(
            f"{what} cannot be read ({one_line(error)}). The file is damaged."
        ) from error


def variable_rows(dataset: Any, what: str) -> list[np.ndarray]:
    """The rows of an array whose rows differ in length, read one by one.

    Raises:
        ValueError: one cannot be read, or they hold more than the file: rows may share content.
    """
    rows, total = [], 0
    for index in range(shape_of(dataset, what)[0]):
        try:
            rows.append(np.asarray(dataset[index]))
            held = dataset.file.id.get_filesize()
        except Exception as error:
            raise ValueError(
                f"{what} cannot be read ({one_line(error)}). The file is damaged."
            ) from error
        total += rows[-1].nbytes
        check_size(what, total, held)
    return rows


def array(group: Any, name: str) -> np.ndarray | None:
    """A whole array of numbers of a group, None if there is none of that name. Raises as `rows_of`
    and `read` do."""
    node = child(group, name)
    if node is None:
        return None
    rows_of(node, name)
    return read(node, name)


def strings(dataset: Any, what: str) -> list[str]:
    """An array of strings.

    Raises:
        ValueError: it is something else, or damaged.
    """
    if is_dataset(dataset) and math.prod(shape_of(dataset, what)) > MAX_NAMES:
        raise ValueError(f"{what} is a list of more than {MAX_NAMES:,} names.")
    try:
        values = np.ravel(dataset[()])
        return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
    except Exception as error:
        raise ValueError(f"{what} is not a readable list of names ({one_line(error)}).") from error


def attribute(group: Any, name: str) -> Any:
    """An attribute, None if there is none of that name.

    Raises:
        ValueError: it is there and cannot be read.
    """
    try:
        value = group.attrs.get(name)
        return value.decode() if isinstance(value, bytes) else value
    except Exception as error:
        raise ValueError(
            f"attribute {name} cannot be read ({one_line(error)}). The file is damaged."
        ) from error


def flag(group: Any, name: str) -> bool:
    """Whether an attribute is there and true. Raises as `attribute` does."""
    value = attribute(group, name)
    return value is not None and np.ravel(value).tolist() == [True]
