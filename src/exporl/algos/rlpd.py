"""RLPD: soft actor-critic with prior data in every minibatch (Ball et al., arXiv 2302.02948).

A Gaussian policy instead of an expressive one, the same critics, update-to-data ratio and data as
EXPO: the baseline that shows what the base policy brings.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from exporl.algos import common, presets
from exporl.algos.algorithm import ALL_PHASES, Algorithm, Entry, Needs, Preset, compiled
from exporl.algos.bounds import BoundOptions, TargetBounds
from exporl.algos.common import CRITIC_METRICS, CriticTrainer, Model
from exporl.algos.critics import adam_trainer, check_minimum, init_critics, step_critics
from exporl.algos.minibatches import each_minibatch
from exporl.algos.presets import SIZE
from exporl.algos.soft_policy import SoftTrainer
from exporl.nets.critic import Critic, min_q, q_values
from exporl.nets.encoder import flat_observation
from exporl.nets.gaussian import TanhGaussian, distribution
from exporl.ops import gaussian
from exporl.ops.ensemble import random_members
from exporl.ops.td import td_target
from exporl.options import option, sizes
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
    "policy/loss": "mean of temperature x log density - mean over e of Q(s, policy's action)",
    "policy/entropy": "-mean log density of the policy's action, nats",
    "policy/target_entropy": "what the temperature steers the policy's entropy towards, nats",
    "policy/saturated": "share of the policy's action dimensions with an absolute value > 0.95",
    "policy/temperature": "exp(log temperature) of the policy",
}


@dataclasses.dataclass(frozen=True)
class RlpdConfig(BoundOptions):
    """RLPD. Defaults are the paper's for sparse-reward tasks."""

    num_qs: int = 10
    """Critics in the ensemble."""
    num_min_qs: int = 2
    """Critics in each minimum (1 for AntMaze)."""
    hidden: tuple[int, ...] = sizes(256, 256, 256)
    """Hidden layers of the critics and of the policy."""
    critic_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the critics."""
    policy_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the policy."""
    temperature_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the log temperature."""
    tau: float = option(0.005, within="(0, 1]")
    """Polyak step of the target critics, per critic update."""
    initial_temperature: float = option(1.0, within="(0, inf)")
    """Entropy weight at the start (alpha). Scale it with the reward."""
    target_entropy: Literal["released"] | float = option("released", within="(-inf, inf)")
    """Entropy that the temperature steers the policy towards. released: -d/2; or a number."""
    backup_entropy: bool = False
    """Bootstrap from Q - temperature * log p(action); off for sparse rewards."""


@struct.dataclass
class RlpdState:
    """Everything that RLPD learns."""

    policy: Model
    critic: Model
    target_critic: Params
    log_temperature: Model


@dataclasses.dataclass(frozen=True)
class Rlpd:
    """The functions of RLPD for one task. Parameters and keys are arguments throughout."""

    config: RlpdConfig
    spec: Spec
    policy: TanhGaussian
    critic: Critic
    critic_trainer: CriticTrainer
    policy_trainer: SoftTrainer

    @classmethod
    def create(cls, config: RlpdConfig, spec: Spec) -> "Rlpd":
        """RLPD with the networks and optimisers that the options describe."""
        critic_trainer = adam_trainer(config, TargetBounds.create(config, spec))
        num_dims = spec.chunk_length * spec.action_dim
        entropy_goal = gaussian.target_entropy(config.target_entropy, num_dims)
        return cls(
            config=config,
            spec=spec,
            policy=TanhGaussian(config.hidden, spec.chunk_length, spec.action_dim),
            critic=critic_trainer.critic,
            critic_trainer=critic_trainer,
            policy_trainer=SoftTrainer.adam(config, entropy_goal),
        )

    def init(self, key: KeyArray) -> RlpdState:
        """The state before the first update."""
        policy_key, critic_key = jax.random.split(key)
        observation, _ = self.spec.example()
        policy = self.policy.init(policy_key, flat_observation(observation))
        critic = init_critics(self.critic_trainer, self.spec, critic_key)
        return RlpdState(
            policy=self.policy_trainer.init(policy),
            critic=critic,
            target_critic=common.fresh(critic.params),
            log_temperature=self.policy_trainer.init_temperature(),
        )

    def sample(
        self,
        policy_params: Params,
        features: Float[Array, "b f"],
        eps: Float[Array, "b h a"],
    ) -> tuple[Float[Array, "b h a"], Float[Array, "b"]]:
        """a ~ pi(. | s), drawn by the noise eps, and its log density."""
        normal = distribution(self.policy, policy_params, features)
        return gaussian.tanh_sample(normal.mean, normal.log_std, eps)

    # The critic.

    def target(
        self,
        target_critic: Params,
        policy_params: Params,
        temperature: Float[Array, ""],
        batch: Batch,
        eps: Float[Array, "b h a"],
        members: Int[Array, "m"],
    ) -> Float[Array, "b"]:
        """y = r + gamma * min Q'(s', a') at the policy's own next action a', over a subset of
        the target critics."""
        features = flat_observation(batch.next_observation)
        action, log_prob = self.sample(policy_params, features, eps)
        value = min_q(self.critic, target_critic, features, action[:, None], members)[:, 0]
        if self.config.backup_entropy:
            value = value - temperature * log_prob
        return td_target(batch.reward, batch.discount, value)

    def critic_step(
        self, state: RlpdState, batch: Batch, key: KeyArray
    ) -> tuple[RlpdState, Metrics]:
        """One step of all critics towards the TD target; one Polyak step of the target critics."""
        eps_key, member_key = jax.random.split(key)
        y = self.target(
            state.target_critic,
            state.policy.params,
            jnp.exp(state.log_temperature.params),
            batch,
            jax.random.normal(eps_key, batch.action.shape),
            random_members(member_key, self.config.num_qs, self.config.num_min_qs),
        )
        return step_critics(self.critic_trainer, state, batch, y)

    # The policy.

    def policy_loss(
        self,
        policy_params: Params,
        critic_params: Params,
        temperature: Float[Array, ""],
        batch: Batch,
        eps: Float[Array, "b h a"],
    ) -> tuple[Float[Array, ""], Metrics]:
        """alpha * log pi(a | s) - mean Q(s, a) over all critics, at the policy's own actions."""
        features = flat_observation(batch.observation)
        action, log_prob = self.sample(policy_params, features, eps)
        q = q_values(self.critic, critic_params, features, action).mean(axis=0)
        loss = (temperature * log_prob - q).mean()
        return loss, {
            "policy/loss": loss,
            "policy/entropy": -log_prob.mean(),
            "policy/saturated": (jnp.abs(action) > 0.95).mean(dtype=jnp.float32),
        }

    def update_policy(
        self, state: RlpdState, batch: Batch, key: KeyArray
    ) -> tuple[RlpdState, Metrics]:
        """One step of the policy, and one of the temperature alpha towards the entropy goal."""
        temperature = jnp.exp(state.log_temperature.params)
        grads, metrics = jax.grad(self.policy_loss, has_aux=True)(
            state.policy.params,
            state.critic.params,
            temperature,
            batch,
            jax.random.normal(key, batch.action.shape),
        )
        state = self.policy_trainer.step(state, grads, metrics["policy/entropy"])
        return state, metrics | {
            "policy/temperature": temperature,
            "policy/target_entropy": jnp.float32(self.policy_trainer.entropy_goal),
        }

    # One update call.

    def update(
        self, state: RlpdState, batches: Batch, key: KeyArray, *, phase: Phase = "online"
    ) -> tuple[RlpdState, Metrics]:
        """Critic steps on minibatches [u, b, ...], then one step of the policy on the last; the
        same in every phase."""
        critic_key, policy_key = jax.random.split(key)
        state, metrics = each_minibatch(self.critic_step, state, batches, critic_key)
        last = common.last_minibatch(batches)
        state, policy_metrics = self.update_policy(state, last, policy_key)
        return state, metrics | policy_metrics

    # Acting.

    def acting(self, state: RlpdState) -> Params:
        """The policy acts."""
        return state.policy.params

    def act(
        self,
        acting: Params,
        observation: Observation,
        key: KeyArray,
        *,
        mode: Mode = "explore",
        proposals: Float[Array, "b n h a"] | None = None,
    ) -> Decision:
        """A sample of the policy while learning, its mode at evaluation."""
        if mode in ("base", "unedited", "sample") or proposals is not None:
            raise ValueError(
                "rlpd has no base policy that could act, or whose samples it could choose from."
            )
        features = flat_observation(observation)
        if mode == "evaluate":
            return Decision(jnp.tanh(distribution(self.policy, acting, features).mean), {})
        shape = (features.shape[0], self.spec.chunk_length, self.spec.action_dim)
        action, _ = self.sample(acting, features, jax.random.normal(key, shape))
        return Decision(action, {})


