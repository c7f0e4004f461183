"""QC: Q-chunking, best of n over action chunks (Li, Zhou, Levine, arXiv 2507.07969).

A flow of whole chunks imitates. Critics learn the value of a chunk, bootstrapping over all its
steps at once from the best of n samples of the flow, and the best of n acts. The critics that learn
choose, by their mean, and the mean of the target critics values what they chose.

Chunks are no part of the algorithm here: `chunk_length` says how many actions one has, and reward
and discount of a row cover them. QC-FQL, its other form, is `fql.py` with the preset `qc`.

Defaults are those of the public code (ColinQiyangLi/qc at 48283b4, agents/acfql.py, actor type
best-of-n); docs/algorithms/qc.md has what differs.
"""

import dataclasses
from typing import Literal

import jax
from flax import struct
from jaxtyping import Array, Float

from exporl.algos import common, presets
from exporl.algos.algorithm import Algorithm, Entry, Needs, Preset, compiled
from exporl.algos.base_weight import check_imitation
from exporl.algos.bounds import BoundOptions, TargetBounds
from exporl.algos.common import CRITIC_METRICS, CriticTrainer, Imitation, Model
from exporl.algos.critics import adam_trainer, init_critics, step_critics
from exporl.algos.deploy_noise import ALONE, SampleNoise, noise_scales
from exporl.algos.minibatches import each_minibatch
from exporl.nets.critic import Critic, q_values
from exporl.nets.encoder import flat_observation
from exporl.ops.ensemble import aggregate
from exporl.ops.selection import take_candidate
from exporl.ops.td import td_target
from exporl.options import option, sizes
from exporl.plain import added
from exporl.policies.base import BasePolicy, propose
from exporl.types import (
    Batch,
    Decision,
    KeyArray,
    Metrics,
    Mode,
    Observation,
    Params,
    Phase,
    Precision,
    Spec,
)

CHOICE_METRICS = {
    "choice/gain": "mean over b of the greatest - the mean of the samples' values in s'",
}


