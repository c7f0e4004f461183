"""IDQL: implicit Q-learning with a diffusion policy (Hansen-Estruch et al., arXiv 2304.10573).

The critics never ask for an action that is not in the data: a value V(s) follows an expectile of
Q(s, a) over the data's actions (IQL, arXiv 2110.06169), and Q bootstraps from V(s'). The base
policy imitates. Of n base samples the one of highest Q acts, or one is drawn from the implicit
policy, whose weight on an action is |expectile - [Q < V]|.

Defaults are those of the paper and of its public code (philippe-eecs/IDQL,
jaxrl5/agents/ddpm_iql); docs/algorithms/idql.md has what differs.
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
from exporl.algos.deploy_noise import ALONE, SampleNoise, noise_scales
from exporl.nets.critic import Critic, StateValue, q_values, state_value
from exporl.nets.encoder import flat_observation
from exporl.ops.selection import select, take_candidate
from exporl.ops.td import expectile_loss, td_target
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

VALUE_METRICS = {
    "value/loss": "mean over b of the expectile loss of min over e of Q(s, a) - V(s)",
    "value/mean": "mean of V(s)",
    "value/advantage": "mean of min over e of Q(s, a) - V(s), for a of the data",
    "value/above": "share of the data's actions whose Q lies above V(s)",
}


@dataclasses.dataclass(frozen=True)
class IdqlConfig(BoundOptions, SampleNoise):
    """IDQL. Defaults are the paper's for locomotion; AntMaze takes expectile 0.9."""

    num_base_samples: int = option(64, within="[1, inf)")
    """Actions n that the base policy proposes per observation when acting (N)."""
    expectile: float = option(0.7, within="(0, 1)")
    """Of Q over the data's actions, that V follows (tau). 0.5: their mean; near 1: the best."""
    selection: Literal["argmax", "implicit"] = "argmax"
    """Take the sample of highest Q, or draw one from the implicit policy."""
    num_qs: int = option(2, within="[1, inf)")
    """Critics; every minimum is over all of them."""
    hidden: tuple[int, ...] = sizes(256, 256)
    """Hidden layers of the critics and of V."""
    critic_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the critics."""
    value_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of V."""
    tau: float = option(0.005, within="(0, 1]")
    """Polyak step of the target critics, per critic update."""
    base_tau: float = option(0.001, within="(0, 1]")
    """Polyak step of the averaged base policy that acts, per base update."""
    base_data: Literal["all", "successes"] = "all"
    """The base imitates all rows, or successful episodes only (a minibatch without any: its
    demonstrations)."""
    base_weight: Literal["uniform", "shorter", "recent"] = added("uniform", absent="uniform")
    """Which successful episodes count most in imitation, by exp(-z) with z standardised over the
    successes of a minibatch. shorter: z is the length; recent: the age, demonstrations being the
    oldest."""


@struct.dataclass
class IdqlState:
    """Everything that IDQL learns."""

    base: Model
    base_ema: Params
    critic: Model
    target_critic: Params
    value: Model


