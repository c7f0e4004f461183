"""Keeping base-policy samples in the replay: filled for new observations, renewed at a steady rate.

Replays keep them in the columns of `columns.proposal_columns`.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from exporl.data.columns import PROPOSED
from exporl.data.replay import Replay
from exporl.spec import PROPOSALS

Propose = Callable[[dict[str, np.ndarray], int], np.ndarray]
"""(observation [block, ...], index of the call) -> samples [block, n, h, a]."""
Rows = tuple[Int[np.ndarray, " b"], Int[np.ndarray, " b"]]
"""(streams, rows) of a replay."""
_NEVER = np.iinfo(np.int64).max


def renew_proposals(replays: Sequence[Replay], propose: Propose, block: int, version: int) -> int:
    """Gives samples to every next observation that has none, then renews the oldest ones.

    Args:
        replays: buffers with `columns.proposal_columns`.
        propose: the base policy.
        block: observations per call of `propose`, and the least number that is given samples (while
            there are as many). What the missing ones leave of it is shared equally between the
            buffers.
        version: counts the base policy's updates; the age of samples is measured in it.

    Returns:
        Observations that were given samples.
    """
    pieces = [(replay, *without_proposals(replay)) for replay in replays]
    missing = sum(len(rows) for _, _, rows in pieces)
    spare = max(block, -(-missing // block) * block) - missing
    for i, replay in enumerate(sorted(replays, key=len)):  # what small ones cannot use, others take
        pieces.append((replay, *oldest_proposals(replay, spare // (len(replays) - i))))
        spare -= len(pieces[-1][1])
    which = np.concatenate([np.full(len(rows), i) for i, (_, _, rows) in enumerate(pieces)])
    streams = np.concatenate([streams for _, streams, _ in pieces])
    rows = np.concatenate([rows for _, _, rows in pieces])
    for index, start in enumerate(range(0, len(rows), block)):
        # one compiled shape: the last row fills up
        chosen = np.arange(start, start + block).clip(max=len(rows) - 1)
        owners = [
            (replay, own)
            for i, (replay, _, _) in enumerate(pieces)
            if (own := which[chosen] == i).any()
        ]
        samples = propose(_observations(owners, streams[chosen], rows[chosen]), index)
        for replay, own in owners:
            where = (streams[chosen[own]], rows[chosen[own]])
            keep_proposals(replay, *where, samples[own], version)
    return len(rows)


def _observations(
    owners: Sequence[tuple[Replay, np.ndarray]],
    streams: Int[np.ndarray, " b"],
    rows: Int[np.ndarray, " b"],
) -> dict[str, np.ndarray]:
    """Observations [b, ...] of rows in several replays, each with a mask [b] of the rows it has."""
    parts = [replay.observation(streams[own], rows[own]) for replay, own in owners]
    observation = {
        name: np.empty((len(rows), *x.shape[1:]), x.dtype) for name, x in parts[0].items()
    }
    for (_, own), part in zip(owners, parts, strict=True):
        for name, values in part.items():
            observation[name][own] = values
    return observation


def without_proposals(replay: Replay) -> Rows:
    """The next observations that have no samples yet."""
    wanted = replay.next_rows()
    return _rows(np.flatnonzero(wanted & (_made(replay) == 0)), wanted.shape)


def oldest_proposals(replay: Replay, limit: int) -> Rows:
    """Up to `limit` next observations with samples, those renewed longest ago first.

    Of samples made by the same version those of the first stream come first, and in a stream those
    of the first row: the order depends on nothing but what is stored. It is found in linear time.
    """
    made = _made(replay)
    due = np.where(replay.next_rows() & (made > 0), made, _NEVER)
    shape, due = due.shape, due.ravel()
    last = _NEVER - 1  # the newest version that is still among the oldest
    if limit < due.size:
        last = min(last, np.partition(due, max(limit - 1, 0))[max(limit - 1, 0)])
    oldest = np.flatnonzero(due <= last)
    oldest = oldest[np.argsort(due[oldest], kind="stable")][:limit]
    return _rows(oldest, shape)


def keep_proposals(
    replay: Replay,
    streams: Int[np.ndarray, " b"],
    rows: Int[np.ndarray, " b"],
    samples: Float[np.ndarray, "b n h a"],
    version: int,
) -> None:
    """Stores samples for the observations in some rows, made by the base policy of a version."""
    replay.column(PROPOSALS)[streams, rows] = samples
    replay.column(PROPOSED)[streams, rows] = version + 1


def proposal_age(replay: Replay, version: int) -> float:
    """Mean age, in versions, of the samples of all next observations; NaN without any."""
    made = _made(replay)
    made = made[replay.next_rows() & (made > 0)]
    return float(np.mean(version + 1 - made)) if len(made) else float("nan")


def _made(replay: Replay) -> Int[np.ndarray, "streams used"]:
    """The version that made a row's samples, plus one, for the rows written so far."""
    return replay.column(PROPOSED)[:, : replay.used]


def _rows(flat: Int[np.ndarray, " b"], shape: tuple[int, ...]) -> Rows:
    streams, rows = np.divmod(flat, shape[1])
    return streams, rows
