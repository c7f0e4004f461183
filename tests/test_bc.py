"""Behaviour cloning: what its phases learn, from which rows, and which parameters act."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import BcConfig, bc, make_algorithm
from exporl.policies import BaseConfig, make_base
from exporl.policies.base import propose
from exporl.types import Spec
from helpers.batches import distance, random_batch, same, to_device, to_host

SPEC = Spec((("state", (3,), "float32"),), action_dim=2, chunk_length=2)
BASE = BaseConfig(
    kind="flow", num_steps=2, width=16, num_blocks=1, time_dim=8, learning_rate=1e-3, decay_steps=0
)
CONFIG = BcConfig(base_tau=0.2)
BATCHES = random_batch(SPEC, 2, 8)
PHASES = ("pretrain", "online")


@functools.cache
def algorithm(**changes):
    return bc(dataclasses.replace(CONFIG, **changes), SPEC, make_base(BASE, SPEC))


@pytest.fixture(scope="module")
def initial():
    """A state at step 0, with an average that lags behind."""
    state = to_host(jax.jit(algorithm().init)(jax.random.key(0)))
    return dataclasses.replace(
        state, base_ema=jax.tree.map(lambda x: (0.9 * x).astype(x.dtype), state.base.params)
    )


def run(initial, batches=BATCHES, key=1, phase="online", **changes):
    return to_host(
        algorithm(**changes).update(to_device(initial), batches, jax.random.key(key), phase=phase)
    )


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_an_update(initial, phase):
    state, metrics = run(initial, phase=phase)
    assert set(metrics) == {"base/loss"} and np.isfinite(metrics["base/loss"])
    assert not same(state.base, initial.base)
    assert same(run(initial, phase=phase), (state, metrics))
    assert not same(run(initial, phase=phase, key=2)[0].base, state.base)
    steps = [x for x in jax.tree.leaves(state.base.opt_state) if x.dtype == np.int32]
    assert steps and all(step == (2 if phase == "pretrain" else 1) for step in steps)


@pytest.mark.slow
def test_the_average(initial):
    state, _ = run(initial, phase="pretrain")
    assert same(state.base_ema, state.base.params)
    state, _ = run(initial, phase="online")
    expected = jax.tree.map(
        lambda new, old: 0.2 * new + 0.8 * old, state.base.params, initial.base_ema
    )
    assert distance(state.base_ema, expected) < 1e-6
    assert same(algorithm().acting(initial), initial.base_ema)


def test_phases():
    assert algorithm().needs.phases == set(PHASES)
    assert algorithm().has_base and algorithm().needs.proposals == 0


def test_states_can_be_donated_and_keep_their_structure():
    state = jax.jit(algorithm().init)(jax.random.key(0))
    assert same(state.base_ema, state.base.params)
    shapes = jax.tree.map(lambda x: x.aval, state)
    for phase in ("pretrain", "pretrain", "online"):
        leaves = jax.tree.leaves(state)
        assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
        state, _ = algorithm().update(state, BATCHES, jax.random.key(1), phase=phase)
        assert jax.tree.map(lambda x: x.aval, state) == shapes


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_base_data(initial, phase):
    failures = (BATCHES.success == 0)[..., None, None]
    other_failures = dataclasses.replace(
        BATCHES, action=np.where(failures, -BATCHES.action, BATCHES.action)
    )
    other_successes = dataclasses.replace(
        BATCHES, action=np.where(failures, BATCHES.action, -BATCHES.action)
    )
    of = functools.partial(run, initial, phase=phase)
    assert same(of(base_data="successes"), of(base_data="successes", batches=other_failures))
    assert not same(
        of(base_data="successes")[0], of(base_data="successes", batches=other_successes)[0]
    )
    assert not same(of()[0], of(batches=other_failures)[0])


@pytest.mark.slow
def test_online_imitates_the_last_minibatch(initial):
    first = jax.tree.map(np.array, BATCHES)
    first.action[0] *= -1
    assert same(run(initial), run(initial, batches=first))
    last = jax.tree.map(np.array, BATCHES)
    last.action[1] *= -1
    assert not same(run(initial)[0], run(initial, batches=last)[0])


@pytest.mark.slow
def test_acting(initial):
    params = algorithm().acting(initial)
    observation = jax.tree.map(lambda x: jnp.asarray(x[0]), BATCHES.observation)
    action = np.asarray(algorithm().act(params, observation, jax.random.key(0)).action)
    assert action.shape == (8, 2, 2) and np.abs(action).max() <= 1
    for mode in ("evaluate", "base"):
        decision = algorithm().act(params, observation, jax.random.key(0), mode=mode)
        np.testing.assert_array_equal(action, decision.action)
        assert decision.info == {}
    assert not np.array_equal(
        action, algorithm().act(params, observation, jax.random.key(1)).action
    )
    sample = jax.jit(lambda p, o, k: propose(make_base(BASE, SPEC), p, o, 1, k, SPEC)[:, 0])
    np.testing.assert_allclose(action, sample(params, observation, jax.random.key(0)), atol=1e-6)


def test_impossible_options():
    with pytest.raises(ValueError, match=r"base_tau must be in \(0, 1\], got 0.0"):
        algorithm(base_tau=0.0)
    config = dataclasses.replace(CONFIG)
    object.__setattr__(config, "base_data", "failures")
    with pytest.raises(ValueError, match="base_data must be one of all, successes; got 'failures'"):
        bc(config, SPEC, make_base(BASE, SPEC))


def test_make_algorithm():
    assert make_algorithm("bc", CONFIG, SPEC, make_base(BASE, SPEC)).needs.phases == set(PHASES)
