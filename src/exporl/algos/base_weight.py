"""Which successes a base policy imitates most: row weights beside `base_data`.

Exponential weights as in advantage-weighted regression (arXiv 1910.00177), with the length or the
age of a row's episode in place of the advantage, standardised as in MARWIL, and bounded.
"""

from typing import Literal, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from exporl.algos.bounds import column_of
from exporl.options import check_options
from exporl.spec import EPISODE_LENGTH, EPISODE_NUMBER
from exporl.types import AnyArray, Batch

BaseWeight = Literal["uniform", "shorter", "recent"]
FARTHEST = 2.0
"""Standard deviations from the mean at which lengths and ages are clipped: no success counts more
than exp(4) = 55 times as much as another."""


def columns_of(base_weight: BaseWeight) -> tuple[str, ...]:
    """Names of the replay columns that weights are computed from."""
    if base_weight == "shorter":
        return (EPISODE_LENGTH,)
    return (EPISODE_NUMBER,) if base_weight == "recent" else ()


def success_weight(base_weight: BaseWeight, batch: Batch) -> Float[AnyArray, " b"]:
    """How much each row is imitated: 0 where the episode is no success, on average 1 elsewhere.

    exp(-z), where z is the length ("shorter") or the age ("recent") of the row's episode,
    standardised over the successes of the minibatch. Prior data is older than everything that the
    agent collected, and all of it equally old. A standard deviation below 1 step or episode counts
    as 1.

    Raises:
        ValueError: the rows lack the column that it is computed from.
    """
    if base_weight == "uniform":
        return batch.success
    if base_weight == "shorter":
        measure = column_of(batch, EPISODE_LENGTH)
    else:
        measure = -column_of(batch, EPISODE_NUMBER) * (1 - batch.prior)
    return _exponential(measure, batch.success)


def _exponential(
    measure: Float[AnyArray, " b"], success: Float[AnyArray, " b"]
) -> Float[Array, " b"]:
    """exp(-z) of the standardised measure over the successes, with mean 1 over them."""
    num = jnp.maximum(success.sum(), 1.0)
    difference = measure - (success * measure).sum() / num
    deviation = jnp.sqrt((success * jnp.square(difference)).sum() / num)
    z = difference / jnp.maximum(deviation, 1.0)
    weight = success * jnp.exp(-jnp.clip(z, -FARTHEST, FARTHEST))
    return weight * num / jnp.maximum(weight.sum(), 1e-6)


@runtime_checkable
class ImitationOptions(Protocol):
    """Options of an algorithm that chooses what its base policy imitates."""

    @property
    def base_data(self) -> str:
        """Which rows: "all" or "successes"."""
        ...

    @property
    def base_weight(self) -> BaseWeight:
        """Which of the successes count most."""
        ...


def check_imitation(config: ImitationOptions) -> None:
    """Checks the ranges of an algorithm's options, and that `base_weight` finds its successes.

    Raises:
        ValueError: naming the options, their values and what is possible.
    """
    check_options(config)
    if config.base_weight != "uniform" and config.base_data != "successes":
        raise ValueError(
            f"base_weight={config.base_weight!r} weighs successful episodes against each other, "
            f"and base_data={config.base_data!r} imitates all rows: set base_data='successes', or "
            "leave base_weight out."
        )
