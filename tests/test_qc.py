"""QC: who chooses and who values, against a NumPy twin; phases; acting."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import QcConfig, find_algorithm, qc
from exporl.ops.ensemble import aggregate
from exporl.policies import BaseConfig, make_base
from exporl.types import Spec
from helpers import twin
from helpers.batches import distance, random_batch, same, to_device, to_host
from helpers.draws import still

SPEC = Spec((("state", (3,), "float32"),), action_dim=2, chunk_length=2)
CONFIG = QcConfig(num_base_samples=3, hidden=(16,), tau=0.1, critic_learning_rate=1e-3)
BASE = make_base(BaseConfig("flow", num_steps=2, width=8, num_blocks=1, time_dim=4), SPEC)
MODELS = ("base", "critic", "target_critic")
BATCHES, ONE = random_batch(SPEC, 2, 8), random_batch(SPEC, 1, 8)
NOISE = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, *BASE.noise_shape)))
"""What `still` decodes its samples from."""


@functools.cache
def algorithm(**changes):
    return qc(dataclasses.replace(CONFIG, **changes), SPEC, still(BASE, 3))


@pytest.fixture(scope="module")
def initial():
    """A state at step 0, with target critics that say the opposite."""
    state = to_host(jax.jit(algorithm().init)(jax.random.key(0)))
    layers = state.critic.params["params"]["ensemble"]
    opposed = layers | {"Dense_0": jax.tree.map(np.negative, layers["Dense_0"])}
    return dataclasses.replace(state, target_critic={"params": {"ensemble": opposed}})


def run(initial, batches=BATCHES, key=1, phase="online", **changes):
    made = algorithm(**changes)
    return to_host(made.update(to_device(initial), batches, jax.random.key(key), phase=phase))


def row(batches, i=0):
    return jax.tree.map(lambda x: jnp.asarray(x[i]), batches)


decode = jax.jit(BASE.decode)


def samples_of(params, observation):
    """The three samples [b, 3, h, a] of the still flow."""
    features = observation["state"][:, None]
    return np.asarray(decode(params, {"state": features}, jnp.repeat(NOISE, 8, axis=0)))


def every_q(params, features, samples):
    """[e, b, n]."""
    return np.stack([twin.q_values(params, features, samples[:, i]) for i in range(3)], axis=-1)


@pytest.mark.slow
@pytest.mark.parametrize("q_value", ["mean", "min"])
def test_the_critics_that_learn_choose_and_the_target_critics_value(initial, q_value):
    batch = row(ONE)
    features = batch.next_observation["state"]
    samples = samples_of(initial.base.params, batch.next_observation)
    own = getattr(every_q(initial.critic.params, features, samples), q_value)(axis=0)
    slow = getattr(every_q(initial.target_critic, features, samples), q_value)(axis=0)
    index = own.argmax(axis=1)
    assert (index != slow.argmax(axis=1)).any()
    y = batch.reward + batch.discount * slow[np.arange(8), index]
    state, metrics = run(initial, ONE, q_value=q_value)
    for name, expected in (("mean", y.mean()), ("min", y.min()), ("max", y.max())):
        np.testing.assert_allclose(metrics[f"critic/target_{name}"], expected, atol=1e-5)
    gain = (own.max(axis=1) - own.mean(axis=1)).mean()
    np.testing.assert_allclose(metrics["choice/gain"], gain, atol=1e-5)
    expected = jax.tree.map(
        lambda new, old: 0.1 * new + 0.9 * old, state.critic.params, initial.target_critic
    )
    assert distance(state.target_critic, expected) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "moved"),
    [("pretrain", {"base"}), ("critic_pretrain", set(MODELS)), ("online", set(MODELS))],
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
def test_the_best_chunk_acts(initial):
    acting, observation = algorithm().acting(initial), row(ONE).observation
    samples = samples_of(initial.base.params, observation)
    q = every_q(initial.critic.params, observation["state"], samples).mean(axis=0)
    index = q.argmax(axis=1)
    for mode in ("explore", "evaluate", "unedited"):
        found = algorithm().act(acting, observation, jax.random.key(0), mode=mode)
        np.testing.assert_array_equal(found.info["index"], index)
        np.testing.assert_allclose(found.info["q"], q.max(axis=1), atol=1e-5)
        np.testing.assert_allclose(found.action, samples[np.arange(8), index], atol=1e-5)
    alone = algorithm().act(acting, observation, jax.random.key(0), mode="base")
    np.testing.assert_allclose(alone.action, samples[:, 0], atol=1e-5)
    given = jnp.asarray(samples)[:, 2:]
    found = algorithm().act(acting, observation, jax.random.key(0), proposals=given)
    np.testing.assert_array_equal(found.action, given[:, 0])


def test_by_hand_the_mean_and_the_least_choose_differently():
    """Two critics say 0, 4 of one sample and 1, 1 of the other: means 2 and 1, least 0 and 1."""
    q = jnp.array([[0.0, 1.0], [4.0, 1.0]])
    chosen = {name: int(aggregate(q, name).argmax()) for name in ("mean", "min")}
    assert chosen == {"mean": 0, "min": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_base_samples": 0}, r"num_base_samples must be at least 1, got 0"),
        ({"critic_learning_rate": -1.0}, r"critic_learning_rate must not be negative, got -1.0"),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(ValueError, match=message):
        qc(dataclasses.replace(CONFIG, **changes), SPEC, BASE)


def test_it_needs_a_base_policy():
    with pytest.raises(ValueError, match="qc needs a base policy"):
        find_algorithm("qc").make(CONFIG, SPEC, None, "float32")
