"""Sealing: the rows of a replay that change no more go into segments, written once
(`files.segments`); what a checkpoint writes again are the rows that still do."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int

from exporl.data.replay import Replay
from exporl.files.segments import (
    BLANK,
    ROW,
    ROWS,
    SHAPE,
    STREAM,
    Placed,
    Segment,
    is_there,
    write_segments,
)

LEAST_BYTES = 2**20
"""Of a segment: fewer rows wait in the checkpoint, so that a long run has not too many files."""
MOST_BYTES = 64 * 2**20
"""Of a segment: what is held in memory once more while it is written."""


class Sealing:
    """Which rows of a replay lie in which segments.

    Rows are sealed once their episode is over. A ring that overwrites a row takes it out of its
    segment; a segment is listed as long as it holds any row. Columns that others write (kept base
    samples) are renewed everywhere, all the time: they stay in the checkpoint.
    """

    def __init__(self, replay: Replay, folder: Path, part: str = "replay"):
        """Nothing is sealed yet.

        Args:
            replay: what is saved; the rows that it has written since are in its `holder`.
            folder: where the run keeps its checkpoints.
            part: what checkpoints call it.
        """
        self._replay, self._folder, self._part = replay, folder, part
        self._sealed: dict[int, Segment] = {}

    @property
    def segments(self) -> list[Segment]:
        """Those that hold rows of the replay, in the order in which they were written."""
        return list(self._sealed.values())

    def seal(self) -> dict[str, np.ndarray]:
        """Writes rows that change no more into segments, where there are enough of them.

        Returns:
            The part's own arrays: with the rows of `segments` they are `Replay.state`.
        """
        replay = self._replay
        if not all(is_there(self._folder, segment) for segment in self.segments):
            replay.holder[...] = 0  # somebody has removed files: all is written again
        state, holder = replay.state(), replay.holder[:, : replay.used]
        owned = {f"column/{name}" for name in replay.columns.owned}
        of_rows = {
            name: array for name, array in state.items() if array.ndim > 1 and name not in owned
        }
        own = {name: array for name, array in state.items() if name not in of_rows}
        self._write(of_rows, holder)
        self._sealed = {number: self._sealed[number] for number in _numbers(holder)}
        written = np.arange(replay.used) < state["size"][:, None]
        fills = {f"column/{name}": fill for name, fill in replay.columns.fills.items()}
        for name, array in of_rows.items():
            own[BLANK + name] = np.full(array.shape[2:], fills.get(name, 0), array.dtype)
        own[SHAPE] = np.array(holder.shape, np.int64)
        return own | _rows(of_rows, *np.nonzero(written & (holder == 0)))

    def _write(
        self, of_rows: Mapping[str, np.ndarray], holder: Int[np.ndarray, "streams used"]
    ) -> None:
        """Writes what is final and in no segment yet, and notes where it is."""
        streams, rows = np.nonzero(self._replay.final_rows() & (holder == 0))
        row_bytes = sum(array[:1, :1].nbytes for array in of_rows.values())
        if not len(rows) or len(rows) * row_bytes < LEAST_BYTES:
            return
        count = max(MOST_BYTES // row_bytes, 1)
        pieces = [slice(start, start + count) for start in range(0, len(rows), count)]
        arrays = (_rows(of_rows, streams[piece], rows[piece]) for piece in pieces)
        segments = write_segments(self._folder, self._part, arrays)
        first = max(self._sealed, default=0) + 1
        for number, (piece, segment) in enumerate(zip(pieces, segments, strict=True), first):
            holder[streams[piece], rows[piece]] = number
            self._sealed[number] = segment

    def load(self, state: Mapping[str, np.ndarray], placed: Placed | None) -> None:
        """Restores the replay, and goes on with the segments that its rows came from.

        Args:
            state: all of it.
            placed: where its rows were found; None: in no segments, as earlier versions saved it.

        Raises:
            ValueError: as `Replay.load`.
        """
        self._replay.load(state)
        self._sealed = {}
        if placed is not None:
            self._sealed = dict(enumerate(placed.segments, 1))
            self._replay.holder[:, : placed.holder.shape[1]] = placed.holder


def _rows(
    of_rows: Mapping[str, np.ndarray],
    streams: Int[np.ndarray, " n"],
    rows: Int[np.ndarray, " n"],
) -> dict[str, np.ndarray]:
    """Some rows of arrays [streams, used, ...], and where they lie, as segments have them."""
    found = {STREAM: streams.astype(np.int32), ROW: rows.astype(np.int32)}
    return found | {ROWS + name: array[streams, rows] for name, array in of_rows.items()}


def _numbers(holder: Int[np.ndarray, "streams used"]) -> list[int]:
    """The segments that hold any row, in order."""
    counts = np.bincount(holder.ravel())
    return [int(number) for number in np.flatnonzero(counts) if number]
