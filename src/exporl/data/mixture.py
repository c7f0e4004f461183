"""Several replays in fixed proportions, exact in every minibatch."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from exporl.data.replay import Replay
from exporl.types import PROPOSALS, Batch


class Mixture:
    """Samples minibatches whose rows come from several sources in exact shares.

    (prior, .5), (online, .5) is RLPD.
    """

    def __init__(self, sources: Sequence[tuple[Replay, float]]):
        """Sources and their shares.

        Raises:
            ValueError: shares are negative or do not sum to 1, or sources have different columns.
        """
        shares = [share for _, share in sources]
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"shares must be at least 0 and sum to 1, got {shares}.")
        self.sources = [(replay, share) for replay, share in sources if share > 0]
        columns = [sorted(replay.columns.sampled) for replay, _ in self.sources]
        if any(names != columns[0] for names in columns):
            raise ValueError(
                f"sources of one minibatch must have the same sampled columns, got {columns}. "
                "Give all replays the same ones."
            )

    @property
    def ready(self) -> bool:
        """Whether every source can be sampled."""
        return all(replay.num_starts for replay, _ in self.sources)

    def counts(self, batch_size: int) -> list[int]:
        """Rows per source in one minibatch.

        Raises:
            ValueError: a source with a positive share would get no row.
        """
        counts = [round(share * batch_size) for _, share in self.sources]
        counts[-1] = batch_size - sum(counts[:-1])
        if min(counts) < 1:
            shares = [share for _, share in self.sources]
            raise ValueError(
                f"a minibatch of {batch_size} cannot be shared as {shares}: "
                "some source gets no row."
            )
        return counts

    @classmethod
    def of_both(
        cls, prior: Replay | None, online: Replay, prior_ratio: float, batch_size: int
    ) -> "Mixture":
        """Prior data and online data in their shares; online data alone where there is no other,
        or where its share is 0.

        Raises:
            ValueError: a minibatch cannot be shared so.
        """
        sources: list[tuple[Replay, float]] = [(online, 1.0)]
        if prior is not None and prior_ratio > 0:
            sources = [(prior, prior_ratio), (online, 1 - prior_ratio)]
        mixture = cls(sources)
        mixture.counts(batch_size)  # refuses impossible shares at once
        return mixture

    def sample(
        self, rng: np.random.Generator, num_minibatches: int, batch_size: int, *, discount: float
    ) -> Batch:
        """Minibatches [u, b, ...]: in each the rows of the first source, then of the next."""
        u = num_minibatches
        parts = [
            replay.sample(rng, u * count, discount=discount)
            for (replay, _), count in zip(self.sources, self.counts(batch_size), strict=True)
        ]

        def join(*leaves: np.ndarray) -> np.ndarray:
            return np.concatenate([x.reshape(u, -1, *x.shape[1:]) for x in leaves], axis=1)

        return jax.tree.map(join, *parts)


def pack(batch: Batch) -> dict[str, np.ndarray]:
    """A batch as flat arrays in host memory, `field/entry`. Inverse of `unpack`."""
    arrays = {}
    for field, value in vars(batch).items():
        entries = value if isinstance(value, Mapping) else {"": value}
        arrays |= {f"{field}/{name}": np.asarray(entry) for name, entry in entries.items()}
    return arrays


def unpack(arrays: Mapping[str, np.ndarray]) -> Batch:
    """The batch that was packed."""
    fields: dict[str, Any] = {}
    for key, value in arrays.items():
        field, name = key.split("/", 1)
        if field == PROPOSALS:  # saved before there were named columns
            field, name = "extra", field
        if name:
            fields.setdefault(field, {})[name] = value
        else:
            fields[field] = value
    return Batch(**fields)
