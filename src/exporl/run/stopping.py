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


class Interrupted(Exception):
    """Training was asked to stop; a checkpoint was written first."""


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
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
