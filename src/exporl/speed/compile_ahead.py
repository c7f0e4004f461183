"""Compiling the updates of a run in the background, while data, environments and networks are made
ready."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from exporl.algos import Algorithm
from exporl.data.columns import Column
from exporl.types import Batch, Phase, Spec

Program = tuple[Phase, int]
"""The update of a phase, and its minibatches per call."""


_THREADS = "compile"
"""What the names of threads begin with that compile."""


def compiling() -> bool:
    """Whether a program is being compiled in this process, that nobody may need any more."""
    return any(thread.name.startswith(_THREADS) for thread in threading.enumerate())


def empty_batches(
    spec: Spec, num_minibatches: int, batch_size: int, columns: Mapping[str, Column]
) -> Batch:
    """Zeros in the shapes and types of what `Mixture.sample` returns; they take no memory."""
    chunk = (spec.chunk_length, spec.action_dim)

    def zeros(*shape: int, dtype: str = "float32") -> np.ndarray:
        return np.broadcast_to(np.zeros((), dtype), (num_minibatches, batch_size, *shape))

    observation = {name: zeros(*shape, dtype=dtype) for name, shape, dtype in spec.observation}
    extra = {
        name: zeros(*column.shape, dtype=column.dtype)
        for name, column in columns.items()
        if column.sampled
    }
    return Batch(
        observation,
        zeros(*chunk),
        zeros(),
        zeros(),
        observation,
        zeros(spec.chunk_length),
        zeros(),
        zeros(),
        extra,
    )


def compile_ahead(
    algorithm: Algorithm,
    spec: Spec,
    programs: Sequence[Program],
    batch_size: int,
    columns: Mapping[str, Column],
) -> Algorithm:
    """The same algorithm; the programs of its updates are being compiled from now on, in a thread.

    `update` waits for the program of its phase and runs it: nothing is compiled twice. An error of
    compiling is raised there. At the end of the process no further program is begun.
    """
    key = jax.random.key(0)

    def build(phase: Phase, num: int) -> None:
        if threading.main_thread().is_alive():
            state = jax.eval_shape(algorithm.init, key)
            batches = empty_batches(spec, num, batch_size, columns)
            algorithm.update.lower(state, batches, key, phase=phase).compile()

    executor = ThreadPoolExecutor(1, _THREADS)
    pending: dict[Phase, Future[None]] = {
        phase: executor.submit(build, phase, num) for phase, num in programs
    }
    executor.shutdown(wait=False)

    def update(state: Any, batches: Batch, key: Any, *, phase: Phase = "online") -> Any:
        if (building := pending.pop(phase, None)) is not None:
            building.result()
        return algorithm.update(state, batches, key, phase=phase)

    return algorithm._replace(update=update)