def rlpd(
    config: RlpdConfig, spec: Spec, base: BasePolicy | None = None, precision: Precision = "float32"
) -> Algorithm:
    """The algorithm for one task; a base policy is not used.

    Raises:
        ValueError: options contradict each other.
    """
    check_minimum(config)
    common.only_float32(precision, "rlpd")
    agent = Rlpd.create(config, spec)
    needs = Needs(ALL_PHASES - {"pretrain"}, agent.critic_trainer.bounds.columns)
    return compiled(agent, needs, has_base=False)


_PAPER: Preset = {
    **presets.LEARNING,
    **presets.CRITICS,
    "chunk_length": (1, "RLPD decides on one action at a time"),
}
_START: Preset = {"train.random_steps": (1_000, SIZE), "train.update_after": (1_000, SIZE)}
_SETTINGS = "benchmarks/rlpd_settings.py"
_STABLE: Preset = {
    "train.utd_ratio": (8, _SETTINGS),
    "algo.pessimistic_start": ("auto", _SETTINGS),
    "algo.return_bound": ("auto", _SETTINGS),
    "algo.clip_targets": ("auto", _SETTINGS),
}


def _domain(name: str) -> Preset:
    start = {} if name == "adroit" else presets.FROM_SCRATCH
    return {**_PAPER, **presets.DOMAINS[name], **start}


def _on_a_cpu(size: str) -> Preset:
    return {**presets.RUNS[size], **presets.SMALL_CRITICS[size], **_START}


PRESETS: Mapping[str, Preset] = {
    "paper": {**_PAPER, **presets.FROM_SCRATCH},
    **{name: _domain(name) for name in presets.DOMAINS},
    **{size: _on_a_cpu(size) for size in ("small", "tiny", "demo")},
    "stable": {**_on_a_cpu("demo"), **_STABLE},
}

RLPD = Entry(
    "rlpd",
    RlpdConfig,
    rlpd,
    check_minimum,
    presets=PRESETS,
    metrics={**CRITIC_METRICS, **POLICY_METRICS},
)
