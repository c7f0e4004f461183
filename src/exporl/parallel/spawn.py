"""A run in a process of its own, started on this machine. Nothing here needs JAX."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from exporl.files.atomic import refuse_link
from exporl.files.run_files import OUTPUT

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class Child(NamedTuple):
    """What a process of its own is to do; plain values, so that another machine can start it."""

    code: str
    """The program."""
    order: str
    """The line that it reads from standard input."""
    run_dir: str
    environment: Mapping[str, str]
    """What it needs beside the variables of whoever starts it."""


def spawn(
    child: Child, cores: Sequence[int], inherited: Sequence[int] = (), folder: Path | None = None
) -> subprocess.Popen[str]:
    """Starts a child on these cores, in a session of its own: the terminal's Ctrl-C reaches it
    through us only. Its errors, and what simulators print, go to its run directory.

    Args:
        child: what it is to do.
        cores: numbers of the cores that it may use, as many as its threads.
        inherited: open files that it keeps open until it ends.
        folder: where it works, and where its run directory begins; this process's by default.
    """
    run_dir = (folder or Path()) / child.run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    threads = {name: str(len(cores)) for name in _THREADS}
    refuse_link(run_dir / OUTPUT)
    with (run_dir / OUTPUT).open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", child.code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            env=os.environ | threads | dict(child.environment),
            cwd=folder,
            start_new_session=True,
            pass_fds=tuple(inherited),
        )
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # not allowed here: the scheduler places it
            os.sched_setaffinity(process.pid, cores)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has failed already, and will be found to
        process.stdin.write(child.order + "\n")
        process.stdin.flush()
    return process
