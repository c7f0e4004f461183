"""Where every random draw of a run comes from: (run seed, purpose, counter), so that a resumed run
repeats it."""

import functools
from typing import Any

import numpy as np
from jaxtyping import Key

INIT, UPDATE, ACT, EVALUATE, SAMPLE, RANDOM, PROPOSE, GUARD, IMITATE = range(9)
"""Purposes of randomness."""


@functools.cache
def _purpose_key(seed: int, purpose: int) -> Any:
    """The host's side draws no JAX keys and does not import JAX."""
    import jax

    return jax.random.fold_in(jax.random.key(seed), purpose)


@functools.cache
def _purpose_words(seed: int, purpose: int) -> tuple[int, int] | None:
    """The two words of that key; None where JAX is set to keys of another kind."""
    import jax

    key = _purpose_key(seed, purpose)
    if str(jax.random.key_impl(key)) != "threefry2x32":
        return None
    first, second = jax.device_get(jax.random.key_data(key)).tolist()
    return first, second


_WORD = 0xFFFFFFFF
_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _rotated(word: int, bits: int) -> int:
    """A word of 32 bits, rotated to the left."""
    left = word << bits
    right = word >> (32 - bits)
    return (left | right) & _WORD


def _folded(key: tuple[int, int], count: int) -> tuple[int, int]:
    """`jax.random.fold_in` of a threefry key.

    That is the cipher threefry2x32 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3;
    2011) of the two words 0 and `count`.
    """
    words = (*key, key[0] ^ key[1] ^ _PARITY)
    first = words[0]
    second = (count + words[1]) & _WORD
    for turn in range(5):
        for bits in _ROTATIONS[turn % 2]:
            first = (first + second) & _WORD
            second = _rotated(second, bits) ^ first
        # every four rounds the key is added again
        first = (first + words[(turn + 1) % 3]) & _WORD
        second = (second + words[(turn + 2) % 3] + turn + 1) & _WORD
    return first, second


def run_key(seed: int, purpose: int, counter: int = 0, *within: int) -> Key[Any, ""]:
    """The JAX key of one draw; further counters number the draws that share the first one.

    Made on the host: a device that is busy with an update would make it afterwards, and who needs
    its numbers, for a policy from outside, would wait for that.
    """
    import jax

    counts = [np.uint32(count) for count in (counter, *within)]
    words = _purpose_words(seed, purpose)
    if words is None:
        return functools.reduce(jax.random.fold_in, counts, _purpose_key(seed, purpose))
    folded: Any = np.array(functools.reduce(_folded, map(int, counts), words), np.uint32)
    return jax.random.wrap_key_data(folded)


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
