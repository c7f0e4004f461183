"""One process per run directory: a lock that ends with the process that holds it."""

import contextlib
import errno
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from exporl.files.atomic import refuse_link
from exporl.files.run_files import LOCK

try:
    import fcntl
except ImportError:  # a system without it (Windows) has no such locks
    fcntl = None


@contextlib.contextmanager
def locked(folder: Path, advice: str = "Choose another --run-dir.") -> Iterator[None]:
    """While it lasts, no other process trains in this run directory, which is made if need be and
    removed if it is empty afterwards, with the folders above it that were made.

    The system gives the lock up when its holder ends, however that happens. Children that a dead
    holder left behind do not count.

    Args:
        folder: the run directory, or the folder of a suite.
        advice: what to do where it cannot be written.

    Raises:
        ValueError: the place cannot be written, or somebody trains there; names the process.
    """
    path = folder / LOCK
    try:
        made = [each for each in (folder, *folder.parents) if not each.is_dir()]
        folder.mkdir(parents=True, exist_ok=True)
        refuse_link(path)
        descriptor = _take(path, folder)
    except OSError as error:
        raise ValueError(
            f"cannot write to run directory {folder}: {error.strerror}. {advice}"
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        for each in made:
            with contextlib.suppress(OSError):  # it holds a run now
                each.rmdir()


def check_place(folder: Path, advice: str) -> None:
    """Whether `locked` could make a folder and write to it; nothing is made.

    Args:
        folder: as for `locked`.
        advice: as for `locked`.

    Raises:
        ValueError: it could not; says why.
    """
    there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not there.is_dir():
        problem = errno.EEXIST if there == folder else errno.ENOTDIR
    elif not os.access(there, os.W_OK | os.X_OK):
        problem = errno.EACCES
    else:
        return
    raise ValueError(f"cannot write to run directory {folder}: {os.strerror(problem)}. {advice}")


def _take(path: Path, folder: Path) -> int:
    """The open lock file, held."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            held = _hold(descriptor)
            if not held:
                _refuse_or_remove(path, folder)
            elif _is_at(descriptor, path):
                _sign(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the file was removed meanwhile: its successor counts


def _hold(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps({"pid": os.getpid(), "host": platform.node()}).encode())


def _refuse_or_remove(path: Path, folder: Path) -> None:
    """Removes the lock of a process that has ended, which only its children still hold.

    Raises:
        ValueError: the process lives.
    """
    try:
        holder = json.loads(path.read_text())
        pid, host = int(holder["pid"]), str(holder["host"])
    except (OSError, ValueError, TypeError, KeyError):  # being signed or removed at this moment
        pid, host = None, ""
    if pid is not None and host == platform.node() and not _lives(pid):
        path.unlink(missing_ok=True)
        return
    who = "another process" if pid is None else f"process {pid} on {host}"
    raise ValueError(
        f"{who} trains in {folder}. Wait for it, or stop it (kill {pid or 'PID'}): it saves "
        "everything first."
    )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True
