"""Cal-QL: calibrated Q-learning (Nakamoto et al., arXiv 2303.05479).

Soft actor-critic whose critics are conservative (CQL, arXiv 2006.04779): beside the TD error they
lower the values of actions drawn at random and from the policy against those of the data. Cal-QL
lowers no value of a policy's action below the return that the data really had from that state on,
so that learning online need not first unlearn values that are far too low.

Defaults are those of the public code (nakamotoo/Cal-QL at ac6eafe: JaxCQL/conservative_sac.py and
scripts/) for AntMaze; docs/algorithms/calql.md has what differs.
"""

import dataclasses
import functools
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from exporl.algos import bounds, common, presets
from exporl.algos.algorithm import ALL_PHASES, Algorithm, Entry, Needs, Preset, compiled
from exporl.algos.bounds import DATA_RETURN, BoundOptions, TargetBounds
from exporl.algos.common import CRITIC_METRICS, CriticTrainer, Model
from exporl.algos.critics import adam_trainer, init_critics, step_critics
from exporl.algos.minibatches import each_minibatch
from exporl.algos.soft_policy import SoftTrainer
from exporl.nets.critic import Critic, q_values
from exporl.nets.encoder import flat_observation
from exporl.nets.gaussian import TanhGaussian, distribution
from exporl.ops import gaussian
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
    "policy/loss": "mean of temperature x log density - least Q(s, policy's action) over e",
    "policy/entropy": "-mean log density of the policy's action, nats",
    "policy/target_entropy": "what the temperature steers the policy's entropy towards, nats",
    "policy/temperature": "exp(log temperature) of the policy",
}
CONSERVATIVE_METRICS = {
    "conservative/gap": "mean of log sum exp Q over drawn actions - Q(s, a) of the data",
    "conservative/calibrated": "share of policy actions' values raised to the data's return",
}


