"""The on-the-fly policy: from candidate actions and their values to one action."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from exporl.types import KeyArray, Observation


class Candidates(NamedTuple):
    """What the on-the-fly policy chooses from."""

    features: Float[Array, "b f"]
    """Of the observation that they are for."""
    base: Float[Array, "b n h a"]
    """Samples of the base policy."""
    edited: Float[Array, "b k h a"]
    """The first k of them, edited."""

    @property
    def action(self) -> Float[Array, "b c h a"]:
        """All of them: base samples, then edits."""
        return jnp.concatenate([self.base, self.edited], axis=1)


class Choice(NamedTuple):
    """What the on-the-fly policy takes."""

    action: Float[Array, "b h a"]
    index: Int[Array, " b"]
    """Its place among all candidates."""
    log_prob: Float[Array, " b"]
    """Log probability of the choice; 0 unless it is soft."""
    q: Float[Array, "b c"]
    """The values that the choice was made by."""


def per_candidate(observation: Observation) -> Observation:
    """[b, ...] -> [b, 1, ...]: broadcasts against candidates [b, c, h, a] without c copies."""
    return {name: jnp.expand_dims(value, 1) for name, value in observation.items()}


def select(
    q: Float[Array, "b c"], key: KeyArray, softness: float | None = None
) -> tuple[Int[Array, " b"], Float[Array, " b"]]:
    """Index of one candidate per observation, and the log probability of that choice.

    With `softness=None` the highest value wins (log probability 0). Otherwise candidate i is drawn
    with probability proportional to exp(softness * q_i), the paper's variant for small or narrow
    data (EXPO, arXiv 2507.07986).
    """
    if softness is None:
        return q.argmax(axis=-1), jnp.zeros(q.shape[0])
    log_prob = jax.nn.log_softmax(softness * q, axis=-1)
    index = jax.random.categorical(key, log_prob, axis=-1)
    return index, jnp.take_along_axis(log_prob, index[:, None], axis=-1)[:, 0]


def take_candidate(
    candidates: Float[Array, "b c h a"], index: Int[Array, " b"]
) -> Float[Array, "b h a"]:
    """The chosen candidate of every observation."""
    return jnp.take_along_axis(candidates, index[:, None, None, None], axis=1)[:, 0]
