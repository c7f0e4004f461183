"""QAM-E: one step against the official code's numbers, what acts, phases."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import QamConfig, qam
from exporl.algos.edit_policy import Edited
from exporl.nets.encoder import flat_observation
from exporl.ops import adjoint
from exporl.ops.generative import flow_loss
from exporl.policies import BaseConfig, make_base
from helpers import twin
from helpers.batches import random_batch, same, to_device, to_host
from helpers.draws import certain, still
from helpers.known import official
from helpers.known_flow import BASE, SPEC, batch_of_chunks, known_qam, known_velocity

NUMBERS = official("qam")
KNOWN = QamConfig(q_weight=1.5, edit_scale=0.3, num_qs=3, tau=0.1)
CONFIG = QamConfig(num_base_samples=3, num_qs=2, hidden=(16,), tau=0.1)
MODELS = (
    "base",
    "slow_base",
    "policy",
    "edit",
    "critic",
    "target_critic",
    "log_temperature",
)
BATCHES = random_batch(SPEC, 3, 8)


def chunks(name):
    """An array of numbers, its last axis as chunks."""
    return jnp.asarray(NUMBERS[name].reshape(*NUMBERS[name].shape[:-1], 2, 2))


def test_paths_and_adjoints_are_the_official_ones():
    agent, state = known_qam(KNOWN, NUMBERS)
    observation = batch_of_chunks(NUMBERS).observation
    own = functools.partial(known_velocity, state.policy.params, observation)
    slow = functools.partial(known_velocity, state.slow_base, observation)
    path = jax.jit(functools.partial(adjoint.memoryless_path, own, slow))(chunks("path_noise"))
    np.testing.assert_allclose(path.states, chunks("path"), atol=1e-5)
    gradient = jax.jit(agent.end_gradient)(state.target_critic, observation, path.end)
    np.testing.assert_allclose(jnp.abs(gradient).max(), NUMBERS["adj_max"], rtol=1e-4)
    goal = jax.jit(functools.partial(adjoint.lean_adjoint, slow))(path.states, gradient)
    np.testing.assert_allclose(goal, chunks("adjoint"), rtol=1e-4, atol=1e-5)


def test_a_step_of_the_policy_is_the_official_one():
    agent, state = known_qam(KNOWN, NUMBERS)
    observation = batch_of_chunks(NUMBERS).observation
    policy, metrics = jax.jit(agent.update_policy)(state, observation, chunks("path_noise"))
    np.testing.assert_allclose(metrics["policy/loss"], NUMBERS["adj_loss"], rtol=1e-4)
    np.testing.assert_allclose(metrics["policy/gradient"], NUMBERS["adj_mean"], rtol=1e-4)
    np.testing.assert_allclose(policy.params["w"], NUMBERS["new_fast"], rtol=1e-4, atol=1e-4)
    assert np.abs(policy.params["w"] - NUMBERS["fast"]).max() > 0.1
    assert 0 < metrics["policy/beyond"] < 1


def test_a_step_of_the_critics_is_the_official_one():
    """With the official next action, which is the policy's sample, edited and clipped."""
    agent, state = known_qam(KNOWN, NUMBERS)
    batch = batch_of_chunks(NUMBERS)
    seen = {"state": batch.next_observation["state"][:, None]}
    flow = jax.jit(BASE.decode)(state.policy.params, seen, chunks("next_flow_noise"))
    np.testing.assert_allclose(flow, chunks("next_flow"), atol=1e-5)
    edits = jax.jit(agent.edit.edit)(state.edit.params, seen["state"], flow, chunks("next_eps"))
    action = chunks("next_action")
    np.testing.assert_allclose(edits.action[:, 0], action, atol=1e-5)
    y = jax.jit(agent.target)(state.target_critic, batch, action)
    critic, _, metrics = jax.jit(agent.critic_trainer.step)(
        state.critic, state.target_critic, batch, flat_observation(batch.observation), y
    )
    np.testing.assert_allclose(metrics["critic/loss"], NUMBERS["critic_loss"], rtol=1e-4)
    np.testing.assert_allclose(metrics["critic/q_mean"], NUMBERS["q_mean"], rtol=1e-4)
    for leaf in ("first", "last"):
        np.testing.assert_allclose(critic.params["params"][leaf], NUMBERS[f"new_{leaf}"], atol=2e-5)


def test_a_step_of_the_edit_policy_is_the_official_one():
    """The source's density is of the edit before scaling: d ln(scale) apart."""
    agent, state = known_qam(KNOWN, NUMBERS)
    features = flat_observation(batch_of_chunks(NUMBERS).observation)
    given = Edited(features, chunks("edit_flow"), state.critic.params)
    eps = chunks("edit_eps")
    edit, log_temperature, metrics = jax.jit(agent.edit.step)(
        state.edit, state.log_temperature, given, eps, signs=jnp.ones_like(eps)
    )
    scaled = 4 * np.log(0.3)
    np.testing.assert_allclose(metrics["edit/entropy"], NUMBERS["edit_entropy"] + scaled, rtol=1e-4)
    np.testing.assert_allclose(metrics["edit/target_entropy"], -2 + scaled, rtol=1e-6)
    loss = NUMBERS["edit_q_loss"] + NUMBERS["edit_entropy_loss"] - NUMBERS["edit_alpha"] * scaled
    np.testing.assert_allclose(metrics["edit/loss"], loss, rtol=1e-4)
    for leaf in ("mean", "log_std"):
        expected = NUMBERS[f"new_edit_{leaf}"]
        np.testing.assert_allclose(edit.params["params"][leaf], expected, atol=2e-5)
        assert np.abs(expected - NUMBERS[f"edit_{leaf}"]).max() > 1e-2
    np.testing.assert_allclose(log_temperature.params, NUMBERS["new_log_temperature"], rtol=1e-5)


