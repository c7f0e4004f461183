"""Residual RL: a bounded correction of a frozen base policy's action, learnt by TD3.

ResFiT (Ankile et al., arXiv 2509.19301) with the progressive exploration of Policy Decorator (Yuan
et al., arXiv 2412.13630). The base policy imitates and is then left as it is. A deterministic
residual policy reads the state and the base's action, and adds at most `residual_scale` to each of
its dimensions. It follows the gradient of the mean of an ensemble of critics of the sum; TD targets
take the least of a random few. While it explores, the residual is used in a growing share of the
decisions.

Defaults are those of ResFiT's public code (amazon-science/residual-offpolicy-rl at 66262b0,
resfit/rl_finetuning/config/residual_td3.py and rlpd.py); docs/algorithms/residual.md has what
differs.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from exporl.algos import common, presets
from exporl.algos.algorithm import Algorithm, Entry, Needs, Preset, compiled
from exporl.algos.bounds import BoundOptions, TargetBounds
from exporl.algos.common import CRITIC_METRICS, CriticTrainer, Imitation, Model
from exporl.algos.critics import adam_trainer, check_minimum, init_critics, step_critics
from exporl.algos.deploy_noise import ALONE, DeployNoise, noise_scales
from exporl.algos.minibatches import each_minibatch
from exporl.nets.critic import Critic, min_q, q_values
from exporl.nets.encoder import flat_observation
from exporl.nets.one_step import OneStep, one_step_action
from exporl.ops.ensemble import random_members
from exporl.ops.td import td_target
from exporl.options import option, sizes
from exporl.policies.base import BasePolicy, propose
from exporl.types import (
    AnyArray,
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

RESIDUAL_METRICS = {
    "residual/loss": "-mean over e, b of Q(s, base action + residual)",
    "residual/size": "mean absolute residual in units of `residual_scale`",
    "residual/saturated": "share of the residual's dimensions beyond .95 of its bound",
    "residual/share": "share of the decisions in which exploration uses the residual",
}


@dataclasses.dataclass(frozen=True)
class ResidualConfig(BoundOptions, DeployNoise):
    """Residual RL. Defaults are those of ResFiT's public code."""

    residual_scale: float = option(0.1, within="(0, 2]")
    """Most that is added to a dimension of the base action, of a range of [-1, 1] (action_scale;
    Policy Decorator's res_scale)."""
    ramp_calls: int = option(0, within="[0, inf)")
    """Online update calls over which the share of exploring decisions with a residual rises from 0
    to 1 (Policy Decorator's prog_explore counts environment steps). 0: always all."""
    noise: float = option(0.05, within="[0, inf)")
    """Standard deviation of the noise on residuals that explore, and in the TD target, in units of
    actions (stddev_max)."""
    noise_clip: float = option(0.3, within="[0, inf)")
    """Most that noise in the TD target is (stddev_clip)."""
    num_qs: int = 10
    """Critics in the ensemble."""
    num_min_qs: int = 2
    """Critics in each minimum."""
    hidden: tuple[int, ...] = sizes(1024, 1024)
    """Hidden layers of the critics and of the residual policy."""
    critic_learning_rate: float = option(1e-4, within="[0, inf)")
    """Adam step size of the critics."""
    policy_learning_rate: float = option(1e-6, within="[0, inf)")
    """Adam step size of the residual policy."""
    tau: float = option(0.005, within="(0, 1]")
    """Polyak step of the target critics, per critic update, and of the target policy, per update of
    the policy."""


@struct.dataclass
class ResidualState:
    """Everything that residual RL learns."""

    base: Model
    policy: Model
    target_policy: Params
    critic: Model
    target_critic: Params
    online_calls: Params
    """Update calls so far in the phase "online", int32 []."""


