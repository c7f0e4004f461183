"""Signals that ask a run to stop."""

import _thread
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from exporl.acting.failures import StoppedAtOnce

_STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, a service manager, a terminal that closes."""
_AT_ONCE = ("SIGINT", "SIGTERM")
"""Those that stop at once where one has come before; a closing terminal sends SIGHUP twice."""
_swallowed = threading.Event()
"""Set by a signal that interrupted the program. Where the program goes on all the same, Python was
in the middle of what ignores exceptions, such as a callback of the garbage collector."""
_LONGEST_IMPORT_S, _LOOK_AGAIN_S = 10.0, 0.05


class Interrupted(Exception):
    """Training was asked to stop; a checkpoint was written first."""


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


class _AfterImports:
    """Signals that arrive while a module is being imported come again when it is: extension
    modules print an exception raised within them, lose it and fail with another one."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._coming = False
        self._until = 0.0

    def takes(self, signum: int, frame: FrameType | None) -> bool:
        """Whether the signal will come again; for ten seconds at most, for a module of the user's
        may wait for something that never happens."""
        if self._coming:
            return True
        now = time.monotonic()
        if self._timer is None:
            self._until = now + _LONGEST_IMPORT_S
        if not _importing(frame) or now >= self._until:
            return False
        self._coming = True
        self._timer = threading.Timer(_LOOK_AGAIN_S, self._again, (signum,))
        self._timer.daemon = True
        self._timer.start()
        return True

    def _again(self, signum: int) -> None:
        if self._coming:
            self._coming = False
            _thread.interrupt_main(signal.Signals(signum))

    def forget(self) -> None:
        """No signal comes again."""
        self._coming = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_later = _AfterImports()


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """While it lasts, SIGTERM and SIGHUP interrupt as Ctrl-C does, where they would otherwise end
    the process without a word, and leave what is half done. `stop_on_signals` obeys an interruption
    that Python had to ignore.

    Raises:
        StoppedAtOnce: wherever the program is when the signal arrives.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        _swallowed.set()
        if not _later.takes(signum, frame):
            raise StoppedAtOnce

    untouched = (signal.SIG_DFL, signal.default_int_handler)
    numbers = [getattr(signal, name) for name in _STOPPING if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler in untouched}
    _swallowed.clear()
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        _later.forget()
        _swallowed.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """From now on a signal that asks to stop changes nothing: what was to be done is done, and the
    status of the process says how."""
    for name in _STOPPING:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@contextlib.contextmanager
def interruptions_as_such() -> Iterator[None]:
    """While it lasts, an error that somebody made of an interruption is that interruption again,
    with the error's notes: an extension module turns one that arrives while it is being imported
    into an ImportError.

    Raises:
        StoppedAtOnce: instead of such an error.
    """
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, KeyboardInterrupt):
            cause = cause.__cause__
        if cause is None:
            raise
        stopped = StoppedAtOnce()
        for note in getattr(error, "__notes__", ()):
            stopped.add_note(note)
        raise stopped from error


@contextlib.contextmanager
def stop_on_signals(stop: threading.Event, say: Callable[[str], None]) -> Iterator[None]:
    """While it lasts, the first SIGINT, SIGTERM or SIGHUP sets `stop`, and a second SIGINT or
    SIGTERM interrupts at once. Signals that are ignored, as under `nohup`, stay so.

    Outside the main thread, where signals do not arrive, it does nothing.

    Raises:
        StoppedAtOnce: wherever the program is when the second signal arrives.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if not stop.is_set():
            stop.set()
            # in a thread: this one may be in the middle of saying something else
            message = "stopping at the next step; again to stop at once"
            threading.Thread(target=say, args=(message,), daemon=True).start()
        elif signal.Signals(signum).name in _AT_ONCE:
            raise StoppedAtOnce

    numbers = [getattr(signal, name) for name in _STOPPING if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handle) for number in numbers}
    if _swallowed.is_set():
        stop.set()
    _later.forget()
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
