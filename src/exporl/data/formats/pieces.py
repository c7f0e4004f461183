"""Where the episodes of flat arrays in memory lie: ends that are marked or stated, outcomes that
lead on, last steps that have none."""

from typing import NamedTuple

import numpy as np

from exporl.data.formats.ends import (
    ONLY_TRUE_ENDS,
    Marks,
    check_doubtful,
    horizon_ends,
    inside,
)
from exporl.data.formats.outcomes import Outcomes, Rows, compare, contradiction


class Piece(NamedTuple):
    """Where an episode lies."""

    start: int
    stop: int
    """Its rows in the file."""
    first: int
    """The row of the stored observations at which it begins."""
    steps: int
    """One less than it has rows where the last one has no outcome."""
    terminated: bool
    fault: str
    notes: tuple[str, ...]


def find_pieces(
    seen: dict[str, np.ndarray],
    after: dict[str, np.ndarray],
    marks: Marks,
    stated_stops: np.ndarray | None,
    bare: bool,
    horizon: int | None,
) -> tuple[list[Piece], np.ndarray]:
    """The episodes, and the rows after which the stored observations need one more.

    Args:
        seen: observations, row by row.
        after: the outcomes that are stated, of the same entries; empty where none are.
        marks: what arrays say about ends.
        stated_stops: rows up to each end, where one array has them all.
        bare: whether nothing says which ends are true.
        horizon: steps after which episodes end, where nothing marks a time limit.

    Raises:
        ValueError: arrays contradict each other; names them.
    """
    rows = len(marks.ends)
    ends = _known_ends(marks, stated_stops, horizon)
    outcomes = _outcomes(seen, after, ends)
    stated = bool(after) and not any(outcome.copied for outcome in outcomes)
    jumps = np.any([outcome.jumps for outcome in outcomes if stated], axis=0) & np.ones(rows, bool)
    notes = dict.fromkeys(note for outcome in outcomes if (note := outcome.note()))
    if stated_stops is None:
        ends |= jumps
        if not stated and not marks.cut_offs and horizon is None:
            notes[ONLY_TRUE_ENDS] = None
    check_doubtful(marks, ends)
    true_ends = np.zeros(rows, bool) if marks.true_ends is None else marks.true_ends
    closes = ends if stated else ends & true_ends & (not bare)
    stops = np.flatnonzero(ends) + 1
    starts = np.r_[0, stops[:-1]]
    firsts = starts + np.r_[0, np.cumsum(closes[stops - 1])][:-1]
    pieces = []
    for start, stop, first in zip(starts.tolist(), stops.tolist(), firsts.tolist(), strict=True):
        fault = inside(marks, start, stop) or contradiction(jumps, start, stop)
        kept = stop - start - (not closes[stop - 1])
        said = list(notes) if start == 0 else []
        if marks.cut_offs and jumps[stop - 1] and not marks.ends[stop - 1] and stop < rows:
            said.append("ends where next_observations does not lead on, which no array marks.")
        terminated = bool(true_ends[stop - 1] and not bare)
        pieces.append(Piece(start, stop, first, kept, terminated, fault, tuple(said)))
    return pieces, np.flatnonzero(closes) + 1


def _known_ends(marks: Marks, stated_stops: np.ndarray | None, horizon: int | None) -> np.ndarray:
    """[n] bool: rows that end an episode before outcomes are looked at."""
    if stated_stops is not None:
        return np.isin(np.arange(len(marks.ends)), stated_stops - 1)
    ends = marks.ends.copy()
    if not marks.cut_offs and horizon is not None:
        ends |= horizon_ends(ends, horizon)
    ends[-1:] = True
    return ends


def _outcomes(
    seen: dict[str, np.ndarray], after: dict[str, np.ndarray], ends: np.ndarray
) -> list[Outcomes]:
    """How the outcomes that each entry states compare with the rows that follow."""
    found = []
    for name, following in after.items():
        if following.shape[1:] != seen[name].shape[1:]:
            suffix = "" if name == "state" and len(seen) == 1 else f"/{name}"
            raise ValueError(
                f"observations{suffix} and next_observations{suffix} have rows of different shapes."
            )
        found.append(compare(_reader(seen[name]), _reader(following), ends))
    return found


def _reader(array: np.ndarray) -> Rows:
    def rows(start: int, stop: int) -> np.ndarray:
        return array[start:stop]

    return rows


def closed(seen: np.ndarray, finals: np.ndarray, closing: np.ndarray) -> np.ndarray:
    """Observations with the one after each last step put where it belongs: the one stated, or the
    last one repeated."""
    return np.insert(seen, closing, finals, axis=0) if len(closing) else seen
