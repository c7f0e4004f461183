"""EXPO with filtered backups (FASTER, arXiv 2604.19730): one of n samples, chosen before denoising.

A small critic of the noise estimates, from observation and first noise alone, the value of the
action that the base policy would make of it. Of n draws of the noise the likeliest to be good is
denoised: 1/n of the sampling. The critic of the noise is trained on the draws that it kept, towards
the target critics' value of the denoised action.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float

from exporl.algos import common
from exporl.algos.common import Model
from exporl.algos.expo import Candidates, Expo, ExpoState
from exporl.nets.critic import Critic, q_values
from exporl.nets.encoder import flat_observation
from exporl.ops.selection import per_candidate, take_candidate
from exporl.ops.td import critic_loss
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
)

FILTER_METRICS = {
    "filter/loss": (
        "mean over the noise critics and b of (Q(s', noise) - value of the action that the base "
        "makes of it)^2 (filtered backups)"
    ),
}
NOISE_CRITICS = 2
"""Members of the critic of the noise; their minimum ranks."""


@struct.dataclass
class FilterState:
    """The critics of the noise, and their slow copy, which ranks."""

    model: Model
    target: Params


@struct.dataclass
class FilteredState(ExpoState):
    """Everything that EXPO learns, and its filter."""

    filter: FilterState


class Kept(NamedTuple):
    """What the filter keeps of n draws."""

    noise: Float[Array, "b h a"]
    """The draw: the first noise of an action."""
    action: Float[Array, "b 1 h a"]
    """The base sample that it becomes."""


class Drawn(NamedTuple):
    """What a critic step is made with."""

    candidates: Candidates
    noise: Float[Array, "b h a"]
    """The draw that the filter kept."""


@dataclasses.dataclass(frozen=True)
class NoiseFilter:
    """The filter alone."""

    expo: Expo
    critic: Critic
    ranking_critic: Critic
    """`critic` in the precision of ranking."""
    optimizer: optax.GradientTransformation

    def init(self, key: KeyArray) -> FilterState:
        """The filter before the first update."""
        observation, action = self.expo.spec.example()
        params = self.critic.init(key, flat_observation(observation), action)
        model = Model.create(params, self.optimizer)
        return FilterState(model, common.fresh(model.params))

    def keep(
        self,
        base_params: Params,
        filter_params: Params,
        observation: Observation,
        key: KeyArray,
        *,
        greedy: bool,
    ) -> Kept:
        """One of n draws of the noise, and the action that the base policy makes of it.

        Args:
            base_params: of the base policy.
            filter_params: of the critics that rank.
            observation: [b, ...].
            key: decides every draw.
            greedy: keep the best, to act; otherwise the better the likelier, so that the filter
                learns about others.
        """
        base, spec = self.expo.base, self.expo.spec
        noise_key, rest_key, keep_key = jax.random.split(key, 3)
        features = flat_observation(observation)
        batch, chunk = features.shape[0], (spec.chunk_length, spec.action_dim)
        draws = jax.random.normal(noise_key, (batch, self.expo.config.num_base_samples, *chunk))
        q = q_values(self.ranking_critic, filter_params, features[:, None], draws).min(axis=0)
        if greedy:
            index = q.argmax(axis=-1)
        else:  # standardised: the same at any scale of the values
            score = (q - q.mean(axis=-1, keepdims=True)) / (q.std(axis=-1, keepdims=True) + 1e-6)
            index = jax.random.categorical(keep_key, score, axis=-1)
        kept = take_candidate(draws, index)
        noise = self.whole_noise(kept, rest_key)
        action = base.decode(base_params, per_candidate(observation), noise[:, None])
        return Kept(kept, action.reshape(batch, 1, *chunk))

    def whole_noise(self, first: Float[Array, "b h a"], key: KeyArray) -> Float[Array, "b ..."]:
        """All noise that decoding consumes: a diffusion draws more in its later steps."""
        shape = self.expo.base.noise_shape
        batch, *chunk = first.shape
        noise = first.reshape(batch, *(1,) * (len(shape) - 2), *chunk)
        if noise.shape[1:] == shape:
            return noise
        later = jax.random.normal(key, (batch, shape[0] - 1, *chunk))
        return jnp.concatenate([noise, later], axis=1)

    def learn(
        self,
        state: FilterState,
        features: Float[Array, "b f"],
        noise: Float[Array, "b h a"],
        value: Float[Array, "b"],
    ) -> tuple[FilterState, Metrics]:
        """One step of the noise's critics towards the value of what became of the noise."""

        def loss(params: Params) -> Float[Array, ""]:
            return critic_loss(q_values(self.critic, params, features, noise), value)

        error, grads = jax.value_and_grad(loss)(state.model.params)
        model = state.model.apply_gradients(grads, self.optimizer)
        target = common.ema(model.params, state.target, self.expo.config.tau)
        return FilterState(model, target), {"filter/loss": error}


