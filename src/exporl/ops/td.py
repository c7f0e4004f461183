"""Temporal-difference targets and the critic's loss."""

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
