"""How thoroughly tests compile what they run."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def a_little_optimized() -> Iterator[None]:
    """For programs that run hundreds of times: what is compiled meanwhile has a few optimisations,
    those of the tests' flags; with `pytest --optimized` all of them, as everything has."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
