"""FQL: distillation, Q loss and target against NumPy twins; what learns from what; acting."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import FqlConfig, find_algorithm, fql
from exporl.algos.fql import Fql
from exporl.policies import BaseConfig, make_base
from exporl.types import Spec
from helpers import twin
from helpers.batches import distance, random_batch, same, to_device, to_host

SPEC = Spec((("state", (3,), "float32"),), action_dim=2, chunk_length=2)
STEPS = 3
CONFIG = FqlConfig(
    hidden=(16,), tau=0.1, critic_learning_rate=1e-3, policy_learning_rate=1e-3, num_qs=3
)
BASE_OPTIONS = {"num_steps": STEPS, "width": 8, "num_blocks": 1, "time_dim": 4}
BASE = make_base(BaseConfig("flow", **BASE_OPTIONS), SPEC)
MODELS = ("base", "policy", "critic", "target_critic")
BATCHES = random_batch(SPEC, 2, 8)
ONE = random_batch(SPEC, 1, 8)
NOISE = np.random.default_rng(0).standard_normal((8, 2, 2)).astype(np.float32)


@functools.cache
def algorithm(**changes):
    return fql(dataclasses.replace(CONFIG, **changes), SPEC, BASE)


@functools.cache
def functions(**changes):
    """The functions that the algorithm is made of."""
    return Fql.create(dataclasses.replace(CONFIG, **changes), SPEC, BASE)


@pytest.fixture(scope="module")
def initial():
    """A state at step 0 with target critics that lag behind, and a policy that clips some."""
    state = to_host(jax.jit(algorithm().init)(jax.random.key(0)))
    lagging = jax.tree.map(lambda x: (0.8 * x).astype(x.dtype), state.critic.params)
    wide = jax.tree.map(lambda x: x * np.float32(1.5), state.policy.params)
    policy = dataclasses.replace(state.policy, params=wide)
    return dataclasses.replace(state, target_critic=lagging, policy=policy)


def run(initial, batches=BATCHES, key=1, phase="online"):
    return to_host(
        algorithm().update(to_device(initial), batches, jax.random.key(key), phase=phase)
    )


def row(batches, i=0):
    return jax.tree.map(lambda x: jnp.asarray(x[i]), batches)


def twin_policy(params, features, noise):
    """The one-step policy in NumPy, not clipped."""
    layers = twin.numbers(params["params"])
    inputs = np.concatenate([features, noise.reshape(len(noise), -1)], axis=-1)
    hidden = twin.mlp(layers["MLP_0"], inputs.astype(np.float64), twin.gelu)
    return twin.dense(layers["Dense_0"], hidden).reshape(noise.shape)


assert BASE.predict is not None
predict = jax.jit(BASE.predict)


def twin_flow(params, observation, noise):
    """Euler steps along the predicted velocity, one by one, then the clip."""
    x = noise
    for i in range(STEPS):
        time = jnp.full((len(noise), 1), i / STEPS)
        x = x + np.asarray(predict(params, observation, jnp.asarray(x), time)) / STEPS
    return np.clip(x, -1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("q_weight", [1.0, 0.0])
def test_the_policys_loss_is_distillation_minus_value(initial, normalize, q_weight):
    observation = row(ONE).observation
    chosen = functools.partial(functions(normalize_q=normalize).policy_loss, q_weight=q_weight)
    loss, metrics = jax.jit(chosen)(initial.policy.params, initial, observation, jnp.asarray(NOISE))
    action = twin_policy(initial.policy.params, observation["state"], NOISE)
    distill = ((action - twin_flow(initial.base.params, observation, NOISE)) ** 2).mean()
    clipped = np.clip(action, -1, 1)
    q = twin.q_values(initial.critic.params, observation["state"], clipped).mean(axis=0)
    climb = q.mean() / (np.abs(q).mean() if normalize else 1)
    np.testing.assert_allclose(loss, 10 * distill - q_weight * climb, rtol=1e-4)
    np.testing.assert_allclose(metrics["policy/distill"], distill, rtol=1e-4)
    np.testing.assert_allclose(metrics["policy/q"], q.mean(), atol=1e-5)
    assert metrics["policy/clipped"] == (np.abs(action) > 1).mean() > 0


@pytest.mark.slow
def test_the_policy_climbs_the_value_by_hand(initial):
    """Without distillation the gradient at the output's bias is -dQ/da, by finite differences of
    the twin; none passes where the action is clipped."""
    observation, free = row(ONE).observation, functions(distill_weight=0.0)
    loss = functools.partial(free.policy_loss, q_weight=1.0)
    grads = jax.jit(jax.grad(loss, has_aux=True))(
        initial.policy.params, initial, observation, jnp.asarray(NOISE)
    )[0]
    action = twin_policy(initial.policy.params, observation["state"], NOISE)

    def value(moved):
        clipped = np.clip(moved, -1, 1)
        return twin.q_values(initial.critic.params, observation["state"], clipped).mean()

    slope, size = np.zeros(4), 1e-6
    for i in range(4):
        step = np.zeros((1, 4))
        step[0, i] = size
        step = step.reshape(1, 2, 2)
        slope[i] = (value(action + step) - value(action - step)) / (2 * size)
    np.testing.assert_allclose(grads["params"]["Dense_0"]["bias"], -slope, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("q_value", ["mean", "min"])
def test_the_target_is_what_the_one_step_policy_is_worth(initial, q_value):
    batch = row(ONE)
    found = jax.jit(functions(q_value=q_value).target)(
        initial.target_critic, initial.policy.params, batch, jnp.asarray(NOISE)
    )
    features = batch.next_observation["state"]
    action = np.clip(twin_policy(initial.policy.params, features, NOISE), -1, 1)
    q = getattr(twin.q_values(initial.target_critic, features, action), q_value)(axis=0)
    np.testing.assert_allclose(found, batch.reward + batch.discount * q, atol=1e-5)


def deaf_to_noise(initial):
    """A state whose one-step policy does the same for every noise."""
    params = jax.tree.map(np.copy, initial.policy.params)
    params["params"]["MLP_0"]["Dense_0"]["kernel"][3:] = 0
    return dataclasses.replace(initial, policy=dataclasses.replace(initial.policy, params=params))


@pytest.mark.slow
def test_each_learns_from_the_others_as_they_were(initial):
    start, batch = deaf_to_noise(initial), row(ONE)
    state, metrics = run(start, ONE)

    def action(features):
        return np.clip(twin_policy(start.policy.params, features, NOISE), -1, 1)

    features, following = batch.observation["state"], batch.next_observation["state"]
    q = twin.q_values(start.critic.params, features, action(features)).mean()
    np.testing.assert_allclose(metrics["policy/q"], q, atol=1e-5)
    later = twin.q_values(state.critic.params, features, action(features)).mean()
    assert abs(later - q) > 1e-4
    value = twin.q_values(start.target_critic, following, action(following)).mean(axis=0)
    y = batch.reward + batch.discount * value
    np.testing.assert_allclose(metrics["critic/target_mean"], y.mean(), atol=1e-5)
    expected = jax.tree.map(
        lambda new, old: 0.1 * new + 0.9 * old, state.critic.params, start.target_critic
    )
    assert distance(state.target_critic, expected) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "moved"),
    [
        ("pretrain", {"base", "policy"}),
        ("critic_pretrain", set(MODELS)),
        ("online", set(MODELS)),
    ],
)
def test_phases(initial, phase, moved):
    state, metrics = run(initial, phase=phase)
    assert phase in algorithm().needs.phases
    assert {n for n in MODELS if not same(getattr(state, n), getattr(initial, n))} == moved
    assert all(np.isfinite(value) for value in metrics.values())
    assert same(run(initial, phase=phase), (state, metrics))
    assert not same(run(initial, phase=phase, key=2)[0].policy, state.policy)


@pytest.mark.slow
def test_states_can_be_donated_and_keep_their_structure():
    state = jax.jit(algorithm().init)(jax.random.key(0))
    shapes = jax.tree.map(lambda x: x.aval, state)
    leaves = jax.tree.leaves(state)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    state, _ = algorithm().update(state, BATCHES, jax.random.key(1), phase="online")
    assert jax.tree.map(lambda x: x.aval, state) == shapes


@pytest.mark.slow
def test_the_one_step_policy_acts(initial):
    acting, observation = algorithm().acting(initial), row(ONE).observation
    own = algorithm().act(acting, observation, jax.random.key(0))
    noise = np.asarray(jax.random.normal(jax.random.key(0), (8, 2, 2)))
    expected = np.clip(twin_policy(initial.policy.params, observation["state"], noise), -1, 1)
    np.testing.assert_allclose(own.action, expected, atol=1e-5)
    for mode in ("evaluate", "unedited"):
        other = algorithm().act(acting, observation, jax.random.key(0), mode=mode)
        np.testing.assert_array_equal(other.action, own.action)
    given = jnp.full((8, 1, 2, 2), 0.25)
    base = algorithm().act(acting, observation, jax.random.key(0), mode="base", proposals=given)
    np.testing.assert_array_equal(base.action, given[:, 0])
    with pytest.raises(ValueError, match="fql's one-step policy chooses among no samples"):
        algorithm().act(acting, observation, jax.random.key(0), proposals=given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill_weight": -1.0}, r"distill_weight must not be negative, got -1.0"),
        ({"num_qs": 0}, r"num_qs must be at least 1, got 0"),
        ({"hidden": ()}, r"hidden must list at least one positive layer size, got \(\)"),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(ValueError, match=message):
        fql(dataclasses.replace(CONFIG, **changes), SPEC, BASE)


def test_it_needs_a_flow():
    with pytest.raises(ValueError, match="fql needs a base policy"):
        find_algorithm("fql").make(CONFIG, SPEC, None, "float32")
    diffusion = make_base(BaseConfig("diffusion", **BASE_OPTIONS), SPEC)
    with pytest.raises(ValueError, match=r"chunk, \(2, 2\); this .* has \(3, 2, 2\)\. Use base.k"):
        fql(CONFIG, SPEC, diffusion)
