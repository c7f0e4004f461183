"""What runs on a machine of a Ray cluster: it starts one run there, and passes on what it says.
Nothing here needs JAX or Ray."""

import contextlib
import os
import platform
import queue
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from exporl.parallel.spawn import Child, spawn
from exporl.speed.cores import usable_cores

try:
    import fcntl
except ImportError:  # a system without it (Windows): what is left over there is not noticed
    fcntl = None

TOKEN = ".token"
"""Ending of the file that says that a folder is the one that is meant."""
WAIT_S = 1.0
"""Longest wait for a line."""


class RunHost:
    """One run on one machine."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()

    def where(self) -> tuple[str, list[int]]:
        """The machine's name, and the cores that may be used there."""
        return platform.node(), usable_cores()

    def begin(
        self, child: Child, cores: Sequence[int], folder: str, held: str, token: str
    ) -> str | None:
        """Starts the run; a sentence where that is not possible.

        Args:
            child: what is to be started.
            cores: that it may use.
            folder: where the command was started.
            held: file in the suite's folder that the process holds open until it ends.
            token: what the file beside it, with the ending .token, has to say: that the folder is
                the same one.
        """
        path = Path(folder) / held
        try:
            same = path.with_name(path.name + TOKEN).read_text() == token
        except OSError:
            same = False
        if not same:
            return (
                f"the machine {platform.node()} does not have the folder {path.parent}: a suite on "
                "several machines lies in a folder that all of them share, under the same path."
            )
        inherited: tuple[int, ...] = ()
        with contextlib.ExitStack() as closing:
            if fcntl is not None:
                descriptor = os.open(path, os.O_RDWR)
                closing.callback(os.close, descriptor)
                with contextlib.suppress(OSError):  # a shared folder without such locks
                    fcntl.flock(descriptor, fcntl.LOCK_SH)
                inherited = (descriptor,)
            self._process = spawn(child, cores, inherited, Path(folder))
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        return None

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._lines.put(line)
        self._lines.put(None)

    def news(self) -> list[str] | None:
        """The lines since the last call, none where none came within a second; None once it has
        ended and all of them were given."""
        found: list[str] = []
        with contextlib.suppress(queue.Empty):
            line = self._lines.get(timeout=WAIT_S)
            while line is not None:
                found.append(line)
                line = self._lines.get_nowait()
            if not found:
                return None
            self._lines.put(None)  # for the next call
        return found

    def stop(self) -> None:
        """Asks the run to stop after a checkpoint."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                self._process.stdin.close()

    def status(self) -> int:
        """The exit status of the run, which has ended."""
        self.stop()
        return 0 if self._process is None else self._process.wait()
