"""Metrics: kept on the device until an interval ends, then written as one JSON line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from exporl.acting.guard import Guard, Outcome
from exporl.files.atomic import append_line
from exporl.types import PARTIAL, Metrics


@jax.jit
def _joined(metrics: Metrics) -> jax.Array:
    """One vector, in the order of the sorted names: it reaches the host in one piece."""
    return jnp.stack([metrics[name].astype(jnp.float32) for name in sorted(metrics)])


def recent_episodes(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """How many training episodes have ended, and the means of the last 20."""
    fields: dict[str, Any] = {"rollout/episodes": len(outcomes)}
    if recent := outcomes[-20:]:
        fields["rollout/success_rate"] = float(np.mean([each.success for each in recent]))
        fields["rollout/length_mean"] = float(np.mean([each.length for each in recent]))
        fields["rollout/return_mean"] = float(np.mean([each.total_reward for each in recent]))
    return fields


def guard_fields(guard: Guard, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What the guard thinks of both policies, and how often the base acted in the last 20
    episodes."""
    found = guard.estimates(outcomes)
    fields: dict[str, Any] = {f"guard/{arm}": value for arm, value in found.items()}
    if recent := outcomes[-20:]:
        fields["guard/base_episodes"] = float(np.mean([each.arm == "base" for each in recent]))
    return fields


class MetricsWriter:
    """Collects update metrics without waiting for the device, and appends lines to
    `metrics.jsonl`."""

    def __init__(self, path: Path):
        self.path = path
        self._pending: list[tuple[list[str], Any]] = []

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
                    f"{name} is NaN or infinite: training diverged. Start anew with lower learning "
                    "rates."
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
