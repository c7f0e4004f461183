"""What is said where a process ends that cannot say it any more: Ray ends the process of a run,
without a word of how to go on, once its own processes on the machine are gone."""

import atexit
import contextlib
import subprocess
import sys

_CODE = "import sys\nif not sys.stdin.read():\n    sys.stderr.write(sys.argv[1] + '\\n')\n"


class LastWords:
    """A sentence on the error stream as soon as this process is gone, unless it was closed before.

    A small process waits for that; it has a session of its own, so that Ctrl-C does not reach it.
    """

    def __init__(self, sentence: str):
        """From now on it would be said."""
        command = [sys.executable, "-I", "-S", "-c", _CODE, sentence]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        atexit.register(self.close)  # where Python ends as it should, the error has been told

    def close(self) -> None:
        """It is not said."""
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            with contextlib.suppress(OSError):  # somebody ended it
                self._process.stdin.write(b"closed")
                self._process.stdin.close()
            self._process.wait()
        atexit.unregister(self.close)
