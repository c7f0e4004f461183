"""Stated outcomes: whether every `next_observations` is the observation of the following row.

An episode is stored as a chain of observations, so a stated outcome has to be where the chain goes
on. Differences that are small against what a step moves, or against the spread of the data (a
sensor that was read twice), are noise; anything larger contradicts the chain.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

COPIED = (
    "next_observations only repeat the observations of their own rows (was one array written "
    "into?): the observations of the following rows are used instead."
)
Rows = Callable[[int, int], np.ndarray]
"""(start, stop) -> those rows of an array."""
STEP_SHARE, SPREAD_SHARE = 0.1, 0.01
"""Noise is at most this share of the median step, or of the standard deviation of the data."""
IMAGE_STEP_SHARE, IMAGE_SPREAD_SHARE = 1.0, 0.1
"""The same for images, which compression and rendering change more."""
BLOCK_BYTES = 2 * 2**20
"""Of observations compared at a time."""


class Outcomes(NamedTuple):
    """How stated outcomes compare with the rows that follow."""

    jumps: np.ndarray
    """[n] bool: rows whose outcome is not the following row; the last row is one."""
    noisy: int
    """Rows whose outcome differs by no more than noise."""
    copied: bool
    """Every outcome is the observation of its own row, although those change: one array was
    written into, so nothing is stated."""

    def note(self) -> str:
        """A sentence about what is odd, "" where all is well."""
        if self.copied:
            return COPIED
        if not self.noisy:
            return ""
        return (
            f"next_observations differ a little from the observations of the following rows in "
            f"{self.noisy:,} of {len(self.jumps):,} steps; the latter are used."
        )


def compare(now: Rows, following: Rows, ends: np.ndarray, block: int | None = None) -> Outcomes:
    """Compares every stated outcome with the observation of the following row.

    Args:
        now: reads observations.
        following: reads next observations, of the same shape.
        ends: [n] bool, rows that are known to end an episode: noise is measured elsewhere.
        block: rows held at a time; by default `BLOCK_BYTES` of them.
    """
    rows = len(ends)
    block = block or max(1, BLOCK_BYTES // max(1, now(0, 1).nbytes))
    differing = np.ones(rows, bool)
    copied = np.array_equal(now(rows - 1, rows), following(rows - 1, rows))
    for start, stop in _blocks(rows - 1, block):
        after, stated = now(start + 1, stop + 1), following(start, stop)
        with np.errstate(all="ignore"):
            same = np.isclose(after, stated, rtol=1e-5, atol=1e-6, equal_nan=True)
            same |= ~(np.isfinite(after) & np.isfinite(stated))  # named by another check
        differing[start:stop] = ~same.reshape(stop - start, -1).all(axis=1)
        copied = copied and np.array_equal(now(start, stop), stated)
    inner = differing & ~ends
    inner[-1] = False
    if not inner.any() or copied:
        return Outcomes(differing & ~inner, 0, copied and bool(inner.any()))
    noise = _within_noise(now, following, rows, block)
    return Outcomes(differing & ~noise, int((inner & noise).sum()), copied=False)


def _blocks(rows: int, block: int) -> list[tuple[int, int]]:
    return [(start, min(start + block, rows)) for start in range(0, rows, block)]


def _within_noise(now: Rows, following: Rows, rows: int, block: int) -> np.ndarray:
    """[n] bool: rows whose outcome differs from the following row by no more than noise."""
    first = now(0, 1)
    image = first.dtype == np.uint8
    center = first.astype(np.float64).reshape(-1)
    total, squares = np.zeros_like(center), np.zeros_like(center)
    for start, stop in _blocks(rows, block):
        offsets = _flat(now(start, stop)) - center
        total += offsets.sum(axis=0)
        squares += (offsets**2).sum(axis=0)
    spread = np.sqrt(np.maximum(squares / rows - (total / rows) ** 2, 0))
    spread = np.where(spread > 0, spread, 1.0)
    steps, gaps = np.zeros(rows), np.full(rows, np.inf)
    for start, stop in _blocks(rows, block):
        stated = _flat(following(start, stop))
        steps[start:stop] = _size((stated - _flat(now(start, stop))) / spread)
        if (last := min(stop, rows - 1)) > start:
            after = _flat(now(start + 1, last + 1))
            gaps[start:last] = _size((after - stated[: last - start]) / spread)
    shares = (IMAGE_STEP_SHARE, IMAGE_SPREAD_SHARE) if image else (STEP_SHARE, SPREAD_SHARE)
    return gaps <= max(shares[0] * float(np.median(steps)), shares[1])


def _flat(rows: np.ndarray) -> np.ndarray:
    """[n, d] float64; what is not finite counts as 0, its own check names it."""
    values = rows.reshape(len(rows), -1).astype(np.float64)
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _size(rows: np.ndarray) -> np.ndarray:
    """Root mean square of each row."""
    return np.sqrt((rows**2).mean(axis=1)) if rows.shape[1] else np.zeros(len(rows))


def contradiction(jumps: np.ndarray, start: int, stop: int) -> str:
    """A sentence where an outcome contradicts the chain inside rows start to stop, else ""."""
    inner = np.flatnonzero(jumps[start : stop - 1])
    if not len(inner):
        return ""
    row = start + int(inner[0])
    return (
        f"next_observations row {row} is not the observation of row {row + 1} ({len(inner)} of "
        f"{stop - start - 1} such pairs): the rows are not in the order of time, or another "
        "episode begins there. Sort the rows, or state where episodes end."
    )
