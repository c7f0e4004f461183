"""Errors of writing that say which file: a disk that is full does not say it by itself."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """While it lasts, an `OSError` that names no file gets this one.

    Raises:
        OSError: as it was, with the file.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def make_folder_of(path: Path) -> None:
    """Makes the folder that a file is to be written into, where it is missing.

    Raises:
        OSError: it cannot be made; names the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
