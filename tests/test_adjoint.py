"""Adjoint matching: against a loop in float64, and on a flow between normal distributions, whose
answer is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np

from exporl.ops import adjoint

NOISE = np.random.default_rng(0).standard_normal((5, 3, 2, 2)).astype(np.float32)


def curved(x, time):
    """Some velocity that is not linear."""
    return jnp.sin(2 * x) + time[..., None] * x


def other(x, time):
    return jnp.cos(x) - time[..., None]


def slope(x, time):
    """Derivative of `curved`, entry by entry."""
    return 2 * np.cos(2 * x) + time


def test_paths_and_adjoints_are_those_of_a_loop():
    found = adjoint.memoryless_path(curved, other, jnp.asarray(NOISE))
    h, x, states = 0.2, NOISE[0].astype(np.float64), []
    for k in range(4):
        t, later = k * h, k * h + h
        sigma = np.sqrt(2 * (1 - t + h) / later)
        states.append(x)
        drift = 2 * (np.sin(2 * x) + t * x) - x / later
        x = x + h * drift + np.sqrt(h) * sigma * NOISE[k + 1]
    states.append(x)
    np.testing.assert_allclose(found.states, states, atol=1e-4)
    np.testing.assert_allclose(found.end, x + h * (np.cos(x) - 0.8), atol=1e-4)
    end = np.random.default_rng(1).standard_normal(x.shape)
    backwards, expected = end, []
    for k in reversed(range(5)):
        later = k * h + h
        backwards = backwards + h * (2 * slope(states[k], later) - 1 / later) * backwards
        expected.insert(0, backwards)
    start = jnp.asarray(end, jnp.float32)
    goal = adjoint.lean_adjoint(curved, found.states, start)
    np.testing.assert_allclose(goal, expected, rtol=2e-3, atol=1e-4)


def test_the_loss_is_least_at_the_base_s_velocity_less_the_adjoint():
    """By hand: 2 d / sigma + sigma g = 0 at d = -sigma^2 / 2 g, which is (1 - t + h) / (t + h)."""
    goal = jnp.asarray(NOISE)
    ratio = np.array([(1 - t + 0.2) / (t + 0.2) for t in (0, 0.2, 0.4, 0.6, 0.8)])
    best = -jnp.asarray(ratio, jnp.float32)[:, None, None, None] * goal
    np.testing.assert_allclose(adjoint.matching_loss(best, goal), 0, atol=1e-8)
    loss = adjoint.matching_loss(jnp.zeros_like(goal), goal)
    expected = (2 * ratio[:, None, None, None] * NOISE**2).sum() / 3
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def normal_flow(x, time):
    """The flow of straight paths from N(0, 1) to N(0, 1): E[a - z | x] of x = (1 - t) z + t a."""
    time = time[..., None]
    return (2 * time - 1) / ((1 - time) ** 2 + time**2) * x


def test_a_normal_distribution_is_tilted_to_the_right_one():
    """N(0, 1) times exp(a) is N(1, 1): of its flow the velocity is larger by (1 - t) / ((1 - t)^2 +
    t^2), and the adjoint of the gradient -1 at the end is -t / ((1 - t)^2 + t^2)."""
    steps = 400
    states = jnp.zeros((steps, 1, 1, 1))
    goal = adjoint.lean_adjoint(normal_flow, states, -jnp.ones((1, 1, 1)))[:, 0, 0, 0]
    t = np.arange(steps) / steps
    spread = (1 - t) ** 2 + t**2
    np.testing.assert_allclose(goal, -t / spread, atol=0.02)
    moved = -(adjoint.noise_scale(steps) ** 2) / 2 * goal
    np.testing.assert_allclose(moved[20:], ((1 - t) / spread)[20:], atol=0.1)


def test_where_paths_end_does_not_depend_on_where_they_start():
    """And they end as the flow's own results are spread."""
    noise = jax.random.normal(jax.random.key(0), (200, 4000, 1, 1))
    path = adjoint.memoryless_path(normal_flow, normal_flow, noise)
    start, end = np.asarray(path.states[0]).ravel(), np.asarray(path.end).ravel()
    np.testing.assert_allclose([end.mean(), end.std()], [0, 1], atol=0.05)
    assert abs(np.corrcoef(start, end)[0, 1]) < 0.05
