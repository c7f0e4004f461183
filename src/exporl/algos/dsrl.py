"""DSRL: soft actor-critic in the noise space of a frozen base policy (Wagenmaker et al., arXiv
2506.15799), in its noise-aliased form DSRL-NA.

The base policy imitates and is then left as it is. A Gaussian policy of the state chooses the noise
that the base decodes. Critics Q(s, a) learn what the decoded actions are worth, so that every
recorded action serves, demonstrations included; a second ensemble QW(s, w) learns what they say of
the action that noise w becomes, and the policy follows its gradient. No gradient passes through the
base policy.

Defaults are those of the public code (ajwagen/dsrl at 8d21b9c, cfg/robomimic/dsrl_can.yaml and
train_dsrl.py); docs/algorithms/dsrl.md has what differs.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from exporl.algos import common, presets
from exporl.algos.algorithm import Algorithm, Entry, Needs, Preset, compiled
from exporl.algos.bounds import BoundOptions, TargetBounds
from exporl.algos.common import CRITIC_METRICS, CriticTrainer, Imitation, Model
from exporl.algos.critics import adam_trainer, init_critics, step_critics
from exporl.algos.deploy_noise import ALONE, DeployNoise
from exporl.algos.minibatches import each_minibatch
from exporl.algos.soft_policy import SoftTrainer
from exporl.nets.critic import Critic, q_values
from exporl.nets.encoder import flat_observation
from exporl.nets.gaussian import TanhGaussian, distribution
from exporl.ops import gaussian
from exporl.ops.ensemble import aggregate
from exporl.ops.td import td_target
from exporl.options import check_options, option, sizes
from exporl.policies.base import BasePolicy
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

STEERING_METRICS = {
    "policy/loss": "mean of temperature x log density - QW(s, policy's noise)",
    "policy/entropy": "-mean log density of the policy's noise in units of its range, nats",
    "policy/temperature": "exp(log temperature) of the policy",
    "policy/saturated": "share of the noise's dimensions beyond .95 of its range",
    "noise/loss": "mean over e, b of (QW(s, w) - Q(s, base policy's action for w))^2, w normal",
    "noise/q_mean": "mean of QW(s, policy's noise)",
}


@dataclasses.dataclass(frozen=True)
class DsrlConfig(BoundOptions, DeployNoise):
    """DSRL. Defaults are those of the public code."""

    deploy_noise_scale: float = option(1.0, within="[0, 1]", absent=1.0)
    """Factor on the noise that the base policy alone decodes outside training. Below 1 it acts
    closer to its central action, without the noise of the demonstrations. The policy chooses its
    noise itself, in every mode: see `deterministic_eval`."""
    noise_range: float = option(1.5, within="(0, inf)")
    """The policy's noise lies in [-noise_range, noise_range] (action_magnitude)."""
    noise_updates: int = option(10, within="[1, inf)")
    """Steps of QW per update call, one on each of the last minibatches (and no more than there
    are)."""
    q_value: Literal["min", "mean"] = "min"
    """What is taken of an ensemble, to value and to steer: the least or the mean."""
    num_qs: int = option(2, within="[1, inf)")
    """Critics in each ensemble."""
    hidden: tuple[int, ...] = sizes(2048, 2048, 2048)
    """Hidden layers of the critics and of the policy."""
    critic_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of both ensembles."""
    policy_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the policy."""
    temperature_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the log temperature."""
    tau: float = option(0.005, within="(0, 1]")
    """Polyak step of the target critics, per critic update."""
    initial_temperature: float = option(1.0, within="(0, inf)")
    """Entropy weight at the start (alpha). Scale it with the reward."""
    target_entropy: float = option(0.0, within="(-inf, inf)")
    """Entropy (nats, of the noise divided by its range) that the temperature steers towards."""
    backup_entropy: bool = True
    """Bootstrap from Q - temperature * log density."""
    deterministic_eval: bool = False
    """Evaluate with the mode of the policy instead of its samples."""


@struct.dataclass
class DsrlState:
    """Everything that DSRL learns."""

    base: Model
    policy: Model
    critic: Model
    target_critic: Params
    noise_critic: Model
    log_temperature: Model


@dataclasses.dataclass(frozen=True)
class Dsrl:
    """The functions of DSRL for one task and one base policy; parameters and keys are arguments.

    Noise w is a chunk in units of its range: the base policy decodes noise_range * w. QW has the
    network and the optimiser of the critics of actions.
    """

    config: DsrlConfig
    spec: Spec
    imitation: Imitation
    policy: TanhGaussian
    critic: Critic
    critic_trainer: CriticTrainer
    policy_trainer: SoftTrainer

    @classmethod
    def create(cls, config: DsrlConfig, spec: Spec, base: BasePolicy) -> "Dsrl":
        """DSRL with the networks and optimisers that the options describe."""
        critic_trainer = adam_trainer(config, TargetBounds.create(config, spec))
        return cls(
            config=config,
            spec=spec,
            imitation=Imitation(base),
            policy=TanhGaussian(config.hidden, spec.chunk_length, spec.action_dim),
            critic=critic_trainer.critic,
            critic_trainer=critic_trainer,
            policy_trainer=SoftTrainer.adam(config, config.target_entropy),
        )

    def init(self, key: KeyArray) -> DsrlState:
        """The state before the first update."""
        base_key, policy_key, critic_key, noise_key = jax.random.split(key, 4)
        observation, _ = self.spec.example()
        policy = self.policy.init(policy_key, flat_observation(observation))
        critic = init_critics(self.critic_trainer, self.spec, critic_key)
        return DsrlState(
            base=self.imitation.init(base_key),
            policy=self.policy_trainer.init(policy),
            critic=critic,
            target_critic=common.fresh(critic.params),
            noise_critic=init_critics(self.critic_trainer, self.spec, noise_key),
            log_temperature=self.policy_trainer.init_temperature(),
        )

    # From noise to actions.

    def decode(
        self, base_params: Params, observation: Observation, noise: Float[Array, "b h a"]
    ) -> Float[Array, "b h a"]:
        """The base policy's action for noise w.

        Of a diffusion it is the noise to start from; none is added on the way.
        """
        base, scaled = self.imitation.base, self.config.noise_range * noise
        if len(base.noise_shape) == 3:
            added = jnp.zeros((noise.shape[0], base.noise_shape[0] - 1, *noise.shape[1:]))
            scaled = jnp.concatenate([scaled[:, None], added], axis=1)
        return base.decode(base_params, observation, scaled)

    def sample(
        self, policy_params: Params, features: Float[Array, "b f"], eps: Float[Array, "b h a"]
    ) -> tuple[Float[Array, "b h a"], Float[Array, " b"]]:
        """w of the policy, drawn by eps, and its log density."""
        normal = distribution(self.policy, policy_params, features)
        return gaussian.tanh_sample(normal.mean, normal.log_std, eps)

    def noise_value(
        self, params: Params, features: Float[Array, "b f"], noise: Float[Array, "b h a"]
    ) -> Float[Array, " b"]:
        """QW(s, w), of the whole ensemble."""
        return aggregate(q_values(self.critic, params, features, noise), self.config.q_value)

    # Critics of actions, and the policy of noise.

    def target(
        self, state: DsrlState, batch: Batch, eps: Float[Array, "b h a"]
    ) -> Float[Array, " b"]:
        """y = r + gamma * (Q'(s', a') - temperature * log pi(w')), where w' becomes a'."""
        features = flat_observation(batch.next_observation)
        noise, log_prob = self.sample(state.policy.params, features, eps)
        action = self.decode(state.base.params, batch.next_observation, noise)
        q_all = q_values(self.critic, state.target_critic, features, action)
        value = aggregate(q_all, self.config.q_value)
        if self.config.backup_entropy:
            value = value - jnp.exp(state.log_temperature.params) * log_prob
        return td_target(batch.reward, batch.discount, value)

    def policy_loss(
        self,
        policy_params: Params,
        noise_critic: Params,
        temperature: Float[Array, ""],
        batch: Batch,
        eps: Float[Array, "b h a"],
    ) -> tuple[Float[Array, ""], Metrics]:
        """temperature * log pi(w | s) - QW(s, w), at the policy's own noise."""
        features = flat_observation(batch.observation)
        noise, log_prob = self.sample(policy_params, features, eps)
        q = self.noise_value(noise_critic, features, noise)
        loss = (temperature * log_prob - q).mean()
        return loss, {
            "policy/loss": loss,
            "policy/entropy": -log_prob.mean(),
            "policy/temperature": temperature,
            "policy/saturated": (jnp.abs(noise) > 0.95).mean(dtype=jnp.float32),
            "noise/q_mean": q.mean(),
        }

    def step(self, state: DsrlState, batch: Batch, key: KeyArray) -> tuple[DsrlState, Metrics]:
        """One step of all critics of actions, of the policy and of its temperature, each with the
        others as before; one Polyak step of the target critics."""
        next_eps, eps = jax.random.normal(key, (2, *batch.action.shape))
        y = self.target(state, batch, next_eps)
        state, critic_metrics = step_critics(self.critic_trainer, state, batch, y)
        temperature = jnp.exp(state.log_temperature.params)
        grads, metrics = jax.grad(self.policy_loss, has_aux=True)(
            state.policy.params, state.noise_critic.params, temperature, batch, eps
        )
        state = self.policy_trainer.step(state, grads, metrics["policy/entropy"])
        return state, critic_metrics | metrics

    # What the critics of actions say of noise.

    def noise_loss(
        self,
        noise_critic: Params,
        features: Float[Array, "b f"],
        noise: Float[Array, "b h a"],
        q: Float[AnyArray, "e b"],
    ) -> Float[Array, ""]:
        """Squared difference of QW(s, w) and the values of what w becomes, member by member."""
        return jnp.square(q_values(self.critic, noise_critic, features, noise) - q).mean()

    def noise_step(
        self, state: DsrlState, batch: Batch, key: KeyArray
    ) -> tuple[DsrlState, Metrics]:
        """One step of QW, at normal noise."""
        noise = jax.random.normal(key, batch.action.shape) / self.config.noise_range
        action = self.decode(state.base.params, batch.observation, noise)
        features = flat_observation(batch.observation)
        q = q_values(self.critic, state.critic.params, features, action)
        loss, grads = jax.value_and_grad(self.noise_loss)(
            state.noise_critic.params, features, noise, q
        )
        noise_critic = state.noise_critic.apply_gradients(grads, self.critic_trainer.optimizer)
        return dataclasses.replace(state, noise_critic=noise_critic), {"noise/loss": loss}

    # One update call.

    def update(
        self, state: DsrlState, batches: Batch, key: KeyArray, *, phase: Phase = "online"
    ) -> tuple[DsrlState, Metrics]:
        """Critics and policy learn from every minibatch of [u, b, ...], then QW from the last.

        Phase "pretrain" is imitation; in the others the base policy stands still.
        """
        if phase == "pretrain":
            base, _, metrics = self.imitation.pretrain(state.base, batches, key)
            return dataclasses.replace(state, base=base), metrics
        step_key, noise_key = jax.random.split(key)
        state, metrics = each_minibatch(self.step, state, batches, step_key)
        num = min(batches.reward.shape[0], self.config.noise_updates)
        last = common.last_minibatches(batches, num)
        state, noise_metrics = each_minibatch(self.noise_step, state, last, noise_key)
        return state, metrics | noise_metrics

    # Acting.

    def acting(self, state: DsrlState) -> dict[str, Params]:
        """The base policy acts on the noise that the policy chooses; QW says what it is worth."""
        return {
            "base": state.base.params,
            "policy": state.policy.params,
            "noise_critic": state.noise_critic.params,
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
        """What the base policy makes of the policy's noise; mode "base": of normal noise.

        Raises:
            ValueError: proposals for the policy: it chooses noise, not among actions.
        """
        if mode in ALONE:
            factor = self.config.noise_in(mode)
            return self.imitation.act(
                acting["base"], observation, key, self.spec, proposals, noise_scale=factor
            )
        if proposals is not None:
            raise ValueError("dsrl chooses noise for its base policy, not among its samples.")
        features = flat_observation(observation)
        shape = (features.shape[0], self.spec.chunk_length, self.spec.action_dim)
        eps = jax.random.normal(key, shape)
        if mode == "evaluate" and self.config.deterministic_eval:
            eps = jnp.zeros(shape)
        noise, _ = self.sample(acting["policy"], features, eps)
        action = self.decode(acting["base"], observation, noise)
        return Decision(action, {"q": self.noise_value(acting["noise_critic"], features, noise)})


def dsrl(
    config: DsrlConfig, spec: Spec, base: BasePolicy | None, precision: Precision = "float32"
) -> Algorithm:
    """The algorithm for one task and one base policy; the precision is that of the base.

    Raises:
        ValueError: options out of range, or there is no base policy.
    """
    check_options(config)
    agent = Dsrl.create(config, spec, common.required(base, "dsrl"))
    needs = Needs(columns=agent.critic_trainer.bounds.columns, alone=config.alone)
    return compiled(agent, needs, has_base=True)


_CODE = "DSRL code, cfg/robomimic/dsrl_can.yaml"
_TRAIN = "DSRL code, train_dsrl.py"

_PAPER: Preset = {
    "algo.noise_range": (1.5, _CODE),
    "algo.noise_updates": (10, _CODE),
    "algo.q_value": ("min", _CODE),
    "algo.num_qs": (2, _CODE),
    "algo.hidden": ((2048, 2048, 2048), _CODE),
    "algo.critic_learning_rate": (3e-4, _CODE),
    "algo.policy_learning_rate": (3e-4, _TRAIN),
    "algo.temperature_learning_rate": (3e-4, _TRAIN),
    "algo.tau": (0.005, _CODE),
    "algo.initial_temperature": (1.0, _TRAIN),
    "algo.target_entropy": (0.0, _CODE),
    "base.kind": ("diffusion", _CODE),
    "chunk_length": (4, _CODE),
    "train.batch_size": (256, _CODE),
    "train.discount": (0.99, _CODE),
    "train.utd_ratio": (1, _CODE + ": 20 updates per 16 environment steps"),
    "train.update_every": (16, _CODE + ": 4 environments x chunks of 4"),
    "train.update_after": (24_016, _CODE + ": 1501 calls x 16 steps of the base policy"),
    "train.critic_warmup_steps": (24_016, _CODE + ": the same"),
}
_SMALL: Preset = {
    "algo.noise_updates": (4, presets.SIZE),
    "algo.num_qs": (2, _CODE),
    "algo.target_entropy": (0.0, _CODE),
}

PRESETS = {
    "paper": _PAPER,
    **presets.on_cpus(DsrlConfig, _SMALL),
}

DSRL = Entry(
    "dsrl", DsrlConfig, dsrl, presets=PRESETS, metrics={**CRITIC_METRICS, **STEERING_METRICS}
)
