"""How much memory a run needs at least, known from its configuration before anything is collected
or compiled; and what every device will hold, known once there is a learner."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from exporl.data.columns import Column, proposal_columns
from exporl.data.memory import mapped_bytes, row_bytes, size
from exporl.files.mapped import LEAST_BYTES, Zeros, mapped_zeros
from exporl.run.config import RunConfig
from exporl.run.learner import Learner
from exporl.run.phases import programs
from exporl.spec import Spec
from exporl.speed.compile_ahead import empty_batches
from exporl.speed.devices import copies_in_host_memory, device_memory

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


def mapped_row_bytes(config: RunConfig[Any], spec: Spec) -> int:
    """Bytes of an online row that lie in files."""
    return mapped_bytes(spec) if config.data.storage == "disk" else 0


def replay_folder(config: RunConfig[Any], run_dir: Path) -> Path:
    """Where the files of a replay on disk lie.

    Raises:
        ValueError: `data.scratch` is no folder.
    """
    if config.data.scratch is None:
        return run_dir
    if not Path(config.data.scratch).is_dir():
        raise ValueError(f"data.scratch={config.data.scratch!r} is no folder. Make it first.")
    return Path(config.data.scratch)


def replay_zeros(config: RunConfig[Any], run_dir: Path) -> Zeros:
    """Makes the large arrays of the online replay, where the options say."""
    if config.data.storage == "memory":
        return np.zeros
    return functools.partial(mapped_zeros, replay_folder(config, run_dir))


def least_bytes(config: RunConfig[Any], spec: Spec, copies: int = 1) -> dict[str, int]:
    """What a run holds at the same time at least, with the options that decide it -> bytes.

    Args:
        config: of the run.
        spec: of its task.
        copies: of the networks in the same memory.
    """
    train, algo, width = config.train, config.algo, config.base.width
    hidden = getattr(algo, "hidden", ())
    candidates = getattr(algo, "num_base_samples", 1) + getattr(algo, "num_edit_samples", 0)
    weights = sum(a * b for a, b in itertools.pairwise(hidden)) + sum(hidden)
    critics = getattr(algo, "num_qs", 1) * weights
    base = 2 * _EXPANSION * width**2 * config.base.num_blocks
    rows = train.utd_ratio * train.update_every * train.batch_size
    row = row_bytes(spec) + _FLOAT * spec.action_dim * (config.chunk_length - 1)
    in_memory = row_bytes(spec) - mapped_row_bytes(config, spec)
    layer = max((width, *hidden))
    wide = [
        name for name in ("num_base_samples", "num_edit_samples", "hidden") if hasattr(algo, name)
    ]
    decide = ", ".join(["train.batch_size", *(f"algo.{name}" for name in wide), "base.width"])
    return {
        "networks (algo.hidden, algo.num_qs, base.width, base.num_blocks)": (
            copies * _COPIES * _FLOAT * (critics + base)
        ),
        "minibatches (train.batch_size, train.utd_ratio, train.update_every, chunk_length)": rows
        * row,
        f"one layer for all candidates of a minibatch ({decide})": (
            _FLOAT * train.batch_size * candidates * layer
        ),
        "online replay (train.online_steps, data.capacity, num_envs, data.storage)": (
            online_rows(config) * config.num_envs * in_memory
        ),
    }


def check_memory(config: RunConfig[Any], spec: Spec, available: int | None) -> None:
    """Refuses a run that certainly does not fit, or whose files would hold nothing.

    Args:
        config: of the run.
        spec: of its task.
        available: bytes that can be had; None when unknown.

    Raises:
        ValueError: it needs more; names both numbers, what takes most, and the options that decide
            it. Or a replay is to lie on disk, and all of it is small.
    """
    if config.data.storage == "disk" and not mapped_bytes(spec):
        raise ValueError(
            f"data.storage='disk' has no effect on {config.task}: no entry of its observations has "
            f"{LEAST_BYTES:,} B or more, and smaller ones stay in memory. Set it to 'memory'."
        )
    parts = least_bytes(config, spec, copies_in_host_memory(config.train.devices))
    total = sum(parts.values())
    if available is None or total <= available:
        return
    most = max(parts, key=lambda what: parts[what])
    raise ValueError(
        f"this run needs at least {size(total)} of memory, and {size(available)} are available. "
        f"Most of it, {size(parts[most])}, are the {most}: lower these."
    )


@dataclasses.dataclass(frozen=True)
class DevicePlan:
    """What every device of a run holds at least; what the compiled update needs besides is known
    only when it is compiled."""

    learner_bytes: int
    """Parameters, targets and the state of optimisers: all of it on every device."""
    batch_bytes: int
    """Minibatches of an update call, and of the next one where they are drawn ahead: of all
    devices together."""
    batch_size: int
    """Rows of a minibatch."""
    devices: int = 1
    memory: int | None = None
    """Bytes that a device has of its own; None: its memory is the host's."""

    @property
    def device_bytes(self) -> int:
        """On one device."""
        return self.learner_bytes + self.batch_bytes // self.devices

    def __str__(self) -> str:
        """One line for the terminal."""
        share = f"{size(self.batch_bytes // self.devices)} minibatches"
        what = f"{size(self.learner_bytes)} learner + {share} = {size(self.device_bytes)} at least"
        if self.devices > 1:
            rows = self.batch_size // self.devices
            what = f"{self.devices} x ({what}, {rows} of {self.batch_size} rows each)"
        where = "host memory" if self.memory is None else f"{size(self.memory)} each"
        return f"devices: {what}, in {where}"

    def check(self) -> None:
        """Refuses a plan that does not fit.

        Raises:
            ValueError: the plan needs more than a device has; names both numbers.
        """
        if self.memory is not None and self.device_bytes > self.memory:
            raise ValueError(
                f"{self}: that does not fit. Lower algo.hidden, base.width, train.batch_size or "
                "train.utd_ratio."
            )


def device_plan(
    config: RunConfig[Any], learner: Learner, spec: Spec, columns: Mapping[str, Column]
) -> DevicePlan:
    """What every device of a run will hold.

    Args:
        config: of the run.
        learner: of the run.
        spec: of what its networks see.
        columns: what its replays keep besides.
    """
    columns = {**columns, **proposal_columns(learner.algorithm.needs.attached, spec)}
    return DevicePlan(
        learner_bytes=_nbytes(learner.state),
        batch_bytes=batch_bytes(config, spec, columns),
        batch_size=config.train.batch_size,
        devices=learner.devices,
        memory=device_memory(),
    )


def batch_bytes(config: RunConfig[Any], spec: Spec, columns: Mapping[str, Column]) -> int:
    """Bytes of the minibatches that a run holds at a time: of an update call, and of the next one
    where they are drawn ahead.

    Args:
        config: of the run.
        spec: of what its networks see.
        columns: what minibatches have besides.
    """
    train = config.train
    drawn = [
        num * (2 if train.prefetch and phase == "online" else 1) for phase, num in programs(train)
    ]
    return _nbytes(empty_batches(spec, max(drawn, default=0), train.batch_size, columns))


def check_devices(
    config: RunConfig[Any],
    learner: Learner,
    spec: Spec,
    columns: Mapping[str, Column],
    say: Callable[[str], None],
) -> None:
    """Says what every device of a run will hold, as `device_plan` finds it.

    Raises:
        ValueError: more than it has.
    """
    plan = device_plan(config, learner, spec, columns)
    say(str(plan))
    plan.check()


def _nbytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
