"""The learner: an algorithm's state, its compiled update and its counters."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from exporl.acting.around import PREFIX, split_arrays
from exporl.acting.parameters import from_arrays, to_arrays
from exporl.algos import Algorithm
from exporl.randomness import INIT, PROPOSE, UPDATE, run_key
from exporl.run.outside_learning import OutsideLearning
from exporl.speed.devices import DataParallel
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
    """Holds what an algorithm has learnt. `updates` counts update calls over all phases.

    With `parallel` the state lies on several devices, which share the rows of every minibatch (the
    algorithm is one that `spread` returned); acting and proposing use the first of them.

    Around a base policy from outside minibatches are as the environment shows them, in host memory:
    that policy is given them first.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        seed: int,
        outside: OutsideLearning | None = None,
        parallel: DataParallel | None = None,
    ):
        self.algorithm, self.seed, self.updates = algorithm, seed, 0
        self._outside, self._parallel = outside, parallel
        # Runs once: compiling it with optimisation takes three times as long and saves nothing.
        self.state = jax.jit(algorithm.init, compiler_options=_COMPILE_QUICKLY)(run_key(seed, INIT))
        if parallel is not None:
            self.state = parallel.replicate(self.state)

    def update(self, batches: Batch, phase: Phase) -> Metrics:
        """One update call on minibatches [u, b, ...]; returns metrics that are still on the
        device."""
        key, outside, metrics = run_key(self.seed, UPDATE, self.updates), self._outside, {}
        shown = batches if outside is None else self.send(outside.shown(batches))
        if outside is None or phase != "pretrain":
            self.state, metrics = self.algorithm.update(self.state, shown, key, phase=phase)
        if outside is not None:  # while the device is busy with the update
            metrics = metrics | outside.imitate(batches, phase, self.seed, self.updates)
        self.updates += 1
        return metrics

    def handed(self, batches: Batch, phase: Phase) -> Batch:
        """Minibatches of the next update call on their way to it: to the device, or past a base
        policy from outside, which adds its samples."""
        if self._outside is None:
            return self.send(batches)
        return self._outside.attach(batches, phase, run_key(self.seed, PROPOSE, self.updates, 0))

    @property
    def devices(self) -> int:
        """How many devices share the rows of a minibatch."""
        return 1 if self._parallel is None else self._parallel.num

    def send(self, batches: Batch) -> Batch:
        """Minibatches [u, b, ...] from host memory to where the update reads them."""
        return to_device(batches) if self._parallel is None else self._parallel.hand_out(batches)

    def propose(self, observation: Observation, index: int) -> np.ndarray:
        """Base samples [b, n, h, a] for the replay to keep; call `index` of this update has a key
        of its own."""
        key = run_key(self.seed, PROPOSE, self.updates, index)
        propose = self.algorithm.propose
        assert propose is not None
        return np.asarray(propose(self._on_one(self.state), observation, key))

    def acting(self) -> Params:
        """The part of the state that acting needs."""
        return self._on_one(self.algorithm.acting(self.state))

    def _on_one(self, params: Params) -> Params:
        return params if self._parallel is None else self._parallel.on_one(params)

    def arrays(self) -> dict[str, np.ndarray]:
        """The whole state as flat arrays, named by their path."""
        others = {} if self._outside is None else self._outside.base.arrays()
        return to_arrays(self.state) | {PREFIX + name: value for name, value in others.items()}

    def load(self, arrays: Mapping[str, Any], updates: int) -> None:
        """Restores `arrays()` of a learner of the same configuration.

        Raises:
            ValueError: an array is missing, left over, or has another shape; names its path.
        """
        mine, others = split_arrays(arrays)
        state = jax.tree.map(jnp.array, from_arrays(self.state, mine))
        self.state = state if self._parallel is None else self._parallel.replicate(state)
        if self._outside is not None:
            self._outside.base.load(others)
        self.updates = updates