def test_the_base_s_loss_is_the_official_one():
    """Summed over the actions' dimensions, where the source takes their mean."""
    batch = batch_of_chunks(NUMBERS)
    velocity = functools.partial(known_velocity, {"w": NUMBERS["live_slow"]}, batch.observation)
    time, noise = jnp.asarray(NUMBERS["flow_time"][:, 0]), chunks("flow_noise")
    loss = flow_loss(velocity, batch.action, time, noise, batch.valid)
    np.testing.assert_allclose(loss / 2, NUMBERS["flow_loss"], rtol=1e-5)


@functools.cache
def base(kind="flow"):
    return make_base(BaseConfig(kind, num_steps=2, width=8, num_blocks=1, time_dim=4), SPEC)


@functools.cache
def algorithm(**changes):
    return qam(dataclasses.replace(CONFIG, **changes), SPEC, still(base(), 3))


@pytest.fixture(scope="module")
def initial():
    """A state at step 0 with a policy of its own, slow copies, and edits without spread."""
    state = to_host(jax.jit(algorithm().init)(jax.random.key(0)))

    def scaled(params, factor):
        return jax.tree.map(lambda x: (factor * x).astype(x.dtype), params)

    return dataclasses.replace(
        state,
        slow_base=scaled(state.base.params, 0.8),
        policy=dataclasses.replace(state.policy, params=scaled(state.base.params, 0.9)),
        edit=dataclasses.replace(state.edit, params=certain(state.edit.params)),
        target_critic=scaled(state.critic.params, 0.8),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "changes", "still_there"),
    [
        ("pretrain", {}, {"edit", "critic", "target_critic", "log_temperature"}),
        ("critic_pretrain", {}, set()),
        ("online", {}, set()),
        ("online", {"edits": False}, {"edit", "log_temperature"}),
    ],
)
def test_phases(initial, phase, changes, still_there):
    """Imitation makes policy and slow copy those of the base; then everything learns."""
    made = algorithm(**changes).update
    state, metrics = to_host(made(to_device(initial), BATCHES, jax.random.key(1), phase=phase))
    assert {n for n in MODELS if same(getattr(state, n), getattr(initial, n))} == still_there
    assert all(np.isfinite(value) for value in metrics.values())
    if phase == "pretrain":
        assert same(state.policy.params, state.base.params)
        assert same(state.slow_base, state.base.params)
    assert jax.tree.structure(state) == jax.tree.structure(initial)
    shapes, before = (list(map(np.shape, jax.tree.leaves(tree))) for tree in (state, initial))
    assert shapes == before


@pytest.mark.slow
@pytest.mark.parametrize("edits", [True, False])
def test_the_best_of_its_edited_samples_acts(initial, edits):
    """Samples of the policy, moved by the edit policy's mean, ranked by the mean of the critics."""
    made = algorithm(edits=edits)
    acting = made.acting(initial)
    observation = {name: jnp.asarray(value[0]) for name, value in BATCHES.observation.items()}
    noise = np.random.default_rng(0).standard_normal((1, 3, *base().noise_shape))
    features = observation["state"]

    def drawn(params):
        repeated = jnp.repeat(jnp.asarray(noise), 8, axis=0)
        return np.asarray(jax.jit(base().decode)(params, {"state": features[:, None]}, repeated))

    samples = drawn(initial.policy.params)
    if edits:
        layers = twin.numbers(initial.edit.params["params"])
        wide = np.repeat(np.asarray(features)[:, None], 3, axis=1)
        inputs = np.concatenate([wide, samples.reshape(8, 3, 4)], axis=-1)
        mean = twin.dense(layers["mean"], twin.mlp(layers["MLP_0"], inputs))
        samples = np.clip(samples + 0.1 * np.tanh(mean).reshape(samples.shape), -1, 1)
    q = [twin.q_values(initial.critic.params, features, samples[:, i]) for i in range(3)]
    q = np.stack(q, axis=-1).mean(axis=0)
    for mode in ("explore", "evaluate"):
        found = made.act(acting, observation, jax.random.key(0), mode=mode)
        np.testing.assert_allclose(found.info["q"], q.max(axis=1), atol=1e-5)
        best = samples[np.arange(8), q.argmax(axis=1)]
        np.testing.assert_allclose(found.action, best, atol=1e-5)
    alone = made.act(acting, observation, jax.random.key(0), mode="base")
    np.testing.assert_allclose(alone.action, drawn(initial.base.params)[:, 0], atol=1e-5)
    with pytest.raises(ValueError, match="qam acts with samples of its own policy"):
        made.act(acting, observation, jax.random.key(0), proposals=jnp.asarray(samples))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q_weight": -1.0}, "q_weight must not be negative, got -1.0"),
        ({"edit_scale": 0.0}, r"edit_scale must be in \(0, 2\], got 0.0; for no edits"),
        ({"num_qs": 0}, "num_qs must be at least 1, got 0"),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(ValueError, match=message):
        qam(dataclasses.replace(CONFIG, **changes), SPEC, base())


def test_it_needs_a_flow():
    with pytest.raises(ValueError, match="qam needs a base policy"):
        qam(CONFIG, SPEC, None)
    with pytest.raises(ValueError, match=r"qam moves the velocity .* Use base.kind=flow"):
        qam(CONFIG, SPEC, base("diffusion"))
