"""Keeping base-policy samples in the replay: filled for new observations, renewed at a steady rate."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from exporl.data.columns import PROPOSED
from exporl.data.replay import Replay
from exporl.spec import PROPOSALS


def renew_proposals(
    replays: Sequence[Replay],
    propose: Callable[[dict[str, np.ndarray], int], np.ndarray],
    block: int,
    version: int,
) -> int:
    """Gives samples to every next observation that has none, then renews those that were renewed longest ago.

    Args:
        replays: buffers with `columns.proposal_columns`.
        propose: (observation [block, ...], index of the call) -> samples [block, n, h, a].
        block: observations per call of `propose`, and the least number that is given samples (while there are as
            many). What the missing ones leave of it is shared equally between the buffers.
        version: counts the base policy's updates; the age of samples is measured in it.

    Returns:
        Observations that were given samples.
    """
    pieces = [(replay, *without_proposals(replay)) for replay in replays]
    missing = sum(len(rows) for _, _, rows in pieces)
    spare = max(block, -(-missing // block) * block) - missing
    for i, replay in enumerate(sorted(replays, key=len)):  # what the smaller ones cannot use, the larger ones take
        pieces.append((replay, *oldest_proposals(replay, spare // (len(replays) - i))))
        spare -= len(pieces[-1][1])
    which = np.concatenate([np.full(len(rows), i) for i, (_, _, rows) in enumerate(pieces)])
    streams = np.concatenate([streams for _, streams, _ in pieces])
    rows = np.concatenate([rows for _, _, rows in pieces])
    for index, start in enumerate(range(0, len(rows), block)):
        chosen = np.arange(start, start + block).clip(max=len(rows) - 1)  # one compiled shape: the last row fills up
        owners = [(replay, own) for i, (replay, _, _) in enumerate(pieces) if (own := which[chosen] == i).any()]
        parts = [replay.observation(streams[chosen[own]], rows[chosen[own]]) for replay, own in owners]
        observation = {name: np.empty((block, *x.shape[1:]), x.dtype) for name, x in parts[0].items()}
        for (_, own), part in zip(owners, parts, strict=True):
            for name, values in part.items():
                observation[name][own] = values
        samples = propose(observation, index)
        for replay, own in owners:
            keep_proposals(replay, streams[chosen[own]], rows[chosen[own]], samples[own], version)
    return len(rows)


def without_proposals(replay: Replay) -> tuple[np.ndarray, np.ndarray]:
    """(streams, rows) of the next observations that have no samples yet."""
    streams, rows = np.nonzero(_made(replay) == 0)
    return streams, rows


def oldest_proposals(replay: Replay, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """(streams, rows) of up to `limit` next observations with samples, those renewed longest ago first."""
    made = _made(replay)
    streams, rows = np.nonzero(made > 0)
    if limit < len(rows):
        oldest = np.argpartition(made[streams, rows], limit)[:limit]
        streams, rows = streams[oldest], rows[oldest]
    return streams, rows


def keep_proposals(
    replay: Replay, streams: np.ndarray, rows: np.ndarray, samples: np.ndarray, version: int
) -> None:
    """Stores samples [b, n, h, a] for the observations in some rows, made by the base policy of a version."""
    replay.column(PROPOSALS)[streams, rows] = samples
    replay.column(PROPOSED)[streams, rows] = version + 1


def proposal_age(replay: Replay, version: int) -> float:
    """Mean age, in versions, of the samples of all next observations; NaN without any."""
    made = _made(replay)
    made = made[made > 0]
    return float(np.mean(version + 1 - made)) if len(made) else float("nan")


def saved_proposals(replay: Replay) -> dict[str, np.ndarray]:
    """The samples and when they were made, without the rows never written. Inverse of `load_proposals`."""
    state = replay.state()
    names = [f"column/{name}" for name in (PROPOSALS, PROPOSED)]
    return {name: state[name] for name in names if name in state}


def load_proposals(replay: Replay, saved: Mapping[str, np.ndarray]) -> None:
    """Restores `saved_proposals` into a buffer that holds the same observations."""
    for name, value in saved.items():
        replay.column(name.removeprefix("column/"))[:, : value.shape[1]] = value


def _made(replay: Replay) -> np.ndarray:
    """When samples were made [streams, used], -1 where the row is no step's next observation."""
    wanted = replay.next_rows()
    return np.where(wanted, replay.column(PROPOSED)[:, : wanted.shape[1]], -1)
