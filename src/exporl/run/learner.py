"""The learner: an algorithm's state, its compiled update and its counters."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from exporl.algos.common import Algorithm
from exporl.randomness import INIT, PROPOSE, UPDATE, run_key
from exporl.types import Batch, Metrics, Observation, Params, Phase

_COMPILE_QUICKLY: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


@jax.jit
def to_device(batch: Batch) -> Batch:
    """All arrays in one call; `jax.device_put` makes one each."""
    return batch


class Learner:
    """Holds what an algorithm has learnt. `updates` counts update calls over all phases."""

    def __init__(self, algorithm: Algorithm, seed: int):
        self.algorithm, self.seed, self.updates = algorithm, seed, 0
        # Runs once: compiling it with optimisation takes three times as long and saves nothing.
        self.state = jax.jit(algorithm.init, compiler_options=_COMPILE_QUICKLY)(run_key(seed, INIT))

    def update(self, batches: Batch, phase: Phase) -> Metrics:
        """One update call on minibatches [u, b, ...]; returns metrics that are still on the
        device."""
        key = run_key(self.seed, UPDATE, self.updates)
        self.state, metrics = self.algorithm.update(self.state, batches, key, phase=phase)
        self.updates += 1
        return metrics

    def propose(self, observation: Observation, index: int) -> np.ndarray:
        """Base samples [b, n, h, a] for the replay to keep; call `index` of this update has a key
        of its own."""
        key = run_key(self.seed, PROPOSE, self.updates, index)
        return np.asarray(self.algorithm.propose(self.state, observation, key))

    def acting(self) -> Params:
        """The part of the state that acting needs."""
        return self.algorithm.acting(self.state)

    def arrays(self) -> dict[str, np.ndarray]:
        """The whole state as flat arrays, named by their path."""
        leaves = jax.tree_util.tree_leaves_with_path(self.state)
        return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}

    def load(self, arrays: Mapping[str, Any], updates: int) -> None:
        """Restores `arrays()` of a learner of the same configuration.

        Raises:
            ValueError: an array is missing, left over, or has another shape; names its path.
        """
        leaves, structure = jax.tree_util.tree_flatten_with_path(self.state)
        names = [jax.tree_util.keystr(path) for path, _ in leaves]
        different = sorted(set(names) ^ set(arrays))
        if different:
            raise ValueError(
                f"saved state and configuration disagree about {different[0]} (and "
                f"{len(different) - 1} more)."
            )
        for name, (_, leaf) in zip(names, leaves, strict=True):
            if arrays[name].shape != leaf.shape:
                raise ValueError(
                    f"saved {name} has shape {arrays[name].shape}, the configuration needs "
                    f"{leaf.shape}."
                )
        restored = [
            jnp.array(arrays[name], leaf.dtype)
            for name, (_, leaf) in zip(names, leaves, strict=True)
        ]
        self.state = jax.tree_util.tree_unflatten(structure, restored)
        self.updates = updates