@dataclasses.dataclass(frozen=True)
class Idql:
    """The functions of IDQL for one task and one base policy; parameters and keys are arguments.

    `ranking_critic` is `critic` in the precision in which samples are ranked.
    """

    config: IdqlConfig
    spec: Spec
    imitation: Imitation
    critic: Critic
    ranking_critic: Critic
    value: StateValue
    critic_trainer: CriticTrainer
    value_optimizer: optax.GradientTransformation

    @classmethod
    def create(
        cls, config: IdqlConfig, spec: Spec, base: BasePolicy, precision: Precision = "float32"
    ) -> "Idql":
        """IDQL with the networks and optimisers that the options describe."""
        critic_trainer = adam_trainer(config, TargetBounds.create(config, spec))
        return cls(
            config=config,
            spec=spec,
            imitation=Imitation(
                base, config.base_tau, config.base_data == "successes", config.base_weight
            ),
            critic=critic_trainer.critic,
            ranking_critic=critic_trainer.critic.clone(precision=precision),
            value=StateValue(config.hidden),
            critic_trainer=critic_trainer,
            value_optimizer=optax.flatten(optax.adam(config.value_learning_rate)),
        )

    def init(self, key: KeyArray) -> IdqlState:
        """The state before the first update."""
        base_key, critic_key, value_key = jax.random.split(key, 3)
        observation, _ = self.spec.example()
        base = self.imitation.init(base_key)
        critic = init_critics(self.critic_trainer, self.spec, critic_key)
        value = self.value.init(value_key, flat_observation(observation))
        return IdqlState(
            base=base,
            base_ema=common.fresh(base.params),
            critic=critic,
            target_critic=common.fresh(critic.params),
            value=Model.create(self.critic_trainer.bounds.start(value), self.value_optimizer),
        )

    # V follows an expectile of Q over the data's actions; Q bootstraps from V.

    def value_loss(
        self,
        value_params: Params,
        features: Float[Array, "b f"],
        q: Float[Array, " b"],
    ) -> tuple[Float[Array, ""], Metrics]:
        """The expectile loss of q - V(s)."""
        value = state_value(self.value, value_params, features)
        advantage = q - value
        loss = expectile_loss(advantage, self.config.expectile)
        return loss, {
            "value/loss": loss,
            "value/mean": value.mean(),
            "value/advantage": advantage.mean(),
            "value/above": (advantage > 0).mean(dtype=jnp.float32),
        }

    def update_value(self, state: IdqlState, batch: Batch) -> tuple[IdqlState, Metrics]:
        """One step of V towards the least of the target critics, at the data's actions."""
        features = flat_observation(batch.observation)
        q = q_values(self.critic, state.target_critic, features, batch.action).min(axis=0)
        grads, metrics = jax.grad(self.value_loss, has_aux=True)(state.value.params, features, q)
        value = state.value.apply_gradients(grads, self.value_optimizer)
        return dataclasses.replace(state, value=value), metrics

    def target(self, value_params: Params, batch: Batch) -> Float[Array, " b"]:
        """y = r + gamma * V(s')."""
        next_features = flat_observation(batch.next_observation)
        value = state_value(self.value, value_params, next_features)
        return td_target(batch.reward, batch.discount, value)

    def critic_step(self, state: IdqlState, batch: Batch) -> tuple[IdqlState, Metrics]:
        """One step of V, then one of all critics towards y with the new V; one Polyak step."""
        state, value_metrics = self.update_value(state, batch)
        y = self.target(state.value.params, batch)
        state, metrics = step_critics(self.critic_trainer, state, batch, y)
        return state, metrics | value_metrics

    # One update call.

    def update(
        self, state: IdqlState, batches: Batch, key: KeyArray, *, phase: Phase = "online"
    ) -> tuple[IdqlState, Metrics]:
        """V and critics learn from every minibatch of [u, b, ...], the base from the last one.

        Phase "pretrain" is imitation alone; in "critic_pretrain" the base stands still.
        """
        if phase == "pretrain":
            base, average, metrics = self.imitation.pretrain(state.base, batches, key)
            return dataclasses.replace(state, base=base, base_ema=average), metrics
        state, critic_metrics = jax.lax.scan(self.critic_step, state, batches)
        metrics = common.reduce_metrics(critic_metrics)
        if phase == "critic_pretrain":
            return state, metrics
        last = common.last_minibatch(batches)
        base, average, base_metrics = self.imitation.step(state.base, state.base_ema, last, key)
        return dataclasses.replace(state, base=base, base_ema=average), metrics | base_metrics

    # Acting.

    def propose(
        self, base_params: Params, observation: Observation, key: KeyArray, factor: float
    ) -> Float[Array, "b n h a"]:
        """n base samples; `min_noise_scale` narrows the first ones, the factor all of them."""
        num, base = self.config.num_base_samples, self.imitation.base
        scales = noise_scales(num, factor, self.config.min_noise_scale)
        return propose(base, base_params, observation, num, key, self.spec, scales)

    def acting(self, state: IdqlState) -> dict[str, Params]:
        """The averaged base policy acts, and the target critics and V choose."""
        return {
            "base": state.base_ema,
            "critic": state.target_critic,
            "value": state.value.params,
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
        """One of n base samples, by `selection`; mode "base": one sample, unjudged."""
        factor = self.config.noise_in(mode)
        if mode in ALONE:
            return self.imitation.act(
                acting["base"], observation, key, self.spec, proposals, noise_scale=factor
            )
        propose_key, choice_key = jax.random.split(key)
        if proposals is None:
            proposals = self.propose(acting["base"], observation, propose_key, factor)
        features = flat_observation(observation)
        q_all = q_values(self.ranking_critic, acting["critic"], features[:, None], proposals)
        q = q_all.min(axis=0)
        score, softness = q, None
        if self.config.selection == "implicit":
            value = state_value(self.value, acting["value"], features)
            score, softness = self.implicit_score(q, value), 1.0
        index, _ = select(score, choice_key, softness)
        chosen = jnp.take_along_axis(q, index[:, None], axis=1)[:, 0]
        return Decision(take_candidate(proposals, index), {"q": chosen, "index": index})

    def implicit_score(
        self, q: Float[Array, "b n"], value: Float[Array, " b"]
    ) -> Float[Array, "b n"]:
        """Log of the implicit policy's weights: expectile above V, 1 - expectile below."""
        expectile = self.config.expectile
        weight = jnp.where(q > value[:, None], expectile, 1 - expectile)
        return jnp.log(weight)


def idql(
    config: IdqlConfig, spec: Spec, base: BasePolicy | None, precision: Precision = "float32"
) -> Algorithm:
    """The algorithm for one task and one base policy.

    Raises:
        ValueError: options out of range, or there is no base policy.
    """
    check_imitation(config)
    agent = Idql.create(config, spec, common.required(base, "idql"), precision)
    columns = agent.critic_trainer.bounds.columns + agent.imitation.columns
    needs = Needs(columns=columns, alone=config.alone)
    return compiled(agent, needs, has_base=True)


_TABLE = "IDQL paper, hyper-parameters"
_CODE = "IDQL code, ddpm_iql_learner.py"
_IQL = "IDQL paper; IQL paper"

_PAPER: Preset = {
    "algo.num_base_samples": (64, _CODE),
    "algo.expectile": (0.7, _IQL),
    "algo.num_qs": (2, _CODE),
    "algo.hidden": ((256, 256), _CODE),
    "algo.critic_learning_rate": (3e-4, _TABLE),
    "algo.value_learning_rate": (3e-4, _TABLE),
    "algo.tau": (0.005, _TABLE),
    "algo.base_tau": (0.001, _CODE),
    "base.kind": ("diffusion", _TABLE),
    "base.num_steps": (5, _TABLE),
    "base.width": (256, _TABLE),
    "base.num_blocks": (3, _TABLE),
    "base.learning_rate": (3e-4, _TABLE),
    "train.discount": (0.99, _TABLE),
    "train.batch_size": (256, "as EXPO"),
    "train.utd_ratio": (1, "IDQL: one update per environment step"),
}
_SMALL: Preset = {
    "algo.num_base_samples": (16, presets.SIZE),
    "algo.num_qs": (2, _CODE),
    "algo.expectile": (0.9, _IQL + ": sparse rewards"),
}

PRESETS = {
    "paper": _PAPER,
    "antmaze": {**_PAPER, "algo.expectile": (0.9, _IQL)},
    **presets.on_cpus(IdqlConfig, _SMALL),
}

IDQL = Entry(
    "idql",
    IdqlConfig,
    idql,
    check_imitation,
    presets=PRESETS,
    metrics={**CRITIC_METRICS, **VALUE_METRICS},
)
