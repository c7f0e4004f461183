"""DSRL: critics of actions and of noise against a NumPy twin, a frozen base, phases."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import DsrlConfig, dsrl, find_algorithm
from exporl.algos.dsrl import Dsrl
from exporl.nets.gaussian import distribution
from exporl.policies import BaseConfig, make_base
from exporl.types import Spec
from helpers import twin
from helpers.batches import distance, random_batch, same, to_device, to_host
from helpers.draws import certain

SPEC = Spec((("state", (3,), "float32"),), 2, chunk_length=2, value_range=(-10.0, 0.0))
CONFIG = DsrlConfig(
    hidden=(16,),
    tau=0.1,
    noise_updates=2,
    critic_learning_rate=1e-3,
    policy_learning_rate=1e-3,
    initial_temperature=0.5,
    backup_entropy=False,
)
MODELS = ("base", "policy", "critic", "target_critic", "noise_critic", "log_temperature")
BATCHES = random_batch(SPEC, 3, 8)
ONE = random_batch(SPEC, 1, 8)


@functools.cache
def base(kind="flow"):
    return make_base(BaseConfig(kind, num_steps=2, width=8, num_blocks=1, time_dim=4), SPEC)


@functools.cache
def algorithm(**changes):
    return dsrl(dataclasses.replace(CONFIG, **changes), SPEC, base())


@pytest.fixture(scope="module")
def initial():
    """A state at step 0 whose policy draws its mean, with target critics that lag behind."""
    state = to_host(jax.jit(algorithm().init)(jax.random.key(0)))
    slow = jax.tree.map(lambda x: (0.8 * x).astype(x.dtype), state.critic.params)
    policy = dataclasses.replace(state.policy, params=certain(state.policy.params))
    return dataclasses.replace(state, target_critic=slow, policy=policy)


def run(initial, batches=BATCHES, phase="online", **changes):
    made = algorithm(**changes)
    return to_host(made.update(to_device(initial), batches, jax.random.key(1), phase=phase))


def row(batches):
    return jax.tree.map(lambda x: jnp.asarray(x[0]), batches)


def mean_noise(policy, features):
    """tanh(mean) of the policy, written out."""
    layers = twin.numbers(policy["params"])
    mean = twin.dense(layers["mean"], twin.mlp(layers["MLP_0"], np.asarray(features, np.float64)))
    return np.tanh(mean).reshape(-1, 2, 2)


@pytest.mark.slow
def test_critics_bootstrap_from_what_the_base_makes_of_the_noise(initial):
    """y = r + gamma min Q'(s', decode(1.5 tanh(mean)))."""
    state, metrics = run(initial, ONE)
    batch = row(ONE)
    features = batch.next_observation["state"]
    noise = jnp.asarray(1.5 * mean_noise(initial.policy.params, features), jnp.float32)
    action = jax.jit(base().decode)(initial.base.params, batch.next_observation, noise)
    value = twin.q_values(initial.target_critic, features, action).min(axis=0)
    y = np.asarray(batch.reward + batch.discount * value)
    q = twin.q_values(initial.critic.params, batch.observation["state"], batch.action)
    np.testing.assert_allclose(metrics["critic/target_mean"], y.mean(), atol=1e-4)
    np.testing.assert_allclose(metrics["critic/loss"], ((q - y) ** 2).mean(), rtol=1e-3)
    slow = jax.tree.map(
        lambda new, old: 0.1 * new + 0.9 * old, state.critic.params, initial.target_critic
    )
    assert distance(state.target_critic, slow) < 1e-6


def test_the_backup_pays_for_entropy():
    """The target is lower by discount * temperature * log density of the noise, written out."""
    functions = Dsrl.create(CONFIG, SPEC, base())
    state, batch = jax.jit(functions.init)(jax.random.key(0)), row(ONE)
    features = batch.next_observation["state"]
    eps = np.random.default_rng(0).standard_normal(batch.action.shape).astype(np.float32)
    density = jax.jit(functools.partial(distribution, functions.policy))
    normal = density(state.policy.params, features)
    mean, log_std = np.asarray(normal.mean, np.float64), np.asarray(normal.log_std, np.float64)
    noise = np.tanh(mean + np.exp(log_std) * eps)
    each = -0.5 * eps**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - noise**2)
    paying = Dsrl.create(dataclasses.replace(CONFIG, backup_entropy=True), SPEC, base())
    free, paid = (jax.jit(way.target)(state, batch, eps) for way in (functions, paying))
    expected = np.asarray(batch.discount) * 0.5 * each.sum(axis=(1, 2))
    np.testing.assert_allclose(np.asarray(free - paid), expected, atol=1e-4)


@pytest.mark.slow
def test_the_policy_follows_the_noise_critic(initial):
    _, metrics = run(initial, ONE)
    features = row(ONE).observation["state"]
    noise = mean_noise(initial.policy.params, features)
    q = twin.q_values(initial.noise_critic.params, features, noise).min(axis=0)
    np.testing.assert_allclose(metrics["noise/q_mean"], q.mean(), atol=1e-4)
    loss = -0.5 * metrics["policy/entropy"] - q.mean()
    np.testing.assert_allclose(metrics["policy/loss"], loss, rtol=1e-4)
    assert metrics["policy/temperature"] == 0.5


def test_the_noise_critic_learns_what_the_critics_say():
    """The loss member by member, and that steps on it bring both together."""
    functions = Dsrl.create(dataclasses.replace(CONFIG, critic_learning_rate=1e-2), SPEC, base())
    state, batch = jax.jit(functions.init)(jax.random.key(0)), row(ONE)
    noise = jax.random.normal(jax.random.key(5), batch.action.shape) / 1.5
    features = batch.observation["state"]
    action = jax.jit(base().decode)(state.base.params, batch.observation, 1.5 * noise)
    q = twin.q_values(state.critic.params, features, action)
    own = twin.q_values(state.noise_critic.params, features, noise)
    loss = functions.noise_loss(state.noise_critic.params, features, noise, jnp.asarray(q))
    np.testing.assert_allclose(loss, ((own - q) ** 2).mean(), rtol=1e-4)
    step, losses = jax.jit(functions.noise_step), []
    for key in jax.random.split(jax.random.key(2), 150):
        state, metrics = step(state, batch, key)
        losses.append(float(metrics["noise/loss"]))
    assert np.mean(losses[-20:]) < 0.2 * np.mean(losses[:5])


def test_a_diffusion_is_decoded_without_further_noise():
    functions = Dsrl.create(CONFIG, SPEC, base("diffusion"))
    state, batch = jax.jit(functions.init)(jax.random.key(0)), row(ONE)
    noise = jax.random.uniform(jax.random.key(1), batch.action.shape, minval=-1)
    added = jnp.stack([1.5 * noise, jnp.zeros_like(noise)], axis=1)
    expected = jax.jit(base("diffusion").decode)(state.base.params, batch.observation, added)
    found = jax.jit(functions.decode)(state.base.params, batch.observation, noise)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "moved"),
    [
        ("pretrain", {"base"}),
        ("critic_pretrain", set(MODELS) - {"base"}),
        ("online", set(MODELS) - {"base"}),
    ],
)
def test_phases(initial, phase, moved):
    """The base policy is frozen once it has imitated."""
    state, metrics = run(initial, phase=phase)
    assert {n for n in MODELS if not same(getattr(state, n), getattr(initial, n))} == moved
    assert all(np.isfinite(value) for value in metrics.values())
    assert same(run(initial, phase=phase), (state, metrics))


@pytest.mark.slow
def test_it_acts_with_the_noise_of_its_policy(initial):
    made, observation = algorithm(deterministic_eval=True), row(ONE).observation
    acting = made.acting(initial)
    noise = mean_noise(initial.policy.params, observation["state"])
    scaled = jnp.asarray(1.5 * noise, jnp.float32)
    expected = jax.jit(base().decode)(initial.base.params, observation, scaled)
    q = twin.q_values(initial.noise_critic.params, observation["state"], noise).min(axis=0)
    for mode in ("explore", "evaluate"):
        found = made.act(acting, observation, jax.random.key(3), mode=mode)
        np.testing.assert_allclose(found.action, expected, atol=1e-4)
        np.testing.assert_allclose(found.info["q"], q, atol=1e-4)
    alone = made.act(acting, observation, jax.random.key(3), mode="base").action
    assert np.abs(alone - expected).max() > 0.01
    with pytest.raises(ValueError, match="dsrl chooses noise for its base policy"):
        made.act(acting, observation, jax.random.key(3), proposals=expected[:, None])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_range": 0.0}, "noise_range must be positive, got 0.0"),
        ({"noise_updates": 0}, "noise_updates must be at least 1, got 0"),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(ValueError, match=message):
        dsrl(dataclasses.replace(CONFIG, **changes), SPEC, base())


def test_it_needs_a_base_policy():
    with pytest.raises(ValueError, match="dsrl needs a base policy"):
        find_algorithm("dsrl").make(CONFIG, SPEC, None, "float32")