@dataclasses.dataclass(frozen=True)
class Residual:
    """The functions of residual RL for one task and one base policy; parameters and keys are
    arguments."""

    config: ResidualConfig
    spec: Spec
    imitation: Imitation
    policy: OneStep
    critic: Critic
    critic_trainer: CriticTrainer
    optimizer: optax.GradientTransformation
    """Of the residual policy."""

    @classmethod
    def create(cls, config: ResidualConfig, spec: Spec, base: BasePolicy) -> "Residual":
        """Residual RL with the networks and optimisers that the options describe."""
        critic_trainer = adam_trainer(config, TargetBounds.create(config, spec))
        return cls(
            config=config,
            spec=spec,
            imitation=Imitation(base),
            policy=OneStep(config.hidden),
            critic=critic_trainer.critic,
            critic_trainer=critic_trainer,
            optimizer=optax.flatten(optax.adam(config.policy_learning_rate)),
        )

    def init(self, key: KeyArray) -> ResidualState:
        """The state before the first update, in which every residual is 0."""
        base_key, policy_key, critic_key = jax.random.split(key, 3)
        observation, action = self.spec.example()
        policy = self.policy.init(policy_key, flat_observation(observation), action)
        layers = dict(policy["params"])
        layers["Dense_0"] = jax.tree.map(jnp.zeros_like, layers["Dense_0"])
        policy = {"params": layers}
        critic = init_critics(self.critic_trainer, self.spec, critic_key)
        return ResidualState(
            base=self.imitation.init(base_key),
            policy=Model.create(policy, self.optimizer),
            target_policy=common.fresh(policy),
            critic=critic,
            target_critic=common.fresh(critic.params),
            online_calls=jnp.int32(0),
        )

    # Base action and residual.

    def base_action(
        self, base_params: Params, observation: Observation, key: KeyArray, factor: float = 1.0
    ) -> Float[Array, "b h a"]:
        """One sample of the base policy for every observation, with a factor on its noise."""
        base, scales = self.imitation.base, noise_scales(1, factor)
        return propose(base, base_params, observation, 1, key, self.spec, scales)[:, 0]

    def unit_residual(
        self, params: Params, features: Float[Array, "b f"], base_action: Float[Array, "b h a"]
    ) -> Float[Array, "b h a"]:
        """The residual before scaling, in [-1, 1]."""
        return jnp.tanh(one_step_action(self.policy, params, features, base_action))

    def corrected(
        self,
        params: Params,
        features: Float[Array, "b f"],
        base_action: Float[Array, "b h a"],
        noise: Float[Array, "b h a"],
    ) -> Float[Array, "b h a"]:
        """Base action + residual + noise, clipped to [-1, 1]."""
        unit = self.unit_residual(params, features, base_action)
        return jnp.clip(base_action + self.config.residual_scale * unit + noise, -1.0, 1.0)

    # The critics.

    def target(
        self,
        state: ResidualState,
        batch: Batch,
        base_action: Float[Array, "b h a"],
        eps: Float[Array, "b h a"],
        members: Int[Array, " m"],
    ) -> Float[Array, " b"]:
        """y = r + gamma * min Q'(s', a') over a subset, at the target policy's noisy action."""
        config, features = self.config, flat_observation(batch.next_observation)
        noise = jnp.clip(config.noise * eps, -config.noise_clip, config.noise_clip)
        action = self.corrected(state.target_policy, features, base_action, noise)
        value = min_q(self.critic, state.target_critic, features, action[:, None], members)[:, 0]
        return td_target(batch.reward, batch.discount, value)

    def critic_step(
        self, state: ResidualState, batch: Batch, key: KeyArray
    ) -> tuple[ResidualState, Metrics]:
        """One step of all critics towards the TD target; one Polyak step of the target critics."""
        base_key, eps_key, member_key = jax.random.split(key, 3)
        y = self.target(
            state,
            batch,
            self.base_action(state.base.params, batch.next_observation, base_key),
            jax.random.normal(eps_key, batch.action.shape),
            random_members(member_key, self.config.num_qs, self.config.num_min_qs),
        )
        return step_critics(self.critic_trainer, state, batch, y)

    # The residual policy.

    def policy_loss(
        self,
        policy_params: Params,
        critic_params: Params,
        features: Float[Array, "b f"],
        base_action: Float[Array, "b h a"],
    ) -> tuple[Float[Array, ""], Metrics]:
        """-mean over all critics of Q(s, base action + residual)."""
        nothing = jnp.zeros_like(base_action)
        action = self.corrected(policy_params, features, base_action, nothing)
        loss = -q_values(self.critic, critic_params, features, action).mean()
        size = jnp.abs(self.unit_residual(policy_params, features, base_action))
        return loss, {
            "residual/loss": loss,
            "residual/size": size.mean(),
            "residual/saturated": (size > 0.95).mean(dtype=jnp.float32),
        }

    def policy_step(
        self, state: ResidualState, batch: Batch, key: KeyArray
    ) -> tuple[ResidualState, Metrics]:
        """One step of the residual policy, one Polyak step of its target."""
        base_action = self.base_action(state.base.params, batch.observation, key)
        grads, metrics = jax.grad(self.policy_loss, has_aux=True)(
            state.policy.params,
            state.critic.params,
            flat_observation(batch.observation),
            base_action,
        )
        policy = state.policy.apply_gradients(grads, self.optimizer)
        slow = common.ema(policy.params, state.target_policy, self.config.tau)
        return dataclasses.replace(state, policy=policy, target_policy=slow), metrics

    # One update call.

    def share(self, online_calls: Int[AnyArray, ""]) -> Float[Array, ""]:
        """Share of the exploring decisions that use the residual."""
        if self.config.ramp_calls == 0:
            return jnp.float32(1)
        return jnp.minimum(online_calls / jnp.float32(self.config.ramp_calls), 1.0)

    def update(
        self, state: ResidualState, batches: Batch, key: KeyArray, *, phase: Phase = "online"
    ) -> tuple[ResidualState, Metrics]:
        """Critics learn from every minibatch of [u, b, ...], the residual policy from the last one.

        Phase "pretrain" is imitation; in the others the base policy stands still. In
        "critic_pretrain" the residual policy does as well.
        """
        if phase == "pretrain":
            base, _, metrics = self.imitation.pretrain(state.base, batches, key)
            return dataclasses.replace(state, base=base), metrics
        critic_key, policy_key = jax.random.split(key)
        state, metrics = each_minibatch(self.critic_step, state, batches, critic_key)
        if phase == "critic_pretrain":
            return state, metrics
        last = common.last_minibatch(batches)
        state, policy_metrics = self.policy_step(state, last, policy_key)
        state = dataclasses.replace(state, online_calls=state.online_calls + 1)
        policy_metrics["residual/share"] = self.share(state.online_calls)
        return state, metrics | policy_metrics

    # Acting.

    def acting(self, state: ResidualState) -> dict[str, Params]:
        """The base policy acts, and the residual policy corrects it; the critics say what that is
        worth."""
        return {
            "base": state.base.params,
            "policy": state.policy.params,
            "critic": state.critic.params,
            "share": self.share(state.online_calls),
        }

    def act(
        self,
        acting: dict[str, Params],
        observation: Observation,
        key: KeyArray,
        *,
        mode: Mode = "explore",
        proposals: Float[Array, "b n h a"] | None = None,
    ) -> Decision:
        """The base action with its residual, while exploring with noise and not in all decisions;
        modes "base" and "unedited": the base action.

        With `proposals` the first of them is the base action.
        """
        factor = self.config.noise_in(mode)
        if mode in ALONE or mode == "unedited":
            return self.imitation.act(
                acting["base"], observation, key, self.spec, proposals, noise_scale=factor
            )
        base_key, noise_key, share_key = jax.random.split(key, 3)
        if proposals is None:
            base_action = self.base_action(acting["base"], observation, base_key, factor)
        else:
            base_action = proposals[:, 0]
        features = flat_observation(observation)
        noise = jnp.zeros_like(base_action)
        if mode == "explore":
            noise = self.config.noise * jax.random.normal(noise_key, base_action.shape)
        action = self.corrected(acting["policy"], features, base_action, noise)
        if mode == "explore":
            used = jax.random.uniform(share_key, action.shape[:1]) < acting["share"]
            action = jnp.where(used[:, None, None], action, base_action)
        q = q_values(self.critic, acting["critic"], features, action).mean(axis=0)
        return Decision(action, {"q": q})


