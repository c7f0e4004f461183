"""EXPO: stable reinforcement learning with expressive policies (Dong et al., arXiv 2507.07986).

The base policy pi_base, a diffusion or a flow, imitates; no value gradient ever enters it. The edit
policy pi_edit, a Gaussian, moves an action by at most beta per dimension towards higher value. The
on-the-fly policy has no parameters: of n base samples and their edits it takes the one of highest
Q. It acts, and it is what the TD target bootstraps from.

Shapes: minibatches u, rows b, base samples n, chunk h, action a, features f, critics' members m.

Options: `expo_options.py`; networks and optimisers: `expo_entry.py`; FASTER: `filtered.py`.
"""

import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from exporl.algos import common, edit_metrics
from exporl.algos.common import CriticTrainer, Imitation, Model
from exporl.algos.deploy_noise import ALONE, noise_scales
from exporl.algos.expo_options import ExpoConfig
from exporl.nets.critic import Critic, min_q, q_values
from exporl.nets.encoder import flat_observation
from exporl.nets.gaussian import TanhGaussian, distribution
from exporl.ops import gaussian
from exporl.ops.ensemble import aggregate, random_members
from exporl.ops.selection import Candidates, Choice, Edits, select, take_candidate
from exporl.ops.td import td_target
from exporl.policies import base as policies
from exporl.types import Batch, Decision, KeyArray, Metrics, Mode, Observation, Params, Phase, Spec


@struct.dataclass
class ExpoState:
    """Everything that EXPO learns; a `Model` is parameters and the state of their optimiser."""

    base: Model
    base_ema: Params
    edit: Model
    critic: Model
    target_critic: Params
    log_temperature: Model


StateT = TypeVar("StateT", bound=ExpoState)
"""EXPO's state, or one that has more: `FilteredState`."""


