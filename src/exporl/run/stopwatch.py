"""Time spent on training."""

import contextlib
import time
from collections.abc import Iterator


class Stopwatch:
    """Seconds of training over all resumptions; it stands still while it is paused."""

    def __init__(self):
        """Running, from zero."""
        self.restart(0.0)

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        now = time.perf_counter() if self._stopped is None else self._stopped
        return self._before + now - self._since

    def restart(self, seconds: float) -> None:
        """Goes on from so many seconds, now."""
        self._before, self._since, self._stopped = seconds, time.perf_counter(), None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While it lasts, no time passes."""
        self._stopped = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - self._stopped
            self._stopped = None


class Speed:
    """How fast something is counted, by a stopwatch."""

    def __init__(self, clock: Stopwatch):
        self._clock = clock
        self.start(0)

    def start(self, count: int) -> None:
        """Measures from this count on."""
        self._last = self._clock.seconds, count

    def per_second(self, count: int) -> float:
        """Counts per second since the last call or start, pauses left out."""
        seconds, before = self._last
        self.start(count)
        return (count - before) / max(self._last[0] - seconds, 1e-9)
