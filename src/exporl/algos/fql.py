"""FQL: flow Q-learning (Park, Li, Levine, arXiv 2502.02538).

A flow policy imitates. A one-step policy, a network from noise to action, is distilled from it and
climbs Q at the same time, so that no gradient has to pass through the flow's integration. The
one-step policy acts, and the TD target bootstraps from it.

Defaults are those of the paper and of its public code (seohongpark/fql at 719d044, agents/fql.py),
where alpha is `distill_weight`; docs/algorithms/fql.md has what differs. On action chunks this is
QC-FQL (Li, Zhou, Levine, arXiv 2507.07969): the preset `qc`.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float

from exporl.algos import common, presets
from exporl.algos.algorithm import Algorithm, Entry, Needs, Preset, compiled
from exporl.algos.base_weight import check_imitation
from exporl.algos.bounds import BoundOptions, TargetBounds
from exporl.algos.common import CRITIC_METRICS, CriticTrainer, Imitation, Model
from exporl.algos.critics import adam_trainer, init_critics, step_critics
from exporl.algos.deploy_noise import ALONE, DeployNoise
from exporl.algos.minibatches import each_minibatch
from exporl.nets.critic import Critic, q_values
from exporl.nets.encoder import flat_observation
from exporl.nets.one_step import OneStep, one_step_action
from exporl.ops.ensemble import aggregate
from exporl.ops.td import td_target
from exporl.options import option, sizes
from exporl.plain import added
from exporl.policies.base import BasePolicy
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

POLICY_METRICS = {
    "policy/loss": "`distill_weight` x distillation error - (normalised) mean of Q(s, action)",
    "policy/distill": "mean squared difference of one-step action and the flow's, same noise",
    "policy/q": "mean over e, b of Q(s, one-step policy's action)",
    "policy/clipped": "share of the one-step policy's action dimensions beyond [-1, 1]",
}


@dataclasses.dataclass(frozen=True)
class FqlConfig(BoundOptions, DeployNoise):
    """FQL. Defaults are those of the public code."""

    distill_weight: float = option(10.0, within="[0, inf)")
    """Weight of the distillation (alpha). The paper tunes it per task; scale it with the values."""
    normalize_q: bool = False
    """Divide the policy's Q by its mean absolute value, so that the weight knows no reward
    scale."""
    q_value: Literal["mean", "min"] = "mean"
    """What the TD target takes of the target critics at the next action."""
    num_qs: int = option(2, within="[1, inf)")
    """Critics in the ensemble."""
    hidden: tuple[int, ...] = sizes(512, 512, 512, 512)
    """Hidden layers of the critics and of the one-step policy."""
    critic_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the critics."""
    policy_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the one-step policy."""
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
class FqlState:
    """Everything that FQL learns."""

    base: Model
    policy: Model
    critic: Model
    target_critic: Params


@dataclasses.dataclass(frozen=True)
class Fql:
    """The functions of FQL for one task and one flow policy; parameters and keys are arguments."""

    config: FqlConfig
    spec: Spec
    imitation: Imitation
    policy: OneStep
    critic: Critic
    policy_optimizer: optax.GradientTransformation
    critic_trainer: CriticTrainer

    @classmethod
    def create(cls, config: FqlConfig, spec: Spec, base: BasePolicy) -> "Fql":
        """FQL with the networks and optimisers that the options describe."""
        critic_trainer = adam_trainer(config, TargetBounds.create(config, spec))
        return cls(
            config=config,
            spec=spec,
            imitation=Imitation(
                base,
                successes_only=config.base_data == "successes",
                base_weight=config.base_weight,
            ),
            policy=OneStep(config.hidden),
            critic=critic_trainer.critic,
            policy_optimizer=optax.flatten(optax.adam(config.policy_learning_rate)),
            critic_trainer=critic_trainer,
        )

    def init(self, key: KeyArray) -> FqlState:
        """The state before the first update."""
        base_key, policy_key, critic_key = jax.random.split(key, 3)
        observation, action = self.spec.example()
        policy = self.policy.init(policy_key, flat_observation(observation), action)
        critic = init_critics(self.critic_trainer, self.spec, critic_key)
        return FqlState(
            base=self.imitation.init(base_key),
            policy=Model.create(policy, self.policy_optimizer),
            critic=critic,
            target_critic=common.fresh(critic.params),
        )

    def sample(
        self,
        policy_params: Params,
        features: Float[Array, "b f"],
        noise: Float[Array, "b h a"],
    ) -> Float[Array, "b h a"]:
        """The one-step policy's action, clipped to [-1, 1]."""
        action = one_step_action(self.policy, policy_params, features, noise)
        return jnp.clip(action, -1.0, 1.0)

    # The critic: a TD backup with the one-step policy.

    def target(
        self,
        target_critic: Params,
        policy_params: Params,
        batch: Batch,
        noise: Float[Array, "b h a"],
    ) -> Float[Array, " b"]:
        """y = r + gamma * Q'(s', a'), with a' of the one-step policy; mean or least of all Q'."""
        features = flat_observation(batch.next_observation)
        action = self.sample(policy_params, features, noise)
        q_all = q_values(self.critic, target_critic, features, action)
        q = aggregate(q_all, self.config.q_value)
        return td_target(batch.reward, batch.discount, q)

    def update_critic(
        self, state: FqlState, batch: Batch, noise: Float[Array, "b h a"]
    ) -> tuple[FqlState, Metrics]:
        """One step of all critics towards y, one Polyak step of the target critics."""
        y = self.target(state.target_critic, state.policy.params, batch, noise)
        return step_critics(self.critic_trainer, state, batch, y)

    # The one-step policy: distilled from the flow, and climbing Q.

    def policy_loss(
        self,
        policy_params: Params,
        state: FqlState,
        observation: Observation,
        noise: Float[Array, "b h a"],
        q_weight: float,
    ) -> tuple[Float[Array, ""], Metrics]:
        """distill_weight * |pi(s, z) - flow(s, z)|^2 - q_weight * Q(s, pi(s, z)), noise z.

        The squared difference is averaged over rows and dimensions, Q over all critics; the flow
        and the critics are held fixed.
        """
        features = flat_observation(observation)
        action = one_step_action(self.policy, policy_params, features, noise)
        goal = self.imitation.base.decode(state.base.params, observation, noise)
        distill = jnp.square(action - goal).mean()
        clipped = jnp.clip(action, -1.0, 1.0)
        q = q_values(self.critic, state.critic.params, features, clipped).mean(axis=0)
        climb = q.mean()
        if self.config.normalize_q:
            climb = climb / jax.lax.stop_gradient(jnp.abs(q).mean())
        loss = self.config.distill_weight * distill - q_weight * climb
        return loss, {
            "policy/loss": loss,
            "policy/distill": distill,
            "policy/q": q.mean(),
            "policy/clipped": (jnp.abs(action) > 1).mean(dtype=jnp.float32),
        }

    def update_policy(
        self,
        state: FqlState,
        batch: Batch,
        noise: Float[Array, "b h a"],
        q_weight: float = 1.0,
    ) -> tuple[Model, Metrics]:
        """One step of the one-step policy; `q_weight` 0 is distillation alone."""
        gradient = jax.grad(self.policy_loss, has_aux=True)
        grads, metrics = gradient(state.policy.params, state, batch.observation, noise, q_weight)
        return state.policy.apply_gradients(grads, self.policy_optimizer), metrics

    # One update call: all three learn from every minibatch, each from the others as they were.

    def step(self, state: FqlState, batch: Batch, key: KeyArray) -> tuple[FqlState, Metrics]:
        """One step of critics, flow and one-step policy, each with the others as before it."""
        next_key, base_key, noise_key = jax.random.split(key, 3)
        next_noise = jax.random.normal(next_key, batch.action.shape)
        noise = jax.random.normal(noise_key, batch.action.shape)
        learnt, critic_metrics = self.update_critic(state, batch, next_noise)
        base, base_metrics = self.imitation.imitate(state.base, batch, base_key)
        policy, policy_metrics = self.update_policy(state, batch, noise)
        state = dataclasses.replace(learnt, base=base, policy=policy)
        return state, critic_metrics | base_metrics | policy_metrics

    def imitate(self, state: FqlState, batch: Batch, key: KeyArray) -> tuple[FqlState, Metrics]:
        """One step of the flow, and one of the one-step policy towards it alone."""
        base_key, noise_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, batch.action.shape)
        base, metrics = self.imitation.imitate(state.base, batch, base_key)
        policy, policy_metrics = self.update_policy(state, batch, noise, q_weight=0.0)
        named = {"policy/distill": policy_metrics["policy/distill"]}
        return dataclasses.replace(state, base=base, policy=policy), metrics | named

    def update(
        self, state: FqlState, batches: Batch, key: KeyArray, *, phase: Phase = "online"
    ) -> tuple[FqlState, Metrics]:
        """Everything learns from every minibatch of [u, b, ...], on prior data as online.

        Phase "pretrain": the flow imitates, and the one-step policy it; the critics stand still.
        """
        step = self.imitate if phase == "pretrain" else self.step
        return each_minibatch(step, state, batches, key)

    # Acting.

    def acting(self, state: FqlState) -> dict[str, Params]:
        """The one-step policy acts; the flow, where the base alone is asked for."""
        return {"base": state.base.params, "policy": state.policy.params}

    def act(
        self,
        acting: dict[str, Params],
        observation: Observation,
        key: KeyArray,
        *,
        mode: Mode = "explore",
        proposals: Float[Array, "b n h a"] | None = None,
    ) -> Decision:
        """A sample of the one-step policy; mode "base": one of the flow."""
        factor = self.config.noise_in(mode)
        if mode in ALONE:
            return self.imitation.act(
                acting["base"], observation, key, self.spec, proposals, noise_scale=factor
            )
        if proposals is not None:
            raise ValueError("fql's one-step policy chooses among no samples of its base policy.")
        features = flat_observation(observation)
        shape = (features.shape[0], self.spec.chunk_length, self.spec.action_dim)
        noise = jax.random.normal(key, shape)
        if factor != 1:
            noise = factor * noise
        return Decision(self.sample(acting["policy"], features, noise), {})


