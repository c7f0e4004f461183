"""The guard: which policy acts in the next training episode, and which one is deployed, by how
their last episodes went.

Two arms, the base policy alone and the algorithm's policy around it. Thompson sampling (Thompson,
1933; tutorial: Russo et al., arXiv 1707.02038) chooses who acts, once the policy has been tried:
both draw a plausible success rate (or mean return) from what is known of them, and the larger draw
wins. Deployed is the policy, unless that record makes it likely that the base is better: a few
episodes cannot tell more, and a policy that has learnt is better more often than not
(benchmarks/stable.py). Old episodes count less, because both policies keep learning.
"""

import dataclasses
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

Arm = Literal["base", "explore"]
ARMS: tuple[Arm, Arm] = ("base", "explore")


class Outcome(NamedTuple):
    """How one training episode went."""

    env_steps: int
    """Environment steps made when it ended, over all environments."""
    success: bool
    length: int
    """Steps."""
    total_reward: float
    """Undiscounted sum of the learning reward."""
    arm: str = "explore"
    """Who acted: an arm, or "random", which counts for neither."""


@dataclasses.dataclass(frozen=True)
class Guard:
    """Chooses between two arms by their weighted records."""

    measure: Literal["success", "return"] = "success"
    """What episodes are judged by: success (Beta posterior) or return (normal posterior)."""
    memory: float = 0.93
    """Weight of an episode relative to the one after it: 0.93 remembers about 14 episodes."""
    prior: float = 2.0
    """Episodes that an arm starts with in thought, at the weighted mean of both arms."""
    tries: int = 5
    """Episodes that the policy gets before the records choose: two failures at the start, which are
    chance, could otherwise keep it from acting for thousands of steps."""
    sure: float = 0.9
    """How probable it must be by the record that the base is better, for it to be deployed."""

    def choose(self, outcomes: Sequence[Outcome], rng: np.random.Generator) -> Arm:
        """The arm of the next episode: the policy until it has been tried, then the larger of one
        draw from each posterior."""
        if sum(outcome.arm == "explore" for outcome in outcomes) < self.tries:
            return "explore"
        mean, weight, spread = self._posterior(outcomes)
        if self.measure == "success":
            draws = rng.beta(mean * weight, (1 - mean) * weight)
        else:
            draws = rng.normal(mean, spread / np.sqrt(weight))
        return ARMS[int(np.argmax(draws))]

    def deployed(self, outcomes: Sequence[Outcome]) -> Arm:
        """The policy, unless the base is better with probability `sure` (both posteriors taken as
        normal); the base as long as the policy has ended no episode.

        Each arm's record is its own last episodes, however long ago they were: an arm that did
        badly and was not tried since is not deployed because that is forgotten.
        """
        if not any(outcome.arm == "explore" for outcome in outcomes):
            return "base"
        mean, weight, spread = self._posterior(outcomes, apart=True)
        if self.measure == "success":
            variance = (mean * (1 - mean) / (weight + 1)).sum()
        else:
            variance = (spread**2 / weight).sum()
        ahead = (mean[0] - mean[1]) / np.sqrt(max(variance, 1e-12))
        return "base" if ahead > NormalDist().inv_cdf(self.sure) else "explore"

    def estimates(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """Posterior mean of both arms, for logs."""
        mean, _, _ = self._posterior(outcomes)
        return dict(zip(ARMS, mean.tolist(), strict=True))

    def _score(self, outcome: Outcome) -> float:
        return float(outcome.success) if self.measure == "success" else outcome.total_reward

    def _posterior(
        self, outcomes: Sequence[Outcome], *, apart: bool = False
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """(mean [2], weight [2] in episodes, standard deviation of one episode's score).

        Args:
            outcomes: of all episodes so far.
            apart: an episode ages with every later one of its own arm, not of both.
        """
        counted = [outcome for outcome in outcomes if outcome.arm in ARMS]
        score = np.array([self._score(outcome) for outcome in counted], np.float64)
        arm = np.array([ARMS.index(outcome.arm) for outcome in counted], np.int64)
        mine = arm == np.arange(2)[:, None]
        age = np.arange(len(counted))[::-1]
        if apart:
            later = mine[:, ::-1].cumsum(axis=1)[:, ::-1] - 1
            age = later[arm, np.arange(len(counted))]
        weight = self.memory**age

        pooled_weight = weight.sum()
        if self.measure == "success":  # one success and one failure in thought: never certain
            pooled, pooled_weight = (
                ((weight * score).sum() + 1) / (pooled_weight + 2),
                pooled_weight + 2,
            )
        else:
            pooled = (weight * score).sum() / pooled_weight if counted else 0.0
        spread = float(np.sqrt((weight * (score - pooled) ** 2).sum() / max(pooled_weight, 1e-9)))

        total = (weight * mine).sum(axis=1) + self.prior
        mean = ((weight * score * mine).sum(axis=1) + self.prior * pooled) / total
        return mean, total, spread
