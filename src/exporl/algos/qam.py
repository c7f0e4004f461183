"""QAM-E: Q-learning with adjoint matching and edits (Li, Levine, arXiv 2601.14234).

A flow imitates, the base policy. A second flow, the policy, is a copy of it that is moved towards
the base times exp(q_weight * Q): by adjoint matching (ops/adjoint.py), a regression on its velocity
whose goal carries the critics' gradient at the end of a path back along it. No value gradient
passes through the policy's own integration. An edit policy, as EXPO's, then moves samples of the
policy by at most `edit_scale` per dimension towards higher value; without it this is QAM. TD
targets are a lower bound over the ensemble.

Defaults are those of the public code (ColinQiyangLi/qam at f93efd2, agents/qam.py), where q_weight
is inv_temp; docs/algorithms/qam.md has what differs.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float

from exporl.algos import common, edit_metrics, presets
from exporl.algos.algorithm import Algorithm, Entry, Needs, Preset, compiled
from exporl.algos.bounds import BoundOptions, TargetBounds
from exporl.algos.common import CRITIC_METRICS, CriticTrainer, Imitation, Model
from exporl.algos.critics import step_critics
from exporl.algos.deploy_noise import ALONE, DeployNoise
from exporl.algos.edit_policy import EDIT_METRICS, Edited, EditPolicy
from exporl.algos.minibatches import each_minibatch
from exporl.algos.second_policy import SecondPolicy, clipped_adam
from exporl.nets.critic import Critic, action_gradient, q_values
from exporl.nets.encoder import flat_observation
from exporl.nets.gaussian import TanhGaussian
from exporl.ops import adjoint, gaussian
from exporl.ops.ensemble import lower_bound
from exporl.ops.selection import take_candidate
from exporl.ops.td import td_target
from exporl.options import check_options, option, sizes
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
    "policy/loss": "adjoint matching error, summed over steps and dimensions, mean over rows",
    "policy/gradient": "mean over dimensions of the size of q_weight x dQ/da, at the ends of paths",
    "policy/moved": "mean size of the policy's velocity - the base's slow copy's, along paths",
    "policy/beyond": "share of the dimensions of paths that end beyond [-1, 1]: no gradient there",
}


@dataclasses.dataclass(frozen=True)
class QamConfig(BoundOptions, DeployNoise):
    """QAM-E. Defaults are those of the public code."""

    q_weight: float = option(0.3, within="[0, inf)")
    """Weight of Q against the base policy (inv_temp). Tuned per task; scale it with the values."""
    edits: bool = True
    """Whether samples of the policy are edited; without it is plain QAM (edit_scale 0)."""
    edit_scale: float = option(0.1, within="(0, 2]", advice="for no edits set edits=false")
    """Largest edit per action dimension, in units of the [-1, 1] range."""
    num_base_samples: int = option(1, within="[1, inf)")
    """Samples of the policy of which the one of highest Q acts and is bootstrapped from
    (best_of_n)."""
    pessimism: float = option(0.5, within="[0, inf)")
    """TD targets lie so many standard deviations of the ensemble below its mean (rho)."""
    num_qs: int = option(10, within="[1, inf)")
    """Critics in the ensemble."""
    hidden: tuple[int, ...] = sizes(512, 512, 512, 512)
    """Hidden layers of the critics and of the edit policy."""
    critic_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the critics."""
    policy_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the policy, the edit policy and the log temperature."""
    max_gradient_norm: float = option(1.0, within="(0, inf)")
    """Longest gradient of the critics, the policy and the edit policy; longer ones are scaled
    down."""
    tau: float = option(0.005, within="(0, 1]")
    """Polyak step of the target critics, and of the base's slow copy."""
    initial_temperature: float = option(1.0, within="(0, inf)")
    """Entropy weight of the edit policy at the start (alpha). Scale it with the reward."""
    target_entropy: Literal["attainable"] | float = option("attainable", within="(-inf, inf)")
    """Entropy that the temperature steers the scaled edit towards. attainable: -d/2 + d
    ln(edit_scale); or a number of nats."""


@struct.dataclass
class QamState:
    """Everything that QAM-E learns."""

    base: Model
    slow_base: Params
    policy: Model
    edit: Model
    critic: Model
    target_critic: Params
    log_temperature: Model


