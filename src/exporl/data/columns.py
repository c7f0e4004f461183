"""Named columns of a replay: whatever is kept per row beside the steps themselves.

A column is written by whoever owns it (kept base samples, `data.proposals`), or computed when an
episode ends, from the rewards that it really brought (`Column.finish`).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from exporl.spec import EPISODE_LENGTH, EPISODE_NUMBER, PROPOSALS, Spec

Finish = Callable[[Float[np.ndarray, " t"], bool, bool], Shaped[np.ndarray, "t ..."]]
"""(learning rewards [t] float64, terminated, success) of an episode -> [t, *shape] for its steps.

`terminated` is a true end; a time limit is none, also where the replay does not bootstrap over it.
Of an episode longer than the ring it is given the rewards of the steps that are still there, which
are the last ones: all that is needed by what looks ahead, as returns do.
"""

PROPOSED = "proposed"
RETURN_BOUND = "return_bound"
DATA_RETURN = "data_return"


class Column(NamedTuple):
    """One value per row of a replay."""

    shape: tuple[int, ...] = ()
    """Of the value of one row."""
    dtype: str = "float32"
    at: Literal["row", "next"] = "row"
    """Whose value a sampled chunk carries: its first row's, or that of the observation after it."""
    fill: float | int = 0
    """What a row holds until it is written; a new step or observation in the row brings it back."""
    finish: Finish | None = None
    """Computes the values of an episode's steps (at "next": of the observations after them) when it
    ends by termination, truncation or `Replay.cut`; None: the owner of the column writes them."""
    sampled: bool = True
    """Whether minibatches carry it, as `Batch.extra[name]`."""
    numbered: bool = False
    """Instead of a `finish`: the steps of an episode that ends get its number, 1 more than the
    greatest in the column. Nothing else is counted or saved."""

    @property
    def is_owned(self) -> bool:
        """Whether somebody else writes it: adding the same episodes again would lack it."""
        return self.finish is None and not self.numbered


