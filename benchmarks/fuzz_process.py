"""One command of `exporl` in a process forked from this one, which has imported everything and
computed nothing: what it answers, leaves behind, and takes.

What an accepted command would begin (training, playing, downloading) is stopped at its beginning,
by the one seam of each command; everything up to there is the command's own.
"""

import contextlib
import dataclasses
import importlib
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporl.cli.main import main

ROOM = 4 * 2**30
"""Bytes of address space that a command may take beyond those of this process: a fault cannot hurt
the machine."""
ACCEPTED = 77
"""Exit status that stands for: accepted, and stopped at its beginning."""
LARGEST_FILE = 2**30
"""Bytes of the largest file that a command may write."""
COMMANDS = ("train", "runs", "tasks", "presets", "data", "demo", "data_options", "data_sources")
LIBRARIES = ("h5py", "pyarrow.parquet", "exporl.report.data_page", "exporl.data.inspect")


@dataclasses.dataclass(frozen=True)
class Hostile:
    """A file, folder or run directory that is not what it should be."""

    what: str
    """The kind of hostility."""
    make: Callable[[Path], Path]
    """Puts it into an empty folder; returns its path."""
    stated: int = 0
    """Bytes that it states, where that is more than those of the file."""
    refused: bool = False
    """Whether it certainly has to be refused."""


class Accepted(BaseException):
    """The command would begin now."""


def begin(*_: Any, **__: Any) -> Any:
    """Stands in the place of what begins."""
    raise Accepted


class NoLearner:
    """Stands for a learner, whose parameters would take seconds to compile."""

    def __init__(self, algorithm: Any, seed: int):
        self.algorithm, self.seed, self.updates = algorithm, seed, 0

    def load(self, arrays: Mapping[str, Any], updates: int) -> None:
        """Takes anything."""
        self.updates = updates


SEAMS: Mapping[str, Any] = {
    "exporl.run.build.Learner": NoLearner,
    "exporl.run.build.compile_ahead": lambda algorithm, *_: algorithm,
    "exporl.run.build.hoisting_pays": lambda *_: True,
    "exporl.run.trainer.Trainer.pretrain": begin,
    "exporl.parallel.seeds._share_demonstrations": begin,
    "exporl.run.session.Evaluator.evaluate": begin,
    "exporl.cli.tasks.check_task": begin,
    "exporl.envs.collect.watched": begin,
    "exporl.data.download.fetch": begin,
    "exporl.cli.demo.make_task": begin,
}
"""What is replaced in the child -> by what."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of one command."""

    status: int
    """Its exit status; negative: the signal that ended it."""
    out: str
    error: str
    cpu_s: float
    peak: int
    """Bytes of memory at most."""

    @property
    def said(self) -> str:
        """Everything that it said."""
        return self.out + self.error


def warm_up() -> None:
    """Imports what the commands need, so that no child has to."""
    for name in COMMANDS:
        importlib.import_module(f"exporl.cli.{name}")
    for name in LIBRARIES:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)


def answer_of(
    args: Sequence[str], folder: Path, *, limit_s: int = 60, seams: bool = True, logs: Path
) -> Answer:
    """Runs `exporl ARGS` in a folder, in a child of this process.

    Args:
        args: the command line.
        folder: the current directory of the command.
        limit_s: seconds until it is ended.
        seams: whether what is accepted is stopped at its beginning.
        logs: a folder for what it says.
    """
    out, error = logs / "out", logs / "error"
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _child(args, folder, limit_s, seams, out, error)
    _, status, used = os.wait4(pid, 0)
    texts = [path.read_bytes().decode(errors="backslashreplace") for path in (out, error)]
    code = os.waitstatus_to_exitcode(status)
    return Answer(code, *texts, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def _child(
    args: Sequence[str], folder: Path, limit_s: int, seams: bool, out: Path, error: Path
) -> None:
    """Never returns."""
    status = 1
    try:
        for number, path in ((1, out), (2, error)):
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        signal.alarm(limit_s)
        room = address_space() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
        with _replaced(SEAMS if seams else {}):
            status = main(args)
    except Accepted:
        status = ACCEPTED
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(left.code is not None)
        if not isinstance(left.code, int | None):
            print(left.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


@contextlib.contextmanager
def _replaced(seams: Mapping[str, Any]) -> Iterator[None]:
    """Puts the seams in their places; the child ends with them."""
    for name, replacement in seams.items():
        owner, _, attribute = name.rpartition(".")
        try:
            place: Any = importlib.import_module(owner)
        except ModuleNotFoundError:  # a class
            module, _, kind = owner.rpartition(".")
            place = getattr(importlib.import_module(module), kind)
        assert hasattr(place, attribute), name
        setattr(place, attribute, replacement)
    yield


def address_space() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def true_process(args: Sequence[str], folder: Path, limit_s: int = 120) -> Answer:
    """Runs `exporl ARGS` as users do."""
    command, began = [sys.executable, "-m", "exporl.cli", *args], time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, capture_output=True, timeout=limit_s, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    texts = [text.decode(errors="backslashreplace") for text in (done.stdout, done.stderr)]
    return Answer(done.returncode, *texts, time.perf_counter() - began, 0)


def stated_size(path: Path) -> int:
    """Bytes on the disk of a file, or of all files of a folder; what is no file has none."""
    files = [path] if not path.is_dir() else path.rglob("*")
    return sum(512 * f.lstat().st_blocks for f in files if f.is_file() and not f.is_symlink())