@dataclasses.dataclass(frozen=True)
class Qam:
    """The functions of QAM-E for one task and one flow; parameters and keys are arguments.

    `ranking_critic` is `critic` in the precision in which samples are ranked.
    """

    config: QamConfig
    policy: SecondPolicy
    velocity: Callable[..., Float[Array, "b h a"]]
    """`BasePolicy.predict`."""
    num_steps: int
    """Of the flow, k."""
    critic: Critic
    ranking_critic: Critic
    critic_trainer: CriticTrainer
    edit: EditPolicy

    @classmethod
    def create(
        cls, config: QamConfig, spec: Spec, base: BasePolicy | None, precision: Precision
    ) -> "Qam":
        """QAM-E with the networks and optimisers that the options describe.

        Raises:
            ValueError: there is no base policy, or it is no flow.
        """
        base = common.required(base, "qam")
        if base.predict is None or base.num_steps is None:
            raise ValueError(
                "qam moves the velocity of a flow, and this base policy is another kind. Use "
                "base.kind=flow."
            )
        critic, bounds = Critic(config.hidden, config.num_qs), TargetBounds.create(config, spec)
        policy_adam = clipped_adam(config.policy_learning_rate, config.max_gradient_norm)
        critic_adam = clipped_adam(config.critic_learning_rate, config.max_gradient_norm)
        num_dims, scale = spec.chunk_length * spec.action_dim, config.edit_scale
        return cls(
            config=config,
            policy=SecondPolicy("qam", spec, Imitation(base, config.tau), policy_adam),
            velocity=base.predict,
            num_steps=base.num_steps,
            critic=critic,
            ranking_critic=critic.clone(precision=precision),
            critic_trainer=CriticTrainer(critic, critic_adam, config.tau, bounds),
            edit=EditPolicy(
                scale=scale,
                target_entropy=gaussian.target_entropy(config.target_entropy, num_dims, scale),
                network=TanhGaussian(config.hidden, spec.chunk_length, spec.action_dim),
                critic=critic,
                optimizer=policy_adam,
                temperature_optimizer=optax.adam(config.policy_learning_rate),
            ),
        )

    def init(self, key: KeyArray) -> QamState:
        """The state before the first update."""
        base_key, edit_key, critic_key = jax.random.split(key, 3)
        observation, action = self.policy.spec.example()
        features = flat_observation(observation)
        base = self.policy.imitation.init(base_key)
        critic = self.critic_trainer.init(critic_key, features, action)
        return QamState(
            base=base,
            slow_base=common.fresh(base.params),
            policy=self.policy.start(base),
            edit=self.edit.init(edit_key, features, action),
            critic=critic,
            target_critic=common.fresh(critic.params),
            log_temperature=self.edit.init_temperature(self.config.initial_temperature),
        )

    # What acts: the policy's samples, edited, and of several the best.

    def best(
        self,
        acting: dict[str, Params],
        observation: Observation,
        key: KeyArray,
        factor: float = 1.0,
    ) -> tuple[Float[Array, "b h a"], Float[Array, " b"]]:
        """The edited sample of highest mean Q, and that Q; `acting` as `Qam.acting` returns it, and
        the factor on the noise of the flow."""
        flow_key, edit_key = jax.random.split(key)
        features, num = flat_observation(observation)[:, None], self.config.num_base_samples
        samples = self.policy.sample(acting["policy"], observation, num, flow_key, factor)
        if self.config.edits:
            eps = jax.random.normal(edit_key, samples.shape)
            samples = self.edit.edit(acting["edit"], features, samples, eps).action
        q = q_values(self.ranking_critic, acting["critic"], features, samples).mean(axis=0)
        return take_candidate(samples, q.argmax(axis=-1)), q.max(axis=-1)

    # The critics.

    def target(
        self, target_critic: Params, batch: Batch, action: Float[Array, "b h a"]
    ) -> Float[Array, " b"]:
        """y = r + gamma * (mean - pessimism * std over the target critics of Q(s', a'))."""
        features = flat_observation(batch.next_observation)
        q_all = q_values(self.critic, target_critic, features, action)
        return td_target(batch.reward, batch.discount, lower_bound(q_all, self.config.pessimism))

    def update_critic(
        self, state: QamState, batch: Batch, key: KeyArray
    ) -> tuple[QamState, Metrics]:
        """One step of all critics towards y, one Polyak step of the target critics."""
        action, _ = self.best(self.acting(state), batch.next_observation, key)
        y = self.target(state.target_critic, batch, action)
        return step_critics(self.critic_trainer, state, batch, y)

    # The policy: adjoint matching.

    def end_gradient(
        self, target_critic: Params, observation: Observation, end: Float[Array, "b h a"]
    ) -> Float[Array, "b h a"]:
        """Gradient of -q_weight * mean Q(s, clip(a)) at the end of paths."""
        features, clipped = flat_observation(observation), jnp.clip(end, -1.0, 1.0)
        slope = action_gradient(self.critic, target_critic, features, clipped)
        return -self.config.q_weight * jnp.where(end == clipped, slope, 0.0)

    def policy_loss(
        self,
        policy_params: Params,
        observation: Observation,
        states: Float[Array, "k b h a"],
        slow: Float[Array, "k b h a"],
        goal: Float[Array, "k b h a"],
    ) -> tuple[Float[Array, ""], Metrics]:
        """Adjoint matching error of the policy's velocity at the states of paths, where `slow` is
        the velocity of the base's slow copy and `goal` the adjoint."""
        velocity = functools.partial(self.velocity, policy_params, observation)
        difference = adjoint.along(velocity, states) - slow
        loss = adjoint.matching_loss(difference, goal)
        return loss, {"policy/loss": loss, "policy/moved": jnp.abs(difference).mean()}

    def update_policy(
        self, state: QamState, observation: Observation, noise: Float[Array, "k b h a"]
    ) -> tuple[Model, Metrics]:
        """One step of the policy, along the paths that the noise decides."""
        own = functools.partial(self.velocity, state.policy.params, observation)
        slow = functools.partial(self.velocity, state.slow_base, observation)
        states, end = adjoint.memoryless_path(own, slow, noise)
        gradient = self.end_gradient(state.target_critic, observation, end)
        goal = adjoint.lean_adjoint(slow, states, gradient)
        still, gradient_of = adjoint.along(slow, states), jax.grad(self.policy_loss, has_aux=True)
        grads, metrics = gradient_of(state.policy.params, observation, states, still, goal)
        metrics |= {
            "policy/gradient": jnp.abs(gradient).mean(),
            "policy/beyond": (jnp.abs(end) > 1).mean(dtype=jnp.float32),
        }
        return state.policy.apply_gradients(grads, self.policy.optimizer), metrics

    # The edit policy climbs Q at samples of the policy.

    def update_edit(
        self, state: QamState, observation: Observation, key: KeyArray
    ) -> tuple[Model, Model, Metrics]:
        """One step of the edit policy and one of its temperature; without edits neither."""
        if not self.config.edits:
            return state.edit, state.log_temperature, {}
        flow_key, eps_key = jax.random.split(key)
        action = self.policy.sample(state.policy.params, observation, 1, flow_key)[:, 0]
        given = Edited(flat_observation(observation), action, state.critic.params)
        eps = jax.random.normal(eps_key, action.shape)
        signs = edit_metrics.random_signs(key, action.shape)
        return self.edit.step(state.edit, state.log_temperature, given, eps, signs)

    # One update call.

    def step(self, state: QamState, batch: Batch, key: KeyArray) -> tuple[QamState, Metrics]:
        """One step of critics, base, policy and edit policy, each with the others as before it."""
        critic_key, base_key, path_key, edit_key = jax.random.split(key, 4)
        learnt, critic_metrics = self.update_critic(state, batch, critic_key)
        base, slow_base, base_metrics = self.policy.imitation.step(
            state.base, state.slow_base, batch, base_key
        )
        noise = jax.random.normal(path_key, (self.num_steps, *batch.action.shape))
        policy, policy_metrics = self.update_policy(state, batch.observation, noise)
        edit, log_temperature, edit_metrics = self.update_edit(state, batch.observation, edit_key)
        state = dataclasses.replace(
            learnt,
            base=base,
            slow_base=slow_base,
            policy=policy,
            edit=edit,
            log_temperature=log_temperature,
        )
        return state, critic_metrics | base_metrics | policy_metrics | edit_metrics

    def update(
        self, state: QamState, batches: Batch, key: KeyArray, *, phase: Phase = "online"
    ) -> tuple[QamState, Metrics]:
        """Everything learns from every minibatch of [u, b, ...], on prior data as online.

        Phase "pretrain": the base policy imitates alone, and the policy becomes a copy of it.
        """
        if phase == "pretrain":
            base, average, metrics = self.policy.imitation.pretrain(state.base, batches, key)
            policy = self.policy.start(base)
            return dataclasses.replace(state, base=base, slow_base=average, policy=policy), metrics
        return each_minibatch(self.step, state, batches, key)

    # Acting.

    def acting(self, state: QamState) -> dict[str, Params]:
        """Policy and edit policy act, the critics choose; the base, where it alone is asked for."""
        return {
            "base": state.base.params,
            "policy": state.policy.params,
            "edit": state.edit.params,
            "critic": state.critic.params,
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
        """The policy's edited sample of highest mean Q; mode "base": one of the base.

        Raises:
            ValueError: proposals for the policy: it chooses among samples of its own.
        """
        factor = self.config.noise_in(mode)
        if mode in ALONE:
            return self.policy.act_alone(acting["base"], observation, key, proposals, factor)
        self.policy.check_proposals(proposals)
        action, q = self.best(acting, observation, key, factor)
        return Decision(action, {"q": q})


def qam(
    config: QamConfig, spec: Spec, base: BasePolicy | None, precision: Precision = "float32"
) -> Algorithm:
    """The algorithm for one task and one flow.

    Raises:
        ValueError: options out of range, no base policy, or one that is no flow.
    """
    check_options(config)
    agent = Qam.create(config, spec, base, precision)
    needs = Needs(columns=agent.critic_trainer.bounds.columns, alone=config.alone)
    return compiled(agent, needs, has_base=True)


_CODE = "QAM code, agents/qam.py"
_RUNS = "QAM code, experiments/reproduce.py"

_PAPER: Preset = {
    "algo.q_weight": (3.0, _RUNS + ": cube-triple; .1 to 10 elsewhere"),
    "algo.edit_scale": (0.1, _RUNS + ": puzzle-4x4 .9, no edits on scene and cube-double"),
    "algo.num_base_samples": (1, _CODE),
    "algo.pessimism": (0.5, _RUNS + ": humanoidmaze 0"),
    "algo.num_qs": (10, _RUNS),
    "algo.hidden": ((512, 512, 512, 512), _RUNS),
    "algo.critic_learning_rate": (3e-4, _CODE),
    "algo.policy_learning_rate": (3e-4, _CODE),
    "algo.max_gradient_norm": (1.0, _CODE),
    "algo.tau": (0.005, _CODE),
    "algo.initial_temperature": (1.0, "QAM code, utils/networks.py"),
    "base.kind": ("flow", _CODE),
    "base.num_steps": (10, _CODE),
    "base.learning_rate": (3e-4, _CODE),
    "base.weight_decay": (0.0, _CODE),
    "base.decay_steps": (0, _CODE),
    "chunk_length": (5, _RUNS + ": manipulation; 1 for mazes"),
    "train.batch_size": (256, _RUNS),
    "train.discount": (0.99, _RUNS + ": .995 for giant and humanoid mazes"),
    "train.utd_ratio": (1, _RUNS),
    "train.critic_pretrain_steps": (1_000_000, _RUNS + ": offline steps"),
    "train.online_steps": (500_000, _RUNS + ": online steps"),
}
_SMALL: Preset = {"algo.q_weight": (3.0, _RUNS + ": cube-triple")}

PRESETS = {
    "paper": _PAPER,
    **presets.on_cpus(QamConfig, _SMALL),
}

METRICS = {**CRITIC_METRICS, **POLICY_METRICS, **EDIT_METRICS}

QAM = Entry("qam", QamConfig, qam, presets=PRESETS, metrics=METRICS)
