"""Arrays of files as episodes want them: types, columns, lengths. Used by all readers of other
people's formats."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

NUMERIC = "biuf"
"""Kinds of NumPy types that can be data: booleans, integers, floating point."""


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts a file's name in front of the ValueErrors raised inside."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def floats(array: np.ndarray) -> np.ndarray:
    """The same numbers as float32, as a view where they are already; what is too large becomes
    infinity."""
    with np.errstate(all="ignore"):
        return array.astype(np.float32, copy=False)


def observation(array: np.ndarray) -> np.ndarray:
    """Images (uint8 with at least three axes per row) as they are, anything else as float32."""
    return array if array.dtype == np.uint8 and array.ndim >= 4 else floats(array)


def column(array: np.ndarray, what: str) -> np.ndarray:
    """[n] float32 of an array [n] or [n, 1].

    Raises:
        ValueError: any other shape; names it.
    """
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise ValueError(f"{what} has shape {array.shape}, expected one number per step.")
    return floats(array.reshape(len(array)))


def action_rows(array: np.ndarray) -> np.ndarray:
    """[t, a] float32.

    Raises:
        ValueError: not two axes, no step, or not floating point.
    """
    if array.ndim != 2:
        column = f" Store one dimension as ({len(array)}, 1)." if array.ndim == 1 else ""
        raise ValueError(
            f"actions has shape {array.shape}, expected [steps, action dimensions].{column}"
        )
    if len(array) == 0:
        raise ValueError("actions has no rows. Remove the episode.")
    if array.dtype.kind != "f":
        seen = f", here from {array.min()} to {array.max()}" if array.dtype.kind in "biu" else ""
        raise ValueError(
            f"actions are {array.dtype}. Only continuous actions (floating point) can be learnt "
            f"from, not discrete ones{seen}. If they are continuous, store them as float32."
        )
    return floats(array)


def check_rows(lengths: Mapping[str, int], steps: int) -> None:
    """Raises ValueError naming the first entry that has not as many rows as there are actions."""
    for name, length in lengths.items():
        if length != steps:
            raise ValueError(f"{name} has {length} rows, actions has {steps}. They must agree.")


_STAND_INS = (
    (
        b"version https://git-lfs",
        "a pointer of Git LFS, not the file itself. Fetch the content where it was cloned: "
        "`git lfs pull`",
    ),
    (
        b"/annex/objects/",
        "a pointer of git-annex, not the file itself. Fetch the content where it was cloned: "
        "`git annex get`",
    ),
    (b"<!doctype html", "a web page, not the file itself. Download it again, logged in if need be"),
    (b"<html", "a web page, not the file itself. Download it again, logged in if need be"),
    (b"<?xml", "an answer in XML, mostly a server's error. Download it again"),
)
"""How files begin that stand where another file should be, and what they are."""


def refuse_stand_in(path: Path) -> None:
    """Names a file that only stands for another: a pointer, or the page of a failed download.

    Raises:
        ValueError: it is one; says what it is and how to get the content.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(64).lstrip(b"\xef\xbb\xbf\r\n\t ").lower()
    except OSError:
        return
    for sign, what in _STAND_INS:
        if start.startswith(sign):
            raise ValueError(f"{path} is {what}.")


def one_line(error: BaseException) -> str:
    """What another library said, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
