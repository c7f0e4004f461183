"""The vocabulary of the library: what a task looks like to a network, and what an algorithm is fed.

Axis letters, used in every signature and written in this order:
  b batch   u minibatches per update call   n candidate actions per observation   e ensemble members
  h actions in a chunk   a action dimensions   o observation dimensions   f features of an
  observation k denoising or flow steps
Actions lie in [-1, 1]. Observations are flat dictionaries. Flow time runs from 0 (noise) to 1
(data).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Key, PyTree, Shaped

from exporl.outside import OutsideName
from exporl.spec import PARTIAL, PROPOSALS, Phase, Precision, Spec, Step

__all__ = [
    "PARTIAL",
    "PROPOSALS",
    "AnyArray",
    "Batch",
    "Decision",
    "KeyArray",
    "Metrics",
    "Mode",
    "Observation",
    "OutsideName",
    "Params",
    "Phase",
    "Precision",
    "Spec",
    "Step",
]

if TYPE_CHECKING:
    AnyArray = Any
else:  # JAX also describes a compiled program's arguments as records, with placeholders for arrays
    AnyArray = jax.Array | np.ndarray | jax.stages.ArgInfo | jax.ShapeDtypeStruct
"""Records cross from host to device, so their leaves may be either."""
Params = PyTree
Metrics = dict[str, Float[Array, ""]]
Observation = Mapping[str, AnyArray]
"""Flat dictionary: low-dimensional entries float32 [..., o], images uint8 [..., H, W, C]."""
KeyArray = Key[Array, ""]
Mode = Literal["explore", "evaluate", "base", "unedited", "sample"]
"""How to act: while learning; at evaluation; with the base policy alone; at evaluation, but
choosing among base samples without edits; with the base policy alone as it is, while learning."""


class Decision(NamedTuple):
    """What an algorithm does in an observation."""

    action: Float[AnyArray, "*b h a"]
    """Action chunks, in [-1, 1]."""
    info: dict[str, Shaped[AnyArray, "*b"]]
    """What there is to say about the choice, each [b]. EXPO: its value "q", its "index" among
    the candidates, and whether it was "edited" (0 or 1)."""


@struct.dataclass
class Batch:
    """Chunked transitions, as algorithms see them. Leading axes are [b] or [u, b].

    `reward` and `discount` already cover the whole chunk, so nothing downstream knows the discount
    factor.
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
    """Further columns of the replay by name, each [..., *shape]."""

    @property
    def next_proposals(self) -> AnyArray | None:
        """[..., n, h, a], base samples kept for the next observation; None where the replay
        keeps none."""
        return self.extra.get(PROPOSALS)
