"""What the algorithms share: trained models and the steps that update them."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Shaped

from exporl.algos.base_weight import BaseWeight, columns_of, success_weight
from exporl.algos.bounds import BOUND_METRICS, NOTHING_KNOWN, TargetBounds
from exporl.nets.critic import Critic, q_values
from exporl.ops.ensemble import spread
from exporl.ops.gaussian import temperature_loss
from exporl.ops.td import critic_loss
from exporl.policies.base import BasePolicy, propose
from exporl.types import (
    PARTIAL,
    AnyArray,
    Batch,
    Decision,
    KeyArray,
    Metrics,
    Observation,
    Params,
    Precision,
    Spec,
)

Penalty = Callable[[Params, Float[Array, "e b"]], tuple[Float[Array, ""], Metrics]]
"""(critics' parameters, their values of the data's actions) -> (a further loss, metrics)."""
StateT = TypeVar("StateT")
DrawnT = TypeVar("DrawnT")


@struct.dataclass
class Model:
    """Parameters and the state of their optimiser."""

    params: Params
    opt_state: optax.OptState

    @classmethod
    def create(cls, params: Params, optimizer: optax.GradientTransformation) -> "Model":
        """A model at its first step."""
        return cls(params, optimizer.init(params))

    def apply_gradients(self, grads: Params, optimizer: optax.GradientTransformation) -> "Model":
        """One optimiser step."""
        updates, opt_state = optimizer.update(grads, self.opt_state, self.params)
        return Model(optax.apply_updates(self.params, updates), opt_state)


def fresh(params: Params) -> Params:
    """A copy with buffers of its own: a donated state may not hold the same array twice."""
    return jax.tree.map(jnp.copy, params)


def ema(new: Params, target: Params, tau: float) -> Params:
    """Polyak average: tau * new + (1 - tau) * target."""
    return optax.incremental_update(new, target, tau)


def weighted_mean(x: Float[Array, " b"], weight: Float[AnyArray, " b"]) -> Float[Array, ""]:
    """Mean over the rows with weight, NaN where there are none (metrics skip it)."""
    return (x * weight).sum() / jnp.where(weight.sum() > 0, weight.sum(), math.nan)


CRITIC_METRICS = {
    "critic/loss": "mean over e, b of (Q(s, a) - y)^2",
    "critic/q_mean": "mean of Q(s, a)",
    "critic/q_min": "minimum of Q(s, a)",
    "critic/q_max": "maximum of Q(s, a)",
    "critic/q_spread": "mean over b of the standard deviation over e of Q(s, a)",
    "critic/q_prior": "mean Q(s, a) over rows of prior data",
    "critic/q_online": "mean Q(s, a) over rows that the agent collected",
    "critic/target_mean": "mean of y",
    "critic/target_min": "minimum of y",
    "critic/target_max": "maximum of y",
    **BOUND_METRICS,
}


@dataclasses.dataclass(frozen=True)
class CriticTrainer:
    """How an ensemble of critics learns."""

    critic: Critic
    optimizer: optax.GradientTransformation
    tau: float
    """Polyak step of the target critics."""
    bounds: TargetBounds = NOTHING_KNOWN
    """What is known about values; by default nothing."""

    @classmethod
    def adam(
        cls,
        critic: Critic,
        learning_rate: float,
        tau: float,
        bounds: TargetBounds = NOTHING_KNOWN,
    ) -> "CriticTrainer":
        """With Adam, whose step size stays as it is."""
        return cls(critic, optax.flatten(optax.adam(learning_rate)), tau, bounds)

    def init(
        self, key: KeyArray, features: Float[Array, "b f"], action: Float[Array, "b h a"]
    ) -> Model:
        """Critics of inputs like these, before the first step."""
        params = self.bounds.start(self.critic.init(key, features, action))
        return Model.create(params, self.optimizer)

    def step(
        self,
        model: Model,
        target_params: Params,
        batch: Batch,
        features: Float[Array, "b f"],
        target: Float[Array, " b"],
        penalty: Penalty | None = None,
    ) -> tuple[Model, Params, Metrics]:
        """One step of every critic towards the same TD target, one of the target critics.

        Args:
            model: the critics.
            target_params: the target critics.
            batch: rows [b].
            features: of its observations.
            target: the TD target.
            penalty: what the loss has beside the TD error, if anything.
        """
        target, bound_metrics = self.bounds.apply(target, batch)

        def loss(params: Params) -> tuple[Float[Array, ""], tuple[Float[Array, "e b"], Metrics]]:
            q = q_values(self.critic, params, features, batch.action)
            error = critic_loss(q, target)
            metrics: Metrics = {"critic/loss": error}
            if penalty is None:
                return error, (q, metrics)
            extra, penalty_metrics = penalty(params, q)
            return error + extra, (q, metrics | penalty_metrics)

        grads, (q, metrics) = jax.grad(loss, has_aux=True)(model.params)
        model = model.apply_gradients(grads, self.optimizer)
        metrics |= {
            "critic/q_mean": q.mean(),
            "critic/q_min": q.min(),
            "critic/q_max": q.max(),
            "critic/q_spread": spread(q),
            "critic/q_prior": weighted_mean(q.mean(axis=0), batch.prior),
            "critic/q_online": weighted_mean(q.mean(axis=0), 1 - batch.prior),
            "critic/target_mean": target.mean(),
            "critic/target_min": target.min(),
            "critic/target_max": target.max(),
        }
        return model, ema(model.params, target_params, self.tau), metrics | bound_metrics


@dataclasses.dataclass(frozen=True)
class Imitation:
    """How a base policy learns, by imitation alone, and how it acts alone."""

    base: BasePolicy
    tau: float = 0.001
    """Polyak step of its average."""
    successes_only: bool = False
    """Whether it imitates successful episodes only, or all rows. A minibatch without any falls
    back to its demonstrations, and without those to all its rows."""
    base_weight: BaseWeight = "uniform"
    """Which of the successful episodes count most."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Replay columns that are read."""
        return columns_of(self.base_weight)

    def init(self, key: KeyArray) -> Model:
        """The base policy before the first step."""
        return Model.create(self.base.init(key), self.base.optimizer)

    def step(
        self, model: Model, average: Params, batch: Batch, key: KeyArray
    ) -> tuple[Model, Params, Metrics]:
        """One imitation step, one Polyak step of the average."""
        model, metrics = self.imitate(model, batch, key)
        return model, ema(model.params, average, self.tau), metrics

    def steps(
        self, model: Model, average: Params, batches: Batch, key: KeyArray
    ) -> tuple[Model, Params, Metrics]:
        """`step` on every minibatch [u, b, ...]."""

        def step(
            carry: tuple[Model, Params], inputs: tuple[Batch, KeyArray]
        ) -> tuple[tuple[Model, Params], Metrics]:
            model, average, metrics = self.step(*carry, *inputs)
            return (model, average), metrics

        keys = jax.random.split(key, batches.reward.shape[0])
        (model, average), metrics = jax.lax.scan(step, (model, average), (batches, keys))
        return model, average, reduce_metrics(metrics)

    def weight(self, batch: Batch) -> Float[Array, " b"]:
        """How much each row is imitated."""
        every = jnp.ones_like(batch.success)
        if not self.successes_only:
            return every
        demonstrations = jnp.where(batch.prior.sum() > 0, batch.prior, every)
        successes = success_weight(self.base_weight, batch)
        return jnp.where(batch.success.sum() > 0, successes, demonstrations)

    def imitate(self, model: Model, batch: Batch, key: KeyArray) -> tuple[Model, Metrics]:
        """One imitation step."""
        weight = self.weight(batch)
        loss = jax.value_and_grad(self.base.loss, has_aux=True)
        (_, metrics), grads = loss(model.params, batch, weight, key)
        return model.apply_gradients(grads, self.base.optimizer), metrics

    def pretrain(
        self, model: Model, batches: Batch, key: KeyArray
    ) -> tuple[Model, Params, Metrics]:
        """One imitation step per minibatch [u, b, ...]. The average returned is a copy."""

        def step(model: Model, inputs: tuple[Batch, KeyArray]) -> tuple[Model, Metrics]:
            batch, step_key = inputs
            return self.imitate(model, batch, step_key)

        keys = jax.random.split(key, batches.reward.shape[0])
        model, metrics = jax.lax.scan(step, model, (batches, keys))
        return model, fresh(model.params), reduce_metrics(metrics)

    def act(
        self,
        params: Params,
        observation: Observation,
        key: KeyArray,
        spec: Spec,
        proposals: Float[Array, "b n h a"] | None = None,
        noise_scale: float = 1.0,
    ) -> Decision:
        """One action of the base policy alone: the first of those given, or a new one; below a
        noise scale of 1 always a new one, decoded from noise of that scale."""
        if noise_scale != 1:
            scales = jnp.array([noise_scale])
            proposals = propose(self.base, params, observation, 1, key, spec, scales)
        elif proposals is None:
            proposals = propose(self.base, params, observation, 1, key, spec)
        return Decision(proposals[:, 0], {})


