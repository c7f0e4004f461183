"""Diffusion (DDPM, variance-preserving) and flow matching: losses and samplers over any network."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Schedule(NamedTuple):
    """Noise schedule over k denoising steps."""

    betas: Float[np.ndarray, " k"]
    alphas: Float[np.ndarray, " k"]
    """1 - betas."""
    alpha_hats: Float[np.ndarray, " k"]
    """Cumulative product of alphas: the share of signal left at each step."""


def vp_schedule(num_steps: int, beta_min: float = 0.1, beta_max: float = 10.0) -> Schedule:
    """Variance-preserving schedule that leaves almost no signal at the last of `num_steps`.

    alpha_t = exp(-beta_min / k - (beta_max - beta_min) (2t - 1) / (2 k^2)), t = 1..k, as in the
    EXPO release and IDQL.
    """
    t = np.arange(1, num_steps + 1)
    alphas = np.exp(
        -beta_min / num_steps - 0.5 * (beta_max - beta_min) * (2 * t - 1) / num_steps**2
    )
    alphas = alphas.astype(np.float32)
    return Schedule(np.float32(1) - alphas, alphas, np.cumprod(alphas, dtype=np.float32))


def imitation_error(error: Float[Array, "b h a"], weight: Float[Array, "b h"]) -> Float[Array, ""]:
    """Squared error summed over action dimensions, averaged over the weighted actions."""
    return (jnp.square(error).sum(axis=-1) * weight).sum() / jnp.maximum(weight.sum(), 1.0)


def diffuse(
    schedule: Schedule,
    action: Float[Array, "b h a"],
    time: Int[Array, " b"],
    noise: Float[Array, "b h a"],
) -> tuple[Float[Array, "b h a"], Float[Array, "b 1 1"]]:
    """Actions with the noise that integer times 0..k-1 add, and that noise's share
    sqrt(1 - alpha_hat)."""
    signal = jnp.asarray(schedule.alpha_hats)[time][:, None, None]
    share = jnp.sqrt(1 - signal)
    return jnp.sqrt(signal) * action + share * noise, share


def ddpm_loss(
    predict_noise: Callable[[Float[Array, "b h a"], Float[Array, "b 1"]], Float[Array, "b h a"]],
    schedule: Schedule,
    action: Float[Array, "b h a"],
    time: Int[Array, " b"],
    noise: Float[Array, "b h a"],
    weight: Float[Array, "b h"],
) -> Float[Array, ""]:
    """Noise-prediction loss (DDPM, arXiv 2006.11239) at integer times 0..k-1."""
    noisy, _ = diffuse(schedule, action, time, noise)
    return imitation_error(predict_noise(noisy, time[:, None].astype(jnp.float32)) - noise, weight)


class _Step(NamedTuple):
    """What one denoising step needs; with a leading axis, what all of them need."""

    condition: Float[Array, "*k c"]
    scale: Float[Array, "*k"]
    shrink: Float[Array, "*k"]
    spread: Float[Array, "*k"]
    noise: Float[Array, "..."]


def ddpm_sample(
    predict_noise: Callable[[Float[Array, "*b h a"], Float[Array, " c"]], Float[Array, "*b h a"]],
    conditions: Float[Array, "k c"],
    schedule: Schedule,
    noise: Float[Array, "*b k h a"],
) -> Float[Array, "*b h a"]:
    """Ancestral sampling from t = k-1 to 0, clipped to [-1, 1] after every step (EXPO release).

    `conditions[t]` is the time embedding of step t. `noise[..., 0, :, :]` is the start, the others
    are added after steps k-1 ... 1; none is added at t = 0.
    """
    num_steps = len(schedule.betas)
    times = np.arange(num_steps - 1, -1, -1)
    scale = 1 / np.sqrt(schedule.alphas)
    shrink = (1 - schedule.alphas) / np.sqrt(1 - schedule.alpha_hats)
    spread = np.sqrt(schedule.betas) * (np.arange(num_steps) > 0)
    noise = jnp.moveaxis(noise, -3, 0)
    added = jnp.concatenate([noise[1:], jnp.zeros_like(noise[:1])])

    def in_order(values: Float[np.ndarray, " k"]) -> Float[Array, " k"]:
        """One value per step, in the order in which the steps are made."""
        return jnp.asarray(values[times], jnp.float32)

    def step(x: Float[Array, "*b h a"], inputs: _Step) -> tuple[Float[Array, "*b h a"], None]:
        """One step towards the action."""
        direction = x - inputs.shrink * predict_noise(x, inputs.condition)
        x = inputs.scale * direction + inputs.spread * inputs.noise
        return jnp.clip(x, -1.0, 1.0), None

    steps = _Step(conditions[times], in_order(scale), in_order(shrink), in_order(spread), added)
    x, _ = jax.lax.scan(step, noise[0], steps)
    return x


def flow_loss(
    predict_velocity: Callable[[Float[Array, "b h a"], Float[Array, "b 1"]], Float[Array, "b h a"]],
    action: Float[Array, "b h a"],
    time: Float[Array, " b"],
    noise: Float[Array, "b h a"],
    weight: Float[Array, "b h"],
) -> Float[Array, ""]:
    """Flow matching on straight paths (arXiv 2210.02747): action - noise at a time in [0, 1]."""
    t = time[:, None, None]
    velocity = predict_velocity((1 - t) * noise + t * action, time[:, None])
    return imitation_error(velocity - (action - noise), weight)


def euler_sample(
    predict_velocity: Callable[
        [Float[Array, "*b h a"], Float[Array, " c"]], Float[Array, "*b h a"]
    ],
    conditions: Float[Array, "k c"],
    noise: Float[Array, "*b h a"],
) -> Float[Array, "*b h a"]:
    """Integrates a velocity field from t = 0 to 1 in k Euler steps, then clips to [-1, 1].

    `conditions[i]` is the time embedding of t = i / k.
    """
    num_steps = conditions.shape[0]

    def step(
        x: Float[Array, "*b h a"], condition: Float[Array, " c"]
    ) -> tuple[Float[Array, "*b h a"], None]:
        """One step along the velocity."""
        return x + predict_velocity(x, condition) / num_steps, None

    x, _ = jax.lax.scan(step, noise, conditions)
    return jnp.clip(x, -1.0, 1.0)
