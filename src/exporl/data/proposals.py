"""Keeping base-policy samples in the replay: filled for new observations, renewed at a steady rate."""

from collections.abc import Callable, Sequence

import numpy as np

from exporl.data.replay import Replay


def renew_proposals(
    replays: Sequence[Replay],
    propose: Callable[[dict[str, np.ndarray], int], np.ndarray],
    block: int,
    version: int,
) -> int:
    """Gives samples to every next observation that has none, then renews those that were renewed longest ago.

    Args:
        replays: buffers with `num_proposals` > 0.
        propose: (observation [block, ...], index of the call) -> samples [block, n, h, a].
        block: observations per call of `propose`, and the least number that is given samples (while there are as
            many). What the missing ones leave of it is shared equally between the buffers.
        version: counts the base policy's updates; the age of samples is measured in it.

    Returns:
        Observations that were given samples.
    """
    pieces = [(replay, *replay.without_proposals()) for replay in replays]
    missing = sum(len(rows) for _, _, rows in pieces)
    spare = max(block, -(-missing // block) * block) - missing
    for i, replay in enumerate(sorted(replays, key=len)):  # what the smaller ones cannot use, the larger ones take
        pieces.append((replay, *replay.oldest_proposals(spare // (len(replays) - i))))
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
            replay.keep_proposals(streams[chosen[own]], rows[chosen[own]], samples[own], version)
    return len(rows)
