"""The edit policy of QAM-E: a Gaussian that moves given actions a little towards higher value.

EXPO's, but for what it learns at: samples of a policy instead of the data's actions, and edited
actions that are always clipped.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from exporl.algos import common, edit_metrics
from exporl.algos.common import Model
from exporl.nets.critic import Critic, q_values
from exporl.nets.gaussian import TanhGaussian, distribution
from exporl.ops import gaussian
from exporl.ops.selection import Edits
from exporl.types import KeyArray, Metrics, Params

EDIT_METRICS = {
    **edit_metrics.EDIT_METRICS,
    "edit/loss": "mean of alpha x log density - mean over e of Q(s, policy's action + edit)",
    "edit/magnitude": "`edit_scale` x mean abs(tanh sample), on samples of the policy",
}


class Edited(NamedTuple):
    """What an edit policy is asked to improve, and by whose judgement."""

    features: Float[Array, "b f"]
    """Of the observations."""
    action: Float[Array, "b h a"]
    """The actions to edit."""
    critic: Params
    """Of the critics."""


@dataclasses.dataclass(frozen=True)
class EditPolicy:
    """The functions of an edit policy."""

    scale: float
    """Largest edit per action dimension; above 0."""
    target_entropy: float
    """What the temperature steers the entropy of the scaled edit towards, in nats."""
    network: TanhGaussian
    critic: Critic
    optimizer: optax.GradientTransformation
    temperature_optimizer: optax.GradientTransformation

    def init(
        self, key: KeyArray, features: Float[Array, "b f"], action: Float[Array, "b h a"]
    ) -> Model:
        """The edit policy for inputs like these, before the first step."""
        return Model.create(self.network.init(key, features, action), self.optimizer)

    def init_temperature(self, temperature: float) -> Model:
        """Its log temperature, before the first step."""
        log_temperature = jnp.log(jnp.float32(temperature))
        return Model.create(log_temperature, self.temperature_optimizer)

    @property
    def num_dims(self) -> int:
        """Dimensions d of an edit."""
        return self.network.chunk_length * self.network.action_dim

    def edit(
        self,
        params: Params,
        features: Float[Array, "*#b f"],
        action: Float[Array, "*b h a"],
        eps: Float[Array, "*b h a"],
    ) -> Edits:
        """clip(a + scale * e), where e is drawn by the standard normal noise eps."""
        normal = distribution(self.network, params, features, action)
        unit, log_prob = gaussian.tanh_sample(normal.mean, normal.log_std, eps)
        moved = self.moved(action, unit)
        return Edits(moved, unit, log_prob - self.num_dims * jnp.log(self.scale))

    def moved(
        self, action: Float[Array, "*b h a"], unit: Float[Array, "*b h a"]
    ) -> Float[Array, "*b h a"]:
        """clip(a + scale * e), for an edit e in [-1, 1]."""
        return jnp.clip(action + self.scale * unit, -1.0, 1.0)

    def loss(
        self,
        params: Params,
        temperature: Float[Array, ""],
        given: Edited,
        eps: Float[Array, "b h a"],
        signs: Float[Array, "b h a"],
    ) -> tuple[Float[Array, ""], Metrics]:
        """temperature * log density of the scaled edit - mean Q(s, edited action). The metrics
        compare the edits e with the random ones signs * |e|; signs are -1 or 1."""
        edits = self.edit(params, given.features, given.action, eps)

        def value(action: Float[Array, "b h a"]) -> Float[Array, " b"]:
            return q_values(self.critic, given.critic, given.features, action).mean(axis=0)

        loss = (temperature * edits.log_prob - value(edits.action)).mean()
        metrics = edit_metrics.drawn_metrics(loss, edits, self.scale)
        bonus, size = temperature * metrics["edit/entropy"], jnp.abs(edits.unit)
        q_random = value(self.moved(given.action, signs * jax.lax.stop_gradient(size)))
        return loss, metrics | edit_metrics.over_noise(loss, bonus, q_random)

    def step(
        self,
        model: Model,
        log_temperature: Model,
        given: Edited,
        eps: Float[Array, "b h a"],
        signs: Float[Array, "b h a"],
    ) -> tuple[Model, Model, Metrics]:
        """One step of the edit policy, and one of its temperature; arguments as of `loss`."""
        temperature = jnp.exp(log_temperature.params)
        gradient = jax.grad(self.loss, has_aux=True)
        grads, metrics = gradient(model.params, temperature, given, eps, signs)
        log_temperature = common.update_temperature(
            log_temperature,
            self.temperature_optimizer,
            metrics["edit/entropy"],
            self.target_entropy,
        )
        metrics |= edit_metrics.temperature_metrics(
            temperature, self.target_entropy, self.num_dims, self.scale
        )
        return model.apply_gradients(grads, self.optimizer), log_temperature, metrics
