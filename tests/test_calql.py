"""Cal-QL: its conservative term by hand and against a NumPy twin, target, policy, phases."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import CalqlConfig, calql
from exporl.algos.calql import Calql, Contrast
from exporl.types import Spec
from helpers import twin
from helpers.batches import distance, random_batch, same, to_device, to_host
from helpers.draws import certain

SPEC = Spec((("state", (3,), "float32"),), 2, chunk_length=2, value_range=(-10.0, 0.0))
CONFIG = CalqlConfig(
    num_actions=3,
    hidden=(16,),
    policy_hidden=(16,),
    tau=0.1,
    critic_learning_rate=1e-3,
    policy_learning_rate=1e-3,
    temperature_learning_rate=1e-2,
)
MODELS = ("policy", "critic", "target_critic", "log_temperature")
RETURNS = np.linspace(-0.5, 0.5, 8).astype(np.float32)


def with_returns(batches):
    known = np.broadcast_to(RETURNS, batches.reward.shape)
    return batches.replace(extra={"data_return": known})


BATCHES, ONE = with_returns(random_batch(SPEC, 2, 8)), with_returns(random_batch(SPEC, 1, 8))


@functools.cache
def algorithm(**changes):
    return calql(dataclasses.replace(CONFIG, **changes), SPEC)


@functools.cache
def functions(**changes):
    """The functions that the algorithm is made of."""
    return Calql.create(dataclasses.replace(CONFIG, **changes), SPEC)


@pytest.fixture(scope="module")
def initial():
    """A state at step 0, with target critics that lag behind."""
    state = to_host(jax.jit(algorithm().init)(jax.random.key(0)))
    lagging = jax.tree.map(lambda x: (0.8 * x).astype(x.dtype), state.critic.params)
    return dataclasses.replace(state, target_critic=lagging)


def run(initial, batches=BATCHES, key=1, phase="online"):
    return to_host(
        algorithm().update(to_device(initial), batches, jax.random.key(key), phase=phase)
    )


def row(batches, i=0):
    return jax.tree.map(lambda x: jnp.asarray(x[i]), batches)


def twin_sample(params, features, eps):
    """Actions [b, n, h, a] and log densities [b, n], with log(1 - tanh^2) as it is written."""
    layers = twin.numbers(params["params"])
    hidden = twin.mlp(layers["MLP_0"], np.asarray(features, np.float64))
    mean, log_std = (twin.dense(layers[name], hidden) for name in ("mean", "log_std"))
    shape = (len(mean), 1, *eps.shape[2:])
    mean, log_std = mean.reshape(shape), np.clip(log_std, -20, 2).reshape(shape)
    action = np.tanh(mean + np.exp(log_std) * eps)
    normal = -0.5 * eps**2 - log_std - 0.5 * math.log(2 * math.pi)
    return action, (normal - np.log(1 - action**2)).sum(axis=(2, 3))


def twin_q(params, features, action):
    """[e, b, n]."""
    columns = [twin.q_values(params, features, action[:, i]) for i in range(action.shape[1])]
    return np.stack(columns, axis=-1)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def test_the_conservative_term_by_hand(initial):
    """Critics that say 0 everywhere, d = 4 action dimensions, 3 uniform actions of density 2^-4 and
    6 of a policy of density 1: log(3 * 16 + 6) without a known return, log(3 * 16 + 6 e) where the
    data brought 1, and no more than without where it brought -1."""
    zeros = jax.tree.map(np.zeros_like, initial.critic.params)
    density = np.concatenate([np.full((3, 3), -4 * math.log(2)), np.zeros((3, 6))], axis=1)
    contrast = Contrast(normal(3, 9, 2, 2), jnp.asarray(density, jnp.float32))
    term, metrics = jax.jit(functions(conservatism=2.0).conservative_term)(
        zeros, jnp.full((2, 3), 0.25), jnp.zeros((3, 3)), contrast, jnp.array([-jnp.inf, 1, -1])
    )
    by_hand = [math.log(54), math.log(48 + 6 * math.e), math.log(54)]
    np.testing.assert_allclose(metrics["conservative/gap"], np.mean(by_hand) - 0.25, rtol=1e-5)
    np.testing.assert_allclose(term, 2 * (np.mean(by_hand) - 0.25), rtol=1e-5)
    np.testing.assert_allclose(metrics["conservative/calibrated"], 1 / 3, rtol=1e-6)


@pytest.mark.slow
def test_the_conservative_term_is_that_of_its_twin(initial):
    batch, chosen = row(ONE), functions()
    features = batch.observation["state"]
    contrast = jax.jit(chosen.contrast)(initial.policy.params, batch, jax.random.key(0))
    q = twin_q(initial.critic.params, features, np.asarray(contrast.action))
    lifted = np.maximum(q[..., 3:], RETURNS[None, :, None])
    raised = np.concatenate([q[..., :3], lifted], axis=-1) - np.asarray(contrast.log_prob)
    q_data = twin.q_values(initial.critic.params, features, batch.action)
    gap = (np.log(np.exp(raised).sum(axis=-1)) - q_data).mean()
    term, metrics = jax.jit(chosen.conservative_term)(
        initial.critic.params,
        jnp.asarray(q_data, jnp.float32),
        features,
        contrast,
        batch.extra["data_return"],
    )
    np.testing.assert_allclose(term, 5 * gap, rtol=1e-4)
    share = (q[..., 3:] < RETURNS[None, :, None]).mean()
    np.testing.assert_allclose(metrics["conservative/calibrated"], share, atol=1e-6)
    assert 0 < share < 1


@pytest.mark.slow
def test_actions_to_lower_are_uniform_or_the_policys_here_and_next(initial):
    """With a policy that does as its mode: at s, then at s'; uniform actions have density 2^-d."""
    sure, batch = certain(initial.policy.params), row(ONE)
    found = jax.jit(functions().contrast)(sure, batch, jax.random.key(0))
    assert found.action.shape == (8, 9, 2, 2)
    for start, observation in ((3, batch.observation), (6, batch.next_observation)):
        expected, _ = twin_sample(sure, observation["state"], np.zeros((8, 3, 2, 2)))
        np.testing.assert_allclose(found.action[:, start : start + 3], expected, atol=1e-5)
    np.testing.assert_allclose(found.log_prob[:, :3], -4 * math.log(2), rtol=1e-6)
    assert np.ptp(found.action[:, :3], axis=1).min() > 0


