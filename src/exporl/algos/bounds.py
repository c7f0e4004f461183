"""What is known about values before anything is learnt, for critics that are still young.

Rewards per step and the discount bound every value. Three options use it; the paper and the release
have none of them, and all are off by default:
- a pessimistic start: critics begin at the least value there can be, instead of at 0, which for
  the reward -1 per step is the best one. An action never tried then looks bad, not good;
- targets are clipped to the range of values;
- no target lies below the return that a successful episode really had from that step on
  (compare the lower bounds of arXiv 1606.01868 and self-imitation, arXiv 1806.05635). In a
  stochastic task this favours lucky episodes.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from exporl.plain import added
from exporl.types import AnyArray, Batch, Metrics, Params, Spec

RETURN_BOUND = "return_bound"
"""The replay column with the return of a step's episode, if that succeeded, else -infinity."""
DATA_RETURN = "data_return"
"""The replay column with the return of a step's episode, once it has ended."""

_OUTPUT_BIASES = tuple(f"['{name}']['Dense_0']['bias']" for name in ("ensemble", "value"))
"""Where the biases of a critic's output and of a state value's stand among their parameters."""

BOUND_METRICS = {
    "critic/below_return": "share of TD targets that `return_bound` raised",
    "critic/out_of_range": "share of TD targets outside the range of values, before `clip_targets`",
}


@dataclasses.dataclass(frozen=True)
class BoundOptions:
    """How critics use what is known about values. All off: the paper's critics. auto: on where the
    task says between which values its rewards lie."""

    pessimistic_start: Literal["auto"] | bool = added(False, absent=False)
    """Critics begin at the least value that the rewards allow, instead of around 0."""
    clip_targets: Literal["auto"] | bool = added(False, absent=False)
    """Clip TD targets to the values that the rewards and the discount allow."""
    return_bound: Literal["auto"] | bool = added(False, absent=False)
    """No TD target below the return that a successful episode really had from that step on."""


@dataclasses.dataclass(frozen=True)
class TargetBounds:
    """The options of one algorithm on one task, with the range of its values."""

    low: float = 0.0
    high: float = 0.0
    pessimistic_start: bool = False
    clip: bool = False
    returns: bool = False

    @classmethod
    def create(cls, config: BoundOptions, spec: Spec) -> "TargetBounds":
        """What the options ask for.

        Raises:
            ValueError: an option needs the range of values, and the task's rewards do not say it.
        """
        if spec.value_range is None:
            for name in ("pessimistic_start", "clip_targets", "return_bound"):
                if getattr(config, name) is True:
                    raise ValueError(
                        f"{name} needs to know between which values rewards lie, and the "
                        f"environment's own reward does not say it: set {name}=False, or learn "
                        "from the reward -1/0 or 0/1."
                    )
            return cls()
        low, high = spec.value_range
        return cls(
            low=low,
            high=high,
            pessimistic_start=bool(config.pessimistic_start),
            clip=bool(config.clip_targets),
            returns=bool(config.return_bound),
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Replay columns that are read."""
        return (RETURN_BOUND,) if self.returns else ()

    def start(self, critic_params: Params) -> Params:
        """Critics at their start: with the bias of the output at the least value, if asked for."""
        if not self.pessimistic_start:
            return critic_params

        def shifted(path: tuple[object, ...], leaf: Float[Array, "..."]) -> Float[Array, "..."]:
            is_output_bias = jax.tree_util.keystr(path).endswith(_OUTPUT_BIASES)
            return leaf + self.low if is_output_bias else leaf

        return jax.tree_util.tree_map_with_path(shifted, critic_params)

    def apply(self, target: Float[Array, " b"], batch: Batch) -> tuple[Float[Array, " b"], Metrics]:
        """TD targets within what is known, and how often that changed them."""
        metrics: Metrics = {}
        if self.returns:
            bound = column_of(batch, RETURN_BOUND)
            metrics["critic/below_return"] = (target < bound).mean(dtype=jnp.float32)
            target = jnp.maximum(target, bound)
        if self.clip:
            outside = (target < self.low) | (target > self.high)
            metrics["critic/out_of_range"] = outside.mean(dtype=jnp.float32)
            target = jnp.clip(target, self.low, self.high)
        return target, metrics


def column_of(batch: Batch, name: str) -> Float[AnyArray, " b"]:
    """A column of the replay with one number per row.

    Raises:
        ValueError: the rows do not have it.
    """
    column = batch.extra.get(name)
    if column is None:
        raise ValueError(
            f"{name} reads Batch.extra[{name!r}], which these rows do not have: "
            "give the replay that column (exporl.data.columns.needed_columns)."
        )
    return column


NOTHING_KNOWN = TargetBounds()
"""Critics start around 0 and learn from TD targets as they are."""