class Columns:
    """The columns of one replay and their values [streams, capacity, *shape]."""

    def __init__(self, columns: Mapping[str, Column], num_streams: int, capacity: int):
        """Rows that hold their `fill`.

        Raises:
            ValueError: a column that cannot be kept; says why.
        """
        self._columns = dict(columns)
        self._capacity = capacity
        self.values: dict[str, np.ndarray] = {}
        for name, column in columns.items():
            _check(name, column)
            values = np.zeros((num_streams, capacity, *column.shape), column.dtype)
            if column.fill != 0:  # zeros take no memory until they are written
                values[...] = column.fill
            self.values[name] = values

    @property
    def fills(self) -> dict[str, float | int]:
        """What rows hold that were never written, by name."""
        return {name: column.fill for name, column in self._columns.items()}

    @property
    def sampled(self) -> tuple[str, ...]:
        """Names of the columns that minibatches carry."""
        return tuple(name for name, column in self._columns.items() if column.sampled)

    @property
    def owned(self) -> tuple[str, ...]:
        """Names of the columns that their owners write: adding the same data again lacks them."""
        return tuple(name for name, column in self._columns.items() if column.is_owned)

    def clear(self, stream: int, row: int | np.ndarray, after: int | np.ndarray) -> None:
        """New steps are written to some rows, and the observations after them to others."""
        for name, column in self._columns.items():
            self.values[name][stream, after] = column.fill
            if column.at == "row":  # at "next" the row keeps what the step before it wrote
                self.values[name][stream, row] = column.fill

    def finish(
        self,
        stream: int,
        rows: np.ndarray,
        rewards: Float[np.ndarray, " t"],
        *,
        terminated: bool,
        success: bool,
    ) -> None:
        """An episode has ended; `rows` [t] are its steps in order, as far as they are still there.

        Raises:
            ValueError: a column's `finish` returned another shape than its own.
        """
        for name, column in self._columns.items():
            if column.finish is not None:
                values = column.finish(rewards.astype(np.float64), terminated, success)
            elif column.numbered:
                values = np.full(len(rows), self.values[name].max() + 1)
            else:
                continue
            needed = (len(rows), *column.shape)
            if np.shape(values) != needed:
                raise ValueError(
                    f"column {name!r}: finish returned shape {np.shape(values)} for {len(rows)} "
                    f"steps, the column needs {needed}."
                )
            target = rows if column.at == "row" else (rows + 1) % self._capacity
            self.values[name][stream, target] = values

    def of_chunks(self, first: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
        """What minibatches carry of chunks, given their first rows [b] and the rows after them.

        Rows are counted through all streams.
        """
        return {
            name: values_at(self.values[name], first if self._columns[name].at == "row" else after)
            for name in self.sampled
        }


def values_at(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of an array [streams, capacity, ...], counted through all streams.

    One index is cheaper than two.
    """
    return values.reshape(-1, *values.shape[2:]).take(rows, axis=0)


def _check(name: str, column: Column) -> None:
    if not name or "/" in name:
        raise ValueError(f"column {name!r}: a name has letters and no slash. Rename the column.")
    if column.at not in ("row", "next"):
        raise ValueError(f"column {name!r}: at must be 'row' or 'next', got {column.at!r}.")
    if column.numbered and (column.finish is not None or column.shape):
        raise ValueError(
            f"column {name!r}: a numbered column holds one number per row and has no finish."
        )
    whole = math.isfinite(column.fill) and float(column.fill).is_integer()
    if np.dtype(column.dtype).kind != "f" and not whole:
        raise ValueError(
            f"column {name!r}: {column.dtype} cannot hold fill={column.fill}. "
            "Choose another fill, or a dtype of floats."
        )


def proposal_columns(num: int, spec: Spec) -> dict[str, Column]:
    """Columns for `num` base-policy samples per next observation, and when they were made.

    `proposed` is the version of the base policy that made them, plus one; 0 where there are none
    yet. No columns for `num` = 0.
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
        ValueError: nothing is known of a name, or `return_bound` where the range of values is
            unknown.
    """
    columns = proposal_columns(num_proposals, spec)
    for name in names:
        if name == DATA_RETURN:
            columns[name] = data_return(discount, spec.value_range and spec.value_range[0])
        elif name == RETURN_BOUND:
            if spec.value_range is None:
                raise ValueError(f"{RETURN_BOUND} needs rewards whose range is known.")
            columns[name] = return_bound(discount, spec.value_range[0])
        elif name == EPISODE_LENGTH:
            columns[name] = Column(finish=_length)
        elif name == EPISODE_NUMBER:
            columns[name] = Column(numbered=True)
        else:
            known = (PROPOSALS, RETURN_BOUND, DATA_RETURN, EPISODE_LENGTH, EPISODE_NUMBER)
            raise ValueError(f"the replay knows no column {name!r}; known are {', '.join(known)}.")
    return columns


def _length(
    rewards: Float[np.ndarray, " t"], terminated: bool, success: bool
) -> Float[np.ndarray, " t"]:
    """Steps of the episode, as far as the ring still holds it."""
    return np.full(len(rewards), float(len(rewards)))


def returns(
    rewards: Float[np.ndarray, " t"], discount: float, following: float
) -> Float[np.ndarray, " t"]:
    """Discounted sum of the rewards from every step on, with a value after the last one."""
    found = np.empty(len(rewards))
    for step in reversed(range(len(rewards))):
        following = rewards[step] + discount * following
        found[step] = following
    return found


def data_return(discount: float, worst: float | None) -> Column:
    """The return that an episode really had from each step on, whether or not it succeeded.

    Where a time limit ended it, what follows counts as `worst`, or as nothing where that is not
    known. Steps of episodes that are still open hold -infinity.

    Args:
        discount: per step, as in `Replay.sample`.
        worst: the least value that rewards allow; None where nothing is known.
    """
    _check_discount(discount)

    def finish(
        rewards: Float[np.ndarray, " t"], terminated: bool, success: bool
    ) -> Float[np.ndarray, " t"]:
        return returns(rewards, discount, 0.0 if terminated or worst is None else worst)

    return Column(fill=-np.inf, finish=finish)


def return_bound(discount: float, worst: float) -> Column:
    """A lower bound on the value of a successful episode's steps: the return that it really had.

    Step i of an episode with learning rewards r_0 .. r_(t-1) gets the sum of discount^(j-i) r_j
    over j >= i, and where a time limit ended it, after which rewards would have gone on, also
    discount^(t-i) * worst. Steps of other episodes, and of episodes that are still open, hold
    -infinity, no bound: `jnp.maximum(value, bound)` is right for every row, an average is not.

    Args:
        discount: per step, as in `Replay.sample`.
        worst: the least value that rewards allow, the lower end of `envs.task.value_range`.

    Raises:
        ValueError: the discount lies outside [0, 1], or `worst` is not finite.
    """
    _check_discount(discount)
    if not math.isfinite(worst):
        raise ValueError(f"worst must be finite, got {worst}: see envs.task.value_range.")

    def finish(
        rewards: Float[np.ndarray, " t"], terminated: bool, success: bool
    ) -> Float[np.ndarray, " t"]:
        if not success:
            return np.full(len(rewards), -np.inf)
        return returns(rewards, discount, 0.0 if terminated else worst)

    return Column(fill=-np.inf, finish=finish)


def _check_discount(discount: float) -> None:
    if not 0 <= discount <= 1:
        raise ValueError(f"discount must lie in [0, 1], got {discount}.")