@dataclasses.dataclass(frozen=True)
class FilteredExpo:
    """EXPO with a filter before the base: in the TD backup, and where asked for in acting."""

    expo: Expo
    filter: NoiseFilter

    @classmethod
    def create(cls, expo: Expo, precision: Precision = "float32") -> "FilteredExpo":
        """The filter that EXPO's options describe."""
        critic = Critic(expo.config.hidden, NOISE_CRITICS)
        optimizer = optax.flatten(optax.adam(expo.config.critic_learning_rate))
        return cls(expo, NoiseFilter(expo, critic, critic.clone(precision=precision), optimizer))

    def init(self, key: KeyArray) -> FilteredState:
        """The state before the first update."""
        filter_key = jax.random.fold_in(key, 3)  # none of the three that `Expo.init` splits off
        state = self.expo.init(key)
        models: dict[str, Any] = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
        return FilteredState(**models, filter=self.filter.init(filter_key))

    def update(
        self, state: FilteredState, batches: Batch, key: KeyArray, *, phase: Phase = "online"
    ) -> tuple[FilteredState, Metrics]:
        """As EXPO's, with a step of the filter after every critic step."""
        critic_key, base_key, edit_key = jax.random.split(key, 3)
        if phase == "pretrain":
            return self.expo.pretrain(state, batches, base_key)
        state, metrics = common.draw_and_step(
            self.draw, self.critic_step, state, batches, critic_key
        )
        state, policy_metrics = self.expo.update_policies(state, batches, base_key, edit_key, phase)
        return state, metrics | policy_metrics

    def draw(self, state: FilteredState, batch: Batch, key: KeyArray) -> Drawn:
        """Candidates for the next observations: the base sample that the filter keeps, its edit."""
        _, edit_key, keep_key = jax.random.split(key, 3)
        observation = batch.next_observation
        kept = self.filter.keep(
            state.base.params, state.filter.target, observation, keep_key, greedy=False
        )
        candidates = self.expo.candidates(state.edit.params, observation, kept.action, edit_key)
        return Drawn(candidates, kept.noise)

    def critic_step(
        self, state: FilteredState, batch: Batch, drawn: Drawn, key: KeyArray
    ) -> tuple[FilteredState, Metrics]:
        """A critic step of EXPO; the filter learns what the target critics thought before it."""
        member_key, value_key, choice_key = jax.random.split(key, 3)
        members = self.expo.random_critics(member_key)
        value_members = self.expo.random_critics(value_key)
        candidates = drawn.candidates
        value = self.expo.value(
            state.target_critic, candidates.features, candidates.base[:, 0], value_members
        )
        state, metrics = self.expo.update_critic(
            state, batch, candidates, members, value_members, choice_key
        )
        learnt, filter_metrics = self.filter.learn(
            state.filter, candidates.features, drawn.noise, value
        )
        return dataclasses.replace(state, filter=learnt), metrics | filter_metrics

    def acting(self, state: FilteredState) -> dict[str, Params]:
        """What acting needs; the filter only where it acts."""
        acting = self.expo.acting(state)
        if self.expo.config.filter_acting:
            acting["filter"] = state.filter.target
        return acting

    def act(
        self,
        acting: dict[str, Params],
        observation: Observation,
        key: KeyArray,
        *,
        mode: Mode = "explore",
        proposals: Float[Array, "b n h a"] | None = None,
    ) -> Decision:
        """The on-the-fly policy: on the one base sample that the filter keeps, or on all n."""
        if mode == "base" or proposals is not None or not self.expo.config.filter_acting:
            return self.expo.act(acting, observation, key, mode=mode, proposals=proposals)
        candidate_key, member_key, choice_key, keep_key = jax.random.split(key, 4)
        _, edit_key = jax.random.split(candidate_key)
        kept = self.filter.keep(
            acting["base"], acting["filter"], observation, keep_key, greedy=True
        )
        candidates = self.expo.candidates(
            acting["edit"],
            observation,
            kept.action,
            edit_key,
            edited=self.expo.config.edits_in(mode),
        )
        return self.expo.decide(acting["critic"], candidates, member_key, choice_key)
