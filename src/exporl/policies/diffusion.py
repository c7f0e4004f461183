"""Diffusion base policy: DDPM with the network, schedule and clipping of the EXPO release."""

import jax
import jax.numpy as jnp

from exporl.ops.generative import ddpm_loss, ddpm_sample, vp_schedule
from exporl.policies.base import BaseConfig, BasePolicy, build
from exporl.types import Precision, Spec


def diffusion(config: BaseConfig, spec: Spec, precision: Precision = "float32") -> BasePolicy:
    """A DDPM policy with a variance-preserving schedule over `config.num_steps` steps.

    Raises:
        ValueError: a size in the configuration is not positive.
    """
    net, optimizer = build(config, spec, precision)
    schedule = vp_schedule(config.num_steps)

    def loss(params, batch, weight, key):
        noise_key, time_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, batch.action.shape)
        time = jax.random.randint(time_key, batch.action.shape[:1], 0, config.num_steps)
        value = ddpm_loss(
            lambda x, t: net.predict(params, batch.observation, x, net.embed(params, t)),
            schedule, batch.action, time, noise, batch.valid * weight[:, None],
        )  # fmt: skip
        return value, {"base/loss": value}

    def decode(params, observation, noise):
        conditions = net.embed(params, jnp.arange(config.num_steps, dtype=jnp.float32)[:, None])
        lead = (1,) * (noise.ndim - 3)
        predict = lambda x, c: net.sample(params, observation, x, c.reshape(*lead, -1))  # noqa: E731
        return ddpm_sample(predict, conditions, schedule, noise)

    return BasePolicy(net.init, loss, decode, (config.num_steps, spec.chunk_length, spec.action_dim), optimizer)
