"""Signals that ask a run to stop."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from exporl.acting.failures import StoppedAtOnce

_STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, a service manager, a terminal that closes."""
_AT_ONCE = ("SIGINT", "SIGTERM")
"""Those that stop at once where one has come before; a closing terminal sends SIGHUP twice."""
_swallowed = threading.Event()
"""Set by a signal that interrupted the program. Where the program goes on all the same, Python was
in the middle of what ignores exceptions, such as a callback of the garbage collector."""


class Interrupted(Exception):
    """Training was asked to stop; a checkpoint was written first."""


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

    def handle(signum: int, frame: Any) -> None:
        _swallowed.set()
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

    def handle(signum: int, frame: Any) -> None:
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
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