@pytest.mark.slow
def test_samples_and_densities_are_those_of_the_twin(initial):
    features, eps = row(ONE).observation["state"], normal(8, 3, 2, 2)
    found = jax.jit(functions().sample)(initial.policy.params, features, eps)
    expected = twin_sample(initial.policy.params, features, np.asarray(eps, np.float64))
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-4)


@pytest.mark.slow
def test_the_target_is_the_best_of_several_actions(initial):
    batch, eps = row(ONE), normal(8, 3, 2, 2)
    found = jax.jit(functions().target)(initial.target_critic, initial.policy.params, batch, eps)
    features = batch.next_observation["state"]
    action, _ = twin_sample(initial.policy.params, features, np.asarray(eps))
    value = twin_q(initial.target_critic, features, action).min(axis=0).max(axis=-1)
    np.testing.assert_allclose(found, batch.reward + batch.discount * value, atol=1e-5)


@pytest.mark.slow
def test_the_policys_loss(initial):
    batch, eps = row(ONE), normal(8, 1, 2, 2)
    loss, metrics = jax.jit(functions().policy_loss)(
        initial.policy.params, initial.critic.params, jnp.float32(0.3), batch, eps
    )
    features = batch.observation["state"]
    action, log_prob = twin_sample(initial.policy.params, features, np.asarray(eps))
    q = twin_q(initial.critic.params, features, action).min(axis=0)
    np.testing.assert_allclose(loss, (0.3 * log_prob - q).mean(), atol=1e-4)
    np.testing.assert_allclose(metrics["policy/entropy"], -log_prob.mean(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["critic_pretrain", "online"])
def test_phases(initial, phase):
    state, metrics = run(initial, phase=phase)
    assert algorithm().needs.phases == {"critic_pretrain", "online"}
    assert algorithm().needs.columns == ("data_return",)
    assert not any(same(getattr(state, name), getattr(initial, name)) for name in MODELS)
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["policy/target_entropy"] == -4
    assert same(run(initial, phase=phase), (state, metrics))


@pytest.mark.slow
def test_the_averages_follow_slowly(initial):
    state, _ = run(initial, ONE)
    expected = jax.tree.map(
        lambda new, old: 0.1 * new + 0.9 * old, state.critic.params, initial.target_critic
    )
    assert distance(state.target_critic, expected) < 1e-6


@pytest.mark.slow
def test_conservatism_lowers_what_the_data_does_not_do(initial):
    """Many steps on the same rows: values of uniform actions fall below those of the data."""
    state = to_device(initial)
    for key in range(40):
        state, metrics = algorithm().update(state, BATCHES, jax.random.key(key), phase="online")
    before = run(initial)[1]
    assert metrics["conservative/gap"] < before["conservative/gap"] - 0.02


@pytest.mark.slow
def test_evaluation_takes_the_mode(initial):
    params, observation = algorithm().acting(initial), row(ONE).observation
    sure, _ = twin_sample(params, observation["state"], np.zeros((8, 1, 2, 2)))
    for seed in (0, 1):
        found = algorithm().act(params, observation, jax.random.key(seed), mode="evaluate")
        np.testing.assert_allclose(found.action, sure[:, 0], atol=1e-5)
    drawn = [algorithm().act(params, observation, jax.random.key(seed)).action for seed in (0, 1)]
    assert np.abs(drawn[0] - drawn[1]).max() > 0.01
    for options in ({"mode": "base"}, {"proposals": jnp.zeros((8, 3, 2, 2))}):
        with pytest.raises(ValueError, match="calql has no base policy that could act or propose"):
            algorithm().act(params, observation, jax.random.key(0), **options)


@pytest.mark.slow
def test_rows_without_returns_are_refused(initial):
    bare = BATCHES.replace(extra={})
    with pytest.raises(ValueError, match=r"data_return reads Batch.extra\['data_return'\]"):
        algorithm().update(to_device(initial), bare, jax.random.key(0), phase="online")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conservatism": -1.0}, r"conservatism must not be negative, got -1.0"),
        ({"num_actions": 0}, r"num_actions must be at least 1, got 0"),
        ({"initial_temperature": 0.0}, r"initial_temperature must be positive, got 0.0"),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(ValueError, match=message):
        calql(dataclasses.replace(CONFIG, **changes), SPEC)


def test_there_is_nothing_to_round():
    with pytest.raises(ValueError, match=r"calql samples no base.*must be float32, got bfloat16"):
        calql(CONFIG, SPEC, precision="bfloat16")