def required(base: BasePolicy | None, name: str) -> BasePolicy:
    """The base policy of an algorithm that cannot do without.

    Raises:
        ValueError: there is none.
    """
    if base is None:
        raise ValueError(f"{name} needs a base policy.")
    return base


def only_float32(precision: Precision, name: str) -> None:
    """Whether the precision is the one that an algorithm without base policy has.

    Raises:
        ValueError: another was asked for, and would have no effect.
    """
    if precision != "float32":
        raise ValueError(
            f"{name} samples no base policy and ranks no candidates: precision must be float32, "
            f"got {precision}."
        )


def update_temperature(
    model: Model,
    optimizer: optax.GradientTransformation,
    entropy: Float[Array, ""],
    goal: float,
) -> Model:
    """One step of the log temperature towards the entropy goal (nats)."""
    grads = jax.grad(temperature_loss)(model.params, entropy, goal)
    return model.apply_gradients(grads, optimizer)


def reduce_metrics(metrics: dict[str, Float[Array, " u"]]) -> Metrics:
    """Scalars from metrics [u]: minimum of `_min`, maximum of `_max`, mean of the rest; only
    `PARTIAL` ones skip NaN."""

    def reduce(name: str, values: Float[Array, " u"]) -> Float[Array, ""]:
        if name.endswith(PARTIAL):
            return jnp.nanmean(values)
        if name.endswith("_min"):
            return values.min()
        return values.max() if name.endswith("_max") else values.mean()

    return {name: reduce(name, values) for name, values in metrics.items()}