def residual(
    config: ResidualConfig, spec: Spec, base: BasePolicy | None, precision: Precision = "float32"
) -> Algorithm:
    """The algorithm for one task and one base policy; the precision is that of the base.

    Raises:
        ValueError: options contradict each other, or there is no base policy.
    """
    check_minimum(config)
    agent = Residual.create(config, spec, common.required(base, "residual"))
    needs = Needs(columns=agent.critic_trainer.bounds.columns, alone=config.alone)
    return compiled(agent, needs, has_base=True)


_CODE = "ResFiT code, config/residual_td3.py"
_RLPD = "ResFiT code, config/rlpd.py"

_PAPER: Preset = {
    "algo.residual_scale": (0.1, _CODE),
    "algo.ramp_calls": (0, _CODE),
    "algo.noise": (0.05, _CODE),
    "algo.noise_clip": (0.3, _RLPD),
    "algo.num_qs": (10, _RLPD),
    "algo.num_min_qs": (2, _RLPD),
    "algo.hidden": ((1024, 1024), _RLPD),
    "algo.critic_learning_rate": (1e-4, _CODE),
    "algo.policy_learning_rate": (1e-6, _CODE),
    "algo.tau": (0.005, _CODE),
    "train.batch_size": (256, _RLPD),
    "train.discount": (0.99, _RLPD),
    "train.utd_ratio": (4, _RLPD),
    "train.update_after": (10_000, _RLPD),
    "train.critic_warmup_steps": (10_000, _RLPD + ": learning_starts"),
    "train.critic_pretrain_steps": (10_000, _CODE),
    "train.online_steps": (300_000, _RLPD),
    "data.prior_ratio": (0.5, _RLPD),
}
_SMALL: Preset = {
    "algo.residual_scale": (0.1, _CODE),
    "algo.ramp_calls": (1_000, presets.SIZE),
    "algo.critic_learning_rate": (3e-4, presets.SIZE),
    "algo.policy_learning_rate": (3e-4, presets.SIZE),
}

PRESETS = {
    "paper": _PAPER,
    **presets.on_cpus(ResidualConfig, _SMALL),
}

RESIDUAL = Entry(
    "residual",
    ResidualConfig,
    residual,
    check_minimum,
    presets=PRESETS,
    metrics={**CRITIC_METRICS, **RESIDUAL_METRICS},
)
