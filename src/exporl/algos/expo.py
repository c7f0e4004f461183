"""EXPO: stable reinforcement learning with expressive policies (Dong et al., arXiv 2507.07986).

A base policy, trained by imitation alone, proposes n actions; an edit policy moves each a bounded way towards higher
value; the on-the-fly policy takes the best candidate, to act and to bootstrap. No value gradient enters the base.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct

from exporl.algos import common
from exporl.algos.backup import BackupConfig, FilterState, make_backup
from exporl.algos.common import Algorithm, Model
from exporl.algos.options import check_options
from exporl.nets.critic import Critic
from exporl.nets.gaussian import TanhGaussian
from exporl.ops import gaussian
from exporl.ops.ensemble import random_members
from exporl.ops.selection import per_candidate, select, take_candidate
from exporl.ops.td import td_target
from exporl.policies.base import BasePolicy, learning_rate, propose
from exporl.types import Batch, Params, Precision, Spec


@dataclasses.dataclass(frozen=True)
class ExpoConfig(BackupConfig):
    """EXPO. Defaults are Table 1 of the paper where it has the number, else the official code."""

    num_base_samples: int = 8  # Actions n that the base policy proposes per observation (paper: N).
    num_edit_samples: int = 8  # How many of them are also edited; 0 turns EXPO into best-of-n.
    edit_scale: float = 0.1  # Largest edit per action dimension, in units of the [-1, 1] range (paper: beta).
    num_qs: int = 10  # Critics in the ensemble.
    num_min_qs: int = 2  # Critics in each minimum (1 for AntMaze).
    hidden: tuple[int, ...] = (256, 256, 256)  # Hidden layers of the critics and of the edit policy.
    critic_learning_rate: float = 3e-4  # Adam step size of the critics.
    edit_learning_rate: float = 3e-4  # Adam step size of the edit policy at the start.
    temperature_learning_rate: float = 3e-4  # Adam step size of the log temperature.
    decay_steps: int = 3_000_000  # Edit updates over which its learning rate falls to 0 on a cosine; 0: constant.
    tau: float = 0.005  # Polyak step of the target critics, per critic update.
    base_tau: float = 0.001  # Polyak step of the averaged base policy, per base update.
    initial_temperature: float = 1.0  # Entropy weight at the start (paper: alpha). Scale it with the reward.
    edit_dropout: float = 0.0  # Dropout of the edit policy while it is trained (Adroit: 0.1).
    entropy_scale: float = 1.0  # Factor on the entropy term of the edit loss.
    target_entropy: Literal["attainable", "released"] | float = "attainable"  # -d/2 + d ln(edit_scale); -d/2; or nats.
    clip_edits: bool = True  # Clip edited actions to [-1, 1]; the release does not.
    selection: Literal["argmax", "soft"] = "argmax"  # Take the best candidate, or draw i with p ~ exp(softness * Q_i).
    softness: float = 1.0  # Inverse temperature of soft selection (kappa), per unit of Q.
    backup_entropy: bool = False  # With soft selection: bootstrap from Q - temperature * log p(choice).
    base_data: Literal["all", "successes"] = "all"  # The base keeps imitating all rows, or successful episodes only.
    acting_base: Literal["ema", "live"] = "ema"  # Base parameters that act; the TD target always samples the live ones.


@struct.dataclass
class ExpoState:
    """Everything that EXPO learns."""

    base: Model
    base_ema: Params
    edit: Model
    critic: Model
    target_critic: Params
    log_temperature: Model
    filter: FilterState | None


def expo(config: ExpoConfig, spec: Spec, base: BasePolicy, precision: Precision = "float32") -> Algorithm:
    """The algorithm for one task and one base policy. Raises ValueError where options contradict each other."""
    check_options(config)
    num_dims, n = spec.chunk_length * spec.action_dim, config.num_base_samples
    softness, successes_only = config.softness if config.selection == "soft" else None, config.base_data == "successes"
    entropy_goal = gaussian.target_entropy(config.target_entropy, num_dims, config.edit_scale)
    entropy_limit = gaussian.max_entropy(num_dims, config.edit_scale)
    limits = {"edit/target_entropy": entropy_goal, "edit/max_entropy": entropy_limit}
    critic: Any = Critic(config.hidden, config.num_qs)
    edit: Any = TanhGaussian(config.hidden, spec.chunk_length, spec.action_dim, config.edit_dropout)
    critic_optimizer = optax.flatten(optax.adam(config.critic_learning_rate))
    edit_optimizer = optax.flatten(optax.adam(learning_rate(config.edit_learning_rate, config.decay_steps)))
    temperature_optimizer = optax.adam(config.temperature_learning_rate)
    step_critic = functools.partial(common.update_critic, critic, critic_optimizer, config.tau)
    step_base = functools.partial(common.update_base, base, config.base_tau)
    backup = make_backup(base, spec, config, precision)

    def init(key) -> ExpoState:
        base_key, edit_key, critic_key = jax.random.split(key, 3)
        base_model = Model.create(base.init(base_key), base.optimizer)
        edit_model = Model.create(edit.init(edit_key, *spec.example()), edit_optimizer)
        critic_model = Model.create(critic.init(critic_key, *spec.example()), critic_optimizer)
        log_temperature = Model.create(jnp.log(jnp.float32(config.initial_temperature)), temperature_optimizer)
        base_ema, target_critic = common.fresh((base_model.params, critic_model.params))
        filters = backup.init(jax.random.fold_in(key, 3))
        return ExpoState(base_model, base_ema, edit_model, critic_model, target_critic, log_temperature, filters)

    def edited(params, observation, action, eps, dropout_key=None, net=edit):
        """action + edit_scale * e, e ~ edit policy: the action, the unit edit e and its log density before scaling."""
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        mean, log_std = net.apply(params, observation, action, deterministic=rngs is None, rngs=rngs)
        unit, log_prob = gaussian.tanh_sample(mean, log_std, eps)
        moved = action + config.edit_scale * unit
        return jnp.clip(moved, -1.0, 1.0) if config.clip_edits else moved, unit, log_prob

    def candidates(base_params, edit_params, observation, key, proposals=None):
        """n base samples (or those given), then their edits: [b, n + num_edit_samples, h, a]."""
        propose_key, edit_key = jax.random.split(key)
        proposals = propose(base, base_params, observation, n, propose_key, spec) if proposals is None else proposals
        if config.num_edit_samples == 0:
            return proposals
        start = proposals[:, : config.num_edit_samples]
        eps = jax.random.normal(edit_key, start.shape)
        moved = edited(edit_params, per_candidate(observation), start, eps, net=edit.clone(precision=precision))[0]
        return jnp.concatenate([proposals, moved], axis=1)

    def choose(critic_params, observation, actions, members, key):
        """The on-the-fly policy: (action [b, h, a], index [b], log probability [b], values [b, n])."""
        q = common.min_q(config.hidden, critic_params, observation, actions, members, precision)
        index, log_prob = select(q, key, softness)
        return take_candidate(actions, index), index, log_prob, q

    def bootstrap(target_critic, temperature, batch, actions, members, value_members, key):
        """TD target [b]: the choice is made by one subset of the target critics and valued by another."""
        action, index, log_prob, q = choose(target_critic, batch.next_observation, actions, members, key)
        value = common.min_q(config.hidden, target_critic, batch.next_observation, action[:, None], value_members)[:, 0]
        if config.backup_entropy:
            value = value - temperature * log_prob
        return td_target(batch.reward, batch.discount, value), common.choice_metrics(q, index, backup.num)

    def edit_loss(params, critic_params, temperature, batch, eps, dropout_key=None):
        """entropy_scale * temperature * log density - mean Q over all critics, for edits of the batch's own actions."""
        action, unit, log_prob = edited(params, batch.observation, batch.action, eps, dropout_key)
        log_prob = log_prob - num_dims * jnp.log(config.edit_scale)
        q = critic.apply(critic_params, batch.observation, action).mean(axis=0)
        metrics = {"edit/entropy": -log_prob.mean(), "edit/magnitude": config.edit_scale * jnp.abs(unit).mean()}
        metrics["edit/saturated"] = (jnp.abs(unit) > 0.95).mean(dtype=jnp.float32)
        return (config.entropy_scale * temperature * log_prob - q).mean(), metrics

    def update_critic(state: ExpoState, batch: Batch, drawn, key):
        member_key, value_key, choice_key = jax.random.split(key, 3)
        members, value_members = (random_members(k, config.num_qs, config.num_min_qs) for k in (member_key, value_key))
        (actions, noise), old, temperature = drawn, state.target_critic, jnp.exp(state.log_temperature.params)
        target, metrics = bootstrap(old, temperature, batch, actions, members, value_members, choice_key)
        model, target_params, critic_metrics = step_critic(state.critic, old, batch, target)
        value = common.min_q(config.hidden, old, batch.next_observation, actions[:, :1], value_members)[:, 0]
        kept, filter_metrics = backup.learn(state.filter, batch, noise, value)
        state = dataclasses.replace(state, critic=model, target_critic=target_params, filter=kept)
        return state, metrics | critic_metrics | filter_metrics

    def update_edit(state: ExpoState, batch: Batch, key):
        eps_key, dropout_key = jax.random.split(key)
        eps, temperature = jax.random.normal(eps_key, batch.action.shape), jnp.exp(state.log_temperature.params)
        inputs = state.edit.params, state.critic.params, temperature, batch, eps, dropout_key
        (loss, metrics), grads = jax.value_and_grad(edit_loss, has_aux=True)(*inputs)
        model, entropy = state.edit.apply_gradients(grads, edit_optimizer), metrics["edit/entropy"]
        alpha = common.update_temperature(state.log_temperature, temperature_optimizer, entropy, entropy_goal)
        metrics |= {"edit/loss": loss, "edit/temperature": temperature} | limits
        return dataclasses.replace(state, edit=model, log_temperature=alpha), metrics

    def update(state: ExpoState, batches: Batch, key, *, phase="online"):
        """u critic steps, then one step of the base policy (when online) and of the edits; "pretrain": u base steps."""
        critic_key, base_key, edit_key = jax.random.split(key, 3)
        if phase == "pretrain":
            model, average, metrics = common.pretrain_base(base, state.base, batches, successes_only, base_key)
            return dataclasses.replace(state, base=model, base_ema=average), metrics

        def draw(state, batch: Batch, key):  # the base and edit policies stand still during the critic steps
            proposals, noise = backup.draw(state.base.params, state.filter, batch, jax.random.fold_in(key, 2))
            return candidates(state.base.params, state.edit.params, batch.next_observation, key, proposals), noise

        draw_keys, keys = jax.random.split(critic_key, (2, batches.reward.shape[0]))
        hoisted = config.hoist_sampling is True
        drawn = jax.vmap(functools.partial(draw, state))(batches, draw_keys) if hoisted else draw_keys
        step = lambda s, x: update_critic(s, x[0], x[1] if hoisted else draw(s, x[0], x[1]), x[2])  # noqa: E731
        new_state, metrics = jax.lax.scan(step, state, (batches, drawn, keys))
        metrics, last = common.reduce_metrics(metrics), common.last_minibatch(batches)
        if phase == "online":
            model, average, base_metrics = step_base(state.base, state.base_ema, last, successes_only, base_key)
            new_state, metrics = dataclasses.replace(new_state, base=model, base_ema=average), metrics | base_metrics
        if config.num_edit_samples:
            new_state, edit_metrics = update_edit(new_state, last, edit_key)
            metrics |= edit_metrics
        return new_state, metrics

    def acting(state: ExpoState) -> Params:
        params = {"edit": state.edit.params, "critic": state.target_critic, "filter": backup.acting(state.filter)}
        return params | {"base": state.base_ema if config.acting_base == "ema" else state.base.params}

    def act(params, observation, key):
        candidate_key, member_key, choice_key, keep_key = *jax.random.split(key, 3), jax.random.fold_in(key, 3)
        proposals = backup.act(params["base"], params["filter"], observation, keep_key)
        actions = candidates(params["base"], params["edit"], observation, candidate_key, proposals)
        members = random_members(member_key, config.num_qs, config.num_min_qs)
        return choose(params["critic"], observation, actions, members, choice_key)[0]

    act_base = lambda params, observation, key: propose(base, params["base"], observation, 1, key, spec)[:, 0]  # noqa: E731
    parts = {f.__name__: f for f in (edited, candidates, choose, bootstrap, edit_loss, update_critic)}
    fill = lambda state, observation, key: propose(base, state.base.params, observation, n, key, spec)  # noqa: E731
    return common.compiled(init, update, acting, act, act_base, parts=parts, propose=fill, num_proposals=backup.kept)
