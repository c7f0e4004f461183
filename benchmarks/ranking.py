"""How well does a critic rank candidates, and what do edits bring? Measured by branching.

    .venv/bin/python benchmarks/ranking.py runs/stable/assembly-new-s0 runs/stable/push-new-s0

In episodes of the base policy alone, at random decisions: every candidate (base samples, their
edits, and random edits of the same size) is played from the same state, and the base policy goes
on to the end. The state is reached again by its start and the actions played since, so the
environment must be deterministic; that is checked. Q ranks well where the rank correlation between
Q and realised return is high. Per run and over all runs: that correlation, the realised success of
the choice by Q, of a random base sample, of an edit and of a random edit, and `edit/over_noise`:
Q of an edit minus Q of a random edit of the same size. What has been measured is not measured
again. Writes benchmarks/results/ranking.json.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from common import RESULTS, write_result

from exporl.algos.expo import Expo
from exporl.algos.expo_entry import make_expo
from exporl.nets.critic import min_q
from exporl.nets.encoder import flat_observation
from exporl.policies import make_base
from exporl.randomness import env_seed
from exporl.run.session import Session, load_run
from exporl.types import Params


class Branches(NamedTuple):
    """What came of all candidates of one state."""

    q: np.ndarray
    """[c], by the minimum of all critics."""
    returns: np.ndarray
    """[c], discounted, in the learning reward, from this state on."""
    success: np.ndarray
    """[c]"""


class Player:
    """Plays branches of one run's base policy."""

    def __init__(self, session: Session, seed: int):
        self.session, self.env = session, session.parts.make_env()
        self.key, self.played = jax.random.key(seed), session.config.actions_played
        self.rng = np.random.default_rng(seed)
        self.acting = session.learner.acting()
        base = make_base(session.config.base, session.parts.network_spec)
        self.expo = make_expo(session.config.algo, session.parts.network_spec, base)
        self.candidates = jax.jit(candidates(self.expo))

    def next_key(self) -> jax.Array:
        """A new one."""
        self.key, drawn = jax.random.split(self.key)
        return drawn

    def base_chunk(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """[h, a] of the base policy."""
        batch = {name: value[None] for name, value in observation.items()}
        decided = self.session.algorithm.act(self.acting, batch, self.next_key(), mode="base")
        return np.asarray(decided.action)[0]

    def play(
        self, seed: int, prefix: list[np.ndarray], chunk: np.ndarray | None
    ) -> tuple[list[np.ndarray], list[dict[str, np.ndarray]], list[float], bool]:
        """One episode: the actions of `prefix`, then of `chunk`, then the base policy's.

        Returns:
            The actions and observations since the prefix, its rewards, and whether it succeeded.
        """
        observation, _ = self.env.reset(seed=seed)
        seen, done, success, rewards = [observation], False, False, []
        queue = [*prefix, *(() if chunk is None else chunk[: self.played])]
        actions = []
        while not done:
            if not queue:
                queue = list(self.base_chunk(observation)[: self.played])
            action = queue.pop(0)
            observation, paid, terminated, truncated, info = self.env.step(action)
            actions.append(action)
            seen.append(observation)
            rewards.append(self.session.task.reward(float(paid)))
            success |= bool(info.get("success", False))
            done = terminated or truncated
        begin = len(prefix)
        return actions, seen[begin:], rewards[begin:], success

    def branch(self, episode: int) -> Branches | None:
        """All candidates of one random decision; None where the base's episode has just one."""
        seed = env_seed(17, episode)
        actions, seen, _, _ = self.play(seed, [], None)
        decisions = (len(actions) - 1) // self.played
        if decisions < 1:
            return None
        at = self.played * int(self.rng.integers(decisions))
        batch = {name: value[None] for name, value in seen[at].items()}
        chunks, q = jax.device_get(self.candidates(self.acting, batch, self.next_key()))
        discount = self.session.config.train.discount
        returns, success = [], []
        for chunk in chunks:
            _, again, rewards, solved = self.play(seed, actions[:at], chunk)
            if any(not np.array_equal(again[0][name], seen[at][name]) for name in again[0]):
                raise ValueError(
                    f"{self.session.task.name} is not deterministic: cannot branch it."
                )
            returns.append(float(np.polyval(rewards[::-1], discount)))
            success.append(solved)
        return Branches(q, np.array(returns), np.array(success))


def candidates(expo: Expo) -> Callable[..., Any]:
    """(acting, observation [1, ...], key) -> chunks [3 n, h, a] and their min Q [3 n]: n base
    samples, their edits, and random edits of the same size."""

    def function(acting: Params, observation: Any, key: jax.Array) -> Any:
        propose_key, edit_key, sign_key = jax.random.split(key, 3)
        base = expo.propose(acting["base"], observation, propose_key)
        features = flat_observation(observation)
        eps = jax.random.normal(edit_key, base.shape)
        edits = expo.draw_edits(expo.edit, acting["edit"], features[:, None], base, eps)
        moved = edits.action - base
        noise = base + moved * jax.random.rademacher(sign_key, base.shape, jnp.float32)
        chunks = jnp.concatenate([base, edits.action, jnp.clip(noise, -1, 1)], axis=1)
        members = jnp.arange(expo.config.num_qs)
        q = min_q(expo.critic, acting["critic"], features, chunks, members)
        return chunks[0], q[0]

    return function


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, with mean ranks for ties; NaN where one of them is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(scipy.stats.spearmanr(a, b).statistic)


def measured(run: Path, states: int, seed: int) -> dict[str, Any]:
    """The figures of one run."""
    player = Player(load_run(run), seed)
    n = player.expo.config.num_base_samples
    found = [branches for i in range(states) if (branches := player.branch(i)) is not None]
    base, edit, noise = (slice(i * n, (i + 1) * n) for i in range(3))
    choice = [int(b.q[: 2 * n].argmax()) for b in found]
    unedited = [int(b.q[:n].argmax()) for b in found]
    correlations = [rank_correlation(b.q[: 2 * n], b.returns[: 2 * n]) for b in found]
    success = {
        "random_base": [b.success[base].mean() for b in found],
        "random_edit": [b.success[edit].mean() for b in found],
        "random_noise": [b.success[noise].mean() for b in found],
        "best_q": [b.success[i] for b, i in zip(found, choice, strict=True)],
        "best_q_of_base": [b.success[i] for b, i in zip(found, unedited, strict=True)],
        "best_of_all": [b.success[: 2 * n].max() for b in found],
    }
    return {
        "run": run.name,
        "states": len(found),
        "rank_correlation": float(np.nanmean(correlations)),
        "states_that_differ": int(np.isfinite(correlations).sum()),
        "edit/over_noise": float(np.mean([(b.q[edit] - b.q[noise]).mean() for b in found])),
        "success": {name: float(np.mean(values)) for name, values in success.items()},
    }


def main() -> None:
    """All runs, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--states", type=int, default=40, help="decisions branched per run")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    path = RESULTS / "ranking.json"
    results = json.loads(path.read_text())["results"] if path.is_file() else []
    known = {(r["run"], r["states"], r["seed"]) for r in results}
    for run in options.runs:
        if (run.name, options.states, options.seed) in known:
            continue
        found = measured(run, options.states, options.seed)
        results.append({"seed": options.seed, **found})
        print(results[-1], flush=True)
        write_result("ranking", {"command": "benchmarks/ranking.py", "results": results})


if __name__ == "__main__":
    main()