@dataclasses.dataclass(frozen=True)
class CalqlConfig(BoundOptions):
    """Cal-QL. Defaults are those of the public code for AntMaze."""

    conservatism: float = option(5.0, within="[0, inf)")
    """Weight of the conservative term beside the TD error (AntMaze 5, Adroit 1)."""
    num_actions: int = option(10, within="[1, inf)")
    """Actions drawn per state from each of: uniform noise, the policy, the policy at s'."""
    max_backup: bool = True
    """Bootstrap from the best of `num_actions` policy actions, instead of from one."""
    num_qs: int = option(2, within="[1, inf)")
    """Critics; every minimum is over all of them."""
    hidden: tuple[int, ...] = sizes(256, 256, 256, 256)
    """Hidden layers of the critics."""
    policy_hidden: tuple[int, ...] = sizes(256, 256)
    """Hidden layers of the policy."""
    critic_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the critics."""
    policy_learning_rate: float = option(1e-4, within="[0, inf)")
    """Adam step size of the policy."""
    temperature_learning_rate: float = option(1e-4, within="[0, inf)")
    """Adam step size of the log temperature."""
    tau: float = option(0.005, within="(0, 1]")
    """Polyak step of the target critics, per critic update."""
    initial_temperature: float = option(1.0, within="(0, inf)")
    """Entropy weight at the start (alpha)."""
    target_entropy: Literal["dimensions"] | float = option("dimensions", within="(-inf, inf)")
    """Entropy that the temperature steers the policy towards. dimensions: -d; or a number."""


@struct.dataclass
class CalqlState:
    """Everything that Cal-QL learns."""

    policy: Model
    critic: Model
    target_critic: Params
    log_temperature: Model


class Contrast(NamedTuple):
    """Actions whose values are lowered: first the uniform ones, then those of policies."""

    action: Float[Array, "b c h a"]
    log_prob: Float[Array, "b c"]
    """Log density of each, by which it was drawn."""


@dataclasses.dataclass(frozen=True)
class Calql:
    """The functions of Cal-QL for one task. Parameters and keys are arguments throughout."""

    config: CalqlConfig
    spec: Spec
    policy: TanhGaussian
    critic: Critic
    critic_trainer: CriticTrainer
    policy_trainer: SoftTrainer

    @classmethod
    def create(cls, config: CalqlConfig, spec: Spec) -> "Calql":
        """Cal-QL with the networks and optimisers that the options describe."""
        critic_trainer = adam_trainer(config, TargetBounds.create(config, spec))
        goal, num_dims = config.target_entropy, spec.chunk_length * spec.action_dim
        entropy_goal = -float(num_dims) if goal == "dimensions" else float(goal)
        return cls(
            config=config,
            spec=spec,
            policy=TanhGaussian(config.policy_hidden, spec.chunk_length, spec.action_dim),
            critic=critic_trainer.critic,
            critic_trainer=critic_trainer,
            policy_trainer=SoftTrainer.adam(config, entropy_goal),
        )

    def init(self, key: KeyArray) -> CalqlState:
        """The state before the first update."""
        policy_key, critic_key = jax.random.split(key)
        observation, _ = self.spec.example()
        critic = init_critics(self.critic_trainer, self.spec, critic_key)
        policy = self.policy.init(policy_key, flat_observation(observation))
        return CalqlState(
            policy=self.policy_trainer.init(policy),
            critic=critic,
            target_critic=common.fresh(critic.params),
            log_temperature=self.policy_trainer.init_temperature(),
        )

    def sample(
        self,
        policy_params: Params,
        features: Float[Array, "b f"],
        eps: Float[Array, "b n h a"],
    ) -> tuple[Float[Array, "b n h a"], Float[Array, "b n"]]:
        """n actions of the policy per state, drawn by the noise eps, and their log densities."""
        normal = distribution(self.policy, policy_params, features)
        mean = jnp.broadcast_to(normal.mean[:, None], eps.shape)
        log_std = jnp.broadcast_to(normal.log_std[:, None], eps.shape)
        return gaussian.tanh_sample(mean, log_std, eps)

    # The critics: a TD error, and the conservative term.

    def target(
        self,
        target_critic: Params,
        policy_params: Params,
        batch: Batch,
        eps: Float[Array, "b n h a"],
    ) -> Float[Array, " b"]:
        """y = r + gamma * max over n of min Q'(s', a_n), with a_n of the policy."""
        features = flat_observation(batch.next_observation)
        action, _ = self.sample(policy_params, features, eps)
        q = q_values(self.critic, target_critic, features[:, None], action).min(axis=0)
        return td_target(batch.reward, batch.discount, q.max(axis=-1))

    def contrast(self, policy_params: Params, batch: Batch, key: KeyArray) -> Contrast:
        """The actions to lower at s: uniform ones, the policy's at s, and the policy's at s'."""
        uniform_key, here_key, next_key = jax.random.split(key, 3)
        features = flat_observation(batch.observation)
        next_features = flat_observation(batch.next_observation)
        rows, *chunk = batch.action.shape
        shape = (rows, self.config.num_actions, *chunk)
        uniform = jax.random.uniform(uniform_key, shape, minval=-1.0, maxval=1.0)
        here = self.sample(policy_params, features, jax.random.normal(here_key, shape))
        there = self.sample(policy_params, next_features, jax.random.normal(next_key, shape))
        density = jnp.full(shape[:2], -math.prod(chunk) * math.log(2))
        return Contrast(
            jnp.concatenate([uniform, here[0], there[0]], axis=1),
            jnp.concatenate([density, here[1], there[1]], axis=1),
        )

    def conservative_term(
        self,
        critic_params: Params,
        q_data: Float[Array, "e b"],
        features: Float[Array, "b f"],
        contrast: Contrast,
        known: Float[Array, " b"],
    ) -> tuple[Float[Array, ""], Metrics]:
        """conservatism * mean of (log sum exp (Q(s, a_c) - log density of a_c) - Q(s, a)).

        Where a_c is a policy's, Q is first raised to the return known of s (-infinity: nothing is
        known): below it the term has no slope there.
        """
        q = q_values(self.critic, critic_params, features[:, None], contrast.action)
        of_policy = jnp.arange(q.shape[-1]) >= self.config.num_actions
        floor = known[None, :, None]
        raised = jnp.where(of_policy, jnp.maximum(q, floor), q)
        soft_max = jax.nn.logsumexp(raised - contrast.log_prob[None], axis=-1)
        gap = (soft_max - q_data).mean()
        lifted = (q < floor)[..., self.config.num_actions :]
        return self.config.conservatism * gap, {
            "conservative/gap": gap,
            "conservative/calibrated": lifted.mean(dtype=jnp.float32),
        }

    def update_critic(
        self, state: CalqlState, batch: Batch, key: KeyArray
    ) -> tuple[CalqlState, Metrics]:
        """One step of all critics, one Polyak step of the target critics."""
        eps_key, contrast_key = jax.random.split(key)
        rows, *chunk = batch.action.shape
        num = self.config.num_actions if self.config.max_backup else 1
        eps = jax.random.normal(eps_key, (rows, num, *chunk))
        y = self.target(state.target_critic, state.policy.params, batch, eps)
        penalty = functools.partial(
            self.conservative_term,
            features=flat_observation(batch.observation),
            contrast=self.contrast(state.policy.params, batch, contrast_key),
            known=jnp.asarray(bounds.column_of(batch, DATA_RETURN)),
        )
        return step_critics(self.critic_trainer, state, batch, y, penalty)

    # The policy.

    def policy_loss(
        self,
        policy_params: Params,
        critic_params: Params,
        temperature: Float[Array, ""],
        batch: Batch,
        eps: Float[Array, "b 1 h a"],
    ) -> tuple[Float[Array, ""], Metrics]:
        """alpha * log pi(a | s) - min Q(s, a), at the policy's own actions."""
        features = flat_observation(batch.observation)
        action, log_prob = self.sample(policy_params, features, eps)
        q = q_values(self.critic, critic_params, features[:, None], action).min(axis=0)
        loss = (temperature * log_prob - q).mean()
        return loss, {"policy/loss": loss, "policy/entropy": -log_prob.mean()}

    def update_policy(
        self, state: CalqlState, critic_params: Params, batch: Batch, key: KeyArray
    ) -> tuple[CalqlState, Metrics]:
        """One step of the policy, and one of the temperature alpha towards the entropy goal."""
        temperature = jnp.exp(state.log_temperature.params)
        eps = jax.random.normal(key, batch.action.shape)[:, None]
        grads, metrics = jax.grad(self.policy_loss, has_aux=True)(
            state.policy.params, critic_params, temperature, batch, eps
        )
        state = self.policy_trainer.step(state, grads, metrics["policy/entropy"])
        return state, metrics | {
            "policy/temperature": temperature,
            "policy/target_entropy": jnp.float32(self.policy_trainer.entropy_goal),
        }

    # One update call: critics and policy learn from every minibatch, each from the other as it was.

    def step(self, state: CalqlState, batch: Batch, key: KeyArray) -> tuple[CalqlState, Metrics]:
        """One step of critics, policy and temperature."""
        critic_key, policy_key = jax.random.split(key)
        critics = state.critic.params
        state, critic_metrics = self.update_critic(state, batch, critic_key)
        state, metrics = self.update_policy(state, critics, batch, policy_key)
        return state, critic_metrics | metrics

    def update(
        self, state: CalqlState, batches: Batch, key: KeyArray, *, phase: Phase = "online"
    ) -> tuple[CalqlState, Metrics]:
        """A step on every minibatch of [u, b, ...]; the same in every phase."""
        return each_minibatch(self.step, state, batches, key)

    # Acting.

    def acting(self, state: CalqlState) -> Params:
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
            raise ValueError("calql has no base policy that could act or propose.")
        features = flat_observation(observation)
        if mode == "evaluate":
            return Decision(jnp.tanh(distribution(self.policy, acting, features).mean), {})
        shape = (features.shape[0], 1, self.spec.chunk_length, self.spec.action_dim)
        action, _ = self.sample(acting, features, jax.random.normal(key, shape))
        return Decision(action[:, 0], {})


