"""Both base policies: bounded, deterministic in their noise, blind to masked rows, and able to hold
two modes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.nets.denoiser import Denoiser
from exporl.ops.generative import ddpm_loss, flow_loss, vp_schedule
from exporl.policies import BaseConfig, make_base
from exporl.policies.base import learning_rate, propose
from exporl.policies.flow import TIME_SCALE
from exporl.types import Batch, Spec
from helpers.batches import distance, random_batch, same

KINDS = ("flow", "diffusion")
TINY = BaseConfig(
    num_steps=3, width=16, num_blocks=1, time_dim=8, learning_rate=3e-3, decay_steps=0
)


def spec(chunk_length=2, action_dim=2):
    return Spec((("state", (3,), "float32"),), action_dim, chunk_length)


def make(kind, spec, **changes):
    return make_base(dataclasses.replace(TINY, kind=kind, **changes), spec)


def random_params(base, scale=0.3):
    leaves, structure = jax.tree.flatten(jax.eval_shape(base.init, jax.random.key(0)))
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(
        structure, [scale * rng.standard_normal(leaf.shape).astype(np.float32) for leaf in leaves]
    )


def normals(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_decode(kind):
    base = make(kind, spec())
    params, decode = random_params(base), jax.jit(base.decode)
    state, noise = normals(0, 2, 3, 3), 3 * normals(1, 2, 3, *base.noise_shape)
    action = np.asarray(decode(params, {"state": state}, noise))
    assert action.shape == (2, 3, 2, 2)
    np.testing.assert_array_equal(action, decode(params, {"state": state}, noise))
    assert np.abs(action).max() == 1 and np.abs(action).min() < 1
    other = np.asarray(
        decode(params, {"state": state}, noise + (np.arange(3) == 1)[:, *[None] * (noise.ndim - 2)])
    )
    assert not np.array_equal(action[:, 1], other[:, 1])
    np.testing.assert_allclose(action[:, [0, 2]], other[:, [0, 2]], atol=1e-6)
    alone = decode(params, {"state": state[1, 2]}, noise[1, 2])
    np.testing.assert_allclose(action[1, 2], alone, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk_length", [1, 3])
def test_shapes(kind, chunk_length):
    task = spec(chunk_length, action_dim=1)
    base = make(kind, task)
    assert base.noise_shape == ((chunk_length, 1) if kind == "flow" else (3, chunk_length, 1))
    params = random_params(base)
    for lead in ((), (4,), (2, 4), (1, 2, 4)):
        noise = jnp.zeros((*lead, *base.noise_shape))
        action = jax.eval_shape(base.decode, params, {"state": jnp.zeros((*lead, 3))}, noise)
        assert action.shape == (*lead, chunk_length, 1)


@pytest.mark.slow
def test_propose():
    task = spec()
    base = make("flow", task)
    params, state = random_params(base), normals(0, 4, 3)
    draw = jax.jit(lambda key: propose(base, params, {"state": jnp.asarray(state)}, 5, key, task))
    actions = np.asarray(draw(jax.random.key(0)))
    assert actions.shape == (4, 5, 2, 2)
    assert len(np.unique(actions.reshape(20, 4), axis=0)) == 20
    np.testing.assert_array_equal(actions, draw(jax.random.key(0)))
    # the noise alone, from a policy that does nothing with it
    echo = base._replace(decode=lambda params, observation, noise: noise)
    noise = propose(echo, None, {"state": jnp.asarray(state)}, 5, jax.random.key(0), task)
    many = np.asarray(
        propose(echo, None, {"state": jnp.zeros((1000, 3))}, 5, jax.random.key(0), task)
    )
    tail = (np.abs(many) > 2).mean()
    np.testing.assert_allclose([many.mean(), many.std(), tail], [0, 1, 0.0455], atol=0.03)
    assert abs(tail - 0.0455) < 0.006
    repeated = np.broadcast_to(state[:, None], (4, 5, 3))
    np.testing.assert_allclose(
        actions, jax.jit(base.decode)(params, {"state": repeated}, noise), atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_weights_mask_rows_exactly(kind):
    base, batch = make(kind, spec()), random_batch(spec(), 6)
    params = random_params(base)
    loss = jax.jit(jax.value_and_grad(base.loss, has_aux=True))
    weight = np.array([1, 1, 0, 1, 0, 1], np.float32)
    masked = (weight == 0)[:, None, None]
    other = dataclasses.replace(batch, action=np.where(masked, -batch.action, batch.action))
    (value, metrics), grad = loss(params, batch, weight, jax.random.key(0))
    assert metrics["base/loss"] == value
    assert same(((value, metrics), grad), loss(params, other, weight, jax.random.key(0)))
    everything = np.ones(6, np.float32)
    full, altered = (loss(params, rows, everything, jax.random.key(0)) for rows in (batch, other))
    assert full[0][0] != altered[0][0] and full[0][0] != value and distance(full[1], altered[1]) > 0
    invalid = dataclasses.replace(batch, valid=batch.valid * weight[:, None])
    assert same(((value, metrics), grad), loss(params, invalid, everything, jax.random.key(0)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_loss_draws_noise_and_times(kind):
    """Over many keys the loss is spread as that of the operations is, at standard normal noise and
    uniform times that are drawn for every row."""
    rows, draws = 16, 4000
    base, batch, net = (
        make(kind, spec()),
        jax.tree.map(jnp.asarray, random_batch(spec(), rows)),
        Denoiser(TINY.width, TINY.num_blocks, time_dim=8),
    )
    params, rng = random_params(base, scale=0.6), np.random.default_rng(1)
    noise = normals(2, draws, rows, 2, 2)
    time = (
        rng.uniform(size=(draws, rows)) if kind == "flow" else rng.integers(3, size=(draws, rows))
    )

    def network(x, t):
        condition = net.apply(params, t * (TIME_SCALE if kind == "flow" else 1), method="embed")
        return net.apply(params, batch.observation["state"], x, condition)

    @jax.jit
    @jax.vmap
    def operation(time, noise):
        if kind == "flow":
            return flow_loss(network, batch.action, time, noise, batch.valid)
        return ddpm_loss(network, vp_schedule(3), batch.action, time, noise, batch.valid)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def loss(params, key):
        return base.loss(params, batch, jnp.ones(rows), key)[0]

    found = np.asarray(loss(params, jax.random.split(jax.random.key(0), draws)))
    expected = np.asarray(operation(time.astype(np.float32 if kind == "flow" else np.int32), noise))
    assert len(np.unique(found)) > 0.99 * draws
    error = np.sqrt((found.var() + expected.var()) / draws)
    assert abs(found.mean() - expected.mean()) < 4 * error
    # of a normal distribution, the estimated spread has a relative standard error of 1/sqrt(2 n)
    assert abs(np.log(found.std() / expected.std())) < 5 / np.sqrt(draws)
    # a network that predicts 0 leaves the square of its target: noise, and the action of a flow
    nothing = loss(jax.tree.map(np.zeros_like, params), jax.random.split(jax.random.key(1), draws))
    action = np.square(batch.action).sum(axis=-1).mean() if kind == "flow" else 0
    np.testing.assert_allclose(nothing.mean(), 2 + action, atol=0.04)


@pytest.mark.parametrize("name", ["num_steps", "width", "num_blocks", "time_dim"])
@pytest.mark.parametrize("kind", KINDS)
def test_sizes_must_be_positive(kind, name):
    with pytest.raises(ValueError, match=rf"base\.{name} must be (at least |in \[)1.*, got 0"):
        make(kind, spec(), **{name: 0})


def test_time_dim_must_be_even():
    with pytest.raises(ValueError, match=r"base\.time_dim must be even .*, got 7"):
        make("flow", spec(), time_dim=7)


def test_unknown_kind():
    config = dataclasses.replace(TINY)
    object.__setattr__(config, "kind", "gaussian")
    with pytest.raises(
        ValueError, match=r"base\.kind must be one of flow, diffusion; got 'gaussian'"
    ):
        make_base(config, spec())


def test_learning_rate():
    assert learning_rate(0.5, 0) == 0.5
    schedule = learning_rate(0.5, 100)
    np.testing.assert_allclose(
        [schedule(0), schedule(50), schedule(100)], [0.5, 0.25, 0.0], atol=1e-7
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_learns_two_modes(kind):
    task, share = Spec((("state", (1,), "float32"),), action_dim=1), 0.7
    base = make(kind, task, num_steps=10, width=32, decay_steps=600)

    def batch(key):
        mode_key, noise_key = jax.random.split(key)
        mode = jnp.where(jax.random.bernoulli(mode_key, share, (128,)), 0.6, -0.4)
        action = mode[:, None, None] + 0.05 * jax.random.normal(noise_key, (128, 1, 1))
        state, one = {"state": jnp.zeros((128, 1))}, jnp.ones(128)
        return Batch(state, action, one, one, state, jnp.ones((128, 1)), one, one)

    def step(carry, key):
        params, opt_state = carry
        data_key, loss_key = jax.random.split(key)
        grads, _ = jax.grad(base.loss, has_aux=True)(
            params, batch(data_key), jnp.ones(128), loss_key
        )
        updates, opt_state = base.optimizer.update(grads, opt_state, params)
        return (jax.tree.map(jnp.add, params, updates), opt_state), None

    @jax.jit
    def train_and_sample(key):
        init_key, train_key, sample_key = jax.random.split(key, 3)
        params = base.init(init_key)
        keys = jax.random.split(train_key, 600)
        (params, _), _ = jax.lax.scan(step, (params, base.optimizer.init(params)), keys)
        return propose(base, params, {"state": jnp.zeros((1, 1))}, 2000, sample_key, task)

    samples = np.asarray(train_and_sample(jax.random.key(0))).ravel()
    upper = samples > 0.1
    np.testing.assert_allclose(upper.mean(), share, atol=0.08)
    np.testing.assert_allclose(np.median(samples[upper]), 0.6, atol=0.05)
    np.testing.assert_allclose(np.median(samples[~upper]), -0.4, atol=0.05)
    assert (np.minimum(np.abs(samples - 0.6), np.abs(samples + 0.4)) < 0.2).mean() > 0.8
