"""Files replaced in one step, and files of JSON lines that a crash may cut off."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exporl.files.naming import naming
from exporl.files.reading import parsed

LONGEST_LINE = 4 * 2**20
"""Bytes of a line: an evaluation of ten thousand episodes has less."""


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    with naming(path), path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the names of a folder's files are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_bytes(path: Path, content: bytes) -> None:
    """Replaces a file in one step: readers see the old content or the new, never a part.

    Raises:
        OSError: it cannot be written; names the file.
    """
    with _replacing(path) as temporary:
        write_bytes(temporary, content)


def write_text(path: Path, text: str) -> None:
    """`replace_bytes` for a text."""
    replace_bytes(path, text.encode())


def copy_file(source: Path, path: Path) -> None:
    """Copies a file in one step: at its new place it is whole or not there, whenever the copying
    process is killed."""
    with _replacing(path) as temporary:
        with naming(path):
            shutil.copyfile(source, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A place beside a file for its new content, which takes the file's place once it is
    written."""
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Appends one JSON line.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have, or the file is a link,
            and what it leads to is left alone: nothing is written then.
        OSError: it cannot be written; names the file.
    """
    line = json.dumps(record, allow_nan=False) + "\n"
    refuse_link(path)
    with naming(path), path.open("a") as file:
        file.write(line)


def readable_lines(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The JSON objects of a file, one a line, and what is wrong with the other lines: a sentence
    each, that names file and line.

    A file that does not exist has no lines. A last line cut off by a crash is left out.
    """
    if not path.is_file():
        return [], []
    lines, problems, number = [], [], 0
    with path.open("rb") as file:
        while (text := file.readline(LONGEST_LINE)).endswith(b"\n") or len(text) == LONGEST_LINE:
            number += 1
            what = f"{path}, line {number}"
            if not text.endswith(b"\n"):
                problems.append(f"{what} has more than {LONGEST_LINE} bytes: it is damaged.")
                break
            try:
                lines += [parsed(text[:-1], what)] if text != b"\n" else []
            except ValueError as error:
                problems.append(str(error))
    return lines, problems


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All complete JSON lines of a file (none if it does not exist); a last line cut off by a crash
    is left out.

    Raises:
        ValueError: a line is damaged; names file and line.
    """
    lines, problems = readable_lines(path)
    if problems:
        raise ValueError(problems[0])
    return lines


def size_of(path: Path) -> int:
    """Bytes of a file; 0 if it does not exist."""
    return path.stat().st_size if path.is_file() else 0


def beginning(path: Path, size: int) -> str:
    """SHA-256 of the first bytes of a file; of nothing if it does not exist."""
    if not path.is_file():
        return hashlib.sha256(b"").hexdigest()
    with path.open("rb") as file:
        return hashlib.sha256(file.read(size)).hexdigest()


def cut_back(path: Path, size: int) -> None:
    """Cuts off whatever was appended to a file since it had this size in bytes.

    Raises:
        ValueError: the file is a link: what it leads to is left alone.
    """
    refuse_link(path)
    if size_of(path) > size:
        os.truncate(path, size)


def refuse_link(path: Path) -> None:
    """Refuses to write through a symbolic link.

    Raises:
        ValueError: the path is one; says where it leads.
    """
    if path.is_symlink():
        raise ValueError(
            f"{path} is a symbolic link to {os.readlink(path)}: nothing is written through links. "
            "Put the file itself there."
        )
