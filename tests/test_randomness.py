"""Randomness of a run: one key per (seed, purpose, counter), the same whichever way it is
computed."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.acting.around import seed_of
from exporl.randomness import (
    ACT,
    INIT,
    PROPOSE,
    RANDOM,
    actor_counters,
    env_seed,
    run_key,
    run_keys,
    run_rng,
)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("purpose", [INIT, ACT, PROPOSE])
@pytest.mark.parametrize("counter", [0, 1, 123_456, 2**31, 2**32 - 1])
def test_a_key_is_seed_purpose_and_counter_folded_in(seed, purpose, counter):
    slow = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), np.uint32(counter))
    np.testing.assert_array_equal(
        jax.random.key_data(run_key(seed, purpose, counter)), jax.random.key_data(slow)
    )


def test_further_counters_are_folded_in_one_after_the_other():
    slow = jax.random.key(3)
    for count in (PROPOSE, 5, 2**32 - 1, 0):
        slow = jax.random.fold_in(slow, np.uint32(count))
    np.testing.assert_array_equal(
        jax.random.key_data(run_key(3, PROPOSE, 5, 2**32 - 1, 0)), jax.random.key_data(slow)
    )


@jax.jit
def long_work(x):
    return jax.lax.fori_loop(0, 60, lambda _, y: jnp.tanh(y @ x), x)


def test_a_seed_for_draws_outside_does_not_wait_for_the_device():
    """A policy from outside is asked while the device makes an update. A thread may lose its turn:
    once in ten times is enough."""
    x = jnp.eye(400)
    jax.block_until_ready(long_work(x))
    early = []
    for count in range(10):
        busy = long_work(x)
        seed_of(run_key(0, PROPOSE, count))
        early.append(not busy.is_ready())
        jax.block_until_ready(busy)
    assert any(early)


def test_keys_of_another_kind_are_jax_s():
    with jax.default_prng_impl("rbg"):
        key = run_key(11, ACT, 4)
        slow = jax.random.fold_in(jax.random.fold_in(jax.random.key(11), ACT), 4)
    np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(slow))


def test_no_two_draws_share_their_randomness():
    draws = list(itertools.product((0, 1), range(7), (0, 1, 2)))
    assert len({tuple(jax.random.key_data(run_key(*draw)).tolist()) for draw in draws}) == len(
        draws
    )
    assert len({run_rng(*draw).integers(2**62) for draw in draws}) == len(draws)


def test_actors_never_draw_the_same_and_the_first_draws_what_a_single_one_does():
    assert actor_counters(0) == ()
    draws = [(counter, *actor_counters(actor)) for actor in range(4) for counter in range(5)]
    keys = {tuple(jax.random.key_data(run_key(3, ACT, *draw)).tolist()) for draw in draws}
    assert len(keys) == len(draws)
    assert len({run_rng(3, RANDOM, *draw).integers(2**62) for draw in draws}) == len(draws)
    seeds = {
        env_seed(3, env, episode, *actor_counters(actor))
        for actor in range(4)
        for env in range(3)
        for episode in range(5)
    }
    assert len(seeds) == 4 * 3 * 5


def test_keys_drawn_together_are_those_drawn_alone():
    counters = np.array([0, 7, 2**32 - 1, 7], np.uint32)
    together = jax.random.key_data(run_keys(3, ACT, counters))
    alone = [jax.random.key_data(run_key(3, ACT, int(counter))) for counter in counters]
    np.testing.assert_array_equal(together, np.stack(alone))
