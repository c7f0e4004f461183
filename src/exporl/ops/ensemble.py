"""Ensembles of critics: which members vote, and how far they disagree."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from exporl.types import AnyArray, KeyArray, Params


def random_members(key: KeyArray, num_qs: int, num: int) -> Int[Array, " {num}"]:
    """`num` of `num_qs` ensemble members, drawn without replacement (REDQ, arXiv 2101.05982)."""
    return jax.random.choice(key, num_qs, (num,), replace=False)


def take_members(params: Params, members: Int[Array, " m"]) -> Params:
    """The parameters of some members: every leaf [e, ...] becomes [m, ...]."""

    def take(leaf: Shaped[AnyArray, "e ..."]) -> Shaped[AnyArray, "m ..."]:
        return leaf[members]

    return jax.tree.map(take, params)


def aggregate(q: Float[Array, "e *b"], how: Literal["mean", "min"]) -> Float[Array, "*b"]:
    """One value of the whole ensemble's: their mean, or the least."""
    return q.min(axis=0) if how == "min" else q.mean(axis=0)


def lower_bound(q: Float[Array, "e *b"], pessimism: float) -> Float[Array, "*b"]:
    """Mean over the ensemble - pessimism * its standard deviation. Of two members, pessimism 1 is
    the least."""
    return q.mean(axis=0) - pessimism * jnp.std(q, axis=0)


def spread(q: Float[Array, "e *b"]) -> Float[Array, ""]:
    """Standard deviation over the ensemble, averaged over the batch: how far critics disagree."""
    return jnp.std(q, axis=0).mean()
