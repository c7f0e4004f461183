"""Numbers and names of files as people write them."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

EXACT = 2**53
"""Up to here every whole number is one in floating point too."""


ONE_FILE = (".npz", ".hdf5", ".h5")
"""Endings of what is never a folder."""


def number(
    least: float | int, most: float | int = math.inf, *, whole: bool = True
) -> Callable[[str], int | float]:
    """Reads an option of `argparse` that has to lie in a range; NaN and infinity never do.

    Args:
        least: what it has to be at least.
        most: and at most.
        whole: whether it has to be a whole number.
    """

    def read(text: str) -> int | float:
        try:
            value = whole_number(text) if whole else float(text)
        except ValueError as error:
            kind = "whole number" if whole else "number"
            raise argparse.ArgumentTypeError(f"must be a {kind}, got {text!r}") from error
        if not (math.isfinite(value) and least <= value <= most):
            bounds = f"at least {least:g}" if math.isinf(most) else f"in [{least:g}, {most:.0f}]"
            raise argparse.ArgumentTypeError(f"must be {bounds}, got {text}")
        return value

    return read


def target(text: str) -> Path:
    """The file or folder to write that an option of `argparse` names."""
    path = Path(text)
    if text.endswith("/") and path.suffix in ONE_FILE:
        raise argparse.ArgumentTypeError(
            f"{text!r} is a file by its ending {path.suffix} and a folder by the / behind it: "
            "leave one of them out"
        )
    return path


def file_target(text: str) -> Path:
    """The file to write that an option of `argparse` names."""
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder: name a file to write")
    return Path(text)


def whole_number(text: str) -> int:
    """The whole number that a text says: 100000, 100_000, 1e5.

    Raises:
        ValueError: it says none.
    """
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"must be a whole number, got {text!r}.") from error
    if not value.is_integer() or abs(value) > EXACT:
        raise ValueError(f"must be a whole number, got {text!r}.")
    return int(value)
