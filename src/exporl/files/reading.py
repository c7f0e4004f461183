"""JSON from files that may be damaged: what cannot be read ends in one sentence that names the
file."""

import json
from pathlib import Path
from typing import Any

DEEPEST = 50
"""Levels of lists and objects: none that this library writes has ten."""
LARGEST = 64 * 2**20
"""Bytes of a file that holds one object: none that this library writes comes near."""


def parsed(text: bytes, what: str) -> dict[str, Any]:
    """The JSON object of a text.

    Args:
        text: UTF-8.
        what: where it is from, for messages.

    Raises:
        ValueError: it is something else; says where and what.
    """
    try:
        data = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{what} is nested too deeply to be read.") from error
    except ValueError as error:
        raise ValueError(f"{what} is not valid JSON ({error}).") from error
    if not isinstance(data, dict):
        raise ValueError(f"{what} must hold a JSON object, got {type(data).__name__}.")
    if _is_deeper(data, DEEPEST):
        raise ValueError(f"{what} is nested too deeply to be read.")
    return data


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        ValueError: it cannot be read, or holds something else; names the file.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise ValueError(
                f"{path} has {size} bytes, at most {LARGEST} are read. Copy it from the run again."
            )
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return parsed(content, str(path))
    except ValueError as error:
        raise ValueError(f"{error} Copy it from the run again.") from error
