"""QSM: Q-score matching (Psenka et al., arXiv 2312.11752).

The policy is a diffusion whose noise prediction is made to match the critics' gradient at the noisy
action, times a weight: the larger it is, the closer the policy comes to the best action, and the
less it explores. No gradient passes through the denoising chain. With `imitation_weight` the noise
of the data's actions is matched as well, which QAM's authors (arXiv 2601.14234) add to learn from
prior data.

Defaults are those of the public code (Alescontrela/score_matching_rl at 2e77893,
score_matching_learner.py and its configuration), where the weight is M_q; docs/algorithms/qsm.md
has what differs.
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
from exporl.algos.bounds import BoundOptions, TargetBounds
from exporl.algos.common import CRITIC_METRICS, CriticTrainer, Model
from exporl.algos.critics import adam_trainer, init_critics, step_critics
from exporl.algos.deploy_noise import ALONE, DeployNoise
from exporl.algos.minibatches import each_minibatch
from exporl.algos.regression import Noised, Regression, valid_mean
from exporl.nets.critic import Critic, action_gradient, q_values
from exporl.nets.encoder import flat_observation
from exporl.ops.ensemble import lower_bound
from exporl.ops.td import td_target
from exporl.options import check_options, option, sizes
from exporl.policies.base import BasePolicy, learning_rate
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
    "policy/loss": "`policy/matching` + `imitation_weight` x `policy/imitation`",
    "policy/matching": "mean over valid dimensions of (predicted noise + q_weight x dQ/da)^2",
    "policy/imitation": "squared error of the predicted noise, mean over valid dimensions",
    "policy/gradient": "mean over dimensions of the size of q_weight x dQ/da, at noisy actions",
}


@dataclasses.dataclass(frozen=True)
class QsmConfig(BoundOptions, DeployNoise):
    """QSM. Defaults are those of the public code."""

    q_weight: float = option(50.0, within="[0, inf)")
    """Factor on the critics' gradient that the noise matches (M_q). Scale it with the values."""
    imitation_weight: float = option(0.0, within="[0, inf)")
    """Weight of imitation of the data; 0 is the source's QSM, which learns from values alone."""
    gradient_of: Literal["critic", "target"] = "critic"
    """Whose gradient: the critics', or the target critics'."""
    noise: float = option(0.1, within="[0, inf)")
    """Standard deviation of the noise on actions, while exploring and in TD targets."""
    pessimism: float = option(1.0, within="[0, inf)")
    """TD targets lie so many standard deviations of the ensemble below its mean; 1 with two
    critics is their minimum, as in the source."""
    num_qs: int = option(2, within="[1, inf)")
    """Critics in the ensemble."""
    hidden: tuple[int, ...] = sizes(512, 512)
    """Hidden layers of the critics."""
    critic_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the critics."""
    policy_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the policy at the start."""
    decay_steps: int = option(2_000_000, within="[0, inf)")
    """Updates over which the policy's step size falls to 0 on a cosine; 0: constant."""
    tau: float = option(0.005, within="(0, 1]")
    """Polyak step of the target critics, per critic update."""


@struct.dataclass
class QsmState:
    """Everything that QSM learns."""

    base: Model
    policy: Model
    critic: Model
    target_critic: Params