def fql(
    config: FqlConfig, spec: Spec, base: BasePolicy | None, precision: Precision = "float32"
) -> Algorithm:
    """The algorithm for one task and one flow policy, which owns the precision of the samples that
    are distilled.

    Raises:
        ValueError: options out of range, no base policy, or one that is no flow.
    """
    check_imitation(config)
    base = common.required(base, "fql")
    chunk = (spec.chunk_length, spec.action_dim)
    if base.noise_shape != chunk:
        raise ValueError(
            f"fql distils a policy whose noise has the shape of an action chunk, {chunk}; this "
            f"base policy's has {base.noise_shape}. Use base.kind=flow."
        )
    agent = Fql.create(config, spec, base)
    columns = agent.critic_trainer.bounds.columns + agent.imitation.columns
    needs = Needs(columns=columns, alone=config.alone)
    return compiled(agent, needs, has_base=True)


_CODE = "FQL code, agents/fql.py"
_QC = "QC paper and code, agents/acfql.py"

_PAPER: Preset = {
    "algo.distill_weight": (10.0, _CODE + ": default, tuned per task"),
    "algo.normalize_q": (False, _CODE),
    "algo.q_value": ("mean", _CODE),
    "algo.num_qs": (2, _CODE),
    "algo.hidden": ((512, 512, 512, 512), _CODE),
    "algo.critic_learning_rate": (3e-4, _CODE),
    "algo.policy_learning_rate": (3e-4, _CODE),
    "algo.tau": (0.005, _CODE),
    "base.kind": ("flow", _CODE),
    "base.num_steps": (10, _CODE),
    "base.learning_rate": (3e-4, _CODE),
    "base.weight_decay": (0.0, _CODE),
    "base.decay_steps": (0, _CODE),
    "train.batch_size": (256, _CODE),
    "train.discount": (0.99, _CODE),
    "train.utd_ratio": (1, _CODE),
    "train.critic_pretrain_steps": (1_000_000, "FQL paper: offline steps"),
    "train.online_steps": (1_000_000, "FQL paper: online steps"),
}
_SMALL: Preset = {
    "algo.num_qs": (2, _CODE),
    "algo.normalize_q": (True, presets.SIZE),
    "algo.distill_weight": (1.0, presets.SIZE),
}

PRESETS = {
    "paper": _PAPER,
    "qc": {**_PAPER, "algo.distill_weight": (100.0, _QC), "chunk_length": (5, _QC)},
    **presets.on_cpus(FqlConfig, _SMALL),
}

FQL = Entry(
    "fql",
    FqlConfig,
    fql,
    check_imitation,
    presets=PRESETS,
    metrics={**CRITIC_METRICS, **POLICY_METRICS},
)
