"""Adjoint matching (Domingo-Enrich et al., arXiv 2409.08861): a flow is moved towards higher values
of its results by a regression on its velocity, without a gradient through its integration.

The flow is played with noise, as a stochastic process whose results are distributed as those of the
flow and do not depend on where they started ("memoryless"). The gradient of the values at the end
of a path is carried back along it, through another flow that stands still (the adjoint); at every
state of the path the velocity is then regressed on that flow's, less what the adjoint asks for.

Time runs from 0 (noise) to 1 (action) in k steps of h = 1 / k. As in QAM's public code (see
algos/qam.py), the time is t + h where a formula divides by it, and the last step is one of the flow
that stands still, without noise.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Velocity = Callable[[Float[Array, "b h a"], Float[Array, "b 1"]], Float[Array, "b h a"]]
"""(states, their time) -> velocity."""


class Path(NamedTuple):
    """What a flow with noise has passed through."""

    states: Float[Array, "k b h a"]
    """At the times 0, h, ..., 1 - h."""
    end: Float[Array, "b h a"]
    """At time 1."""


def start_times(num_steps: int) -> Float[np.ndarray, " k"]:
    """The times at which steps begin."""
    return np.arange(num_steps, dtype=np.float32) / num_steps


def noise_scale(num_steps: int) -> Float[np.ndarray, " k"]:
    """sigma = sqrt(2 (1 - t + h) / (t + h)), of every step: the noise that makes a flow
    memoryless."""
    later = start_times(num_steps) + 1 / num_steps
    return np.sqrt(2 * (1 - later + 2 / num_steps) / later).astype(np.float32)


def all_rows(time: Float[Array, ""], states: Float[Array, "b h a"]) -> Float[Array, "b 1"]:
    """One time for every row."""
    return jnp.full((states.shape[0], 1), time)


def memoryless_path(
    velocity: Velocity, last_velocity: Velocity, noise: Float[Array, "k b h a"]
) -> Path:
    """x <- x + h (2 v(x, t) - x / (t + h)) + sqrt(h) sigma noise, from x = noise[0].

    Args:
        velocity: of the flow.
        last_velocity: what the last step follows, without noise.
        noise: standard normal; the first entry is where paths start, the i-th is added after the
            i-th step.
    """
    num_steps = noise.shape[0]
    step_size = 1 / num_steps
    times, scales = jnp.asarray(start_times(num_steps)), jnp.asarray(noise_scale(num_steps))

    def step(
        x: Float[Array, "b h a"],
        inputs: tuple[Float[Array, ""], Float[Array, ""], Float[Array, "b h a"]],
    ) -> tuple[Float[Array, "b h a"], Float[Array, "b h a"]]:
        """One step with noise; also returns where it began."""
        time, scale, added = inputs
        drift = 2 * velocity(x, all_rows(time, x)) - x / (time + step_size)
        return x + step_size * drift + jnp.sqrt(step_size) * scale * added, x

    last, states = jax.lax.scan(step, noise[0], (times[:-1], scales[:-1], noise[1:]))
    end = last + step_size * last_velocity(last, all_rows(times[-1], last))
    return Path(jnp.concatenate([states, last[None]]), end)


def lean_adjoint(
    velocity: Velocity, states: Float[Array, "k b h a"], end: Float[Array, "b h a"]
) -> Float[Array, "k b h a"]:
    """What a gradient at the end of a path is at its states: g <- g + h J^T g, from the last state
    back to the first, where J is the derivative of 2 v(x, t + h) - x / (t + h) in x.

    Args:
        velocity: of the flow that the gradient is carried back through.
        states: of the path, at the times 0, h, ..., 1 - h.
        end: the gradient at time 1.
    """
    step_size = 1 / states.shape[0]
    later = jnp.asarray(start_times(states.shape[0]) + step_size)

    def step(
        adjoint: Float[Array, "b h a"], inputs: tuple[Float[Array, ""], Float[Array, "b h a"]]
    ) -> tuple[Float[Array, "b h a"], Float[Array, "b h a"]]:
        """One step back."""
        time, x = inputs

        def drift(x: Float[Array, "b h a"]) -> Float[Array, "b h a"]:
            return 2 * velocity(x, all_rows(time, x)) - x / time

        _, pull_back = jax.vjp(drift, x)
        adjoint = adjoint + step_size * pull_back(adjoint)[0]
        return adjoint, adjoint

    _, adjoints = jax.lax.scan(step, end, (later, states), reverse=True)
    return adjoints


def along(velocity: Velocity, states: Float[Array, "k b h a"]) -> Float[Array, "k b h a"]:
    """Velocities at all states of a path."""

    def at(time: Float[Array, ""], x: Float[Array, "b h a"]) -> Float[Array, "b h a"]:
        return velocity(x, all_rows(time, x))

    return jax.vmap(at)(jnp.asarray(start_times(states.shape[0])), states)


def matching_loss(
    difference: Float[Array, "k b h a"], adjoint: Float[Array, "k b h a"]
) -> Float[Array, ""]:
    """(2 / sigma * difference + sigma * adjoint)^2, summed over steps and dimensions, averaged over
    rows: least where the velocity differs from that of the flow that stands still by
    -sigma^2 / 2 * adjoint."""
    scale = jnp.asarray(noise_scale(difference.shape[0]))[:, None, None, None]
    error = 2 / scale * difference + scale * adjoint
    return jnp.square(error).sum(axis=(0, 2, 3)).mean()
