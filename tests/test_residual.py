"""Residual RL: target and policy loss against a NumPy twin, the bound, the ramp, phases."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import ResidualConfig, find_algorithm, residual
from exporl.algos.residual import Residual
from exporl.policies import BaseConfig, make_base
from exporl.types import Spec
from helpers import twin
from helpers.batches import random_batch, same, to_device, to_host
from helpers.draws import still

SPEC = Spec((("state", (3,), "float32"),), 2, chunk_length=2, value_range=(-10.0, 0.0))
CONFIG = ResidualConfig(
    residual_scale=0.3,
    noise=0.0,
    num_qs=2,
    hidden=(16,),
    tau=0.1,
    critic_learning_rate=1e-3,
    policy_learning_rate=1e-3,
)
BASE = still(make_base(BaseConfig("flow", num_steps=2, width=8, num_blocks=1, time_dim=4), SPEC), 3)
MODELS = ("base", "policy", "target_policy", "critic", "target_critic", "online_calls")
BATCHES = random_batch(SPEC, 2, 8)
ONE = random_batch(SPEC, 1, 8)


@functools.cache
def algorithm(**changes):
    return residual(dataclasses.replace(CONFIG, **changes), SPEC, BASE)


def shaken(params, seed):
    """Parameters with something added to each, so that nothing is 0."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: (x + 0.3 * rng.standard_normal(x.shape)).astype(x.dtype), params)


@pytest.fixture(scope="module")
def initial():
    """A state with residuals that are not 0, and targets that differ from what they follow."""
    state = to_host(jax.jit(algorithm().init)(jax.random.key(0)))
    policy = dataclasses.replace(state.policy, params=shaken(state.policy.params, 1))
    return dataclasses.replace(
        state,
        policy=policy,
        target_policy=shaken(policy.params, 2),
        target_critic=shaken(state.critic.params, 3),
    )


def run(initial, batches=BATCHES, phase="online", **changes):
    made = algorithm(**changes)
    return to_host(made.update(to_device(initial), batches, jax.random.key(1), phase=phase))


def row(batches):
    return jax.tree.map(lambda x: jnp.asarray(x[0]), batches)


decode = jax.jit(BASE.decode)


def base_action(initial, observation):
    """What every draw of the base policy is."""
    features = {"state": observation["state"][:, None]}
    noise = jnp.zeros((8, 1, *BASE.noise_shape))
    return np.asarray(decode(initial.base.params, features, noise))[:, 0]


def unit(policy, features, action):
    """The residual in units of its bound, written out."""
    layers = twin.numbers(policy["params"])
    inputs = np.concatenate([np.asarray(features), action.reshape(8, -1)], axis=-1)
    hidden = twin.mlp(layers["MLP_0"], inputs.astype(np.float64), twin.gelu)
    return np.tanh(twin.dense(layers["Dense_0"], hidden)).reshape(8, 2, 2)


def corrected(initial, policy, observation):
    action = base_action(initial, observation)
    return np.clip(action + 0.3 * unit(policy, observation["state"], action), -1, 1)


@pytest.mark.slow
def test_critics_bootstrap_from_the_target_policy(initial):
    _, metrics = run(initial, ONE)
    batch = row(ONE)
    action = corrected(initial, initial.target_policy, batch.next_observation)
    features = batch.next_observation["state"]
    value = twin.q_values(initial.target_critic, features, action).min(axis=0)
    y = np.asarray(batch.reward + batch.discount * value)
    q = twin.q_values(initial.critic.params, batch.observation["state"], batch.action)
    np.testing.assert_allclose(metrics["critic/target_mean"], y.mean(), atol=1e-4)
    np.testing.assert_allclose(metrics["critic/loss"], ((q - y) ** 2).mean(), rtol=1e-3)


