"""From an observation to the features that critics and policies read. An algorithm encodes an
observation once."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from exporl.types import Observation


def flat_observation(observation: Observation) -> Float[Array, "*b f"]:
    """The encoder of states: low-dimensional entries concatenated in the order of their sorted
    names."""
    entries = [jnp.asarray(observation[name]) for name in sorted(observation)]
    return jnp.concatenate(entries, axis=-1)
