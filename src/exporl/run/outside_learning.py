"""A base policy from outside beside a learner: its samples for the rows that are learnt from, and
its own imitation."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from exporl.acting.around import Seen, around, seed_of
from exporl.algos.algorithm import Algorithm, Needs
from exporl.algos.common import Imitation, last_minibatches, reduce_metrics
from exporl.data.episodes import Normalizer
from exporl.external import ImitationBatch, OutsideBase
from exporl.policies import BasePolicy
from exporl.randomness import IMITATE, run_key
from exporl.run.config import RunConfig
from exporl.types import PROPOSALS, Batch, KeyArray, Metrics, Phase, Spec


@dataclasses.dataclass(frozen=True)
class OutsideLearning:
    """What a learner does with a policy from outside."""

    base: OutsideBase
    seen: Seen
    """What networks see of an observation."""
    attached: int
    """Samples per next observation that minibatches carry beside what the replay keeps."""
    imitation: Imitation
    """Which rows are imitated."""
    num_updates: int
    """Imitation steps per update call, on its last minibatches."""

    @classmethod
    def of(
        cls, config: RunConfig[Any], base: OutsideBase, record: BasePolicy, seen: Seen, needs: Needs
    ) -> "OutsideLearning":
        """As a run's options say."""
        successes_only = getattr(config.algo, "base_data", "all") == "successes"
        base_weight: Any = getattr(config.algo, "base_weight", "uniform")
        imitation = Imitation(record, successes_only=successes_only, base_weight=base_weight)
        return cls(base, seen, needs.attached, imitation, getattr(config.algo, "base_updates", 1))

    def attach(self, batches: Batch, phase: Phase, key: KeyArray) -> Batch:
        """Minibatches [u, b, ...] with samples for their next observations, all from one call."""
        if not self.attached or phase == "pretrain":
            return batches
        lead = np.shape(batches.reward)
        flat = {
            name: np.asarray(value).reshape(-1, *np.shape(value)[2:])
            for name, value in batches.next_observation.items()
        }
        samples = self.base.sample(flat, self.attached, seed_of(key))
        samples = samples.reshape(*lead, *samples.shape[1:])
        return dataclasses.replace(batches, extra={**batches.extra, PROPOSALS: samples})

    def shown(self, batches: Batch) -> Batch:
        """Minibatches as the networks see them."""
        now, following = self.seen(batches.observation), self.seen(batches.next_observation)
        return dataclasses.replace(batches, observation=now, next_observation=following)

    def imitate(self, batches: Batch, phase: Phase, seed: int, updates: int) -> Metrics:
        """The imitation steps of one update call: one per minibatch of pretraining, online one on
        each of the last `num_updates`, if any; none where the policy is frozen.

        Args:
            batches: [u, b, ...], as the environment shows them.
            phase: what is learnt.
            seed: of the run.
            updates: update calls before this one.
        """
        if not self.base.learns or phase == "critic_pretrain":
            return {}
        if phase == "online" and not self.num_updates:
            return {}
        every = np.shape(batches.reward)[0]
        num = every if phase == "pretrain" else min(self.num_updates, every)
        rows = jax.tree.map(np.asarray, last_minibatches(batches, num))
        made = [
            self.base.imitate(self._rows(rows, i, seed_of(run_key(seed, IMITATE, updates, i))))
            for i in range(num)
        ]
        return reduce_metrics(
            {name: jnp.array([each[name] for each in made], jnp.float32) for name in made[0]}
        )

    def _rows(self, batches: Batch, index: int, seed: int) -> ImitationBatch:
        batch: Batch = jax.tree.map(_At(index), batches)
        weight = np.asarray(self.imitation.weight(batch))
        observation = dict(batch.observation)
        return ImitationBatch(observation, batch.action, batch.valid * weight[:, None], seed)


@dataclasses.dataclass(frozen=True)
class _At:
    """One minibatch of several."""

    index: int

    def __call__(self, leaf: np.ndarray) -> np.ndarray:
        return leaf[self.index]


def surrounded(
    config: RunConfig[Any],
    algorithm: Algorithm,
    base: OutsideBase | None,
    record: BasePolicy,
    network: Spec,
    normalizer: Normalizer | None,
) -> tuple[Algorithm, OutsideLearning | None]:
    """An algorithm around a policy from outside, and what its learner does with that; without one
    the algorithm as it is.

    Raises:
        ValueError: the algorithm takes no samples from outside.
    """
    if base is None:
        return algorithm, None
    seen = Seen(network, normalizer)
    learning = OutsideLearning.of(config, base, record, seen, algorithm.needs)
    return around(algorithm, base, seen), learning


def read_spec(shown: Spec, network: Spec, base: OutsideBase | None) -> Spec:
    """What networks, and a policy from outside if there is one, read between them of what a task
    shows."""
    if base is None:
        return network
    names = {*base.reads, *(name for name, _, _ in network.observation)}
    kept = tuple(entry for entry in shown.observation if entry[0] in names)
    return dataclasses.replace(shown, observation=kept)
