"""The networks: shapes, broadcasting, and the equivalences that the fast paths rely on."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos.common import min_q
from exporl.nets.critic import Critic
from exporl.nets.denoiser import Denoiser
from exporl.nets.gaussian import LOG_STD_MAX, LOG_STD_MIN, TanhGaussian
from exporl.nets.mlp import SplitDense, flat_action, flat_observation
from exporl.ops.ensemble import take_members

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def normals(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.fixture(scope="module")
def critic():
    net = Critic((16, 16), 4)
    return net, jax.jit(net.init)(jax.random.key(0), {"state": normals(0, 1, 3)}, normals(1, 1, 2, 2))


@pytest.fixture(scope="module")
def denoiser():
    net = Denoiser(width=16, num_blocks=2, time_dim=8)

    def init(key, observation, x, time):
        return net.init(key, observation, x, time, method=lambda m, o, x, t: m(o, x, m.embed(t)))

    return net, jax.jit(init)(jax.random.key(0), {"state": normals(0, 1, 3)}, normals(1, 1, 2, 2), jnp.ones((1, 1)))


def test_flat_observation_sorts_names():
    got = flat_observation({"b": np.array([[3.0]], np.float32), "a": np.array([[1.0, 2.0]], np.float32)})
    np.testing.assert_array_equal(got, [[1, 2, 3]])


def test_flat_action():
    action = jnp.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(flat_action(action), np.arange(12).reshape(2, 6))
    assert flat_action(jnp.zeros((4, 5, 3, 2))).shape == (4, 5, 6)


def test_split_dense_equals_dense_on_the_concatenation():
    observation, action, time = normals(0, 5, 3), normals(1, 5, 2), normals(2, 5, 4)
    params = SplitDense(7).init(jax.random.key(0), observation, action, time)
    params = {"params": {"kernel": params["params"]["kernel"], "bias": normals(3, 7)}}
    joined = nn.Dense(7).apply(params, jnp.concatenate([observation, action, time], axis=-1))
    np.testing.assert_allclose(SplitDense(7).apply(params, observation, action, time), joined, **CLOSE)
    assert params["params"]["kernel"].shape == (9, 7)


def test_split_dense_broadcasts():
    observation, action = normals(0, 5, 1, 3), normals(1, 5, 6, 2)
    params = {"params": {"kernel": normals(2, 5, 7), "bias": normals(3, 7)}}
    repeated = jnp.broadcast_to(observation, (5, 6, 3))
    joined = nn.Dense(7).apply(params, jnp.concatenate([repeated, action], axis=-1))
    np.testing.assert_allclose(SplitDense(7).apply(params, observation, action), joined, **CLOSE)


def test_critic_shapes(critic):
    net, params = critic
    assert all(leaf.shape[0] == 4 for leaf in jax.tree.leaves(params))
    assert net.apply(params, {"state": normals(0, 5, 3)}, normals(1, 5, 2, 2)).shape == (4, 5)
    assert net.apply(params, {"state": normals(0, 5, 1, 3)}, normals(1, 5, 6, 2, 2)).shape == (4, 5, 6)


def test_critic_members_are_independent(critic):
    net, params = critic
    for kernel in (x for x in jax.tree.leaves(params) if np.ptp(np.asarray(x)) > 0):
        assert not np.array_equal(kernel[0], kernel[1])
    observation, action = {"state": normals(0, 5, 3)}, normals(1, 5, 2, 2)
    grads = jax.grad(lambda p: net.apply(p, observation, action)[2].sum())(params)
    moved = np.array([max(np.abs(leaf[i]).max() for leaf in jax.tree.leaves(grads)) for i in range(4)])
    np.testing.assert_array_equal(moved > 0, [False, False, True, False])


def test_critic_of_some_members_equals_the_full_ensemble(critic):
    net, params = critic
    observation, candidates, members = {"state": normals(0, 5, 3)}, normals(1, 5, 6, 2, 2), jnp.array([3, 1])
    full = net.apply(params, {"state": observation["state"][:, None]}, candidates)
    some = Critic((16, 16), 2).apply(take_members(params, members), {"state": observation["state"][:, None]}, candidates)
    np.testing.assert_allclose(some, full[np.array([3, 1])], **CLOSE)
    np.testing.assert_allclose(min_q((16, 16), params, observation, candidates, members), some.min(axis=0), **CLOSE)
    repeated = jnp.broadcast_to(observation["state"][:, None], (5, 6, 3))
    np.testing.assert_allclose(net.apply(params, {"state": repeated}, candidates), full, **CLOSE)


@pytest.mark.parametrize("conditioned", [True, False])
def test_tanh_gaussian_shapes(conditioned):
    net, observation = TanhGaussian((16,), chunk_length=3, action_dim=2), {"state": normals(0, 5, 1, 3)}
    action = normals(1, 5, 4, 3, 2) if conditioned else None
    params = net.init(jax.random.key(0), observation, action)
    mean, log_std = net.apply(params, observation, action)
    assert mean.shape == log_std.shape == ((5, 4, 3, 2) if conditioned else (5, 1, 3, 2))
    assert params["params"]["MLP_0"]["Dense_0"]["kernel"].shape == (3 + 6 * conditioned, 16)


def test_tanh_gaussian_bounds_its_log_std():
    net, observation = TanhGaussian((16,), chunk_length=1, action_dim=2), {"state": normals(0, 50, 3)}
    params = net.init(jax.random.key(0), observation)
    params["params"]["log_std"]["bias"] = jnp.array([100.0, -100.0])
    _, log_std = net.apply(params, observation)
    np.testing.assert_array_equal(log_std[:, 0], np.tile([LOG_STD_MAX, LOG_STD_MIN], (50, 1)))
    assert (LOG_STD_MIN, LOG_STD_MAX) == (-20, 2)


def test_dropout_only_when_not_deterministic():
    net, observation = TanhGaussian((32,), 1, 2, dropout=0.5), {"state": normals(0, 8, 3)}
    params = net.init(jax.random.key(0), observation)

    def mean(seed=None):
        rngs = None if seed is None else {"dropout": jax.random.key(seed)}
        return net.apply(params, observation, deterministic=seed is None, rngs=rngs)[0]

    without = TanhGaussian((32,), 1, 2).apply(params, observation)[0]
    np.testing.assert_array_equal(mean(), without)
    assert not np.array_equal(mean(1), without) and not np.array_equal(mean(1), mean(2))
    np.testing.assert_array_equal(mean(1), mean(1))


def test_denoiser_broadcasts_observation_and_condition(denoiser):
    net, params = denoiser
    observation, x = {"state": normals(0, 5, 1, 3)}, normals(1, 5, 4, 2, 2)
    condition = net.apply(params, jnp.array([[2.0]]), method="embed")
    assert condition.shape == (1, 16)
    got = net.apply(params, observation, x, condition[:, None])
    assert got.shape == x.shape
    full = {"state": jnp.broadcast_to(observation["state"], (5, 4, 3))}
    np.testing.assert_allclose(got, net.apply(params, full, x, jnp.broadcast_to(condition, (5, 4, 16))), **CLOSE)
    alone = net.apply(params, {"state": observation["state"][3]}, x[3, 2][None], condition)
    np.testing.assert_allclose(got[3, 2], alone[0], **CLOSE)


def test_denoiser_listens_to_all_its_inputs(denoiser):
    net, params = denoiser

    def output(state, x, time):
        return net.apply(params, {"state": state}, x, net.apply(params, time, method="embed")).sum()

    grads = jax.jit(jax.grad(output, argnums=(0, 1, 2)))(normals(0, 5, 3), normals(1, 5, 2, 2), normals(2, 5, 1))
    for grad in grads:
        assert (np.abs(np.asarray(grad)).reshape(5, -1).max(axis=1) > 0).all()