@dataclasses.dataclass(frozen=True)
class QcConfig(BoundOptions, SampleNoise):
    """QC. Defaults are those of the public code."""

    num_base_samples: int = option(32, within="[1, inf)")
    """Chunks n that the flow proposes per observation, to act and in the TD target (N)."""
    q_value: Literal["mean", "min"] = "mean"
    """What is taken of the critics, to choose and to value: their mean or the least."""
    num_qs: int = option(2, within="[1, inf)")
    """Critics in the ensemble."""
    hidden: tuple[int, ...] = sizes(512, 512, 512, 512)
    """Hidden layers of the critics."""
    critic_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the critics."""
    tau: float = option(0.005, within="(0, 1]")
    """Polyak step of the target critics, per critic update."""
    base_data: Literal["all", "successes"] = "all"
    """The flow imitates all rows, or successful episodes only (a minibatch without any: its
    demonstrations)."""
    base_weight: Literal["uniform", "shorter", "recent"] = added("uniform", absent="uniform")
    """Which successful episodes count most in imitation, by exp(-z) with z standardised over the
    successes of a minibatch. shorter: z is the length; recent: the age, demonstrations being the
    oldest."""


@struct.dataclass
class QcState:
    """Everything that QC learns."""

    base: Model
    critic: Model
    target_critic: Params


@dataclasses.dataclass(frozen=True)
class Qc:
    """The functions of QC for one task and one base policy; parameters and keys are arguments.

    `ranking_critic` is `critic` in the precision in which samples are ranked.
    """

    config: QcConfig
    spec: Spec
    imitation: Imitation
    critic: Critic
    ranking_critic: Critic
    critic_trainer: CriticTrainer

    @classmethod
    def create(
        cls, config: QcConfig, spec: Spec, base: BasePolicy, precision: Precision = "float32"
    ) -> "Qc":
        """QC with the networks and optimisers that the options describe."""
        critic_trainer = adam_trainer(config, TargetBounds.create(config, spec))
        return cls(
            config=config,
            spec=spec,
            imitation=Imitation(
                base,
                successes_only=config.base_data == "successes",
                base_weight=config.base_weight,
            ),
            critic=critic_trainer.critic,
            ranking_critic=critic_trainer.critic.clone(precision=precision),
            critic_trainer=critic_trainer,
        )

    def init(self, key: KeyArray) -> QcState:
        """The state before the first update."""
        base_key, critic_key = jax.random.split(key)
        critic = init_critics(self.critic_trainer, self.spec, critic_key)
        return QcState(
            base=self.imitation.init(base_key),
            critic=critic,
            target_critic=common.fresh(critic.params),
        )

    # The choice, and the critics' target.

    def best(
        self,
        critic_params: Params,
        features: Float[Array, "b f"],
        samples: Float[Array, "b n h a"],
    ) -> tuple[Float[Array, "b h a"], Float[Array, "b n"]]:
        """The sample of highest value, and the values of all."""
        q_all = q_values(self.ranking_critic, critic_params, features[:, None], samples)
        q = aggregate(q_all, self.config.q_value)
        return take_candidate(samples, q.argmax(axis=-1)), q

    def propose(
        self, base_params: Params, observation: Observation, key: KeyArray, factor: float = 1.0
    ) -> Float[Array, "b n h a"]:
        """n samples of the flow; `min_noise_scale` narrows the first ones, the factor all."""
        num, base = self.config.num_base_samples, self.imitation.base
        scales = noise_scales(num, factor, self.config.min_noise_scale)
        return propose(base, base_params, observation, num, key, self.spec, scales)

    def target(
        self,
        state: QcState,
        batch: Batch,
        samples: Float[Array, "b n h a"],
    ) -> tuple[Float[Array, " b"], Float[Array, "b n"]]:
        """y = r + gamma^h * Q'(s', a*), where the learning critics choose a* among samples in s';
        and their values of all samples."""
        features = flat_observation(batch.next_observation)
        action, q = self.best(state.critic.params, features, samples)
        q_all = q_values(self.critic, state.target_critic, features, action)
        value = aggregate(q_all, self.config.q_value)
        return td_target(batch.reward, batch.discount, value), q

    # One update call: critics and flow learn from every minibatch.

    def update_critic(self, state: QcState, batch: Batch, key: KeyArray) -> tuple[QcState, Metrics]:
        """One step of all critics towards y, one Polyak step of the target critics."""
        samples = self.propose(state.base.params, batch.next_observation, key)
        y, q = self.target(state, batch, samples)
        state, metrics = step_critics(self.critic_trainer, state, batch, y)
        return state, metrics | {"choice/gain": (q.max(axis=-1) - q.mean(axis=-1)).mean()}

    def step(self, state: QcState, batch: Batch, key: KeyArray) -> tuple[QcState, Metrics]:
        """One step of critics and flow, each with the other as before it."""
        critic_key, base_key = jax.random.split(key)
        learnt, critic_metrics = self.update_critic(state, batch, critic_key)
        base, base_metrics = self.imitation.imitate(state.base, batch, base_key)
        return dataclasses.replace(learnt, base=base), critic_metrics | base_metrics

    def update(
        self, state: QcState, batches: Batch, key: KeyArray, *, phase: Phase = "online"
    ) -> tuple[QcState, Metrics]:
        """Everything learns from every minibatch of [u, b, ...], on prior data as online.

        Phase "pretrain" is imitation alone.
        """
        if phase == "pretrain":
            base, _, metrics = self.imitation.pretrain(state.base, batches, key)
            return dataclasses.replace(state, base=base), metrics
        return each_minibatch(self.step, state, batches, key)

    # Acting.

    def acting(self, state: QcState) -> dict[str, Params]:
        """The flow acts, and the learning critics choose."""
        return {"base": state.base.params, "critic": state.critic.params}

    def act(
        self,
        acting: dict[str, Params],
        observation: Observation,
        key: KeyArray,
        *,
        mode: Mode = "explore",
        proposals: Float[Array, "b n h a"] | None = None,
    ) -> Decision:
        """The best of `proposals` or of n new samples; mode "base": one sample."""
        factor = self.config.noise_in(mode)
        if mode in ALONE:
            return self.imitation.act(
                acting["base"], observation, key, self.spec, proposals, noise_scale=factor
            )
        if proposals is None:
            proposals = self.propose(acting["base"], observation, key, factor)
        action, q = self.best(acting["critic"], flat_observation(observation), proposals)
        return Decision(action, {"q": q.max(axis=-1), "index": q.argmax(axis=-1)})


def qc(
    config: QcConfig, spec: Spec, base: BasePolicy | None, precision: Precision = "float32"
) -> Algorithm:
    """The algorithm for one task and one base policy.

    Raises:
        ValueError: options out of range, or there is no base policy.
    """
    check_imitation(config)
    agent = Qc.create(config, spec, common.required(base, "qc"), precision)
    columns = agent.critic_trainer.bounds.columns + agent.imitation.columns
    needs = Needs(columns=columns, alone=config.alone)
    return compiled(agent, needs, has_base=True)


_CODE = "QC code, agents/acfql.py"

_PAPER: Preset = {
    "algo.num_base_samples": (32, _CODE),
    "algo.q_value": ("mean", _CODE),
    "algo.num_qs": (2, _CODE),
    "algo.hidden": ((512, 512, 512, 512), _CODE),
    "algo.critic_learning_rate": (3e-4, _CODE),
    "algo.tau": (0.005, _CODE),
    "base.kind": ("flow", _CODE),
    "base.num_steps": (10, _CODE),
    "base.learning_rate": (3e-4, _CODE),
    "base.weight_decay": (0.0, _CODE),
    "base.decay_steps": (0, _CODE),
    "chunk_length": (5, "QC paper"),
    "train.batch_size": (256, _CODE),
    "train.discount": (0.99, _CODE),
    "train.utd_ratio": (1, "QC paper"),
    "train.critic_pretrain_steps": (1_000_000, "QC paper: offline steps"),
    "train.online_steps": (1_000_000, "QC paper: online steps"),
}
_SMALL: Preset = {
    "algo.num_base_samples": (8, presets.SIZE),
    "algo.num_qs": (2, _CODE),
    "chunk_length": (4, presets.SIZE),
}

PRESETS = {
    "paper": _PAPER,
    **presets.on_cpus(QcConfig, _SMALL),
}

METRICS = {**CRITIC_METRICS, **CHOICE_METRICS}

QC = Entry("qc", QcConfig, qc, check_imitation, presets=PRESETS, metrics=METRICS)
