"""How much memory a run needs at least, known from its configuration before anything is collected
or compiled."""

import itertools
from typing import Any

from exporl.data.memory import row_bytes, size
from exporl.run.config import RunConfig
from exporl.spec import Spec

_FLOAT = 4
"""Bytes of a float32."""
_COPIES = 4
"""Of every parameter: itself, its average or target, and the optimiser's two moments."""
_EXPANSION = 4
"""Width of the hidden layer within a residual block of the base network, per width."""


def online_rows(config: RunConfig[Any]) -> int:
    """Rows of the online replay per environment: steps, and one more per episode."""
    steps = max(config.train.online_steps, 1)
    return min(config.data.capacity, 2 * steps + config.chunk_length + 2)


def least_bytes(config: RunConfig[Any], spec: Spec) -> dict[str, int]:
    """What a run holds at the same time at least, with the options that decide it -> bytes.

    Args:
        config: of the run.
        spec: of its task.
    """
    train, algo, width = config.train, config.algo, config.base.width
    hidden = getattr(algo, "hidden", ())
    candidates = getattr(algo, "num_base_samples", 1) + getattr(algo, "num_edit_samples", 0)
    weights = sum(a * b for a, b in itertools.pairwise(hidden)) + sum(hidden)
    critics = getattr(algo, "num_qs", 1) * weights
    base = 2 * _EXPANSION * width**2 * config.base.num_blocks
    rows = train.utd_ratio * train.update_every * train.batch_size
    row = row_bytes(spec) + _FLOAT * spec.action_dim * (config.chunk_length - 1)
    layer = max((width, *hidden))
    wide = [
        name for name in ("num_base_samples", "num_edit_samples", "hidden") if hasattr(algo, name)
    ]
    decide = ", ".join(["train.batch_size", *(f"algo.{name}" for name in wide), "base.width"])
    return {
        "networks (algo.hidden, algo.num_qs, base.width, base.num_blocks)": _COPIES
        * _FLOAT
        * (critics + base),
        "minibatches (train.batch_size, train.utd_ratio, train.update_every, chunk_length)": rows
        * row,
        f"one layer for all candidates of a minibatch ({decide})": (
            _FLOAT * train.batch_size * candidates * layer
        ),
        "online replay (train.online_steps, data.capacity, num_envs)": (
            online_rows(config) * config.num_envs * row_bytes(spec)
        ),
    }


def check_memory(config: RunConfig[Any], spec: Spec, available: int | None) -> None:
    """Refuses a run that certainly does not fit.

    Args:
        config: of the run.
        spec: of its task.
        available: bytes that can be had; None when unknown.

    Raises:
        ValueError: it needs more; names both numbers, what takes most, and the options that decide
            it.
    """
    parts = least_bytes(config, spec)
    total = sum(parts.values())
    if available is None or total <= available:
        return
    most = max(parts, key=lambda what: parts[what])
    raise ValueError(
        f"this run needs at least {size(total)} of memory, and {size(available)} are available. "
        f"Most of it, {size(parts[most])}, are the {most}: lower these."
    )
