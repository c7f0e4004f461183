"""The pure functions against numbers worked out by hand, by quadrature or by counting."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.ops.ensemble import random_members, spread, take_members
from exporl.ops.gaussian import (
    MAX_TANH_ENTROPY,
    max_entropy,
    tanh_sample,
    target_entropy,
    temperature_loss,
)
from exporl.ops.generative import (
    ddpm_loss,
    ddpm_sample,
    euler_sample,
    flow_loss,
    imitation_error,
    vp_schedule,
)
from exporl.ops.selection import per_candidate, select, take_candidate
from exporl.ops.td import critic_loss, td_target

choose = jax.jit(select, static_argnames="softness")
squash = jax.jit(tanh_sample)
weigh = jax.jit(imitation_error)


def f32(*values):
    return jnp.asarray(np.array(values, np.float32))


def normals(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_td_target():
    got = jax.jit(td_target)(f32(1.0, -1.0, 0.5), f32(0.9, 0.0, 0.81), f32(10.0, 10.0, -2.0))
    np.testing.assert_allclose(got, [10.0, -1.0, -1.12], rtol=1e-6)


def test_critic_loss():
    q, target = f32([1.0, 2.0], [3.0, 4.0], [5.0, 6.0]), f32(1.0, 4.0)
    loss, grad = jax.jit(jax.value_and_grad(critic_loss))(q, target)
    np.testing.assert_allclose(loss, (0 + 4 + 4 + 0 + 16 + 4) / 6, rtol=1e-6)
    np.testing.assert_allclose(grad, np.array([[0, -2], [2, 0], [4, 2]]) * 2 / 6, rtol=1e-6)


def test_random_members():
    draw = jax.jit(jax.vmap(lambda key: random_members(key, 5, 2)))
    members = np.asarray(draw(jax.random.split(jax.random.key(0), 2000)))
    assert (members[:, 0] != members[:, 1]).all()
    subsets, counts = np.unique(np.sort(members, axis=1), axis=0, return_counts=True)
    assert [tuple(s) for s in subsets] == list(itertools.combinations(range(5), 2))
    # 200 expected per subset with a standard deviation of 13
    assert counts.min() > 140 and counts.max() < 260


def test_take_members():
    params = {"a": jnp.arange(12.0).reshape(4, 3), "b": jnp.arange(4)}
    taken = jax.jit(take_members)(params, jnp.array([2, 0]))
    np.testing.assert_array_equal(taken["a"], [[6, 7, 8], [0, 1, 2]])
    np.testing.assert_array_equal(taken["b"], [2, 0])


def test_spread():
    q = f32([1.0, 5.0], [3.0, 5.0], [1.0, 5.0], [3.0, 5.0])
    np.testing.assert_allclose(jax.jit(spread)(q), (1.0 + 0.0) / 2)


def test_select_argmax():
    q = f32([0.0, 2.0, 1.0], [3.0, -1.0, 2.0], [-3.0, -2.0, -1.0])
    index, log_prob = choose(q, jax.random.key(0))
    np.testing.assert_array_equal(index, [1, 0, 2])
    np.testing.assert_array_equal(log_prob, 0)


def test_select_soft():
    q, softness, draws = np.array([0.0, 1.0, -0.5]), 2.0, 4000
    probabilities = np.exp(softness * q) / np.exp(softness * q).sum()
    many = np.tile(q.astype(np.float32), (draws, 1))
    index, log_prob = (
        np.asarray(x) for x in choose(jnp.asarray(many), jax.random.key(0), softness=softness)
    )
    np.testing.assert_allclose(log_prob, np.log(probabilities)[index], rtol=1e-5)
    frequencies = np.bincount(index, minlength=3) / draws
    standard_error = np.sqrt(probabilities * (1 - probabilities) / draws)
    assert (np.abs(frequencies - probabilities) < 4.5 * standard_error).all()
    shifted_index, shifted_log_prob = choose(
        jnp.asarray(many + 100), jax.random.key(0), softness=softness
    )
    np.testing.assert_array_equal(index, shifted_index)
    np.testing.assert_allclose(log_prob, shifted_log_prob, atol=1e-4)


def test_select_soft_turns_into_argmax():
    q = np.random.default_rng(0).permuted(
        np.tile(np.arange(3, dtype=np.float32), (4000, 1)), axis=1
    )
    index, log_prob = choose(jnp.asarray(q), jax.random.key(1), softness=100.0)
    np.testing.assert_array_equal(index, q.argmax(axis=1))
    np.testing.assert_array_equal(log_prob, 0)


def test_take_candidate():
    candidates = np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)
    got = jax.jit(take_candidate)(candidates, jnp.array([2, 0]))
    np.testing.assert_array_equal(got, [[[8, 9], [10, 11]], [[12, 13], [14, 15]]])


def test_per_candidate():
    got = per_candidate(
        {"state": np.ones((4, 3), np.float32), "image": np.ones((4, 8, 8, 3), np.uint8)}
    )
    assert {name: x.shape for name, x in got.items()} == {
        "state": (4, 1, 3),
        "image": (4, 1, 8, 8, 3),
    }


@pytest.mark.parametrize(("mean", "log_std"), [(0.3, -0.5), (-1.0, 0.3)])
def test_tanh_sample_density(mean, log_std):
    eps = np.linspace(-7, 7, 20001).astype(np.float32)
    parts = [np.full_like(eps, mean), np.full_like(eps, log_std), eps]
    action, log_prob = (
        np.asarray(x, np.float64) for x in squash(*(jnp.asarray(x[:, None, None]) for x in parts))
    )
    eps = eps.astype(np.float64)
    exact, density = np.tanh(mean + np.exp(log_std) * eps), np.exp(log_prob)
    np.testing.assert_allclose(action[:, 0, 0], exact, atol=1e-6)
    np.testing.assert_allclose(np.trapezoid(density, exact), 1.0, atol=1e-3)
    numerical = np.exp(-0.5 * eps**2) / math.sqrt(2 * math.pi) / np.gradient(exact, eps)
    inside = np.abs(exact) < 0.99
    np.testing.assert_allclose(density[inside], numerical[inside], rtol=2e-3)


def test_tanh_sample_sums_over_the_chunk():
    parts = [normals(i, 5, 3, 2) for i in range(3)]
    action, log_prob = squash(*(jnp.asarray(x) for x in parts))
    alone, log_alone = squash(*(jnp.asarray(x.reshape(30, 1, 1)) for x in parts))
    assert action.shape == (5, 3, 2) and log_prob.shape == (5,)
    np.testing.assert_allclose(np.asarray(action).ravel(), np.asarray(alone).ravel(), rtol=1e-6)
    np.testing.assert_allclose(
        log_prob, np.asarray(log_alone).reshape(5, 6).sum(axis=1), rtol=1e-5, atol=1e-5
    )


def test_tanh_sample_is_finite_when_saturated():
    mean, log_std, eps = (
        f32(*values)[:, None, None]
        for values in ((50.0, -50.0, 0.0), (2.0, 2.0, -20.0), (3.0, -3.0, 1.0))
    )

    @jax.jit
    def total(mean, log_std):
        action, log_prob = tanh_sample(mean, log_std, eps)
        return log_prob.sum(), (action, log_prob)

    grads, (action, log_prob) = jax.grad(total, argnums=(0, 1), has_aux=True)(mean, log_std)
    np.testing.assert_allclose(action[:, 0, 0], [1, -1, 0], atol=1e-6)
    # far in the tail log(1 - tanh(x)^2) = 2 (log 2 - |x|)
    expected = (
        -0.5 * 9 - 2 - 0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - (50 + 3 * math.exp(2)))
    )
    np.testing.assert_allclose(log_prob[:2], expected, rtol=1e-5)
    for grad in grads:
        assert np.isfinite(grad).all()


def entropy_of_tanh_gaussian(mean, sigma):
    """Nats, by quadrature: entropy of the Gaussian plus the mean log derivative of tanh."""
    z = np.linspace(-10, 10, 20001)
    weight = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    x = mean + sigma * z
    log_slope = 2 * (math.log(2) - np.abs(x) - np.log1p(np.exp(-2 * np.abs(x))))
    return 0.5 * math.log(2 * math.pi * math.e * sigma**2) + (weight * log_slope).sum()


def test_max_tanh_entropy():
    sigmas = np.linspace(0.7, 1.1, 401)
    entropies = np.array([entropy_of_tanh_gaussian(0.0, sigma) for sigma in sigmas])
    np.testing.assert_allclose(entropies.max(), MAX_TANH_ENTROPY, atol=1e-6)
    np.testing.assert_allclose(sigmas[entropies.argmax()], 0.874, atol=0.001)
    for mean, sigma in itertools.product(
        (-1.0, -0.2, 0.0, 0.1, 0.5), (0.3, 0.6, 0.8, 1.0, 1.3, 3.0)
    ):
        assert entropy_of_tanh_gaussian(mean, sigma) < MAX_TANH_ENTROPY - 1e-5


def test_max_entropy():
    np.testing.assert_allclose(max_entropy(1), 0.68364, atol=1e-5)
    np.testing.assert_allclose(max_entropy(7, 0.05), 7 * (0.683636 - 2.995732), rtol=1e-5)


def test_target_entropy():
    assert target_entropy("released", 7, 0.05) == -3.5
    np.testing.assert_allclose(
        target_entropy("attainable", 7, 0.05), -3.5 - 7 * 2.995732, rtol=1e-6
    )
    assert target_entropy("attainable", 3, 1.0) == target_entropy("released", 3, 1.0) == -1.5
    assert target_entropy(-4.25, 7, 0.05) == -4.25


@pytest.mark.parametrize(
    ("scale", "out_of_reach"), [(0.05, True), (0.305, True), (0.307, False), (0.7, False)]
)
def test_released_target_entropy_is_out_of_reach_of_small_edits(scale, out_of_reach):
    assert (target_entropy("released", 4, scale) > max_entropy(4, scale)) == out_of_reach
    assert target_entropy("attainable", 4, scale) < max_entropy(4, scale)


@pytest.mark.parametrize("entropy", [-1.0, -3.0])
def test_temperature_loss(entropy):
    loss = jax.jit(
        jax.value_and_grad(lambda log_temperature, h: temperature_loss(log_temperature, h, -2.0))
    )
    value, grad = loss(jnp.float32(math.log(0.5)), jnp.float32(entropy))
    np.testing.assert_allclose([value, grad], 0.5 * (entropy + 2), rtol=1e-6)
    # descent lowers the temperature exactly where there is more entropy than wanted
    assert (-float(grad) < 0) == (entropy > -2)


@pytest.mark.parametrize("num_steps", [1, 5, 10, 100])
def test_vp_schedule(num_steps):
    betas, alphas, alpha_hats = vp_schedule(num_steps)
    for values in (betas, alphas, alpha_hats):
        assert values.shape == (num_steps,) and values.dtype == np.float32
        assert (values > 0).all() and (values < 1).all()
    np.testing.assert_allclose(betas, 1 - alphas)
    np.testing.assert_allclose(alpha_hats, np.cumprod(alphas), rtol=1e-6)
    assert (np.diff(betas) > 0).all()
    # the exponents of all steps add up to (beta_min + beta_max) / 2, whatever their number
    np.testing.assert_allclose(alpha_hats[-1], math.exp(-5.05), rtol=1e-4)


def test_vp_schedule_first_and_last_step():
    schedule = vp_schedule(10)
    np.testing.assert_allclose(schedule.alphas[0], math.exp(-0.01 - 0.0495), rtol=1e-6)
    np.testing.assert_allclose(schedule.alphas[-1], math.exp(-0.01 - 0.0495 * 19), rtol=1e-6)
    np.testing.assert_allclose(
        vp_schedule(4, beta_min=1.0, beta_max=3.0).alpha_hats[-1], math.exp(-2), rtol=1e-5
    )


def test_imitation_error():
    error = f32([[1.0, 2.0], [3.0, 0.0]], [[0.0, 1.0], [5.0, 5.0]])
    np.testing.assert_allclose(weigh(error, f32([1.0, 1.0], [1.0, 1.0])), (5 + 9 + 1 + 50) / 4)
    np.testing.assert_allclose(weigh(error, f32([1.0, 1.0], [1.0, 0.0])), (5 + 9 + 1) / 3)
    np.testing.assert_allclose(weigh(error, f32([3.0, 0.0], [1.0, 0.0])), (15 + 1) / 4)
    assert weigh(error, f32([0.0, 0.0], [0.0, 0.0])) == 0


def test_ddpm_loss():
    schedule, seen = vp_schedule(3), []

    @jax.jit
    def loss(action, time, noise, weight):
        def network(x, t):
            seen.append((x, t))
            return jnp.full(x.shape, 0.5)

        return ddpm_loss(network, schedule, action, time, noise, weight), seen.pop()

    action, noise = f32(0.5, -0.25)[:, None, None], f32(2.0, 1.0)[:, None, None]
    value, (x, time) = loss(action, jnp.array([0, 2]), noise, f32([1.0], [1.0]))
    np.testing.assert_allclose(value, (1.5**2 + 0.5**2) / 2, rtol=1e-6)
    signal = np.exp([-0.1 / 3 - 9.9 / 18, -5.05])
    expected = np.sqrt(signal) * [0.5, -0.25] + np.sqrt(1 - signal) * [2.0, 1.0]
    np.testing.assert_allclose(x[:, 0, 0], expected, rtol=1e-4)
    np.testing.assert_array_equal(time, [[0], [2]])
    masked, _ = loss(action, jnp.array([0, 2]), noise, f32([0.0], [1.0]))
    np.testing.assert_allclose(masked, 0.25, rtol=1e-6)


def test_flow_loss():
    seen = []

    @jax.jit
    def loss(action, time, noise, weight):
        def network(x, t):
            seen.append((x, t))
            return jnp.full(x.shape, -0.5)

        return flow_loss(network, action, time, noise, weight), seen.pop()

    action, noise = f32(0.5, -0.25)[:, None, None], f32(2.0, 1.0)[:, None, None]
    value, (x, time) = loss(action, f32(0.25, 1.0), noise, f32([1.0], [1.0]))
    # the velocities to predict are -1.5 and -1.25
    np.testing.assert_allclose(value, (1.0**2 + 0.75**2) / 2, rtol=1e-6)
    np.testing.assert_allclose(x[:, 0, 0], [0.75 * 2 + 0.25 * 0.5, -0.25], rtol=1e-6)
    np.testing.assert_array_equal(time, [[0.25], [1.0]])
    masked, _ = loss(action, f32(0.25, 1.0), noise, f32([2.0], [0.0]))
    np.testing.assert_allclose(masked, 1.0, rtol=1e-6)


@pytest.mark.parametrize("num_steps", [1, 10])
def test_ddpm_sample_recovers_a_point_mass(num_steps):
    schedule, point = vp_schedule(num_steps), np.array([[[0.3, -0.7]]], np.float32)

    def predict_noise(x, signal):
        return (x - jnp.sqrt(signal[0]) * point) / jnp.sqrt(1 - signal[0])

    sample = jax.jit(
        lambda noise: ddpm_sample(
            predict_noise, jnp.asarray(schedule.alpha_hats)[:, None], schedule, noise
        )
    )
    got = sample(normals(0, 6, num_steps, 1, 2))
    np.testing.assert_allclose(got, np.broadcast_to(point, (6, 1, 2)), atol=2e-6)


def test_ddpm_sample_by_hand():
    betas, alphas, alpha_hats = schedule = vp_schedule(3)
    noise = normals(3, 1, 3, 1, 1) * 0.3
    x = noise[0, 0, 0, 0]
    for t, condition, z in (
        (2, 0.2, noise[0, 1, 0, 0]),
        (1, -0.1, noise[0, 2, 0, 0]),
        (0, 0.05, 0.0),
    ):
        x = (x - betas[t] / np.sqrt(1 - alpha_hats[t]) * (condition + 0.5 * x)) / np.sqrt(alphas[t])
        x = np.clip(x + np.sqrt(betas[t]) * z, -1, 1)
    conditions = f32([0.05], [-0.1], [0.2])
    got = jax.jit(
        lambda noise: ddpm_sample(lambda x, c: c[0] + 0.5 * x, conditions, schedule, noise)
    )(noise)
    np.testing.assert_allclose(got[0, 0, 0], x, rtol=1e-5)


def test_ddpm_sample_clips_after_every_step():
    betas, alphas, alpha_hats = schedule = vp_schedule(2)
    conditions, start = f32([0.8], [0.0]), np.full((1, 2, 1, 1), 100, np.float32)
    got = jax.jit(
        lambda noise: ddpm_sample(lambda x, c: 0 * x + c[0], conditions, schedule, noise)
    )(start)
    # step 1 sends 100 far above 1; only its clipped value reaches step 0
    expected = (1 - betas[0] / np.sqrt(1 - alpha_hats[0]) * 0.8) / np.sqrt(alphas[0])
    assert 0 < expected < 1
    np.testing.assert_allclose(got[0, 0, 0], expected, rtol=1e-6)


def test_euler_sample():
    @jax.jit
    def sample(noise):
        constant = euler_sample(lambda x, c: jnp.full(x.shape, 0.3), jnp.zeros((7, 1)), noise)
        in_order = euler_sample(lambda x, c: x * c[0], f32([2.0], [-1.0]), noise)
        straight = euler_sample(
            lambda x, c: (0.4 - x) / (1 - c[0]), f32([0.0], [0.25], [0.5], [0.75]), noise
        )
        return (
            constant,
            in_order,
            straight,
            euler_sample(lambda x, c: x - 5, jnp.zeros((2, 1)), noise),
        )

    noise = np.clip(normals(0, 4, 2, 3) * 0.2, -0.5, 0.5)
    constant, in_order, straight, clipped = sample(noise)
    np.testing.assert_allclose(constant, noise + 0.3, atol=1e-6)
    np.testing.assert_allclose(in_order, noise * (1 + 2 / 2) * (1 - 1 / 2), atol=1e-6)
    np.testing.assert_allclose(straight, np.full(noise.shape, 0.4), atol=1e-6)
    np.testing.assert_array_equal(clipped, -1)


@pytest.mark.slow
def test_jitted_equals_unjitted():
    schedule, weight = vp_schedule(4), f32([1.0], [0.0], [0.5])

    def network(x, condition):
        return jnp.sin(x) * (1 + condition.sum())

    def everything(q, action, noise, key):
        return (
            select(q, key, 0.7),
            tanh_sample(action, noise[:, 0], noise[:, 1]),
            ddpm_loss(network, schedule, action, jnp.array([0, 1, 3]), noise[:, 0], weight),
            ddpm_sample(network, jnp.asarray(schedule.alpha_hats)[:, None], schedule, noise),
            euler_sample(network, f32([0.0], [0.5]), noise[:, 0]),
        )

    inputs = [
        jnp.asarray(x) for x in (normals(0, 6, 4), normals(1, 3, 1, 2), normals(2, 3, 4, 1, 2))
    ]
    eager, jitted = (
        everything(*inputs, jax.random.key(0)),
        jax.jit(everything)(*inputs, jax.random.key(0)),
    )
    for x, y in zip(jax.tree.leaves(eager), jax.tree.leaves(jitted), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
