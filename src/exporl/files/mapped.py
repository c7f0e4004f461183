"""Arrays in files that are mapped into memory: together they may be larger than it."""

import math
import mmap
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

Zeros = Callable[[tuple[int, ...], DTypeLike], np.ndarray]
"""(shape, type) -> an array of zeros to write to: `np.zeros`, or one in a file."""
LEAST_BYTES = 4096
"""Of the rows of an array in a file. A smaller row costs a whole page of a disk to read, and few of
them fill a memory."""
_PIECE = 2**24
"""Bytes that are written at once where space cannot be reserved otherwise."""


def lies_in_a_file(row: tuple[int, ...], dtype: DTypeLike) -> bool:
    """Whether arrays with rows of this shape and type lie in files, or in memory all the same."""
    return math.prod(row) * np.dtype(dtype).itemsize >= LEAST_BYTES


def mapped_zeros(folder: Path, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """An array [streams, rows, ...] of zeros: in a file without a name where rows are large.

    Its space on the disk is reserved now, so that writing to it cannot fail later, and is free
    again once nobody has the array, however the process ends.

    Args:
        folder: of the file system that it lies on.
        shape: of the array.
        dtype: of its values.

    Raises:
        OSError: the folder cannot be written, or the disk has too little space; says how much is
            needed.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if not size or not lies_in_a_file(shape[2:], dtype):
        return np.zeros(shape, dtype)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            reserve(file.fileno(), size)
            mapped = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{folder} cannot hold a file of {size:,} B for the replay: {error.strerror}. Set "
            "data.scratch to a folder on another disk, or data.capacity lower",
        ) from error
    return np.frombuffer(mapped, dtype).reshape(shape)


def reserve(file: int, size: int) -> None:
    """Gives an empty file, opened to write, so many bytes of zeros on the disk.

    Raises:
        OSError: it has too little space.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    for start in range(0, size, _PIECE):
        os.write(file, bytes(min(_PIECE, size - start)))
