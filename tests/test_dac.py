"""DAC: one step against the official code's numbers, the optimum by hand, what acts, phases."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import DacConfig, dac
from exporl.algos.dac import Dac
from exporl.algos.regression import Noised, valid_mean
from exporl.nets.encoder import flat_observation
from exporl.policies import BaseConfig, make_base
from exporl.types import Spec
from helpers import twin
from helpers.batches import distance, random_batch, same, to_device, to_host
from helpers.draws import still
from helpers.known import BASE, SPEC, batch_of, known_models, official, with_known_networks

NUMBERS = official("dac")
KNOWN = DacConfig(
    imitation_weight=0.7,
    imitation_goal=0.4,
    pessimism=1.5,
    num_qs=3,
    tau=0.1,
)
CHUNKS = Spec((("state", (3,), "float32"),), 2, chunk_length=2, value_range=(-10.0, 0.0))
CONFIG = DacConfig(
    imitation_weight_rate=0.1,
    num_base_samples=3,
    num_target_samples=2,
    num_qs=2,
    hidden=(16,),
    tau=0.1,
    policy_every=2,
)
MODELS = ("base", "policy", "target_policy", "critic", "target_critic")
BATCHES = random_batch(CHUNKS, 3, 8)


def known(**changes):
    """The functions with stand-in networks, and the state that the numbers begin at."""
    config = dataclasses.replace(KNOWN, **changes)
    agent = with_known_networks(Dac.create(config, SPEC, BASE, "float32"), longest_gradient=1.0)
    state = jax.jit(agent.init)(jax.random.key(0))
    slow = {"w": 0.5 * NUMBERS["predict_w"]}
    return agent, state.replace(**known_models(agent, NUMBERS), target_policy=slow)


def noised(agent, batch):
    time, noise = jnp.asarray(NUMBERS["dac_time"]), jnp.asarray(NUMBERS["dac_noise"])[:, None]
    action, share = agent.regression.diffuse(batch.action, time, noise)
    return Noised(action, time[:, None].astype(jnp.float32), noise, share)


@pytest.mark.parametrize(("name", "rate"), [("fixed", 0.0), ("dual", 0.1)])
def test_a_step_of_the_policy_is_the_official_one(name, rate):
    agent, state = known(imitation_weight_rate=rate)
    batch = batch_of(NUMBERS)
    state, metrics = jax.jit(agent.update_policy)(state, batch, noised(agent, batch))
    expected = {key[4 + len(name) + 1 :]: v for key, v in NUMBERS.items() if f"dac_{name}_" in key}
    for ours, theirs in (
        ("loss", "actor_loss"),
        ("imitation", "bc_loss"),
        ("guidance", "guidance_loss"),
        ("imitation_weight", "eta"),
        ("gradient", "Q_grad_abs"),
        ("q_size", "Q_norm"),
    ):
        np.testing.assert_allclose(metrics[f"policy/{ours}"], expected[theirs], rtol=1e-4)
    np.testing.assert_allclose(state.policy.params["w"], expected["policy"], atol=2e-6)
    np.testing.assert_allclose(state.target_policy["w"], expected["average"], atol=2e-6)
    np.testing.assert_allclose(state.imitation_weight, expected["next_eta"], rtol=1e-6)
    assert np.abs(state.policy.params["w"] - NUMBERS["predict_w"]).max() > 1e-3


@pytest.mark.parametrize("value", ["mean", "max"])
def test_a_step_of_the_critics_is_the_official_one(value):
    agent, state = known(target_value=value)
    batch = batch_of(NUMBERS)
    samples = jnp.asarray(NUMBERS["samples"])[:, :, None]
    y = jax.jit(agent.target)(state.target_critic, batch, samples)
    features = flat_observation(batch.observation)
    critic, slow, metrics = jax.jit(agent.critic_trainer.step)(
        state.critic, state.target_critic, batch, features, y
    )
    np.testing.assert_allclose(
        metrics["critic/loss"], NUMBERS[f"dac_{value}_critic_loss"], rtol=1e-4
    )
    for leaf in ("first", "last"):
        for kind, found in (("critic", critic.params), ("slow", slow)):
            expected = NUMBERS[f"dac_{value}_{kind}_{leaf}"]
            np.testing.assert_allclose(found["params"][leaf], expected, atol=5e-6)


def test_the_best_noise_is_the_data_s_less_the_guidance():
    """|e - noise|^2 w + share g e is least at e = noise - share g / (2 w), by hand."""
    agent, state = known()
    free = dataclasses.replace(agent.regression, predict_noise=lambda params, *_: params)
    agent, batch = dataclasses.replace(agent, regression=free), batch_of(NUMBERS)
    given = noised(agent, batch)
    gradient = jnp.asarray(
        np.random.default_rng(0).standard_normal(batch.action.shape), jnp.float32
    )
    weight = state.imitation_weight
    best = given.noise - given.share * gradient / (2 * weight)
    slope = jax.jit(jax.grad(lambda e: agent.policy_loss(e, weight, batch, given, gradient)[0]))
    np.testing.assert_allclose(slope(best), 0, atol=1e-6)
    assert jnp.abs(slope(given.noise)).max() > 1e-3


def test_only_actions_inside_their_episode_count():
    values = jnp.array([[[1.0, 3.0], [5.0, 7.0]], [[9.0, 9.0], [9.0, 9.0]]])
    valid = jnp.array([[1.0, 1.0], [0.0, 0.0]])
    assert valid_mean(values, valid) == 4 and valid_mean(values, 0 * valid) == 0


@functools.cache
def base(kind="diffusion"):
    return make_base(BaseConfig(kind, num_steps=2, width=8, num_blocks=1, time_dim=4), CHUNKS)


@functools.cache
def algorithm():
    return dac(CONFIG, CHUNKS, still(base(), 3))


@pytest.fixture(scope="module")
def initial():
    """A state at step 0, with target critics and base that differ from what is learnt."""
    state = to_host(jax.jit(algorithm().init)(jax.random.key(0)))
    slow = jax.tree.map(lambda x: (0.8 * x).astype(x.dtype), state.critic.params)
    other = jax.tree.map(lambda x: (0.9 * x).astype(x.dtype), state.base.params)
    policy = dataclasses.replace(state.policy, params=other)
    return dataclasses.replace(state, target_critic=slow, policy=policy)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "moved"),
    [
        ("pretrain", {"base", "policy", "target_policy"}),
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
    assert state.updates == (0 if phase == "pretrain" else 3)
    if phase == "pretrain":
        assert same(state.policy.params, state.base.params)
        assert same(state.target_policy, state.base.params)
    assert jax.tree.structure(state) == jax.tree.structure(initial)
    assert list(map(np.shape, jax.tree.leaves(state))) == list(
        map(np.shape, jax.tree.leaves(initial))
    )


def test_the_policy_of_td_targets_follows_every_other_step():
    agent, state = known(policy_every=2)
    batch = batch_of(NUMBERS)
    first, _ = agent.update_policy(state, batch, noised(agent, batch))
    second, _ = agent.update_policy(first, batch, noised(agent, batch))
    third, _ = agent.update_policy(second, batch, noised(agent, batch))
    assert distance(first.target_policy, state.target_policy) > 1e-3
    assert same(second.target_policy, first.target_policy)
    assert distance(third.target_policy, second.target_policy) > 1e-4


@pytest.mark.slow
def test_the_best_of_its_samples_acts(initial):
    """Samples of the policy, ranked by the mean of the target critics."""
    acting = algorithm().acting(initial)
    observation = {name: jnp.asarray(value[0]) for name, value in BATCHES.observation.items()}
    noise = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, *base().noise_shape)))
    features = observation["state"]

    def drawn(params):
        repeated = jnp.repeat(noise, 8, axis=0)
        return np.asarray(jax.jit(base().decode)(params, {"state": features[:, None]}, repeated))

    samples = drawn(initial.policy.params)
    q = [twin.q_values(initial.target_critic, features, samples[:, i]) for i in range(3)]
    q = np.stack(q, axis=-1).mean(axis=0)
    found = algorithm().act(acting, observation, jax.random.key(0), mode="evaluate")
    np.testing.assert_array_equal(found.info["index"], q.argmax(axis=1))
    np.testing.assert_allclose(found.info["q"], q.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(found.action, samples[np.arange(8), q.argmax(axis=1)], atol=1e-5)
    alone = algorithm().act(acting, observation, jax.random.key(0), mode="base")
    np.testing.assert_allclose(alone.action, drawn(initial.base.params)[:, 0], atol=1e-5)
    with pytest.raises(ValueError, match="dac acts with samples of its own policy"):
        algorithm().act(acting, observation, jax.random.key(0), proposals=jnp.asarray(samples))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tau": 0.0}, r"tau must be in \(0, 1\], got 0.0"),
        ({"policy_every": 0}, "policy_every must be at least 1, got 0"),
        ({"pessimism": -1.0}, "pessimism must not be negative, got -1.0"),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(ValueError, match=message):
        dac(dataclasses.replace(CONFIG, **changes), CHUNKS, base())


def test_it_needs_a_diffusion():
    with pytest.raises(ValueError, match="dac needs a base policy"):
        dac(CONFIG, CHUNKS, None)
    with pytest.raises(ValueError, match=r"dac trains the noise .* Use base.kind=diffusion"):
        dac(CONFIG, CHUNKS, base("flow"))
