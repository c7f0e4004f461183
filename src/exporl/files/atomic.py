"""Files replaced in one step, and files of JSON lines that a crash may cut off."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

from exporl.files.naming import naming


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    with naming(path), path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Replaces a file in one step: readers see the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        write_bytes(temporary, text.encode())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Appends one JSON line.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have; nothing is written then.
        OSError: it cannot be written; names the file.
    """
    line = json.dumps(record, allow_nan=False) + "\n"
    with naming(path), path.open("a") as file:
        file.write(line)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All complete JSON lines of a file (none if it does not exist); a last line cut off by a crash
    is left out."""
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def size_of(path: Path) -> int:
    """Bytes of a file; 0 if it does not exist."""
    return path.stat().st_size if path.is_file() else 0


def cut_back(path: Path, size: int) -> None:
    """Cuts off whatever was appended to a file since it had this size in bytes."""
    if size_of(path) > size:
        os.truncate(path, size)
