"""DAC: diffusion actor-critic (Fang et al., arXiv 2405.20555).

The policy is a diffusion. Policy improvement under a KL constraint to the data becomes a regression
on its noise: imitation of the data, and a pull along the critics' gradient at the noisy action,
weaker where less noise is left (soft Q-guidance). No gradient passes through the denoising chain.
The weight of imitation is fixed, or follows its error to a goal (dual ascent). TD targets are a
lower bound over the ensemble of the mean over several samples; of several samples the one of
highest Q acts.

Defaults are those of the public code (Fang-Lin93/DAC at e254357, main.py, agents/dac.py), where the
weight is eta and the goal bc_threshold; docs/algorithms/dac.md has what differs.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from exporl.algos import common, presets
from exporl.algos.algorithm import Algorithm, Entry, Needs, Preset, compiled
from exporl.algos.bounds import BoundOptions, TargetBounds
from exporl.algos.common import CRITIC_METRICS, CriticTrainer, Model
from exporl.algos.critics import init_critics, step_critics
from exporl.algos.deploy_noise import ALONE, DeployNoise
from exporl.algos.minibatches import each_minibatch
from exporl.algos.regression import Noised, Regression, valid_mean
from exporl.algos.second_policy import clipped_adam
from exporl.nets.critic import Critic, action_gradient, q_values
from exporl.nets.encoder import flat_observation
from exporl.ops.ensemble import lower_bound
from exporl.ops.selection import take_candidate
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

LEAST_WEIGHT, GREATEST_WEIGHT = 0.001, 100.0
"""Between which the weight of imitation stays while it follows its goal (eta_min, eta_max)."""
_TINY = 1e-6
"""Added to the size of Q that gradients are divided by."""

POLICY_METRICS = {
    "policy/loss": "`policy/imitation_weight` x imitation error + guidance",
    "policy/imitation": "squared error of the predicted noise, mean over valid dimensions",
    "policy/imitation_weight": "weight of the imitation error (eta)",
    "policy/guidance": "mean over valid dimensions of noise share x gradient x predicted noise",
    "policy/gradient": "mean over dimensions of the size of dQ/da / abs(Q), at noisy actions",
    "policy/q_size": "mean over e, b of abs(Q(s, a)), which dQ/da is divided by",
}


@dataclasses.dataclass(frozen=True)
class DacConfig(BoundOptions, DeployNoise):
    """DAC. Defaults are those of the public code."""

    imitation_weight: float = option(1.0, within="[0, inf)")
    """Weight of imitation against the guidance by Q (eta), at the start where it is adapted."""
    imitation_weight_rate: float = option(0.0, within="[0, inf)")
    """Step size with which the weight follows the imitation error to its goal; 0: it is fixed."""
    imitation_goal: float = option(1.0, within="(0, inf)")
    """Imitation error per dimension that the weight steers towards (bc_threshold)."""
    num_base_samples: int = option(10, within="[1, inf)")
    """Samples of the policy that it chooses among when acting (num_action_samples)."""
    num_target_samples: int = option(10, within="[1, inf)")
    """Samples of the policy per TD target (num_q_samples)."""
    target_value: Literal["mean", "max"] = "mean"
    """What each critic takes of their values: the mean, or for AntMaze the greatest."""
    pessimism: float = option(1.0, within="[0, inf)")
    """TD targets lie so many standard deviations of the ensemble below its mean (rho)."""
    num_qs: int = option(10, within="[1, inf)")
    """Critics in the ensemble."""
    hidden: tuple[int, ...] = sizes(256, 256, 256)
    """Hidden layers of the critics."""
    critic_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the critics at the start."""
    policy_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the policy at the start."""
    decay_steps: int = option(2_000_000, within="[0, inf)")
    """Updates over which both step sizes fall to 0 on a cosine; 0: constant."""
    max_gradient_norm: float = option(1.0, within="(0, inf)")
    """Longest gradient of the policy and of the critics; longer ones are scaled down."""
    tau: float = option(0.005, within="(0, 1]")
    """Polyak step of the target critics, and of the policy of TD targets."""
    policy_every: int = option(5, within="[1, inf)")
    """Updates per Polyak step of the policy of TD targets (update_ema_every)."""


@struct.dataclass
class DacState:
    """Everything that DAC learns."""

    base: Model
    policy: Model
    target_policy: Params
    critic: Model
    target_critic: Params
    imitation_weight: Params
    """[], eta."""
    updates: Params
    """[], steps of the policy."""


@dataclasses.dataclass(frozen=True)
class Dac:
    """The functions of DAC for one task and one diffusion; parameters and keys are arguments.

    `ranking_critic` is `critic` in the precision in which samples are ranked.
    """

    config: DacConfig
    regression: Regression
    critic: Critic
    ranking_critic: Critic
    critic_trainer: CriticTrainer

    @classmethod
    def create(
        cls, config: DacConfig, spec: Spec, base: BasePolicy | None, precision: Precision
    ) -> "Dac":
        """DAC with the networks and optimisers that the options describe.

        Raises:
            ValueError: there is no base policy, or it is no diffusion.
        """
        critic, bounds = Critic(config.hidden, config.num_qs), TargetBounds.create(config, spec)
        longest, decay_steps = config.max_gradient_norm, config.decay_steps
        policy_adam = clipped_adam(config.policy_learning_rate, longest, decay_steps)
        critic_adam = clipped_adam(config.critic_learning_rate, longest, decay_steps)
        return cls(
            config=config,
            regression=Regression.create("dac", spec, base, policy_adam),
            critic=critic,
            ranking_critic=critic.clone(precision=precision),
            critic_trainer=CriticTrainer(critic, critic_adam, config.tau, bounds),
        )

    def init(self, key: KeyArray) -> DacState:
        """The state before the first update."""
        base_key, critic_key = jax.random.split(key)
        critic = init_critics(self.critic_trainer, self.regression.spec, critic_key)
        base = self.regression.imitation.init(base_key)
        return DacState(
            base=base,
            policy=self.regression.start(base),
            target_policy=common.fresh(base.params),
            critic=critic,
            target_critic=common.fresh(critic.params),
            imitation_weight=jnp.float32(self.config.imitation_weight),
            updates=jnp.int32(0),
        )

    # The critics: a lower bound of what the policy's samples are worth.

    def target(
        self, target_critic: Params, batch: Batch, samples: Float[Array, "b n h a"]
    ) -> Float[Array, " b"]:
        """y = r + gamma * (mean - pessimism * std over the target critics of V), where V is each
        critic's mean or greatest value of the samples at the next observation."""
        features = flat_observation(batch.next_observation)
        q_all = q_values(self.critic, target_critic, features[:, None], samples)
        value = q_all.max(axis=-1) if self.config.target_value == "max" else q_all.mean(axis=-1)
        return td_target(batch.reward, batch.discount, lower_bound(value, self.config.pessimism))

    def update_critic(
        self, state: DacState, batch: Batch, key: KeyArray
    ) -> tuple[DacState, Metrics]:
        """One step of all critics towards y, one Polyak step of the target critics."""
        samples = self.regression.sample(
            state.target_policy, batch.next_observation, self.config.num_target_samples, key
        )
        y = self.target(state.target_critic, batch, samples)
        return step_critics(self.critic_trainer, state, batch, y)

    # The policy: noise regression with soft Q-guidance.

    def q_size(self, target_critic: Params, batch: Batch) -> Float[Array, ""]:
        """Mean of |Q| at the data's actions, which makes the guidance know no reward scale."""
        features = flat_observation(batch.observation)
        return jnp.abs(q_values(self.critic, target_critic, features, batch.action)).mean()

    def policy_loss(
        self,
        policy_params: Params,
        weight: Float[AnyArray, ""],
        batch: Batch,
        noised: Noised,
        gradient: Float[Array, "b h a"],
    ) -> tuple[Float[Array, ""], Metrics]:
        """weight * |eps(s, x) - noise|^2 + share * gradient . eps(s, x), where x is the noisy
        action; both averaged over rows and dimensions."""
        predicted = self.regression.predict(policy_params, batch.observation, noised)
        imitation = valid_mean(jnp.square(predicted - noised.noise), batch.valid)
        guidance = valid_mean(noised.share * gradient * predicted, batch.valid)
        loss = weight * imitation + guidance
        return loss, {
            "policy/loss": loss,
            "policy/imitation": imitation,
            "policy/imitation_weight": weight,
            "policy/guidance": guidance,
            "policy/gradient": jnp.abs(gradient).mean(),
        }

    def next_weight(
        self, weight: Float[AnyArray, ""], imitation: Float[Array, ""]
    ) -> Float[Array, ""]:
        """The weight of imitation after one step of dual ascent: up while the error is above its
        goal."""
        gap = jnp.clip(imitation - self.config.imitation_goal, -1.0, 1.0)
        moved = weight + self.config.imitation_weight_rate * gap
        return jnp.clip(moved, LEAST_WEIGHT, GREATEST_WEIGHT)

    def update_policy(
        self, state: DacState, batch: Batch, noised: Noised
    ) -> tuple[DacState, Metrics]:
        """One step of the policy, of its weight of imitation, and at times of its average."""
        features, weight = flat_observation(batch.observation), state.imitation_weight
        slope = action_gradient(self.critic, state.target_critic, features, noised.action)
        size = self.q_size(state.target_critic, batch)
        gradient = slope / (size + _TINY)
        loss = jax.grad(self.policy_loss, has_aux=True)
        grads, metrics = loss(state.policy.params, weight, batch, noised, gradient)
        policy = state.policy.apply_gradients(grads, self.regression.optimizer)
        if self.config.imitation_weight_rate > 0:
            _, after = self.policy_loss(policy.params, weight, batch, noised, gradient)
            weight = self.next_weight(weight, after["policy/imitation"])
        due = state.updates % self.config.policy_every == 0
        moved = common.ema(policy.params, state.target_policy, self.config.tau)
        average = jax.tree.map(functools.partial(jnp.where, due), moved, state.target_policy)
        state = dataclasses.replace(
            state,
            policy=policy,
            target_policy=average,
            imitation_weight=weight,
            updates=state.updates + 1,
        )
        return state, metrics | {"policy/q_size": size}

    # One update call.

    def step(self, state: DacState, batch: Batch, key: KeyArray) -> tuple[DacState, Metrics]:
        """One step of the critics, then one of the policy."""
        sample_key, noise_key = jax.random.split(key)
        state, critic_metrics = self.update_critic(state, batch, sample_key)
        noised = self.regression.noised(batch, noise_key)
        state, metrics = self.update_policy(state, batch, noised)
        return state, critic_metrics | metrics

    def update(
        self, state: DacState, batches: Batch, key: KeyArray, *, phase: Phase = "online"
    ) -> tuple[DacState, Metrics]:
        """Critics and policy learn from every minibatch of [u, b, ...], on prior data as online.

        Phase "pretrain": the base policy imitates, and the policy becomes a copy of it; in the
        others the base stands still.
        """
        if phase == "pretrain":
            base, average, metrics = self.regression.imitation.pretrain(state.base, batches, key)
            policy = self.regression.start(base)
            return dataclasses.replace(
                state, base=base, policy=policy, target_policy=average
            ), metrics
        return each_minibatch(self.step, state, batches, key)

    # Acting.

    def acting(self, state: DacState) -> dict[str, Params]:
        """The policy acts, and the target critics choose; the base, where it alone is asked for."""
        return {
            "base": state.base.params,
            "policy": state.policy.params,
            "critic": state.target_critic,
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
        """Of several samples of the policy the one of highest mean Q; mode "base": one of the base.

        Raises:
            ValueError: proposals for the policy: it chooses among samples of its own.
        """
        factor = self.config.noise_in(mode)
        if mode in ALONE:
            return self.regression.act_alone(acting["base"], observation, key, proposals, factor)
        self.regression.check_proposals(proposals)
        num = self.config.num_base_samples
        samples = self.regression.sample(acting["policy"], observation, num, key, factor)
        features = flat_observation(observation)[:, None]
        q = q_values(self.ranking_critic, acting["critic"], features, samples).mean(axis=0)
        info = {"q": q.max(axis=-1), "index": q.argmax(axis=-1)}
        return Decision(take_candidate(samples, info["index"]), info)


def dac(
    config: DacConfig, spec: Spec, base: BasePolicy | None, precision: Precision = "float32"
) -> Algorithm:
    """The algorithm for one task and one diffusion.

    Raises:
        ValueError: options out of range, no base policy, or one that is no diffusion.
    """
    check_options(config)
    agent = Dac.create(config, spec, base, precision)
    needs = Needs(columns=agent.critic_trainer.bounds.columns, alone=config.alone)
    return compiled(agent, needs, has_base=True)


_CODE = "DAC code, main.py"
_AGENT = "DAC code, agents/dac.py"
_RUNS = "DAC code, runs.sh"

_PAPER: Preset = {
    "algo.imitation_weight": (1.0, _RUNS + ": locomotion"),
    "algo.imitation_weight_rate": (0.001, _RUNS + ": locomotion"),
    "algo.imitation_goal": (1.0, _RUNS + ": walker2d, hopper and halfcheetah medium"),
    "algo.pessimism": (1.0, _RUNS + ": walker2d; hopper 1.5, halfcheetah 0"),
    "algo.num_base_samples": (10, _CODE),
    "algo.num_target_samples": (10, _CODE),
    "algo.num_qs": (10, _CODE),
    "algo.hidden": ((256, 256, 256), _AGENT),
    "algo.critic_learning_rate": (3e-4, _CODE),
    "algo.policy_learning_rate": (3e-4, _CODE),
    "algo.decay_steps": (2_000_000, _CODE),
    "algo.max_gradient_norm": (1.0, _AGENT),
    "algo.tau": (0.005, _CODE),
    "algo.policy_every": (5, _AGENT),
    "base.kind": ("diffusion", _AGENT),
    "base.num_steps": (5, _CODE),
    "train.batch_size": (256, _CODE),
    "train.discount": (0.99, _CODE),
    "train.utd_ratio": (1, _CODE),
    "train.critic_pretrain_steps": (2_000_000, _CODE + ": offline steps"),
}
_SPARSE: Preset = {
    "algo.imitation_weight": (0.1, _RUNS + ": AntMaze"),
    "algo.imitation_weight_rate": (0.0, _RUNS + ": AntMaze"),
    "algo.target_value": ("max", _RUNS + ": AntMaze"),
}
_SMALL: Preset = {
    **_SPARSE,
    "algo.num_base_samples": (8, presets.SIZE),
    "algo.num_target_samples": (4, presets.SIZE),
    "base.kind": ("diffusion", _AGENT),
}

PRESETS = {
    "paper": _PAPER,
    "antmaze": {**_PAPER, **_SPARSE},
    **presets.on_cpus(DacConfig, _SMALL),
}

DAC = Entry("dac", DacConfig, dac, presets=PRESETS, metrics={**CRITIC_METRICS, **POLICY_METRICS})
