"""Named columns of a replay: whatever an algorithm or the loop keeps per row beside the steps themselves."""

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import numpy as np

from exporl.spec import PROPOSALS, Spec

Finish = Callable[[np.ndarray, bool, bool], np.ndarray]
"""(learning rewards [t] float64, terminated, success) of an episode that ended -> values [t, *shape] of its steps."""

PROPOSED = "proposed"
RETURN_BOUND = "return_bound"


class Column(NamedTuple):
    """One value per row of a replay."""

    shape: tuple[int, ...] = ()
    """Of the value of one row."""
    dtype: str = "float32"
    at: Literal["row", "next"] = "row"
    """Whose value a sampled chunk carries: its first row's, or that of the observation after it."""
    fill: float = 0
    """What a row holds until it is written; writing a new step into a row brings it back."""
    finish: Finish | None = None
    """Computes the values of an episode's steps when it ends; None: the owner of the column writes them."""
    sampled: bool = True
    """Whether minibatches carry it, as `Batch.extra[name]`."""


def proposal_columns(num: int, spec: Spec) -> dict[str, Column]:
    """Columns that keep `num` base-policy samples per next observation, and when they were made; none for 0.

    `proposed` is the version of the base policy that made them, plus one; 0 where there are none yet.
    """
    if not num:
        return {}
    shape = (num, spec.chunk_length, spec.action_dim)
    return {
        PROPOSALS: Column(shape, at="next"),
        PROPOSED: Column(dtype="int64", at="next", sampled=False),
    }


def needed_columns(
    names: Iterable[str], num_proposals: int, spec: Spec, discount: float
) -> dict[str, Column]:
    """The columns that an algorithm reads, by name, with those of the base samples to keep.

    Raises:
        ValueError: nothing is known of a name, or `return_bound` where the range of values is unknown.
    """
    columns = proposal_columns(num_proposals, spec)
    for name in names:
        if name != RETURN_BOUND:
            raise ValueError(
                f"the replay knows no column {name!r}; known are {PROPOSALS} and {RETURN_BOUND}."
            )
        if spec.value_range is None:
            raise ValueError(f"{RETURN_BOUND} needs rewards whose range is known.")
        columns[name] = return_bound(discount, spec.value_range[0])
    return columns


def return_bound(discount: float, worst: float) -> Column:
    """A lower bound on the value of every step of a successful episode: the discounted return that it really had.

    After a time limit the return goes on with `worst`, the least value that rewards allow. Steps of other episodes,
    and of episodes that have not ended, hold -infinity: no bound.
    """

    def finish(rewards: np.ndarray, terminated: bool, success: bool) -> np.ndarray:
        values = np.full(len(rewards), -np.inf)
        following = 0.0 if terminated else worst
        for step in reversed(range(len(rewards)) if success else range(0)):
            following = rewards[step] + discount * following
            values[step] = following
        return values

    return Column(fill=-np.inf, finish=finish)
