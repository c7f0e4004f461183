"""Metrics: kept on the device until an interval ends, then written as one JSON line."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from exporl.files.atomic import append_line
from exporl.types import PARTIAL, Metrics


@jax.jit
def _joined(metrics: Metrics) -> jax.Array:
    """One vector, in the order of the sorted names: it reaches the host in one piece."""
    return jnp.stack([metrics[name].astype(jnp.float32) for name in sorted(metrics)])


def recent_episodes(outcomes: Sequence[tuple[int, bool, int, float]]) -> dict[str, Any]:
    """How many training episodes have ended, and the means of the last 20: see
    `Rollout.outcomes`."""
    fields: dict[str, Any] = {"rollout/episodes": len(outcomes)}
    if recent := outcomes[-20:]:
        _, success, length, paid = zip(*recent, strict=True)
        fields["rollout/success_rate"] = float(np.mean(success))
        fields["rollout/length_mean"] = float(np.mean(length))
        fields["rollout/return_mean"] = float(np.mean(paid))
    return fields


class MetricsWriter:
    """Collects update metrics without waiting for the device, and appends lines to
    `metrics.jsonl`."""

    def __init__(self, path: Path):
        self.path = path
        self._pending: list[tuple[list[str], Any]] = []
        self._last = time.perf_counter(), 0

    def add(self, metrics: Metrics) -> None:
        """Remembers the (device) metrics of one update call."""
        self._pending.append((sorted(metrics), _joined(dict(metrics))))

    def pending(self) -> list[dict[str, float]]:
        """What was added since the last line, as plain numbers: a resumed run averages it in."""
        values = jax.device_get([vector for _, vector in self._pending])
        return [
            dict(zip(names, row.tolist(), strict=True))
            for (names, _), row in zip(self._pending, values, strict=True)
        ]

    def load(self, pending: list[dict[str, float]]) -> None:
        """Restores `pending`."""
        self._pending = [
            (list(metrics), np.array(list(metrics.values()), np.float32)) for metrics in pending
        ]

    def flush(self, **fields: Any) -> dict[str, Any]:
        """Writes one line: the given fields and the pending metrics, reduced; the only host
        synchronisation.

        `_min` and `_max` metrics keep their extremes over the interval, others are averaged.
        `types.PARTIAL` metrics skip NaN: there was nothing to average, such as the Q of online rows
        before there are any.

        Raises:
            FloatingPointError: a metric is infinite or NaN; nothing is written then.
        """
        line = dict(fields)
        fetched, self._pending = self.pending(), []
        for name in sorted({name for metrics in fetched for name in metrics}):
            values = np.array([metrics[name] for metrics in fetched if name in metrics], np.float64)
            if name.endswith(PARTIAL):
                values = values[~np.isnan(values)]
            if not np.isfinite(values).all():
                raise FloatingPointError(
                    f"{name} is NaN or infinite: training diverged. Lower the learning rates; the "
                    "last checkpoint is intact."
                )
            if len(values):
                reduce = (
                    np.min
                    if name.endswith("_min")
                    else np.max
                    if name.endswith("_max")
                    else np.mean
                )
                line[name] = float(reduce(values))
        append_line(self.path, line)
        return line

    def speed(self, env_steps: int, paused_s: float = 0.0) -> float:
        """Environment steps per second since the last call, not counting `paused_s` seconds of
        evaluation."""
        now = time.perf_counter()
        elapsed, steps = now - self._last[0] - paused_s, env_steps - self._last[1]
        self._last = now, env_steps
        return steps / max(elapsed, 1e-9)
