"""How the algorithms beside EXPO go through the minibatches of one update call."""

from collections.abc import Callable
from typing import TypeVar

import jax

from exporl.algos.common import reduce_metrics
from exporl.types import Batch, KeyArray, Metrics

StateT = TypeVar("StateT")


def each_minibatch(
    step: Callable[[StateT, Batch, KeyArray], tuple[StateT, Metrics]],
    state: StateT,
    batches: Batch,
    key: KeyArray,
) -> tuple[StateT, Metrics]:
    """One step per minibatch [u, b, ...], each with a key of its own.

    Args:
        step: (state, minibatch, key) -> (state, metrics).
        state: before the first step.
        batches: the minibatches.
        key: decides every draw.
    """

    def with_its_key(state: StateT, inputs: tuple[Batch, KeyArray]) -> tuple[StateT, Metrics]:
        return step(state, *inputs)

    keys = jax.random.split(key, batches.reward.shape[0])
    state, metrics = jax.lax.scan(with_its_key, state, (batches, keys))
    return state, reduce_metrics(metrics)
