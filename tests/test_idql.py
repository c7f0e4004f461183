"""IDQL: the expectile by hand, V and Q against a NumPy twin, the implicit policy, phases."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import IdqlConfig, find_algorithm, idql
from exporl.algos.idql import Idql
from exporl.ops.td import expectile_loss
from exporl.policies import BaseConfig, make_base
from exporl.types import Spec
from helpers import twin
from helpers.batches import distance, random_batch, same, to_device, to_host
from helpers.draws import still

SPEC = Spec((("state", (3,), "float32"),), 2, chunk_length=2, value_range=(-10.0, 0.0))
CONFIG = IdqlConfig(
    num_base_samples=3,
    expectile=0.9,
    hidden=(16,),
    tau=0.1,
    critic_learning_rate=1e-3,
    value_learning_rate=1e-3,
    base_tau=0.2,
)
BASE = make_base(BaseConfig("flow", num_steps=2, width=8, num_blocks=1, time_dim=4), SPEC)
MODELS = ("base", "base_ema", "critic", "target_critic", "value")
BATCHES = random_batch(SPEC, 2, 8)
ONE = random_batch(SPEC, 1, 8)


@functools.cache
def algorithm(**changes):
    return idql(dataclasses.replace(CONFIG, **changes), SPEC, still(BASE, 3))


@pytest.fixture(scope="module")
def initial():
    """A state at step 0, with target critics and an average that lag behind."""
    state = to_host(jax.jit(algorithm().init)(jax.random.key(0)))
    slow_critic, slow_base = (
        jax.tree.map(lambda x: (0.8 * x).astype(x.dtype), params)
        for params in (state.critic.params, state.base.params)
    )
    return dataclasses.replace(state, target_critic=slow_critic, base_ema=slow_base)


def run(initial, batches=BATCHES, key=1, phase="online"):
    return to_host(
        algorithm().update(to_device(initial), batches, jax.random.key(key), phase=phase)
    )


@pytest.fixture(scope="module")
def one_step(initial):
    """State and metrics after one minibatch."""
    return run(initial, ONE)


def row(batches, i=0):
    return jax.tree.map(lambda x: jnp.asarray(x[i]), batches)


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.9])
def test_the_expectile_of_two_equal_values_is_known(expectile):
    """Of 0 and 1 as often, the expectile t is t: t (1 - t) = (1 - t) t."""
    q = jnp.array([0.0, 1.0])
    slope = jax.grad(lambda v: expectile_loss(q - v, expectile))
    assert abs(slope(expectile)) < 1e-6
    assert slope(expectile - 0.01) < -1e-4 and slope(expectile + 0.01) > 1e-4
    by_hand = (expectile * (1 - expectile) ** 2 + (1 - expectile) * expectile**2) / 2
    np.testing.assert_allclose(expectile_loss(q - expectile, expectile), by_hand, rtol=1e-6)


@pytest.mark.slow
def test_the_value_follows_the_least_of_the_target_critics(initial, one_step):
    batch = row(ONE)
    features = batch.observation["state"]
    q = twin.q_values(initial.target_critic, features, batch.action).min(axis=0)
    gap = q - twin.state_value(initial.value.params, features)
    loss = (np.where(gap > 0, 0.9, 0.1) * gap**2).mean()
    _, metrics = one_step
    np.testing.assert_allclose(metrics["value/loss"], loss, rtol=1e-4)
    np.testing.assert_allclose(metrics["value/advantage"], gap.mean(), atol=1e-5)
    assert metrics["value/above"] == (gap > 0).mean()


@pytest.mark.slow
def test_critics_learn_what_the_new_value_promises(initial, one_step):
    """y = r + gamma V(s'), with V after its own step; no action but the data's is asked for."""
    state, metrics = one_step
    batch = row(ONE)
    value = twin.state_value(state.value.params, batch.next_observation["state"])
    y = np.asarray(batch.reward + batch.discount * value)
    q = twin.q_values(initial.critic.params, batch.observation["state"], batch.action)
    np.testing.assert_allclose(metrics["critic/loss"], ((q - y) ** 2).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["critic/target_mean"], y.mean(), atol=1e-5)
    old = twin.state_value(initial.value.params, batch.next_observation["state"])
    before = (batch.reward + batch.discount * old).mean()
    assert abs(metrics["critic/target_mean"] - before) > 1e-4


@pytest.mark.slow
def test_the_averages_follow_slowly(initial, one_step):
    state, _ = one_step
    for average, new, old, tau in (
        (state.target_critic, state.critic.params, initial.target_critic, 0.1),
        (state.base_ema, state.base.params, initial.base_ema, 0.2),
    ):
        expected = jax.tree.map(lambda x, y, tau=tau: tau * x + (1 - tau) * y, new, old)
        assert distance(average, expected) < 1e-6 < distance(average, old)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "moved"),
    [
        ("pretrain", {"base", "base_ema"}),
        ("critic_pretrain", {"critic", "target_critic", "value"}),
        ("online", set(MODELS)),
    ],
)
def test_phases(initial, phase, moved):
    state, metrics = run(initial, phase=phase)
    assert phase in algorithm().needs.phases
    assert {n for n in MODELS if not same(getattr(state, n), getattr(initial, n))} == moved
    assert all(np.isfinite(value) for value in metrics.values())
    assert same(run(initial, phase=phase), (state, metrics))


@pytest.mark.slow
def test_states_can_be_donated_and_keep_their_structure():
    state = jax.jit(algorithm().init)(jax.random.key(0))
    shapes = jax.tree.map(lambda x: x.aval, state)
    leaves = jax.tree.leaves(state)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    state, _ = algorithm().update(state, BATCHES, jax.random.key(1), phase="online")
    assert jax.tree.map(lambda x: x.aval, state) == shapes


@pytest.mark.slow
def test_the_best_of_its_samples_acts(initial):
    """Samples of the averaged base, ranked by the least of the target critics."""
    acting, observation = algorithm().acting(initial), row(BATCHES).observation
    assert same(acting["base"], initial.base_ema)
    noise = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, *BASE.noise_shape)))
    features = observation["state"]
    samples = np.asarray(
        jax.jit(BASE.decode)(
            initial.base_ema, {"state": features[:, None]}, jnp.repeat(noise, 8, axis=0)
        )
    )
    q = np.stack(
        [twin.q_values(initial.target_critic, features, samples[:, i]) for i in range(3)], axis=-1
    ).min(axis=0)
    found = algorithm().act(acting, observation, jax.random.key(0), mode="evaluate")
    index = q.argmax(axis=1)
    np.testing.assert_array_equal(found.info["index"], index)
    np.testing.assert_allclose(found.info["q"], q.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(found.action, samples[np.arange(8), index], atol=1e-5)
    given = algorithm().act(
        acting, observation, jax.random.key(0), proposals=jnp.asarray(samples)[:, :1]
    )
    np.testing.assert_array_equal(given.action, samples[:, 0])
    alone = algorithm().act(acting, observation, jax.random.key(0), mode="base")
    np.testing.assert_allclose(alone.action, samples[:, 0], atol=1e-5)


def test_the_implicit_policy_prefers_what_lies_above_the_value():
    """Weights 0.9 above V and 0.1 below, by hand: of Q = -1, 1, 2 and V = 0, 1/19, 9/19, 9/19."""
    functions = Idql.create(CONFIG, SPEC, BASE)
    score = functions.implicit_score(jnp.array([[-1.0, 1.0, 2.0]]), jnp.array([0.0]))
    np.testing.assert_allclose(jax.nn.softmax(score)[0], [1 / 19, 9 / 19, 9 / 19], rtol=1e-5)


@pytest.mark.slow
def test_the_implicit_policy_draws(initial):
    made = algorithm(selection="implicit")
    acting, observation = made.acting(initial), row(BATCHES).observation
    drawn = [
        np.asarray(made.act(acting, observation, jax.random.key(seed)).info["index"])
        for seed in range(30)
    ]
    assert np.ptp(drawn, axis=0).max() == 2


def test_critics_and_value_can_begin_at_the_least_value():
    functions = Idql.create(dataclasses.replace(CONFIG, pessimistic_start=True), SPEC, BASE)
    plain = Idql.create(CONFIG, SPEC, BASE)
    state, usual = (jax.jit(each.init)(jax.random.key(0)) for each in (functions, plain))
    features = BATCHES.observation["state"][0]
    for found, other in (
        (state.value.params, usual.value.params),
        (state.critic.params, usual.critic.params),
    ):
        kind = "value" if "value" in found["params"] else "ensemble"
        gap = jax.tree.map(jnp.subtract, found, other)["params"][kind]["Dense_0"]["bias"]
        np.testing.assert_allclose(gap, np.full(gap.shape, -10.0), rtol=1e-5)
    before, after = (twin.state_value(s.value.params, features) for s in (usual, state))
    np.testing.assert_allclose(after - before, -10.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expectile": 1.0}, r"expectile must be in \(0, 1\), got 1.0"),
        ({"num_qs": 0}, r"num_qs must be at least 1, got 0"),
        ({"value_learning_rate": -1.0}, r"value_learning_rate must not be negative, got -1.0"),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(ValueError, match=message):
        idql(dataclasses.replace(CONFIG, **changes), SPEC, BASE)


def test_it_needs_a_base_policy():
    with pytest.raises(ValueError, match="idql needs a base policy"):
        find_algorithm("idql").make(CONFIG, SPEC, None, "float32")