@dataclasses.dataclass(frozen=True)
class Qsm:
    """The functions of QSM for one task and one diffusion; parameters and keys are arguments."""

    config: QsmConfig
    regression: Regression
    critic: Critic
    critic_trainer: CriticTrainer

    @classmethod
    def create(cls, config: QsmConfig, spec: Spec, base: BasePolicy | None) -> "Qsm":
        """QSM with the networks and optimisers that the options describe.

        Raises:
            ValueError: there is no base policy, or it is no diffusion.
        """
        critic_trainer = adam_trainer(config, TargetBounds.create(config, spec))
        rate = learning_rate(config.policy_learning_rate, config.decay_steps)
        return cls(
            config=config,
            regression=Regression.create("qsm", spec, base, optax.flatten(optax.adam(rate))),
            critic=critic_trainer.critic,
            critic_trainer=critic_trainer,
        )

    def init(self, key: KeyArray) -> QsmState:
        """The state before the first update."""
        base_key, critic_key = jax.random.split(key)
        critic = init_critics(self.critic_trainer, self.regression.spec, critic_key)
        base = self.regression.imitation.init(base_key)
        return QsmState(
            base=base,
            policy=self.regression.start(base),
            critic=critic,
            target_critic=common.fresh(critic.params),
        )

    def sample(
        self, policy_params: Params, observation: Observation, key: KeyArray
    ) -> Float[Array, "b h a"]:
        """An action of the policy with the noise of exploration, clipped to [-1, 1]."""
        sample_key, noise_key = jax.random.split(key)
        action = self.regression.sample(policy_params, observation, 1, sample_key)[:, 0]
        noise = self.config.noise * jax.random.normal(noise_key, action.shape)
        return jnp.clip(action + noise, -1.0, 1.0)

    # The critics: the TD target of the policy's own next action.

    def target(
        self, target_critic: Params, batch: Batch, action: Float[Array, "b h a"]
    ) -> Float[Array, " b"]:
        """y = r + gamma * (mean - pessimism * std over the target critics of Q(s', a'))."""
        features = flat_observation(batch.next_observation)
        q_all = q_values(self.critic, target_critic, features, action)
        return td_target(batch.reward, batch.discount, lower_bound(q_all, self.config.pessimism))

    def update_critic(
        self, state: QsmState, batch: Batch, key: KeyArray
    ) -> tuple[QsmState, Metrics]:
        """One step of all critics towards y, one Polyak step of the target critics."""
        action = self.sample(state.policy.params, batch.next_observation, key)
        y = self.target(state.target_critic, batch, action)
        return step_critics(self.critic_trainer, state, batch, y)

    # The policy: its noise matches the gradient of Q.

    def policy_loss(
        self,
        policy_params: Params,
        batch: Batch,
        noised: Noised,
        score: Float[Array, "b h a"],
    ) -> tuple[Float[Array, ""], Metrics]:
        """|eps(s, x) + score|^2 + imitation_weight * |eps(s, x) - noise|^2, where x is the noisy
        action and the score q_weight * dQ/da there; averaged over rows and dimensions."""
        predicted = self.regression.predict(policy_params, batch.observation, noised)
        matching = valid_mean(jnp.square(predicted + score), batch.valid)
        imitation = valid_mean(jnp.square(predicted - noised.noise), batch.valid)
        loss = matching + self.config.imitation_weight * imitation
        return loss, {
            "policy/loss": loss,
            "policy/matching": matching,
            "policy/imitation": imitation,
            "policy/gradient": jnp.abs(score).mean(),
        }

    def update_policy(
        self, state: QsmState, batch: Batch, noised: Noised
    ) -> tuple[QsmState, Metrics]:
        """One step of the policy."""
        of_target = self.config.gradient_of == "target"
        critic = state.target_critic if of_target else state.critic.params
        features = flat_observation(batch.observation)
        slope = action_gradient(self.critic, critic, features, noised.action)
        score = self.config.q_weight * slope
        gradient = jax.grad(self.policy_loss, has_aux=True)
        grads, metrics = gradient(state.policy.params, batch, noised, score)
        policy = state.policy.apply_gradients(grads, self.regression.optimizer)
        return dataclasses.replace(state, policy=policy), metrics

    # One update call.

    def step(self, state: QsmState, batch: Batch, key: KeyArray) -> tuple[QsmState, Metrics]:
        """One step of the critics, then one of the policy."""
        sample_key, noise_key = jax.random.split(key)
        state, critic_metrics = self.update_critic(state, batch, sample_key)
        noised = self.regression.noised(batch, noise_key)
        state, metrics = self.update_policy(state, batch, noised)
        return state, critic_metrics | metrics

    def update(
        self, state: QsmState, batches: Batch, key: KeyArray, *, phase: Phase = "online"
    ) -> tuple[QsmState, Metrics]:
        """Critics and policy learn from every minibatch of [u, b, ...], on prior data as online.

        Phase "pretrain": the base policy imitates, and the policy becomes a copy of it; in the
        others the base stands still.
        """
        if phase == "pretrain":
            base, _, metrics = self.regression.imitation.pretrain(state.base, batches, key)
            policy = self.regression.start(base)
            return dataclasses.replace(state, base=base, policy=policy), metrics
        return each_minibatch(self.step, state, batches, key)

    # Acting.

    def acting(self, state: QsmState) -> dict[str, Params]:
        """The policy acts, and the critics say what that is worth; the base, where it alone is
        asked for."""
        return {
            "base": state.base.params,
            "policy": state.policy.params,
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
        """A sample of the policy, with noise while exploring; mode "base": one of the base.

        Raises:
            ValueError: proposals for the policy: it plays samples of its own.
        """
        factor = self.config.noise_in(mode)
        if mode in ALONE:
            return self.regression.act_alone(acting["base"], observation, key, proposals, factor)
        self.regression.check_proposals(proposals)
        if mode == "explore":
            action = self.sample(acting["policy"], observation, key)
        else:
            action = self.regression.sample(acting["policy"], observation, 1, key, factor)[:, 0]
        features = flat_observation(observation)
        q = q_values(self.critic, acting["critic"], features, action).mean(axis=0)
        return Decision(action, {"q": q})


def qsm(
    config: QsmConfig, spec: Spec, base: BasePolicy | None, precision: Precision = "float32"
) -> Algorithm:
    """The algorithm for one task and one diffusion; the precision is that of the base.

    Raises:
        ValueError: options out of range, no base policy, or one that is no diffusion.
    """
    check_options(config)
    agent = Qsm.create(config, spec, base)
    needs = Needs(columns=agent.critic_trainer.bounds.columns, alone=config.alone)
    return compiled(agent, needs, has_base=True)


_CODE = "QSM code, score_matching_config.py"
_AGENT = "QSM code, score_matching_learner.py"
_TRAIN = "QSM code, train_score_matching_online.py"
_QAM = "QAM code, agents/dcgql.py"
_CUBE = "QAM code, experiments/reproduce.py: cube-triple"

_PAPER: Preset = {
    "algo.q_weight": (50.0, _CODE + ": 120 for harder tasks"),
    "algo.imitation_weight": (0.0, _AGENT),
    "algo.gradient_of": ("critic", _AGENT),
    "algo.noise": (0.1, _AGENT),
    "algo.pessimism": (1.0, _AGENT + ": minimum of two"),
    "algo.num_qs": (2, _AGENT),
    "algo.hidden": ((512, 512), _CODE),
    "algo.critic_learning_rate": (3e-4, _CODE),
    "algo.policy_learning_rate": (3e-4, _CODE),
    "algo.decay_steps": (2_000_000, _AGENT),
    "algo.tau": (0.005, _CODE),
    "base.kind": ("diffusion", _AGENT),
    "base.num_steps": (5, _CODE),
    "train.batch_size": (256, _TRAIN),
    "train.discount": (0.99, _CODE),
    "train.utd_ratio": (1, _TRAIN),
    "train.random_steps": (10_000, _TRAIN),
    "train.update_after": (10_000, _TRAIN),
    "train.online_steps": (1_000_000, _TRAIN),
}
_WITH_IMITATION: Preset = {
    "algo.q_weight": (10.0, _CUBE),
    "algo.imitation_weight": (10.0, _CUBE),
    "algo.gradient_of": ("target", _QAM),
    "algo.noise": (0.0, _QAM),
    "algo.pessimism": (0.5, _QAM),
}
_SMALL: Preset = {**_WITH_IMITATION, "base.kind": ("diffusion", _AGENT)}

PRESETS = {
    "paper": _PAPER,
    "qam": {
        **_PAPER,
        **_WITH_IMITATION,
        "algo.num_qs": (10, _QAM),
        "algo.hidden": ((512, 512, 512, 512), _QAM),
        "algo.decay_steps": (0, _QAM),
        "base.num_steps": (10, _QAM),
        "chunk_length": (5, "QAM code, README"),
        "train.random_steps": (0, "QAM code: offline to online"),
        "train.update_after": (0, "QAM code: offline to online"),
        "train.critic_pretrain_steps": (1_000_000, "QAM paper: offline steps"),
        "train.online_steps": (500_000, "QAM paper: online steps"),
    },
    **presets.on_cpus(QsmConfig, _SMALL),
}

QSM = Entry("qsm", QsmConfig, qsm, presets=PRESETS, metrics={**CRITIC_METRICS, **POLICY_METRICS})
