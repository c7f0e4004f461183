"""Metrics: kept on the device until an interval ends, then written as one JSON line."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from exporl.acting.guard import Guard, Outcome
from exporl.files.atomic import append_line, write_text
from exporl.files.run_files import GLOSSARY
from exporl.types import PARTIAL, Metrics

METRICS = {
    "rollout/episodes": "training episodes that ended so far",
    "rollout/success_rate": "share of successes among the last 20 training episodes",
    "rollout/length_mean": "mean length of the last 20 training episodes, steps",
    "rollout/return_mean": "mean undiscounted learning reward of the last 20 training episodes",
    "rollout/staleness_updates": (
        "with `--async` only: update calls that the acting parameters were behind those of a run "
        "in step, mean over environment steps"
    ),
    "actors/number": "with `--actors` and `--listen` only: processes that act",
    "actors/restarts": "actors so far that died or did not answer and were replaced",
    "actors/lost_steps": "steps so far that were ordered from such actors and never came, at most",
    "actors/staleness_updates": (
        "update calls made between the parameters of a chunk of steps and its arrival, mean over "
        "the last chunk of every actor; with /N behind it, that of actor N"
    ),
    "guard/base": "what the guard expects of the base alone: posterior mean of success or return",
    "guard/explore": "what the guard expects of the policy: posterior mean of success or return",
    "guard/base_episodes": "share of the last 20 training episodes that the base played",
    "backup/staleness": (
        "mean age of the base samples kept for online observations, in base updates (cached "
        "backups)"
    ),
    "time/env_steps_per_s": ("environment steps per second over the interval, evaluation excluded"),
    "time/train_s": "seconds of training so far, evaluation excluded, over all resumptions",
    "time/eval_s": "seconds that an evaluation took (`eval.jsonl`)",
}
"""What the loop itself logs: name -> what it is. What updates log is described where it is
computed, and gathered by `algos.described_metrics`."""


def write_glossary(run_dir: Path, of_updates: Mapping[str, str]) -> None:
    """Writes a run's glossary.json: what its metrics are, those of updates first."""
    write_text(run_dir / GLOSSARY, json.dumps({**of_updates, **METRICS}, indent=1))


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


def delays(staleness: float | None, proposal_age: float) -> dict[str, Any]:
    """How far behind the parameters that act are, where they may be; how old kept samples are,
    where there are any (otherwise NaN)."""
    fields: dict[str, Any] = {}
    if staleness is not None:
        fields["rollout/staleness_updates"] = staleness
    if np.isfinite(proposal_age):
        fields["backup/staleness"] = proposal_age
    return fields


def time_fields(train_s: float, **others: float) -> dict[str, Any]:
    """Seconds of training, and others: `env_steps_per_s`, `eval_s`."""
    return {f"time/{name}": value for name, value in others.items()} | {"time/train_s": train_s}


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
