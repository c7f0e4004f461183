"""The cost model of one update call: floating-point operations by part, counted by hand (2 per
multiply-add).

Matrix products only; a backward pass counts twice its forward pass. `docs/performance.md` explains
the parts.
"""

import itertools
from typing import Any

from exporl.types import Spec


def dense(*sizes: int) -> int:
    """Operations of one row through dense layers of these sizes."""
    return 2 * sum(i * o for i, o in itertools.pairwise(sizes))


def update_flops(config: Any, spec: Spec) -> dict[str, int]:
    """Operations of one update call (`train.utd_ratio` minibatches) of EXPO or RLPD, by part.

    Keys: sample (base policy for the backup), edit, rank (choice and value of the candidate),
    filter, critic (training), policies (base and edit steps on the last minibatch), refresh (cached
    samples).
    """
    algo, train = config.algo, config.train
    u, b = train.utd_ratio * train.update_every, train.batch_size
    observation = sum(shape[0] for _, shape, _ in spec.observation)
    action = spec.chunk_length * spec.action_dim
    q = dense(observation + action, *algo.hidden, 1)
    parts = {"critic": 3 * u * b * algo.num_qs * q}
    if config.algorithm == "rlpd":
        policy = dense(observation, *algo.hidden, 2 * action)
        parts |= {"edit": u * b * policy, "rank": u * b * algo.num_min_qs * q}
        return parts | {"policies": 3 * b * policy + 2 * b * algo.num_qs * q}
    n, edits = algo.num_base_samples, algo.num_edit_samples
    width, steps = config.base.width, config.base.num_steps
    trunk = config.base.num_blocks * dense(width, 4 * width, width) + dense(action, width, action)
    edit = dense(observation + action, *algo.hidden, 2 * action)
    sampled = {"fresh": n, "filtered": 1, "cached": 0}[algo.backup]
    base = n if algo.backup == "cached" else sampled
    moved = min(edits, base)
    parts["sample"] = u * b * sampled * steps * trunk
    parts["edit"] = u * b * moved * edit
    parts["rank"] = u * b * algo.num_min_qs * q * (base + moved + 1)
    if algo.backup == "filtered":
        parts["filter"] = u * b * 2 * q * (n + 3) + u * b * algo.num_min_qs * q
    if algo.backup == "cached":
        parts["refresh"] = algo.cache_refresh * n * steps * trunk
    first = dense(observation, width) + dense(
        2 * config.base.time_dim, 2 * config.base.time_dim, width
    )
    parts["policies"] = 3 * b * (trunk + first) + 3 * b * edit + 2 * b * algo.num_qs * q
    return parts
