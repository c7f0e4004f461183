"""RLPD: soft actor-critic with prior data in every minibatch (Ball et al., arXiv 2302.02948).

A Gaussian policy instead of an expressive one, the same critics, update-to-data ratio and data as EXPO: the baseline
that shows what the base policy brings.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct

from exporl.algos import common
from exporl.algos.common import Algorithm, Model
from exporl.algos.options import check_options
from exporl.nets.critic import Critic
from exporl.nets.gaussian import TanhGaussian
from exporl.ops import gaussian
from exporl.ops.ensemble import random_members
from exporl.ops.td import td_target
from exporl.policies.base import BasePolicy
from exporl.types import Batch, Params, Precision, Spec


@dataclasses.dataclass(frozen=True)
class RlpdConfig:
    """RLPD. Defaults are the paper's for sparse-reward tasks."""

    num_qs: int = 10  # Critics in the ensemble.
    num_min_qs: int = 2  # Critics in each minimum (1 for AntMaze).
    hidden: tuple[int, ...] = (256, 256, 256)  # Hidden layers of the critics and of the policy.
    critic_learning_rate: float = 3e-4  # Adam step size of the critics.
    policy_learning_rate: float = 3e-4  # Adam step size of the policy.
    temperature_learning_rate: float = 3e-4  # Adam step size of the log temperature.
    tau: float = 0.005  # Polyak step of the target critics, per critic update.
    initial_temperature: float = 1.0  # Entropy weight at the start (alpha). Scale it with the reward.
    target_entropy: Literal["released"] | float = "released"  # released: -d/2; or a number of nats.
    backup_entropy: bool = False  # Bootstrap from Q - temperature * log p(action); off for sparse rewards.


@struct.dataclass
class RlpdState:
    """Everything that RLPD learns."""

    policy: Model
    critic: Model
    target_critic: Params
    log_temperature: Model


def rlpd(config: RlpdConfig, spec: Spec, base: BasePolicy | None = None, precision: Precision = "float32") -> Algorithm:
    """The algorithm for one task; a base policy is not used. Raises ValueError where options contradict each other."""
    check_options(config)
    if precision != "float32":
        raise ValueError(
            f"rlpd samples no base policy and ranks no candidates: precision must be float32, got {precision}."
        )
    num_dims = spec.chunk_length * spec.action_dim
    entropy_goal = gaussian.target_entropy(config.target_entropy, num_dims)
    critic: Any = Critic(config.hidden, config.num_qs)
    policy: Any = TanhGaussian(config.hidden, spec.chunk_length, spec.action_dim)
    critic_optimizer = optax.flatten(optax.adam(config.critic_learning_rate))
    policy_optimizer = optax.flatten(optax.adam(config.policy_learning_rate))
    temperature_optimizer = optax.adam(config.temperature_learning_rate)

    def init(key) -> RlpdState:
        policy_key, critic_key = jax.random.split(key)
        observation, action = spec.example()
        critic_params = critic.init(critic_key, observation, action)
        log_temperature = jnp.log(jnp.float32(config.initial_temperature))
        return RlpdState(
            policy=Model.create(policy.init(policy_key, observation), policy_optimizer),
            critic=Model.create(critic_params, critic_optimizer),
            target_critic=common.fresh(critic_params),
            log_temperature=Model.create(log_temperature, temperature_optimizer),
        )

    def sample(params, observation, eps):
        """An action chunk [b, h, a] of the policy and its log density [b]."""
        return gaussian.tanh_sample(*policy.apply(params, observation), eps=eps)

    def bootstrap(target_critic, policy_params, temperature, batch, eps, members):
        """TD target [b] at the policy's own next action, valued by a subset of the target critics."""
        action, log_prob = sample(policy_params, batch.next_observation, eps)
        value = common.min_q(config.hidden, target_critic, batch.next_observation, action[:, None], members)[:, 0]
        if config.backup_entropy:
            value = value - temperature * log_prob
        return td_target(batch.reward, batch.discount, value)

    def policy_loss(params, critic_params, temperature, batch, eps):
        """temperature * log density - mean Q over all critics, at the policy's own actions."""
        action, log_prob = sample(params, batch.observation, eps)
        q = critic.apply(critic_params, batch.observation, action).mean(axis=0)
        metrics = {"policy/entropy": -log_prob.mean()}
        metrics["policy/saturated"] = (jnp.abs(action) > 0.95).mean(dtype=jnp.float32)
        return (temperature * log_prob - q).mean(), metrics

    def update_critic(state: RlpdState, batch: Batch, key):
        eps_key, member_key = jax.random.split(key)
        eps = jax.random.normal(eps_key, batch.action.shape)
        members = random_members(member_key, config.num_qs, config.num_min_qs)
        temperature = jnp.exp(state.log_temperature.params)
        target = bootstrap(state.target_critic, state.policy.params, temperature, batch, eps, members)
        model, target_critic, metrics = common.update_critic(
            critic, critic_optimizer, config.tau, state.critic, state.target_critic, batch, target
        )
        return dataclasses.replace(state, critic=model, target_critic=target_critic), metrics

    def update_policy(state: RlpdState, batch: Batch, key):
        eps, temperature = jax.random.normal(key, batch.action.shape), jnp.exp(state.log_temperature.params)
        (loss, metrics), grads = jax.value_and_grad(policy_loss, has_aux=True)(
            state.policy.params, state.critic.params, temperature, batch, eps
        )
        model, entropy = state.policy.apply_gradients(grads, policy_optimizer), metrics["policy/entropy"]
        alpha = common.update_temperature(state.log_temperature, temperature_optimizer, entropy, entropy_goal)
        limits = {"policy/target_entropy": jnp.float32(entropy_goal)}
        metrics |= {"policy/loss": loss, "policy/temperature": temperature} | limits
        return dataclasses.replace(state, policy=model, log_temperature=alpha), metrics

    def update(state: RlpdState, batches: Batch, key, *, phase="online"):
        """u critic steps, then one step of the policy and its temperature on the last minibatch."""
        critic_key, policy_key = jax.random.split(key)
        keys = jax.random.split(critic_key, batches.reward.shape[0])
        state, metrics = jax.lax.scan(lambda s, x: update_critic(s, *x), state, (batches, keys))
        state, policy_metrics = update_policy(state, common.last_minibatch(batches), policy_key)
        return state, common.reduce_metrics(metrics) | policy_metrics

    def acting(state: RlpdState) -> Params:
        return state.policy.params

    def act(params, observation, key):
        mean, log_std = policy.apply(params, observation)
        return gaussian.tanh_sample(mean, log_std, jax.random.normal(key, mean.shape))[0]

    def act_eval(params, observation, key):
        """The mode of the policy."""
        return jnp.tanh(policy.apply(params, observation)[0])

    parts = {f.__name__: f for f in (sample, bootstrap, policy_loss, update_critic)}
    phases = common.ALL_PHASES - {"pretrain"}
    return common.compiled(init, update, acting, act, None, act_eval, phases=phases, parts=parts)
