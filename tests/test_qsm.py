"""QSM: one step against the official code's numbers, the optimum by hand, what acts, phases."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import QsmConfig, qsm
from exporl.algos.qsm import Qsm
from exporl.algos.regression import Noised
from exporl.nets.encoder import flat_observation
from exporl.policies import BaseConfig, make_base
from exporl.types import Spec
from helpers import twin
from helpers.batches import random_batch, same, to_device, to_host
from helpers.draws import still
from helpers.known import BASE, SPEC, batch_of, known_models, official, with_known_networks

NUMBERS = official("qsm")
KNOWN = QsmConfig(q_weight=2.0, tau=0.1)
CHUNKS = Spec((("state", (3,), "float32"),), 2, chunk_length=2, value_range=(-10.0, 0.0))
CONFIG = QsmConfig(imitation_weight=1.0, hidden=(16,), tau=0.1, noise=0.2)
MODELS = ("base", "policy", "critic", "target_critic")
BATCHES = random_batch(CHUNKS, 3, 8)


def known(**changes):
    """The functions with stand-in networks, and the state that the numbers begin at."""
    agent = with_known_networks(Qsm.create(dataclasses.replace(KNOWN, **changes), SPEC, BASE))
    return agent, jax.jit(agent.init)(jax.random.key(0)).replace(**known_models(agent, NUMBERS))


def noised(agent, batch):
    time, noise = jnp.asarray(NUMBERS["qsm_time"]), jnp.asarray(NUMBERS["qsm_noise"])[:, None]
    action, share = agent.regression.diffuse(batch.action, time, noise)
    return Noised(action, time[:, None].astype(jnp.float32), noise, share)


def test_a_step_of_the_policy_is_the_official_one():
    agent, state = known()
    batch = batch_of(NUMBERS)
    state, metrics = jax.jit(agent.update_policy)(state, batch, noised(agent, batch))
    np.testing.assert_allclose(metrics["policy/loss"], NUMBERS["qsm_actor_loss"], rtol=1e-4)
    np.testing.assert_allclose(state.policy.params["w"], NUMBERS["qsm_policy"], atol=2e-6)
    assert np.abs(state.policy.params["w"] - NUMBERS["predict_w"]).max() > 1e-3


def test_td_targets_are_the_official_ones():
    """Mean less one deviation of two critics is their minimum."""
    agent, state = known()
    batch = batch_of(NUMBERS)
    action = jnp.asarray(NUMBERS["qsm_next_action"])[:, None]
    y = jax.jit(agent.target)(state.target_critic, batch, action)
    for name in ("mean", "min", "max"):
        found = getattr(y, name)()
        np.testing.assert_allclose(found, NUMBERS[f"qsm_target_q_{name}"], rtol=1e-5)
    _, _, metrics = jax.jit(agent.critic_trainer.step)(
        state.critic, state.target_critic, batch, flat_observation(batch.observation), y
    )
    loss = (NUMBERS["qsm_c_loss_mean_1"] + NUMBERS["qsm_c_loss_mean_2"]) / 2
    np.testing.assert_allclose(metrics["critic/loss"], loss, rtol=1e-4)


def test_the_best_noise_lies_between_score_and_data():
    """(e + score)^2 + w (e - noise)^2 is least at (w noise - score) / (w + 1), by hand."""
    agent, _ = known(imitation_weight=3.0)
    free = dataclasses.replace(agent.regression, predict_noise=lambda params, *_: params)
    agent, batch = dataclasses.replace(agent, regression=free), batch_of(NUMBERS)
    given = noised(agent, batch)
    score = jnp.asarray(np.random.default_rng(0).standard_normal(batch.action.shape), jnp.float32)
    slope = jax.jit(jax.grad(lambda e: agent.policy_loss(e, batch, given, score)[0]))
    np.testing.assert_allclose(slope((3 * given.noise - score) / 4), 0, atol=1e-6)
    assert jnp.abs(slope(given.noise)).max() > 1e-3


@pytest.mark.parametrize("of", ["critic", "target"])
def test_whose_gradient_is_matched(of):
    """At the two critics' last layers, written out."""
    agent, state = known(gradient_of=of)
    batch = batch_of(NUMBERS)
    given = noised(agent, batch)
    _, metrics = jax.jit(agent.update_policy)(state, batch, given)
    inputs = np.concatenate([NUMBERS["observation"], np.asarray(given.action[:, 0])], axis=1)
    last = NUMBERS["last" if of == "critic" else "last_target"][:, :2].mean(axis=1)
    inner = (1 - np.tanh(inputs @ NUMBERS["first"]) ** 2) * last
    slope = inner @ NUMBERS["first"][3:].T
    np.testing.assert_allclose(metrics["policy/gradient"], np.abs(2 * slope).mean(), rtol=1e-4)


