"""What is logged of edits, with what it means: how far they move actions, and what that brings."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from exporl.ops import gaussian
from exporl.ops.selection import Candidates, Choice, Edits
from exporl.types import KeyArray, Metrics

EDIT_METRICS = {
    "edit/loss": "mean of `entropy_scale` x alpha x log density - mean over e of Q(s, a + edit)",
    "edit/entropy": "H = -mean log density of the scaled edit, nats",
    "edit/target_entropy": "what the temperature steers H towards, nats",
    "edit/max_entropy": "most that H can be: d (0.683636 + ln `edit_scale`), nats",
    "edit/magnitude": "`edit_scale` x mean abs(tanh sample), on the batch's own actions",
    "edit/saturated": "share of edit dimensions with abs(tanh sample) > 0.95",
    "edit/temperature": "alpha, the temperature of the edit policy",
    "edit/over_noise": (
        "mean of Q(s, a + edit) - Q(s, a + random edit): of the same size, with random signs; by "
        "the critics of the edit loss"
    ),
}


def drawn_metrics(loss: Float[Array, ""], edits: Edits, scale: float) -> Metrics:
    """What the edits that a loss was computed of are like.

    Args:
        loss: of the edit policy.
        edits: drawn for it.
        scale: largest edit per action dimension.
    """
    return {
        "edit/loss": loss,
        "edit/entropy": -edits.log_prob.mean(),
        "edit/magnitude": scale * jnp.abs(edits.unit).mean(),
        "edit/saturated": (jnp.abs(edits.unit) > 0.95).mean(dtype=jnp.float32),
    }


def random_signs(key: KeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """-1 or 1 per dimension of edits, for `over_noise`. The two keys that `key` may be split into
    for what is learnt with stay as they are."""
    return jax.random.rademacher(jax.random.fold_in(key, 2), shape, jnp.float32)


def over_noise(
    loss: Float[Array, ""], entropy_bonus: Float[Array, ""], q_random: Float[Array, " b"]
) -> Metrics:
    """What the direction of edits is worth: their mean value, less that of random edits of the same
    size. About 0 where edits are noise.

    Args:
        loss: of the edit policy, -(mean value of its edits + entropy_bonus).
        entropy_bonus: what the loss has beside values.
        q_random: values of the random edits.
    """
    # Read back from the loss: a second use of Q would be compiled into another rounding of it.
    mean_q = -loss - entropy_bonus
    return {"edit/over_noise": mean_q - q_random.mean()}


def temperature_metrics(
    temperature: Float[Array, ""], target_entropy: float, num_dims: int, scale: float
) -> Metrics:
    """Where the temperature stands, and what it steers the entropy towards.

    Args:
        temperature: before this step.
        target_entropy: in nats.
        num_dims: dimensions of an edit.
        scale: largest edit per action dimension.
    """
    return {
        "edit/temperature": temperature,
        "edit/target_entropy": jnp.float32(target_entropy),
        "edit/max_entropy": jnp.float32(gaussian.max_entropy(num_dims, scale)),
    }


CHOICE_METRICS = {
    "edit/picked": "share of backups whose chosen candidate is an edit",
    "edit/advantage": (
        "mean over b of max Q over edits - max Q over base samples (minimum over the selecting "
        "critics)"
    ),
}


def choice_metrics(choice: Choice, candidates: Candidates) -> Metrics:
    """How often an edit was chosen, and how far the best edit beats the best base sample; nothing
    where there are no edits."""
    num = candidates.base.shape[1]
    if not candidates.edited.shape[1]:
        return {}
    gain = choice.q[:, num:].max(axis=-1) - choice.q[:, :num].max(axis=-1)
    return {
        "edit/picked": (choice.index >= num).mean(dtype=jnp.float32),
        "edit/advantage": gain.mean(),
    }
