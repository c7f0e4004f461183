"""A base policy whose samples come from outside: to an algorithm they are data."""

from typing import NoReturn

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from exporl.policies.base import BasePolicy
from exporl.types import AnyArray, Batch, KeyArray, Metrics, Observation, Params, Spec

METRICS = {
    "base/loss": "imitation loss of a policy from outside that learns, as it computes it itself",
}


def elsewhere(spec: Spec) -> BasePolicy:
    """The record of a policy that JAX does not see: it has no parameters, nothing to learn, and
    cannot be sampled here."""

    def init(key: KeyArray) -> Params:
        """No parameters."""
        return {}

    def loss(
        params: Params, batch: Batch, weight: Float[AnyArray, " b"], key: KeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        """Nothing to learn: the policy imitates in its own framework, or not at all."""
        return jnp.zeros(()), {}

    def decode(params: Params, observation: Observation, noise: Float[Array, "..."]) -> NoReturn:
        """Always raises ValueError: whoever samples has not been given the samples."""
        raise ValueError(
            "this base policy is from outside: its samples are handed over, and the algorithm asks "
            "for others. expo and best_of_n can be trained around it."
        )

    shape = (spec.chunk_length, spec.action_dim)
    metrics = tuple(METRICS.items())
    return BasePolicy(init, loss, decode, shape, optax.identity(), outside=True, metrics=metrics)
