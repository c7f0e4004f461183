"""NumPy's global random state, lent to simulators that draw from nothing else."""

import contextlib
import threading
from collections.abc import Iterator

import numpy as np

_LOCK = threading.Lock()


@contextlib.contextmanager
def seeded_global_random(seed: int) -> Iterator[None]:
    """Inside the block NumPy's global generator is seeded; afterwards it is exactly as it was
    before.

    For simulators that offer no seed of their own. One block at a time: threads wait for each
    other.
    """
    with _LOCK:
        before = np.random.get_state()  # noqa: NPY002
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002
