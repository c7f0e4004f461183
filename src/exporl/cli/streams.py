"""Standard output and error whose reader may leave, as `| head` does and a terminal that closes:
what is said then is lost, and what the command does goes on."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

_GONE = (errno.EPIPE, errno.EIO)
"""No reader of the pipe, no terminal."""


class Unbroken:
    """A text stream that drops what nobody reads any more."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes, or drops where the reader has left."""
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes, or drops where the reader has left."""
        with self._dropping():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's own."""
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _GONE:
                raise
            # also for what is still in the buffers, which the end of the process writes
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """While it lasts, standard output and error drop what nobody reads; both are flushed in the
    end. A stream that was closed beforehand leads nowhere."""
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as opened:
        streams = [
            Unbroken(opened.enter_context(open(os.devnull, "w")) if stream is None else stream)
            for stream in before
        ]
        sys.stdout, sys.stderr = streams  # type: ignore[assignment]
        try:
            yield
        finally:
            for stream in streams:
                stream.flush()
            sys.stdout, sys.stderr = before
