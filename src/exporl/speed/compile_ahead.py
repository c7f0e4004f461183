"""Compiling the updates of a run in the background, while data, environments and networks are made
ready."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from exporl.algos import Algorithm
from exporl.types import Batch, Phase, Spec

Program = tuple[Phase, int]
"""The update of a phase, and its minibatches per call."""


def empty_batches(spec: Spec, num_minibatches: int, batch_size: int, num_proposals: int) -> Batch:
    """Zeros in the shapes and types of what `Mixture.sample` returns; they take no memory."""
    chunk = (spec.chunk_length, spec.action_dim)

    def zeros(*shape: int, dtype: str = "float32") -> np.ndarray:
        return np.broadcast_to(np.zeros((), dtype), (num_minibatches, batch_size, *shape))

    observation = {name: zeros(*shape, dtype=dtype) for name, shape, dtype in spec.observation}
    proposals = zeros(num_proposals, *chunk) if num_proposals else None
    return Batch(
        observation,
        zeros(*chunk),
        zeros(),
        zeros(),
        observation,
        zeros(spec.chunk_length),
        zeros(),
        zeros(),
        proposals,
    )


def compile_ahead(
    algorithm: Algorithm, spec: Spec, programs: Sequence[Program], batch_size: int
) -> Algorithm:
    """The same algorithm; the programs of its updates are being compiled from now on, in a thread.

    `update` waits for the program of its phase and runs it: nothing is compiled twice. An error of
    compiling is raised there. At the end of the process no further program is begun.
    """
    key = jax.random.key(0)

    def build(phase: Phase, num: int) -> None:
        if threading.main_thread().is_alive():
            state = jax.eval_shape(algorithm.init, key)
            batches = empty_batches(spec, num, batch_size, algorithm.num_proposals)
            algorithm.update.lower(state, batches, key, phase=phase).compile()

    executor = ThreadPoolExecutor(1, "compile")
    pending: dict[Phase, Future[None]] = {
        phase: executor.submit(build, phase, num) for phase, num in programs
    }
    executor.shutdown(wait=False)

    def update(state: Any, batches: Batch, key: Any, *, phase: Phase = "online") -> Any:
        if (building := pending.pop(phase, None)) is not None:
            building.result()
        return algorithm.update(state, batches, key, phase=phase)

    return algorithm._replace(update=update)