@pytest.mark.slow
def test_the_policy_follows_the_mean_of_the_critics(initial):
    state, metrics = run(initial, ONE)
    observation = row(ONE).observation
    action = corrected(initial, initial.policy.params, observation)
    q = twin.q_values(state.critic.params, observation["state"], action)
    np.testing.assert_allclose(metrics["residual/loss"], -q.mean(), atol=1e-4)
    size = np.abs(
        unit(initial.policy.params, observation["state"], base_action(initial, observation))
    )
    np.testing.assert_allclose(metrics["residual/size"], size.mean(), atol=1e-4)
    expected = jax.tree.map(
        lambda new, old: 0.1 * new + 0.9 * old, state.policy.params, initial.target_policy
    )
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), state.target_policy, expected
    )


def test_noise_in_the_target_is_clipped():
    functions = Residual.create(dataclasses.replace(CONFIG, noise=5.0, noise_clip=0.2), SPEC, BASE)
    state, batch = jax.jit(functions.init)(jax.random.key(0)), row(ONE)
    action, eps = jnp.zeros_like(batch.action), jnp.ones_like(batch.action)
    found = jax.jit(functions.target)(state, batch, action, eps, jnp.arange(2))
    features = batch.next_observation["state"]
    q = twin.q_values(state.target_critic, features, np.full(action.shape, 0.2)).min(axis=0)
    np.testing.assert_allclose(found, batch.reward + batch.discount * q, atol=1e-4)


def test_it_begins_as_the_base_policy():
    state = jax.jit(algorithm().init)(jax.random.key(0))
    acting, observation = algorithm().acting(state), row(ONE).observation
    expected = base_action(state, observation)
    for mode in ("explore", "evaluate", "base", "unedited"):
        found = algorithm().act(acting, observation, jax.random.key(0), mode=mode)
        np.testing.assert_allclose(found.action, np.clip(expected, -1, 1), atol=1e-5)


@pytest.mark.slow
def test_the_residual_is_bounded_and_comes_in_gradually(initial):
    made, observation = algorithm(ramp_calls=4), row(ONE).observation
    alone = base_action(initial, observation)
    full = corrected(initial, initial.policy.params, observation)
    state, metrics = run(initial, ramp_calls=4)
    assert metrics["residual/share"] == 0.25 and state.online_calls == 1
    assert np.abs(full - alone).max() <= 0.3 + 1e-6

    def exploring(calls):
        acting = made.acting(dataclasses.replace(initial, online_calls=jnp.int32(calls)))
        found = made.act(acting, observation, jax.random.key(7)).action
        return np.abs(found - alone).max(axis=(1, 2)) > 1e-4

    assert not exploring(0).any() and exploring(4).all() and exploring(9).all()
    assert 0 < exploring(2).sum() < 8
    evaluated = made.act(made.acting(initial), observation, jax.random.key(0), mode="evaluate")
    np.testing.assert_allclose(evaluated.action, full, atol=1e-4)
    q = twin.q_values(initial.critic.params, observation["state"], full).mean(axis=0)
    np.testing.assert_allclose(evaluated.info["q"], q, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "moved"),
    [
        ("pretrain", {"base"}),
        ("critic_pretrain", {"critic", "target_critic"}),
        ("online", set(MODELS) - {"base"}),
    ],
)
def test_phases(initial, phase, moved):
    """The base policy is frozen once it has imitated."""
    state, metrics = run(initial, phase=phase)
    assert {n for n in MODELS if not same(getattr(state, n), getattr(initial, n))} == moved
    assert all(np.isfinite(value) for value in metrics.values())
    assert same(run(initial, phase=phase), (state, metrics))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"residual_scale": 0.0}, "residual_scale must be"),
        ({"num_min_qs": 3}, "num_min_qs"),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(ValueError, match=message):
        residual(dataclasses.replace(CONFIG, **changes), SPEC, BASE)


def test_it_needs_a_base_policy():
    with pytest.raises(ValueError, match="residual needs a base policy"):
        find_algorithm("residual").make(CONFIG, SPEC, None, "float32")
