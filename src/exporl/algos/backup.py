"""Where the base samples of a TD backup come from: fresh for every row (exact), filtered, or cached.

Filtered (FASTER, arXiv 2604.19730): a small critic of the noise picks which of n draws is denoised: 1/n of the
sampling. It estimates, from observation and first noise alone, the value of the action that the base policy makes of
it, and is trained on the draws it kept, towards the target critics' value of the denoised action.

Cached: the replay keeps n samples per observation and renews them at a steady rate; nothing is sampled in the backup.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float

from exporl.algos.common import Model, ema, fresh
from exporl.nets.critic import Critic
from exporl.ops.selection import per_candidate, take_candidate
from exporl.ops.td import critic_loss
from exporl.policies.base import BasePolicy
from exporl.types import Batch, KeyArray, Metrics, Params, Precision, Spec

Kind = Literal["fresh", "filtered", "cached"]
NOISE_CRITICS = 2
"""Members of the noise critic; their minimum ranks."""


@dataclasses.dataclass(frozen=True)
class BackupConfig:
    """Where the TD target's base samples come from, and when. All but `fresh` approximate: docs/performance.md."""

    # fresh: sampled for every row, exact. filtered: one of n, kept by a critic of the noise before denoising (FASTER).
    # cached: n that the replay keeps per row, renewed at a steady rate.
    backup: Kind = "fresh"
    filter_acting: bool = False  # With filtered backups: also act on the one sample that the filter keeps.
    cache_refresh: int = 64  # With cached backups: observations whose samples are renewed per update call.
    # Draw the candidates of all minibatches in one call, with the same result; auto: where that is measured to be faster.
    hoist_sampling: Literal["auto"] | bool = "auto"


@struct.dataclass
class FilterState:
    """The noise critics, and their slow copy, which ranks."""

    model: Model
    target: Params


class Backup(NamedTuple):
    """A source of base samples as pure functions; "fresh" and "cached" have no state (None)."""

    num: int
    """Base samples per row: n, or the one that the filter keeps."""
    kept: int
    """Base samples that the replay keeps per row: n when cached, else 0."""
    init: Callable[[KeyArray], FilterState | None]
    draw: Callable[..., tuple[Float[Array, "b m h a"] | None, Float[Array, "b h a"] | None]]
    """(base params, state, batch, key) -> samples for the next observations (None: to be sampled as for acting), and
    the noise that the filter kept."""
    learn: Callable[..., tuple[FilterState | None, Metrics]]
    """(state, batch, kept noise [b, h, a], value of its action [b]) -> (state, metrics)."""
    acting: Callable[[FilterState | None], Params | None]
    """What `act` needs of the state; None where acting samples all n."""
    act: Callable[..., Float[Array, "b 1 h a"] | None]
    """(base params, `acting`, observation [b, ...], key) -> the sample that the filter keeps, or None."""


def make_backup(base: BasePolicy, spec: Spec, config: Any, precision: Precision) -> Backup:
    """The source that an `ExpoConfig` asks for."""
    if config.backup == "filtered":
        return _filtered(base, spec, config, precision)
    cached, num = config.backup == "cached", config.num_base_samples

    def stored(batch: Batch) -> Any:
        found = 0 if batch.next_proposals is None else batch.next_proposals.shape[1]
        if found != num:
            raise ValueError(
                f"backup='cached' reads num_base_samples={num} samples per next observation from Batch.next_proposals, "
                f"got {found}. Give the replay num_proposals={num} and renew them (exporl.data.proposals)."
            )
        return batch.next_proposals

    return Backup(
        num=num,
        kept=num if cached else 0,
        init=lambda key: None,
        draw=lambda params, state, batch, key: (stored(batch) if cached else None, None),
        learn=lambda state, batch, kept, value: (state, {}),
        acting=lambda state: None,
        act=lambda params, acting, observation, key: None,
    )


def _filtered(base: BasePolicy, spec: Spec, config: Any, precision: Precision) -> Backup:
    critic: Any = Critic(config.hidden, NOISE_CRITICS)
    ranking: Any = Critic(config.hidden, NOISE_CRITICS, precision)
    optimizer = optax.flatten(optax.adam(config.critic_learning_rate))
    chunk = (spec.chunk_length, spec.action_dim)

    def init(key: KeyArray) -> FilterState:
        model = Model.create(critic.init(key, *spec.example()), optimizer)
        return FilterState(model, fresh(model.params))

    def keep(base_params, target, observation, key, *, greedy):
        noise_key, rest_key, keep_key = jax.random.split(key, 3)
        batch = next(iter(observation.values())).shape[0]
        draws = jax.random.normal(noise_key, (batch, config.num_base_samples, *chunk))
        q = ranking.apply(target, per_candidate(observation), draws).min(axis=0)
        if greedy:
            index = q.argmax(axis=-1)
        else:  # softened, so that the noise critic keeps learning about the others
            score = (q - q.mean(axis=-1, keepdims=True)) / (q.std(axis=-1, keepdims=True) + 1e-6)
            index = jax.random.categorical(keep_key, score, axis=-1)
        kept = take_candidate(draws, index)
        noise = kept.reshape(batch, *(1,) * (len(base.noise_shape) - 2), *chunk)
        if noise.shape[1:] != base.noise_shape:  # a diffusion also consumes noise in its later steps
            later = jax.random.normal(rest_key, (batch, base.noise_shape[0] - 1, *chunk))
            noise = jnp.concatenate([noise, later], axis=1)
        action = base.decode(base_params, per_candidate(observation), noise[:, None])
        return action.reshape(batch, 1, *chunk), kept

    def draw(base_params, state: FilterState, batch: Batch, key):
        return keep(base_params, state.target, batch.next_observation, key, greedy=False)

    def learn(state: FilterState, batch: Batch, kept, value):
        def loss(params):
            return critic_loss(critic.apply(params, batch.next_observation, kept), value)

        error, grads = jax.value_and_grad(loss)(state.model.params)
        model = state.model.apply_gradients(grads, optimizer)
        return FilterState(model, ema(model.params, state.target, config.tau)), {"filter/loss": error}

    def act(base_params, acting, observation, key):
        return keep(base_params, acting, observation, key, greedy=True)[0] if config.filter_acting else None

    return Backup(1, 0, init, draw, learn, lambda state: state.target if config.filter_acting else None, act)
