"""Tanh-squashed Gaussians: samples, densities and how much entropy they can have."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MAX_TANH_ENTROPY = 0.683636
"""Nats per dimension of the most spread-out tanh(N(0, sigma)) on [-1, 1], reached at sigma =
0.874 (by quadrature)."""


def tanh_sample(
    mean: Float[Array, "*b h a"], log_std: Float[Array, "*b h a"], eps: Float[Array, "*b h a"]
) -> tuple[Float[Array, "*b h a"], Float[Array, " *b"]]:
    """tanh(mean + exp(log_std) * eps) in [-1, 1], and its log density summed over the chunk's
    dimensions.

    The change of variables uses log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2x)), which stays
    finite when saturated.
    """
    raw = mean + jnp.exp(log_std) * eps
    log_prob = -0.5 * jnp.square(eps) - log_std - 0.5 * math.log(2 * math.pi)
    log_prob -= 2 * (math.log(2) - raw - jax.nn.softplus(-2 * raw))
    return jnp.tanh(raw), log_prob.sum(axis=(-2, -1))


def max_entropy(num_dims: int, scale: float = 1.0) -> float:
    """Most entropy (nats) that `scale` * tanh-Gaussian can have over `num_dims` dimensions."""
    return num_dims * (MAX_TANH_ENTROPY + math.log(scale))


def target_entropy(kind: str | float, num_dims: int, scale: float = 1.0) -> float:
    """Entropy (nats) that the temperature steers towards.

    "released" is -num_dims / 2, as the official code has it: unattainable below a scale of 0.306,
    where the temperature then grows without bound. "attainable" adds num_dims * ln(scale), the
    entropy lost by scaling. A number is itself.
    """
    if kind == "released":
        return -0.5 * num_dims
    if kind == "attainable":
        return -0.5 * num_dims + num_dims * math.log(scale)
    return float(kind)


def temperature_loss(
    log_temperature: Float[Array, ""], entropy: Float[Array, ""], target: float
) -> Float[Array, ""]:
    """exp(log_temperature) * (entropy - target): lowers the temperature while entropy is above
    its target."""
    return jnp.exp(log_temperature) * (entropy - target)