def last_minibatch(batches: Batch) -> Batch:
    """[u, b, ...] -> [b, ...]: the minibatch on which the policies are updated."""

    def last(leaf: Shaped[AnyArray, "u ..."]) -> Shaped[AnyArray, "..."]:
        return leaf[-1]

    return jax.tree.map(last, batches)


def last_minibatches(batches: Batch, num: int) -> Batch:
    """[u, b, ...] -> [num, b, ...]: the last few minibatches."""

    def last(leaf: Shaped[AnyArray, "u ..."]) -> Shaped[AnyArray, "num ..."]:
        return leaf[-num:]

    return jax.tree.map(last, batches)


def draw_and_step(
    draw: Callable[[StateT, Batch, KeyArray], DrawnT],
    step: Callable[[StateT, Batch, DrawnT, KeyArray], tuple[StateT, Metrics]],
    state: StateT,
    batches: Batch,
    key: KeyArray,
    *,
    at_once: bool = False,
) -> tuple[StateT, Metrics]:
    """One step per minibatch [u, b, ...], each with what was drawn for it.

    Args:
        draw: (state, minibatch, key) -> what the step needs.
        step: (state, minibatch, drawn, key) -> (state, metrics).
        state: before the first step.
        batches: the minibatches.
        key: decides every draw.
        at_once: draw for all minibatches in one call first: more memory, the same to rounding. The
            steps must leave alone what `draw` reads of the state.
    """
    draw_keys, step_keys = jax.random.split(key, (2, batches.reward.shape[0]))

    def drawing(state: StateT, inputs: tuple[Batch, KeyArray, KeyArray]) -> tuple[StateT, Metrics]:
        batch, draw_key, step_key = inputs
        return step(state, batch, draw(state, batch, draw_key), step_key)

    def drawn_before(
        state: StateT, inputs: tuple[Batch, DrawnT, KeyArray]
    ) -> tuple[StateT, Metrics]:
        batch, drawn, step_key = inputs
        return step(state, batch, drawn, step_key)

    if at_once:
        drawn = jax.vmap(functools.partial(draw, state))(batches, draw_keys)
        state, metrics = jax.lax.scan(drawn_before, state, (batches, drawn, step_keys))
    else:
        state, metrics = jax.lax.scan(drawing, state, (batches, draw_keys, step_keys))
    return state, reduce_metrics(metrics)


def kept_proposals(batch: Batch, num: int) -> Float[AnyArray, "b {num} h a"]:
    """The base samples that were handed over for the next observations: kept by the replay, or
    made outside.

    Raises:
        ValueError: another number.
    """
    kept = batch.next_proposals
    found = 0 if kept is None else kept.shape[1]
    if found != num:
        raise ValueError(
            f"backup='cached' reads num_base_samples={num} samples per next observation from "
            f"Batch.next_proposals, got {found}. Give the replay num_proposals={num} and renew "
            "them (exporl.data.proposals)."
        )
    return kept
