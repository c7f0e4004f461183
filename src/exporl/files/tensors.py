"""Files of arrays that are compared with their SHA-256 before anything in them is used."""

import hashlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from exporl.files.reading import LARGEST, parsed


class CorruptCheckpointError(ValueError):
    """A checkpoint whose files are missing, truncated or altered."""


def read_tensors(file: Path, digest: str, what: str) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file.

    Args:
        file: where it lies.
        digest: its SHA-256.
        what: the checkpoint and the file in it, for messages.

    Raises:
        CorruptCheckpointError: it is missing, or its SHA-256 differs.
    """
    try:
        _check_length(file, what)
        content = file.read_bytes()
    except OSError as error:
        raise CorruptCheckpointError(f"{what} cannot be read ({error}).") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise CorruptCheckpointError(f"{what} was altered or truncated (its SHA-256 differs).")
    try:
        return load_tensors(content)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CorruptCheckpointError(f"{what} is not a safetensors file ({error}).") from error


def _check_length(file: Path, what: str) -> None:
    """Whether a safetensors file is as long as its own header says: a file that is none, of
    whatever size, is not read into memory to find out.

    Raises:
        CorruptCheckpointError: it is shorter or longer.
    """
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = opened.read(length) if length <= LARGEST else b"{}"
    try:
        arrays = parsed(header, file.name)
        ends = [array["data_offsets"][1] for key, array in arrays.items() if key != "__metadata__"]
        fits = 8 + length + max(ends, default=0) == file.stat().st_size
    except (ValueError, KeyError, TypeError, IndexError):
        fits = False
    if not fits:
        raise CorruptCheckpointError(
            f"{what} was altered or truncated (it has {file.stat().st_size} bytes, which is not "
            "what its header says)."
        )