@functools.cache
def base(kind="diffusion"):
    return make_base(BaseConfig(kind, num_steps=2, width=8, num_blocks=1, time_dim=4), CHUNKS)


@functools.cache
def algorithm():
    return qsm(CONFIG, CHUNKS, still(base(), 1))


@pytest.fixture(scope="module")
def initial():
    """A state at step 0 whose policy differs from its base."""
    state = to_host(jax.jit(algorithm().init)(jax.random.key(0)))
    other = jax.tree.map(lambda x: (0.9 * x).astype(x.dtype), state.base.params)
    return dataclasses.replace(state, policy=dataclasses.replace(state.policy, params=other))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "moved"),
    [
        ("pretrain", {"base", "policy"}),
        ("critic_pretrain", set(MODELS) - {"base"}),
        ("online", set(MODELS) - {"base"}),
    ],
)
def test_phases(initial, phase, moved):
    """Imitation makes the policy a copy of the base, which then stands still."""
    made = algorithm().update
    state, metrics = to_host(made(to_device(initial), BATCHES, jax.random.key(1), phase=phase))
    assert {n for n in MODELS if not same(getattr(state, n), getattr(initial, n))} == moved
    assert all(np.isfinite(value) for value in metrics.values())
    if phase == "pretrain":
        assert same(state.policy.params, state.base.params)
    assert jax.tree.structure(state) == jax.tree.structure(initial)
    assert list(map(np.shape, jax.tree.leaves(state))) == list(
        map(np.shape, jax.tree.leaves(initial))
    )


@pytest.mark.slow
def test_its_own_sample_acts_and_explores_with_noise(initial):
    acting = algorithm().acting(initial)
    observation = {name: jnp.asarray(value[0]) for name, value in BATCHES.observation.items()}
    noise = jnp.asarray(np.random.default_rng(0).standard_normal((1, 1, *base().noise_shape)))

    def drawn(params):
        seen = {"state": observation["state"][:, None]}
        repeated = jnp.repeat(noise, 8, axis=0)
        return np.asarray(jax.jit(base().decode)(params, seen, repeated))[:, 0]

    own = drawn(initial.policy.params)
    found = algorithm().act(acting, observation, jax.random.key(0), mode="evaluate")
    np.testing.assert_allclose(found.action, own, atol=1e-5)
    q = twin.q_values(initial.critic.params, observation["state"], own).mean(axis=0)
    np.testing.assert_allclose(found.info["q"], q, atol=1e-5)
    explored = np.stack(
        [algorithm().act(acting, observation, jax.random.key(i)).action for i in range(40)]
    )
    assert np.abs(explored).max() <= 1
    inside = np.abs(own) < 0.3
    np.testing.assert_allclose(explored.std(axis=0)[inside], 0.2, rtol=0.5)
    alone = algorithm().act(acting, observation, jax.random.key(0), mode="base")
    np.testing.assert_allclose(alone.action, drawn(initial.base.params), atol=1e-5)
    with pytest.raises(ValueError, match="qsm acts with samples of its own policy"):
        algorithm().act(acting, observation, jax.random.key(0), proposals=jnp.asarray(own)[:, None])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q_weight": -1.0}, "q_weight must not be negative, got -1.0"),
        ({"num_qs": 0}, "num_qs must be at least 1, got 0"),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(ValueError, match=message):
        qsm(dataclasses.replace(CONFIG, **changes), CHUNKS, base())


def test_it_needs_a_diffusion():
    with pytest.raises(ValueError, match="qsm needs a base policy"):
        qsm(CONFIG, CHUNKS, None)
    with pytest.raises(ValueError, match=r"qsm trains the noise .* Use base.kind=diffusion"):
        qsm(CONFIG, CHUNKS, base("flow"))