def calql(
    config: CalqlConfig,
    spec: Spec,
    base: BasePolicy | None = None,
    precision: Precision = "float32",
) -> Algorithm:
    """The algorithm for one task; a base policy is not used.

    Raises:
        ValueError: options out of range, or a precision that has no effect.
    """
    check_options(config)
    common.only_float32(precision, "calql")
    agent = Calql.create(config, spec)
    columns = (DATA_RETURN, *agent.critic_trainer.bounds.columns)
    return compiled(agent, Needs(ALL_PHASES - {"pretrain"}, columns), has_base=False)


_CODE = "Cal-QL code, conservative_sac.py"
_SCRIPT = "Cal-QL code, scripts/"

_PAPER: Preset = {
    "algo.conservatism": (5.0, _CODE),
    "algo.num_actions": (10, _CODE),
    "algo.max_backup": (True, _CODE),
    "algo.hidden": ((256, 256, 256, 256), _SCRIPT),
    "algo.policy_hidden": ((256, 256), _SCRIPT),
    "algo.critic_learning_rate": (3e-4, _CODE),
    "algo.policy_learning_rate": (1e-4, _CODE),
    "algo.temperature_learning_rate": (1e-4, _CODE),
    "algo.tau": (0.005, _CODE),
    "train.discount": (0.99, _CODE),
    "train.batch_size": (256, _CODE),
    "train.utd_ratio": (1, _CODE),
    "data.prior_ratio": (0.5, _SCRIPT),
    "train.critic_pretrain_steps": (1_000_000, _SCRIPT),
    "train.online_steps": (1_000_000, _SCRIPT),
}
_ADROIT: Preset = {
    "algo.conservatism": (1.0, _SCRIPT),
    "algo.hidden": ((512, 512, 512), _SCRIPT),
    "algo.policy_hidden": ((512, 512), _SCRIPT),
    "train.critic_pretrain_steps": (20_000, _SCRIPT),
}
_START: Preset = {
    "train.critic_pretrain_steps": (4_000, presets.SIZE),
    "algo.num_qs": (2, _CODE),
    "algo.policy_hidden": ((128, 128), presets.SIZE),
    "algo.num_actions": (4, presets.SIZE),
}


_SMALL = {
    size: {**presets.RUNS[size], **critics, **_START}
    for size, critics in presets.SMALL_CRITICS.items()
}

PRESETS = {
    "paper": _PAPER,
    "adroit": {**_PAPER, **_ADROIT},
    **{size: presets.without_foreign(parts, CalqlConfig) for size, parts in _SMALL.items()},
}
METRICS = {**CRITIC_METRICS, **POLICY_METRICS, **CONSERVATIVE_METRICS}
CALQL = Entry("calql", CalqlConfig, calql, presets=PRESETS, metrics=METRICS)
