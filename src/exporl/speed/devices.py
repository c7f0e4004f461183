"""Data parallelism: parameters lie on every device, each works on its share of every minibatch.

Which devices there are is JAX's business: this file sees a list. The compiler adds the sums over
devices that gradients and means need (`jax.sharding`); algorithms know nothing of it.
"""

import dataclasses
import functools
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from exporl.algos import Algorithm
from exporl.once import made_once
from exporl.types import Batch, KeyArray, Metrics, Params, Phase

ROWS = "rows"
"""The axis of the mesh: devices share the rows b of minibatches [u, b, ...]."""
TreeT = TypeVar("TreeT")


def first_devices(num: int) -> list[Any]:
    """The first `num` devices of this machine, as JAX names them.

    Raises:
        ValueError: there are fewer; says how many.
    """
    found = jax.local_devices()
    if num > len(found):
        raise ValueError(
            f"train.devices={num}, and JAX has {len(found)} here ({found[0].platform}). Set it to "
            f"at most {len(found)}."
        )
    return found[:num]


def copies_in_host_memory(num: int) -> int:
    """Copies of the parameters that the host's memory holds while `num` devices have one each: all
    of them where devices have no memory of their own."""
    return num if device_memory() is None else 1


def device_memory() -> int | None:
    """Bytes of memory that a device has of its own; None where it has none: it is the host's."""
    return (first_devices(1)[0].memory_stats() or {}).get("bytes_limit")


class SplitUpdate:
    """An algorithm's update, compiled for several devices: the state on each, minibatches split."""

    def __init__(self, of_one: Any, replicated: NamedSharding, split: NamedSharding):
        def update(state: Any, batches: Batch, key: KeyArray, phase: Phase) -> tuple[Any, Metrics]:
            return of_one(state, batches, key, phase=phase)

        self._replicated, self._split = replicated, split
        self._program = jax.jit(  # which takes shardings for arguments by position only
            update,
            static_argnums=3,
            donate_argnums=0,
            in_shardings=(replicated, split, replicated),
            out_shardings=replicated,
        )

    def __call__(
        self, state: Any, batches: Batch, key: KeyArray, *, phase: Phase = "online"
    ) -> tuple[Any, Metrics]:
        """As `Algorithm.update`."""
        return self._program(state, batches, key, phase)

    def lower(self, state: Any, batches: Batch, key: KeyArray, *, phase: Phase) -> Any:
        """As that of a compiled function, for `compile_ahead`; only shapes and types are read."""
        state = jax.tree.map(functools.partial(_placed, self._replicated), state)
        batches = jax.tree.map(functools.partial(_placed, self._split), batches)
        return self._program.lower(state, batches, key, phase)


@dataclasses.dataclass(frozen=True)
class DataParallel:
    """One learner on several devices."""

    mesh: Mesh
    """One axis: `ROWS`."""

    @classmethod
    def over(cls, num: int) -> "DataParallel | None":
        """Over the first `num` devices of this machine; None for one, which shares with nobody.

        Raises:
            ValueError: there are fewer.
        """
        return cls(Mesh(np.array(first_devices(num)), (ROWS,))) if num > 1 else None

    @property
    def num(self) -> int:
        """How many devices."""
        return self.mesh.size

    @property
    def replicated(self) -> NamedSharding:
        """The same on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def split(self) -> NamedSharding:
        """Arrays [u, b, ...]: of every minibatch each device has b / devices rows."""
        return NamedSharding(self.mesh, PartitionSpec(None, ROWS))

    def replicate(self, tree: TreeT) -> TreeT:
        """A tree of arrays, copied to every device."""
        return jax.device_put(tree, self.replicated)

    def hand_out(self, batches: Batch) -> Batch:
        """Minibatches [u, b, ...] from host memory; every device is sent its own rows."""
        return jax.device_put(batches, self.split)

    def on_one(self, params: Params) -> Params:
        """Parameters that lie on every device, as they lie on the first: nothing is copied."""
        return jax.tree.map(_on_first, params)


def spread(algorithm: Algorithm, parallel: DataParallel | None) -> Algorithm:
    """The same algorithm, whose update all devices make together: equal to that of one device but
    for the order in which float32 numbers are summed. For one device, as it is."""
    if parallel is None:
        return algorithm
    update = made_once(SplitUpdate, algorithm.update, parallel.replicated, parallel.split)
    return algorithm._replace(update=update)


def _placed(sharding: NamedSharding, leaf: Any) -> jax.ShapeDtypeStruct:
    """What an array looks like that lies there: a program is one for arrays of one sharding."""
    weak = getattr(leaf, "weak_type", False)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding, weak_type=weak)


def _on_first(leaf: Any) -> Any:
    several = isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1
    return leaf.addressable_data(0) if several else leaf