@dataclasses.dataclass(frozen=True)
class Expo:
    """The functions of EXPO for one task and one base policy; parameters and keys are arguments.

    `edit` and `critic` are networks; their parameters are in `ExpoState`. Each is there twice: as
    it learns, in float32, and in the precision in which candidates are drawn and ranked.
    """

    config: ExpoConfig
    spec: Spec
    base: policies.BasePolicy
    edit: TanhGaussian
    sampling_edit: TanhGaussian
    critic: Critic
    ranking_critic: Critic
    imitation: Imitation
    critic_trainer: CriticTrainer
    edit_optimizer: optax.GradientTransformation
    temperature_optimizer: optax.GradientTransformation

    def init(self, key: KeyArray) -> ExpoState:
        """The state before the first update."""
        base_key, edit_key, critic_key = jax.random.split(key, 3)
        observation, action = self.spec.example()
        features = flat_observation(observation)
        base = self.imitation.init(base_key)
        edit = Model.create(self.edit.init(edit_key, features, action), self.edit_optimizer)
        critic = self.critic_trainer.init(critic_key, features, action)
        log_temperature = jnp.log(jnp.float32(self.config.initial_temperature))
        return ExpoState(
            base=base,
            base_ema=common.fresh(base.params),
            edit=edit,
            critic=critic,
            target_critic=common.fresh(critic.params),
            log_temperature=Model.create(log_temperature, self.temperature_optimizer),
        )

    # The edit policy, and the candidates: n base samples and their edits.

    def draw_edits(
        self,
        edit: TanhGaussian,
        edit_params: Params,
        features: Float[Array, "*#b f"],
        action: Float[Array, "*b h a"],
        eps: Float[Array, "*b h a"],
        dropout_key: KeyArray | None = None,
    ) -> Edits:
        """a + beta * e with e ~ pi_edit(. | s, a), drawn by the standard normal noise eps.

        Args:
            edit: the network, as it learns or as it samples.
            edit_params: its parameters.
            features: of the observations s.
            action: the actions a.
            eps: decides e.
            dropout_key: only while learning.
        """
        normal = distribution(edit, edit_params, features, action, dropout_key)
        unit, log_prob = gaussian.tanh_sample(normal.mean, normal.log_std, eps)
        moved = self.moved(action, unit)
        return Edits(moved, unit, log_prob - self.num_dims * jnp.log(self.config.edit_scale))

    def moved(
        self, action: Float[Array, "*b h a"], unit: Float[Array, "*b h a"]
    ) -> Float[Array, "*b h a"]:
        """a + beta * e, for an edit e in [-1, 1]."""
        moved = action + self.config.edit_scale * unit
        return jnp.clip(moved, -1.0, 1.0) if self.config.clip_edits else moved

    def propose(
        self, base_params: Params, observation: Observation, key: KeyArray, factor: float = 1.0
    ) -> Float[Array, "b n h a"]:
        """a_i ~ pi_base(. | s) for i = 1 ... n; `min_noise_scale` narrows the first ones, and the
        factor on the noise all of them."""
        num, least = self.config.num_base_samples, self.config.min_noise_scale
        scales = noise_scales(num, factor, least)
        return policies.propose(self.base, base_params, observation, num, key, self.spec, scales)

    def candidates(
        self,
        edit_params: Params,
        observation: Observation,
        proposals: Float[Array, "b n h a"],
        key: KeyArray,
        *,
        edited: bool = True,
    ) -> Candidates:
        """Proposals a_i and, if `edited`, a_i + beta * e_i for the first `num_edit_samples`."""
        features = flat_observation(observation)
        num_edits = self.config.num_edit_samples if edited else 0
        to_edit = proposals[:, :num_edits]
        if num_edits == 0:
            return Candidates(features, proposals, edited=to_edit)
        eps = jax.random.normal(key, to_edit.shape)
        edits = self.draw_edits(self.sampling_edit, edit_params, features[:, None], to_edit, eps)
        return Candidates(features, proposals, edits.action)

    # The on-the-fly policy.

    def choose(
        self,
        critic_params: Params,
        candidates: Candidates,
        members: Int[Array, " m"],
        key: KeyArray,
    ) -> Choice:
        """The one of highest min Q over `members`; soft: one drawn as softmax(softness * min Q)."""
        action, features = candidates.action, candidates.features
        q = min_q(self.ranking_critic, critic_params, features, action, members)
        softness = self.config.softness if self.config.selection == "soft" else None
        index, log_prob = select(q, key, softness)
        return Choice(take_candidate(action, index), index, log_prob, q)

    def random_critics(self, key: KeyArray) -> Int[Array, " m"]:
        """Indices of the `num_min_qs` random critics that one minimum is over, as in REDQ."""
        return random_members(key, self.config.num_qs, self.config.num_min_qs)

    # The critic: a TD backup with the on-the-fly policy.

    def value(
        self,
        critic_params: Params,
        features: Float[Array, "b f"],
        action: Float[Array, "b h a"],
        members: Int[Array, " m"],
    ) -> Float[Array, " b"]:
        """min Q(s, a) over `members`, in float32 (`choose` only ranks)."""
        return min_q(self.critic, critic_params, features, action[:, None], members)[:, 0]

    def target(
        self,
        target_critic: Params,
        temperature: Float[Array, ""],
        batch: Batch,
        candidates: Candidates,
        members: Int[Array, " m"],
        value_members: Int[Array, " m"],
        key: KeyArray,
    ) -> tuple[Float[Array, " b"], Choice]:
        """y = r + gamma * min Q'(s', a*), where the on-the-fly policy chooses a* in s'.

        Of the target critics Q', `members` choose and independent `value_members` value: one subset
        for both would overestimate. `backup_entropy` is the soft choice's, not the edit policy's.
        """
        choice = self.choose(target_critic, candidates, members, key)
        value = self.value(target_critic, candidates.features, choice.action, value_members)
        if self.config.backup_entropy:
            value = value - temperature * choice.log_prob
        return td_target(batch.reward, batch.discount, value), choice

    def critic_step(
        self, state: StateT, batch: Batch, candidates: Candidates, key: KeyArray
    ) -> tuple[StateT, Metrics]:
        """`update_critic` with the members that choose and those that value drawn anew."""
        member_key, value_key, choice_key = jax.random.split(key, 3)
        members, value_members = self.random_critics(member_key), self.random_critics(value_key)
        return self.update_critic(state, batch, candidates, members, value_members, choice_key)

    def update_critic(
        self,
        state: StateT,
        batch: Batch,
        candidates: Candidates,
        members: Int[Array, " m"],
        value_members: Int[Array, " m"],
        key: KeyArray,
    ) -> tuple[StateT, Metrics]:
        """One step of all critics towards y, kept within `bounds.py`; one Polyak step of Q'."""
        slow, temperature = state.target_critic, jnp.exp(state.log_temperature.params)
        y, choice = self.target(slow, temperature, batch, candidates, members, value_members, key)
        features = flat_observation(batch.observation)
        critic, slow, metrics = self.critic_trainer.step(state.critic, slow, batch, features, y)
        metrics |= edit_metrics.choice_metrics(choice, candidates)
        return dataclasses.replace(state, critic=critic, target_critic=slow), metrics

    # The edit policy climbs Q; entropy keeps it exploring.

    def edit_loss(
        self,
        edit_params: Params,
        critic_params: Params,
        temperature: Float[Array, ""],
        batch: Batch,
        eps: Float[Array, "b h a"],
        dropout_key: KeyArray | None = None,
        signs: Float[Array, "b h a"] | None = None,
    ) -> tuple[Float[Array, ""], Metrics]:
        """entropy_scale * alpha * log pi_edit(beta e | s, a) - Q(s, a + beta e), for a of the data;
        alpha is the temperature, Q the mean of all critics or, by `edit_value`, their minimum.
        With signs, -1 or 1, the metrics compare the edits e with the random ones signs * |e|."""
        features = flat_observation(batch.observation)
        edits = self.draw_edits(self.edit, edit_params, features, batch.action, eps, dropout_key)

        def value(action: Float[Array, "b h a"]) -> Float[Array, " b"]:
            q_all = q_values(self.critic, critic_params, features, action)
            return aggregate(q_all, self.config.edit_value)

        weight = self.config.entropy_scale * temperature
        loss = (weight * edits.log_prob - value(edits.action)).mean()
        metrics = edit_metrics.drawn_metrics(loss, edits, self.config.edit_scale)
        if signs is not None:
            bonus, size = weight * metrics["edit/entropy"], jnp.abs(edits.unit)
            q_random = value(self.moved(batch.action, signs * jax.lax.stop_gradient(size)))
            metrics |= edit_metrics.over_noise(loss, bonus, q_random)
        return loss, metrics

    def update_edit(self, state: StateT, batch: Batch, key: KeyArray) -> tuple[StateT, Metrics]:
        """One step of the edit policy, and one of the temperature alpha towards its entropy."""
        eps_key, dropout_key = jax.random.split(key)
        eps = jax.random.normal(eps_key, batch.action.shape)
        signs = edit_metrics.random_signs(key, batch.action.shape)
        temperature = jnp.exp(state.log_temperature.params)
        grads, metrics = jax.grad(self.edit_loss, has_aux=True)(
            state.edit.params, state.critic.params, temperature, batch, eps, dropout_key, signs
        )
        edit = state.edit.apply_gradients(grads, self.edit_optimizer)
        log_temperature = common.update_temperature(
            state.log_temperature,
            self.temperature_optimizer,
            metrics["edit/entropy"],
            self.target_entropy,
        )
        metrics |= edit_metrics.temperature_metrics(
            temperature, self.target_entropy, self.num_dims, self.config.edit_scale
        )
        return dataclasses.replace(state, edit=edit, log_temperature=log_temperature), metrics

    @property
    def num_dims(self) -> int:
        """Dimensions d of an edit."""
        return self.spec.chunk_length * self.spec.action_dim

    @property
    def target_entropy(self) -> float:
        """What the temperature steers the entropy of the scaled edit towards, in nats."""
        kind, scale = self.config.target_entropy, self.config.edit_scale
        return gaussian.target_entropy(kind, self.num_dims, scale)

    # The base policy imitates.

    def update_base(self, state: StateT, batches: Batch, key: KeyArray) -> tuple[StateT, Metrics]:
        """One imitation step of the base policy and one Polyak step of `base_ema`, on the last
        minibatch or, with `base_updates` > 1, on each of the last few."""
        num = min(self.config.base_updates, batches.reward.shape[0])
        if num == 1:
            step, rows = self.imitation.step, common.last_minibatch(batches)
        else:
            step, rows = self.imitation.steps, common.last_minibatches(batches, num)
        base, average, metrics = step(state.base, state.base_ema, rows, key)
        return dataclasses.replace(state, base=base, base_ema=average), metrics

    def pretrain(self, state: StateT, batches: Batch, key: KeyArray) -> tuple[StateT, Metrics]:
        """One imitation step per minibatch; `base_ema` becomes a copy of the result."""
        base, average, metrics = self.imitation.pretrain(state.base, batches, key)
        return dataclasses.replace(state, base=base, base_ema=average), metrics

    # One update call.

    def update(
        self, state: ExpoState, batches: Batch, key: KeyArray, *, phase: Phase = "online"
    ) -> tuple[ExpoState, Metrics]:
        """One critic step per minibatch of [u, b, ...], then the policies learn from the last ones.

        Phase "pretrain" is imitation alone; in "critic_pretrain" all but the base policy learns.
        """
        critic_key, base_key, edit_key = jax.random.split(key, 3)
        if phase == "pretrain":
            return self.pretrain(state, batches, base_key)
        state, metrics = common.draw_and_step(
            self.target_candidates,
            self.critic_step,
            state,
            batches,
            critic_key,
            at_once=self.config.hoist_sampling is True,
        )
        state, policy_metrics = self.update_policies(state, batches, base_key, edit_key, phase)
        return state, metrics | policy_metrics

    def target_candidates(self, state: ExpoState, batch: Batch, key: KeyArray) -> Candidates:
        """Candidates in s': base samples, live or handed over, and live edits; no critic step
        alters them."""
        propose_key, edit_key = jax.random.split(key)
        if self.config.backup == "cached" or self.base.outside:
            proposals = common.kept_proposals(batch, self.config.num_base_samples)
        else:
            proposals = self.propose(state.base.params, batch.next_observation, propose_key)
        return self.candidates(state.edit.params, batch.next_observation, proposals, edit_key)

    def update_policies(
        self, state: StateT, batches: Batch, base_key: KeyArray, edit_key: KeyArray, phase: Phase
    ) -> tuple[StateT, Metrics]:
        """The base policy (while online) and the edit policy learn from the last minibatches."""
        metrics: Metrics = {}
        if phase == "online" and self.config.base_updates:
            state, metrics = self.update_base(state, batches, base_key)
        if self.config.num_edit_samples:
            last = common.last_minibatch(batches)
            state, edit_metrics = self.update_edit(state, last, edit_key)
            metrics = metrics | edit_metrics
        return state, metrics

    # Acting.

    def acting(self, state: ExpoState) -> dict[str, Params]:
        """What acts: the base policy by `acting_base`, the live edit policy, the target critics."""
        base = state.base_ema if self.config.acting_base == "ema" else state.base.params
        return {"base": base, "edit": state.edit.params, "critic": state.target_critic}

    def act(
        self,
        acting: dict[str, Params],
        observation: Observation,
        key: KeyArray,
        *,
        mode: Mode = "explore",
        proposals: Float[Array, "b n h a"] | None = None,
    ) -> Decision:
        """The on-the-fly policy on `proposals`, or on new ones; or the base policy alone."""
        factor = self.config.noise_in(mode)
        if mode in ALONE:
            return self.imitation.act(
                acting["base"], observation, key, self.spec, proposals, noise_scale=factor
            )
        candidate_key, member_key, choice_key = jax.random.split(key, 3)
        propose_key, edit_key = jax.random.split(candidate_key)
        if proposals is None:
            proposals = self.propose(acting["base"], observation, propose_key, factor)
        candidates = self.candidates(
            acting["edit"], observation, proposals, edit_key, edited=self.config.edits_in(mode)
        )
        return self.decide(acting["critic"], candidates, member_key, choice_key)

    def decide(
        self,
        critic_params: Params,
        candidates: Candidates,
        member_key: KeyArray,
        choice_key: KeyArray,
    ) -> Decision:
        """`choose` by members drawn anew: the action, its value, and whether it is an edit."""
        members = self.random_critics(member_key)
        choice = self.choose(critic_params, candidates, members, choice_key)
        q = jnp.take_along_axis(choice.q, choice.index[:, None], axis=1)[:, 0]
        edited = (choice.index >= candidates.base.shape[1]).astype(jnp.int32)
        return Decision(choice.action, {"q": q, "index": choice.index, "edited": edited})
