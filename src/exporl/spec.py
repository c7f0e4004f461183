"""What the host's side and the networks agree on: the shapes of a task, one step of it, and the
words for phases.

Imports no JAX, so that commands about tasks and data start at once. `exporl.types` has these names
too.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

Precision = Literal["float32", "bfloat16"]
"""Of matrix products in sampling and ranking; parameters, optimisers, TD targets and training are
always float32."""
Phase = Literal["pretrain", "critic_pretrain", "online"]
"""What one update call learns: the base by imitation; the critic (and edits) on prior data;
everything."""
PARTIAL = ("_prior", "_online")
"""Metrics with these endings cover some rows only, and are NaN where there are none; NaN elsewhere
is a fault."""
PROPOSALS = "next_proposals"
"""The replay column that holds the base samples kept for the next observation."""
EPISODE_LENGTH = "episode_length"
"""The replay column with the steps of a step's episode, once it has ended."""
EPISODE_NUMBER = "episode_number"
"""The replay column with the number of a step's episode, once it has ended; later ones are
greater."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """All that a network needs to know about a task. Hashable, so compiled functions can close over
    it."""

    observation: tuple[tuple[str, tuple[int, ...], str], ...]
    """(key, shape, dtype) of every observation entry, without batch axes."""
    action_dim: int
    """Dimensions a of one action, each in [-1, 1]."""
    chunk_length: int = 1
    """Actions h that the policy predicts at once."""
    value_range: tuple[float, float] | None = None
    """Least and greatest discounted return that the rewards allow; None where nothing is known of
    the rewards."""

    def example(self) -> tuple[dict[str, Any], Float[Any, "1 h a"]]:
        """JAX zeros of the right shapes with a batch of one: (observation, action chunk)."""
        import jax.numpy as jnp

        observation = {
            name: jnp.zeros((1, *shape), dtype) for name, shape, dtype in self.observation
        }
        return observation, jnp.zeros((1, self.chunk_length, self.action_dim))


def state_spec(spec: Spec) -> Spec:
    """What networks for states see: the low-dimensional entries, [o] floats, without images.

    Raises:
        ValueError: there are none.
    """
    low = tuple(
        entry for entry in spec.observation if len(entry[1]) == 1 and entry[2].startswith("float")
    )
    if not low:
        found = ", ".join(f"{name} {dtype}{list(shape)}" for name, shape, dtype in spec.observation)
        raise ValueError(
            f"the observation holds only {found}, and the networks read vectors of floats: images "
            "alone cannot be learnt from yet. Add a low-dimensional entry, such as {'state':"
            " float32 [o]}, to the task."
        )
    return dataclasses.replace(spec, observation=low)


class Step(NamedTuple):
    """One environment step on the host: NumPy, unbatched, in the words of Gymnasium."""

    observation: dict[str, np.ndarray]
    action: np.ndarray
    """[a], the action that the environment says it executed (`units.EXECUTED`); where it says
    nothing, the one that was handed to it: what it clips itself is not seen."""
    reward: float
    """In the task's learning convention, see `Task.reward`."""
    terminated: bool
    """A true end: nothing can be gained afterwards, the value beyond it is 0."""
    truncated: bool
    """Stopped from outside (a time limit): the episode ends, the value beyond it does not."""
    next_observation: dict[str, np.ndarray]
    success: bool = False
    """The task's own measure of success at this step."""
