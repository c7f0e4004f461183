"""Where every random draw of a run comes from: (run seed, purpose, counter), so that a resumed run
repeats it."""

import functools
from typing import Any

import numpy as np
from jaxtyping import Key

INIT, UPDATE, ACT, EVALUATE, SAMPLE, RANDOM, PROPOSE, GUARD, IMITATE = range(9)
"""Purposes of randomness."""


@functools.cache
def _fold_in() -> Any:
    """Compiled, for every step draws two keys, and uncompiled each is several calls. The host's
    side draws no JAX keys and does not import JAX."""
    import jax

    return jax.jit(jax.random.fold_in)


@functools.cache
def _purpose_key(seed: int, purpose: int) -> Any:
    import jax

    return jax.random.fold_in(jax.random.key(seed), purpose)


def run_key(seed: int, purpose: int, counter: int = 0, *within: int) -> Key[Any, ""]:
    """The JAX key of one draw; further counters number the draws that share the first one."""
    key = _purpose_key(seed, purpose)
    for count in (counter, *within):
        key = _fold_in()(key, np.uint32(count))
    return key


@functools.cache
def _fold_in_each() -> Any:
    import jax

    return jax.jit(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))


def run_keys(seed: int, purpose: int, counters: np.ndarray) -> Key[Any, " b"]:
    """`run_key(seed, purpose, counter)` for each of counters [b], drawn together."""
    return _fold_in_each()(_purpose_key(seed, purpose), np.asarray(counters, np.uint32))


def run_rng(seed: int, purpose: int, counter: int = 0, *within: int) -> np.random.Generator:
    """The NumPy generator of one draw; further counters as in `run_key`."""
    return np.random.default_rng((seed, purpose, counter, *within))


def actor_counters(actor: int) -> tuple[int, ...]:
    """What an actor adds to the counters of its draws, so that several never draw the same: none
    for actor 0, which draws what the only one of a run does."""
    return (actor,) if actor else ()


def env_seed(*counters: int) -> int:
    """A seed for one episode from non-negative counters (run seed, stream, episode, and an actor's
    own): well mixed and reproducible."""
    return int(np.random.SeedSequence(counters).generate_state(1)[0])
