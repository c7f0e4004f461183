"""The networks: shapes, broadcasting, and the equivalences that the fast paths rely on."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.nets.critic import Critic, min_q
from exporl.nets.denoiser import Denoiser
from exporl.nets.encoder import flat_observation
from exporl.nets.gaussian import LOG_STD_MAX, LOG_STD_MIN, TanhGaussian
from exporl.nets.mlp import SplitDense, flat_action
from exporl.ops.ensemble import take_members

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def normals(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def random_params(init, *inputs):
    """Random numbers in the shapes that `init` gives: biases are not zero, and nothing has to be
    compiled."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(init, jax.random.key(0), *inputs))
    return jax.tree.unflatten(
        structure, [0.4 * normals(i, *leaf.shape) for i, leaf in enumerate(leaves)]
    )


@pytest.fixture(scope="module")
def critic():
    net = Critic((16, 16), 4)
    return jax.jit(net.apply), random_params(net.init, normals(0, 1, 3), normals(1, 1, 2, 2))


@pytest.fixture(scope="module")
def denoiser():
    net = Denoiser(width=16, num_blocks=1, time_dim=8)

    def init(*inputs):
        return net.init(*inputs, method="with_time")

    return net, random_params(init, normals(0, 1, 3), normals(1, 1, 2, 2), normals(2, 1, 1))


def test_flat_observation_sorts_names():
    got = flat_observation(
        {"b": np.array([[3.0]], np.float32), "a": np.array([[1.0, 2.0]], np.float32)}
    )
    np.testing.assert_array_equal(got, [[1, 2, 3]])


def test_flat_action():
    action = jnp.asarray(normals(0, 4, 5, 3, 2))
    np.testing.assert_array_equal(flat_action(action), np.asarray(action).reshape(4, 5, 6))


def test_split_dense_equals_dense_on_the_concatenation():
    split, dense = jax.jit(SplitDense(7).apply), jax.jit(nn.Dense(7).apply)
    params = {"params": {"kernel": normals(3, 9, 7), "bias": normals(4, 7)}}
    inputs = [normals(0, 5, 6, 3), normals(1, 5, 6, 2), normals(2, 5, 6, 4)]
    joined = dense(params, np.concatenate(inputs, axis=-1))
    np.testing.assert_allclose(split(params, *inputs), joined, **CLOSE)
    inputs[0], inputs[2] = inputs[0][:, :1], inputs[2][:1, :1]
    joined = dense(
        params, np.concatenate([np.broadcast_to(x, (5, 6, x.shape[-1])) for x in inputs], axis=-1)
    )
    np.testing.assert_allclose(split(params, *inputs), joined, **CLOSE)


def test_split_dense_initialises_like_dense():
    dense = nn.Dense(7, kernel_init=nn.initializers.xavier_uniform())

    @jax.jit
    def both(x, y):
        split = SplitDense(7).init(jax.random.key(0), x, y)
        return split["params"], dense.init(jax.random.key(0), jnp.concatenate([x, y], axis=-1))[
            "params"
        ]

    ours, theirs = both(normals(0, 5, 3), normals(1, 5, 2))
    np.testing.assert_array_equal(ours["kernel"], theirs["kernel"])
    np.testing.assert_array_equal(ours["bias"], theirs["bias"])


def test_critic_shapes(critic):
    apply, params = critic
    assert all(leaf.shape[0] == 4 for leaf in jax.tree.leaves(params))
    assert apply(params, normals(0, 5, 3), normals(1, 5, 2, 2)).shape == (4, 5)
    assert apply(params, normals(0, 5, 1, 3), normals(1, 5, 6, 2, 2)).shape == (4, 5, 6)


