"""The vocabulary of the library: what a task looks like to a network, and what an algorithm is fed.

Axis letters, used in every signature and written in this order:
  b batch   u minibatches per update call   n candidate actions per observation   e ensemble members
  h actions in a chunk   a action dimensions   o observation dimensions   k denoising or flow steps
Actions lie in [-1, 1]. Observations are flat dictionaries. Flow time runs from 0 (noise) to 1 (data).
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Key, PyTree

if TYPE_CHECKING:
    AnyArray = jax.Array | np.ndarray
else:  # JAX also describes the arguments of a compiled program as records, with placeholders for arrays
    AnyArray = jax.Array | np.ndarray | jax.stages.ArgInfo
"""Records cross from host to device, so their leaves may be either."""
Params = PyTree
Metrics = dict[str, Float[Array, ""]]
Observation = Mapping[str, AnyArray]
"""Flat dictionary: low-dimensional entries float32 [..., o], images uint8 [..., H, W, C]."""
KeyArray = Key[Array, ""]
PARTIAL = ("_prior", "_online")
"""Metrics with these endings cover some rows only, and are NaN where there are none; NaN elsewhere is a fault."""
Precision = Literal["float32", "bfloat16"]
"""Of matrix products in sampling and ranking; parameters, optimisers, TD targets and training are always float32."""
Phase = Literal["pretrain", "critic_pretrain", "online"]
"""What one update call learns: the base by imitation; the critic (and edits) on prior data; everything."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """All that a network needs to know about a task. Hashable, so compiled functions can close over it."""

    observation: tuple[tuple[str, tuple[int, ...], str], ...]
    """(key, shape, dtype) of every observation entry, without batch axes."""
    action_dim: int
    """Dimensions a of one action, each in [-1, 1]."""
    chunk_length: int = 1
    """Actions h that the policy predicts at once."""

    def example(self) -> tuple[dict[str, Array], Float[Array, "1 h a"]]:
        """Zeros of the right shapes with a batch of one: (observation, action chunk)."""
        observation = {name: jnp.zeros((1, *shape), dtype) for name, shape, dtype in self.observation}
        return observation, jnp.zeros((1, self.chunk_length, self.action_dim))


class Step(NamedTuple):
    """One environment step on the host: NumPy, unbatched, in the words of Gymnasium."""

    observation: dict[str, np.ndarray]
    action: np.ndarray
    """[a], the action that was executed (after clipping)."""
    reward: float
    """In the task's learning convention, see `Task.reward`."""
    terminated: bool
    """A true end: nothing can be gained afterwards, the value beyond it is 0."""
    truncated: bool
    """Stopped from outside (a time limit): the episode ends, the value beyond it does not."""
    next_observation: dict[str, np.ndarray]
    success: bool = False
    """The task's own measure of success at this step."""


@struct.dataclass
class Batch:
    """Chunked transitions, as algorithms see them. Leading axes are [b] or [u, b].

    `reward` and `discount` already cover the whole chunk, so nothing downstream knows the discount factor.
    """

    observation: Observation
    action: AnyArray
    """[..., h, a]; after the end of an episode the last action is repeated and `valid` is 0."""
    reward: AnyArray
    """[...], sum of discount^i * reward_i over the executed steps."""
    discount: AnyArray
    """[...], discount^steps, and 0 after a true termination."""
    next_observation: Observation
    valid: AnyArray
    """[..., h], 1 where the action lies inside the episode."""
    prior: AnyArray
    """[...], 1 where the row comes from prior data, 0 where the agent collected it."""
    success: AnyArray
    """[...], 1 where the row's episode is known to have ended in success."""
    extra: Mapping[str, AnyArray] = struct.field(default_factory=dict)
    """Name -> [..., *shape]: what the replay keeps per row in named columns (`data.columns`)."""

    @property
    def next_proposals(self) -> AnyArray | None:
        """[..., n, h, a], base-policy actions kept for the next observation; None where none are."""
        return self.extra.get("next_proposals")
