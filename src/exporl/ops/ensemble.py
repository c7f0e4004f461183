"""Ensembles of critics: which members vote, and how far they disagree."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from exporl.types import KeyArray, Params


def random_members(key: KeyArray, num_qs: int, num: int) -> Int[Array, " num"]:
    """`num` of `num_qs` ensemble members, drawn without replacement (REDQ, arXiv 2101.05982)."""
    return jax.random.choice(key, num_qs, (num,), replace=False)


def take_members(params: Params, members: Int[Array, " num"]) -> Params:
    """The parameters of some members: every leaf [e, ...] becomes [num, ...]."""
    return jax.tree.map(lambda x: x[members], params)


def spread(q: Float[Array, "e *b"]) -> Float[Array, ""]:
    """Standard deviation over the ensemble, averaged over the batch: how far the critics disagree."""
    return jnp.std(q, axis=0).mean()