def test_critic_members_start_differently():
    params = jax.jit(Critic((8,), 3).init)(jax.random.key(0), normals(0, 1, 3), normals(1, 1, 2, 2))
    ensemble = params["params"]["ensemble"]
    for kernel in (ensemble["MLP_0"]["Dense_0"]["kernel"], ensemble["Dense_0"]["kernel"]):
        assert not any(np.array_equal(kernel[i], kernel[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.slow
def test_critic_members_are_independent(critic):
    apply, params = critic
    grad = jax.jit(jax.grad(lambda p: apply(p, normals(0, 5, 3), normals(1, 5, 2, 2))[2].sum()))
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(grad(params))]
    moved = [any(np.abs(leaf[i]).max() > 0 for leaf in leaves) for i in range(4)]
    assert moved == [False, False, True, False]


def test_critic_of_some_members_equals_the_full_ensemble(critic):
    apply, params = critic
    features, candidates, members = (
        jnp.asarray(normals(0, 5, 3)),
        jnp.asarray(normals(1, 5, 6, 2, 2)),
        np.array([3, 1]),
    )
    full = np.asarray(apply(params, features[:, None], candidates))

    def pair(params, members):
        some = take_members(params, members)
        q = Critic((16, 16), 2).apply(some, features[:, None], candidates)
        return q, min_q(Critic((16, 16), 4), params, features, candidates, members)

    q, least = jax.jit(pair)(params, jnp.asarray(members))
    np.testing.assert_allclose(q, full[members], **CLOSE)
    np.testing.assert_allclose(least, full[members].min(axis=0), **CLOSE)
    assert (full[members].argmin(axis=0) == 0).any() and (full[members].argmin(axis=0) == 1).any()


def test_critic_broadcasts_features(critic):
    apply, params = critic
    state, candidates = normals(0, 5, 1, 3), normals(1, 5, 6, 2, 2)
    repeated = apply(params, np.broadcast_to(state, (5, 6, 3)), candidates)
    np.testing.assert_allclose(apply(params, state, candidates), repeated, **CLOSE)


@pytest.mark.parametrize("conditioned", [True, False])
def test_tanh_gaussian_shapes(conditioned):
    net, features = TanhGaussian((16,), chunk_length=3, action_dim=2), normals(0, 5, 1, 3)
    action = jnp.asarray(normals(1, 5, 4, 3, 2)) if conditioned else None
    (mean, log_std), params = jax.eval_shape(
        net.init_with_output, jax.random.key(0), features, action
    )
    assert mean.shape == log_std.shape == ((5, 4, 3, 2) if conditioned else (5, 1, 3, 2))
    assert params["params"]["MLP_0"]["Dense_0"]["kernel"].shape == (3 + 6 * conditioned, 16)


def test_tanh_gaussian_bounds_its_log_std():
    net, features = TanhGaussian((16,), chunk_length=1, action_dim=2), normals(0, 50, 3)
    params = random_params(net.init, features)
    params["params"]["log_std"]["bias"] = np.array([100.0, -100.0], np.float32)
    _, log_std = jax.jit(net.apply)(params, features)
    np.testing.assert_array_equal(
        np.asarray(log_std)[:, 0], np.tile([LOG_STD_MAX, LOG_STD_MIN], (50, 1))
    )
    assert (LOG_STD_MIN, LOG_STD_MAX) == (-20, 2)


def test_dropout_only_when_not_deterministic():
    net, features = TanhGaussian((32,), 1, 2, dropout=0.5), jnp.asarray(normals(0, 8, 3))
    params = random_params(net.init, features)
    without = jax.jit(TanhGaussian((32,), 1, 2).apply)(params, features)[0]
    still = jax.jit(net.apply)(params, features)[0]
    drop = jax.jit(lambda p, k: net.apply(p, features, deterministic=False, rngs={"dropout": k})[0])
    one, two = drop(params, jax.random.key(1)), drop(params, jax.random.key(2))
    np.testing.assert_array_equal(still, without)
    assert not np.allclose(one, still) and not np.allclose(one, two)
    np.testing.assert_array_equal(one, drop(params, jax.random.key(1)))


def test_denoiser_broadcasts_features_and_condition(denoiser):
    net, params = denoiser
    apply = jax.jit(net.apply)
    state, x = normals(0, 5, 1, 3), normals(1, 5, 4, 2, 2)
    condition = np.asarray(
        jax.jit(lambda p, t: net.apply(p, t, method="embed"))(params, normals(2, 1, 1))
    )
    assert condition.shape == (1, 16)
    got = np.asarray(apply(params, state, x, condition[:, None]))
    assert got.shape == x.shape
    full = apply(
        params, np.broadcast_to(state, (5, 4, 3)), x, np.broadcast_to(condition, (5, 4, 16))
    )
    np.testing.assert_allclose(got, full, **CLOSE)


def test_denoiser_listens_to_all_its_inputs(denoiser):
    net, params = denoiser

    def output(state, x, time):
        return net.apply(params, state, x, net.apply(params, time, method="embed")).sum()

    grads = jax.jit(jax.grad(output, argnums=(0, 1, 2)))(
        normals(0, 5, 3), normals(1, 5, 2, 2), normals(2, 5, 1)
    )
    for grad in grads:
        assert (np.abs(np.asarray(grad)).reshape(5, -1).max(axis=1) > 0).all()
