"""Temporal-difference targets and the losses of critics and state values."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def td_target(
    reward: Float[Array, " b"], discount: Float[Array, " b"], next_value: Float[Array, " b"]
) -> Float[Array, " b"]:
    """reward + discount * next_value, where reward and discount already cover the whole action
    chunk."""
    return reward + discount * next_value


def critic_loss(q: Float[Array, "e b"], target: Float[Array, " b"]) -> Float[Array, ""]:
    """Squared TD error, averaged over all ensemble members and the batch."""
    return jnp.square(q - target[None]).mean()


def expectile_loss(error: Float[Array, " b"], expectile: float) -> Float[Array, ""]:
    """Mean of |expectile - [error < 0]| * error^2 (IQL, arXiv 2110.06169), error = Q - V.

    At 0.5 half the squared error; towards 1 its minimum is V = the greatest Q among the data's
    actions.
    """
    weight = jnp.where(error > 0, expectile, 1 - expectile)
    return (weight * jnp.square(error)).mean()
