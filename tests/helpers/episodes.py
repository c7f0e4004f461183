"""Recorded episodes of random numbers."""

import dataclasses

import numpy as np

from exporl.data.episodes import Episode


def random_episode(
    length: int = 5, seed: int = 0, *, image: tuple[int, ...] | None = None, **changes
) -> Episode:
    """A state [3] and, where a shape is given, an image; actions [2] in [-1, 1]; random rewards; a
    success at the true end. `changes` replaces fields."""
    rng = np.random.default_rng(seed)
    observations = {"state": rng.normal(size=(length + 1, 3)).astype(np.float32)}
    if image is not None:
        observations["image"] = rng.integers(256, size=(length + 1, *image), dtype=np.uint8)
    made = Episode(
        observations,
        rng.uniform(-1, 1, (length, 2)).astype(np.float32),
        rng.normal(size=length).astype(np.float32),
        np.arange(length) == length - 1,
        True,
    )
    return dataclasses.replace(made, **changes)
