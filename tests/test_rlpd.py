"""RLPD: phases, entropy backup, its mode at evaluation, and the policy's update by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import RlpdConfig, make_algorithm, rlpd
from exporl.algos.rlpd import Rlpd
from exporl.nets.critic import Critic
from exporl.types import Spec
from helpers.batches import distance, random_batch, same, to_device, to_host
from helpers.draws import certain

SPEC = Spec((("state", (3,), "float32"),), action_dim=2, chunk_length=2)
CONFIG = RlpdConfig(
    num_qs=4,
    num_min_qs=2,
    hidden=(16,),
    tau=0.1,
    critic_learning_rate=1e-3,
    policy_learning_rate=1e-3,
    temperature_learning_rate=1e-2,
)
MODELS = ("policy", "critic", "target_critic", "log_temperature")
BATCHES = random_batch(SPEC, 2, 8)


@functools.cache
def algorithm(**changes):
    return rlpd(dataclasses.replace(CONFIG, **changes), SPEC)


@functools.cache
def functions(**changes):
    """The functions that the algorithm is made of."""
    return Rlpd.create(dataclasses.replace(CONFIG, **changes), SPEC)


@pytest.fixture(scope="module")
def initial():
    """A state at step 0, with target critics that lag behind."""
    state = to_host(jax.jit(algorithm().init)(jax.random.key(0)))
    lagging = jax.tree.map(lambda x: (0.8 * x).astype(x.dtype), state.critic.params)
    return dataclasses.replace(state, target_critic=lagging)


@pytest.fixture(scope="module")
def updated(initial):
    return run(initial)


def run(initial, batches=BATCHES, key=1, phase="online"):
    return to_host(
        algorithm().update(to_device(initial), batches, jax.random.key(key), phase=phase)
    )


def row(batches, i):
    return jax.tree.map(lambda x: jnp.asarray(x[i]), batches)


@pytest.mark.slow
def test_an_update(initial, updated):
    state, metrics = updated
    assert all(not same(getattr(state, name), getattr(initial, name)) for name in MODELS)
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["policy/temperature"] == 1 and metrics["policy/target_entropy"] == -2
    assert same(run(initial), updated)
    assert not same(run(initial, key=2)[0].critic, state.critic)


@pytest.mark.slow
def test_phases(initial, updated):
    assert algorithm().needs.phases == {"critic_pretrain", "online"}
    assert same(run(initial, phase="critic_pretrain"), updated)


def test_states_can_be_donated_and_keep_their_structure():
    state = jax.jit(algorithm().init)(jax.random.key(0))
    shapes = jax.tree.map(lambda x: x.aval, state)
    for _ in range(2):
        leaves = jax.tree.leaves(state)
        assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
        state, _ = algorithm().update(state, BATCHES, jax.random.key(1), phase="online")
        assert all(leaf.is_deleted() for leaf in leaves)
        assert jax.tree.map(lambda x: x.aval, state) == shapes


@pytest.mark.slow
def test_the_temperature_follows_the_entropy(initial, updated):
    state, metrics = updated
    # Adam's first step has the size of the learning rate and the sign of the gradient
    sign = np.sign(metrics["policy/entropy"] - metrics["policy/target_entropy"])
    np.testing.assert_allclose(state.log_temperature.params, -sign * 1e-2, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backup_entropy", [True, False])
def test_target(initial, backup_entropy):
    chosen, batch, temperature = functions(backup_entropy=backup_entropy), row(BATCHES, 0), 0.7
    features = batch.next_observation["state"]
    eps = jnp.asarray(np.random.default_rng(0).standard_normal((8, 2, 2)).astype(np.float32))
    members = np.array([3, 1])

    @jax.jit
    def both(state):
        action, log_prob = chosen.sample(state.policy.params, features, eps)
        target = chosen.target(
            state.target_critic,
            state.policy.params,
            jnp.float32(temperature),
            batch,
            eps,
            jnp.asarray(members),
        )
        return target, Critic((16,), 4).apply(state.target_critic, features, action), log_prob

    target, q, log_prob = (np.asarray(x) for x in both(initial))
    value = q[members].min(axis=0) - backup_entropy * temperature * log_prob
    np.testing.assert_allclose(target, batch.reward + batch.discount * value, atol=1e-5)


@pytest.mark.slow
def test_policy_loss(initial):
    batch = row(BATCHES, 0)
    features = batch.observation["state"]
    eps = jnp.asarray(np.random.default_rng(0).standard_normal((8, 2, 2)).astype(np.float32))

    @jax.jit
    def both(state):
        action, log_prob = functions().sample(state.policy.params, features, eps)
        loss = functions().policy_loss(
            state.policy.params, state.critic.params, jnp.float32(0.3), batch, eps
        )
        return loss, Critic((16,), 4).apply(state.critic.params, features, action), log_prob

    (loss, metrics), q, log_prob = both(initial)
    expected = (0.3 * np.asarray(log_prob) - np.asarray(q).mean(axis=0)).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["policy/entropy"], -np.asarray(log_prob).mean(), rtol=1e-5)


@pytest.mark.slow
def test_the_policy_learns_from_the_last_minibatch(initial):
    """The policy as it was, under the critics as they are now."""
    # a policy that does as its mode for every key; a low temperature keeps the entropy, which
    # depends on the draw, from swamping the value
    start = dataclasses.replace(
        initial,
        policy=dataclasses.replace(initial.policy, params=certain(initial.policy.params)),
        log_temperature=dataclasses.replace(
            initial.log_temperature, params=np.float32(np.log(0.01))
        ),
    )
    state, metrics = run(start)

    @jax.jit
    def value(critic_params, features):
        action = jnp.tanh(functions().policy.apply(start.policy.params, features).mean)
        return Critic((16,), 4).apply(critic_params, features, action).mean()

    first, last = BATCHES.observation["state"]
    found = -metrics["policy/loss"] - 0.01 * metrics["policy/entropy"]
    np.testing.assert_allclose(found, value(state.critic.params, last), atol=2e-6)
    old = [value(critics, last) for critics in (start.critic.params, state.target_critic)]
    assert np.abs(np.array([*old, value(state.critic.params, first)]) - found).min() > 1e-4


@pytest.mark.slow
def test_evaluation_takes_the_mode(initial):
    params, observation = algorithm().acting(initial), row(BATCHES, 0).observation
    assert same(params, initial.policy.params)

    def act(seed, mode):
        decision = algorithm().act(params, observation, jax.random.key(seed), mode=mode)
        assert decision.info == {}
        return np.asarray(decision.action)

    mode = act(0, "evaluate")
    assert mode.shape == (8, 2, 2)
    np.testing.assert_array_equal(mode, act(1, "evaluate"))
    samples = [act(seed, "explore") for seed in range(200)]
    assert np.abs(samples).max() <= 1 and np.ptp(samples, axis=0).min() > 0
    # tanh is monotonous: the median of the samples is the mode
    assert np.abs(np.median(samples, axis=0) - mode).max() < 0.35
    assert np.abs(np.median(samples, axis=0) - mode).mean() < 0.08


@pytest.mark.slow
def test_the_average_follows_slowly(initial):
    one = jax.tree.map(lambda x: x[-1:], BATCHES)
    state, _ = run(initial, batches=one)
    expected = jax.tree.map(
        lambda new, old: 0.1 * new + 0.9 * old, state.critic.params, initial.target_critic
    )
    assert distance(state.target_critic, expected) < 1e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_min_qs": 5}, r"num_min_qs must be between 1 and num_qs=4, got 5"),
        ({"tau": 0.0}, r"tau must be in \(0, 1\], got 0.0"),
        ({"initial_temperature": -1.0}, r"initial_temperature must be positive, got -1.0"),
        ({"hidden": (0,)}, r"hidden must list at least one positive layer size, got \(0,\)"),
        ({"policy_learning_rate": -1.0}, r"policy_learning_rate must not be negative, got -1.0"),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(ValueError, match=message):
        algorithm(**changes)


def test_make_algorithm():
    assert make_algorithm("rlpd", CONFIG, SPEC, None).needs.phases == {"critic_pretrain", "online"}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"mode": "base"}, {"proposals": jnp.zeros((8, 3, 2, 2))}])
def test_there_is_no_base_policy(initial, options):
    assert not algorithm().has_base
    params, observation = algorithm().acting(initial), row(BATCHES, 0).observation
    with pytest.raises(ValueError, match="rlpd has no base policy that could act"):
        algorithm().act(params, observation, jax.random.key(0), **options)


def test_there_is_nothing_to_round():
    with pytest.raises(
        ValueError, match=r"rlpd samples no base policy.*precision must be float32, got bfloat16"
    ):
        rlpd(CONFIG, SPEC, precision="bfloat16")
