"""What the algorithms share: the record they return, trained models and the critic's update."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from exporl.nets.critic import Critic
from exporl.ops.ensemble import spread, take_members
from exporl.ops.gaussian import temperature_loss
from exporl.ops.selection import per_candidate
from exporl.ops.td import critic_loss
from exporl.policies.base import BasePolicy
from exporl.types import PARTIAL, AnyArray, Batch, KeyArray, Metrics, Observation, Params, Phase, Precision

ALL_PHASES: frozenset[Phase] = frozenset({"pretrain", "critic_pretrain", "online"})


class Algorithm(NamedTuple):
    """A learning algorithm as a record of pure functions; all of its state is one pytree."""

    init: Callable[[KeyArray], Any]
    """key -> state."""
    update: Callable[..., tuple[Any, Metrics]]
    """(state, batches [u, b, ...], key, *, phase) -> (state, metrics). Compiled; the state passed in is donated."""
    acting: Callable[[Any], Params]
    """state -> the part of it that acting needs: what is shipped to actors."""
    act: Callable[[Params, Observation, KeyArray], Float[Array, "b h a"]]
    """(acting params, observation [b, ...], key) -> action chunks, while learning."""
    act_eval: Callable[[Params, Observation, KeyArray], Float[Array, "b h a"]]
    """The same for evaluation (equal to `act` unless the algorithm evaluates its mode)."""
    act_base: Callable[[Params, Observation, KeyArray], Float[Array, "b h a"]] | None
    """One sample of the base policy alone, or None where there is no base policy."""
    phases: frozenset[Phase] = ALL_PHASES
    """The phases that `update` supports."""
    parts: Mapping[str, Callable[..., Any]] = {}
    """The named functions that the update is made of, for tests, diagnostics and tools."""
    propose: Any = None
    """(state, observation [b, ...], key) -> base samples, for the replay to keep as `Batch.next_proposals`."""
    num_proposals: int = 0
    """How many per observation; 0: the update does not read them."""


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
    """Mean over the rows with weight, NaN where there are none (skipped when metrics are averaged)."""
    return (x * weight).sum() / jnp.where(weight.sum() > 0, weight.sum(), math.nan)


def min_q(
    hidden: Sequence[int], params: Params, observation: Observation, action: Float[Array, "b n h a"],
    members: Int[Array, " m"], precision: Precision = "float32",
) -> Float[Array, "b n"]:  # fmt: skip
    """Minimum over some members of a critic ensemble, for every candidate. Only these members are evaluated."""
    critic: Any = Critic(hidden, members.shape[0], precision)
    return critic.apply(take_members(params, members), per_candidate(observation), action).min(axis=0)


def choice_metrics(q: Float[Array, "b n"], index: Int[Array, " b"], num: int) -> Metrics:
    """How often an edit was chosen, and by how much the best edit beats the best of the first `num`, the base samples."""
    metrics = {"edit/picked": (index >= num).mean(dtype=jnp.float32)}
    if q.shape[1] > num:
        metrics["edit/advantage"] = (q[:, num:].max(axis=-1) - q[:, :num].max(axis=-1)).mean()
    return metrics


def compiled(init, update, acting, act, act_base, act_eval=None, **others: Any) -> Algorithm:
    """The record of an algorithm, its functions compiled once each; `update` may overwrite the state passed in."""
    jit = functools.cache(lambda function: function and jax.jit(function))
    update = jax.jit(update, static_argnames="phase", donate_argnames="state")
    propose = jit(others.pop("propose", None))
    return Algorithm(init, update, acting, jit(act), jit(act_eval or act), jit(act_base), propose=propose, **others)


def update_critic(
    critic: Any,
    optimizer: optax.GradientTransformation,
    tau: float,
    model: Model,
    target_params: Params,
    batch: Batch,
    target: Float[Array, " b"],
) -> tuple[Model, Params, Metrics]:
    """One step of every critic towards the same TD target, then one Polyak step of the target critics."""

    def loss(params: Params):
        q = critic.apply(params, batch.observation, batch.action)
        return critic_loss(q, target), q

    (value, q), grads = jax.value_and_grad(loss, has_aux=True)(model.params)
    model = model.apply_gradients(grads, optimizer)
    metrics = {
        "critic/loss": value,
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
    return model, ema(model.params, target_params, tau), metrics


def update_base(
    base: BasePolicy, tau: float, model: Model, average: Params, batch: Batch, successes_only: bool, key: KeyArray
) -> tuple[Model, Params, Metrics]:
    """One imitation step of the base policy, on all rows or successful episodes; one Polyak step of its average."""
    weight = batch.success if successes_only else jnp.ones_like(batch.success)
    (_, metrics), grads = jax.value_and_grad(base.loss, has_aux=True)(model.params, batch, weight, key)
    model = model.apply_gradients(grads, base.optimizer)
    return model, ema(model.params, average, tau), metrics


def pretrain_base(
    base: BasePolicy, model: Model, batches: Batch, successes_only: bool, key: KeyArray
) -> tuple[Model, Params, Metrics]:
    """One imitation step per minibatch [u, b, ...]. The average returned is a copy of the result: it starts there."""

    def step(model: Model, inputs: tuple[Batch, KeyArray]):
        batch, step_key = inputs
        model, _, metrics = update_base(base, 1.0, model, model.params, batch, successes_only, step_key)
        return model, metrics

    keys = jax.random.split(key, batches.reward.shape[0])
    model, metrics = jax.lax.scan(step, model, (batches, keys))
    return model, fresh(model.params), reduce_metrics(metrics)


def update_temperature(
    model: Model, optimizer: optax.GradientTransformation, entropy: Float[Array, ""], goal: float
) -> Model:
    """One step of the log temperature towards the entropy goal (nats)."""
    return model.apply_gradients(jax.grad(temperature_loss)(model.params, entropy, goal), optimizer)


def reduce_metrics(metrics: dict[str, Float[Array, " u"]]) -> Metrics:
    """Scalars from metrics [u]: minimum of `_min`, maximum of `_max`, mean of the rest; only `PARTIAL` ones skip NaN."""

    def reduce(name: str, values: Array) -> Array:
        if name.endswith(PARTIAL):
            return jnp.nanmean(values)
        return values.min() if name.endswith("_min") else values.max() if name.endswith("_max") else values.mean()

    return {name: reduce(name, values) for name, values in metrics.items()}


def last_minibatch(batches: Batch) -> Batch:
    """[u, b, ...] -> [b, ...]: the minibatch on which the policies are updated."""
    return jax.tree.map(lambda x: x[-1], batches)
