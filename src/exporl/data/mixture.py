"""Several replays in fixed proportions, exact in every minibatch."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from exporl.data.replay import Replay
from exporl.types import PROPOSALS, Batch


class Mixture:
    """Samples minibatches whose rows come from several sources in exact shares: (prior, .5), (online, .5) is RLPD."""

    def __init__(self, sources: Sequence[tuple[Replay, float]]):
        """Sources and their shares.

        Raises:
            ValueError: shares are negative or do not sum to 1.
        """
        shares = [share for _, share in sources]
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"shares must be at least 0 and sum to 1, got {shares}.")
        self.sources = [(replay, share) for replay, share in sources if share > 0]

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
            raise ValueError(f"a minibatch of {batch_size} cannot be shared as {shares}: some source gets no row.")
        return counts

    def sample(self, rng: np.random.Generator, num_minibatches: int, batch_size: int, *, discount: float) -> Batch:
        """Minibatches [u, b, ...]: the rows of the first source, then those of the next, in each."""
        u = num_minibatches
        parts = [
            replay.sample(rng, u * count, discount=discount)
            for (replay, _), count in zip(self.sources, self.counts(batch_size), strict=True)
        ]
        join = lambda *x: np.concatenate([part.reshape(u, -1, *part.shape[1:]) for part in x], axis=1)  # noqa: E731
        return jax.tree.map(join, *parts)


def pack(batch: Batch) -> dict[str, np.ndarray]:
    """A batch as flat arrays in host memory, `field/entry`. Inverse of `unpack`."""
    fields = vars(batch)
    entries = {f: value.items() if isinstance(value, Mapping) else [("", value)] for f, value in fields.items()}
    return {f"{field}/{name}": np.asarray(x) for field, values in entries.items() for name, x in values}


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
