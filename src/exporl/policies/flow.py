"""Flow-matching base policy (arXiv 2210.02747), integrated with a few Euler steps."""

import jax
import jax.numpy as jnp

from exporl.ops.generative import euler_sample, flow_loss
from exporl.policies.base import BaseConfig, BasePolicy, build
from exporl.types import Precision, Spec

TIME_SCALE = 10.0
"""The network reads 10 t, so that its Fourier features see the range of a 10-step diffusion."""


def flow(config: BaseConfig, spec: Spec, precision: Precision = "float32") -> BasePolicy:
    """A flow policy: straight paths from noise (t = 0) to the action (t = 1), `config.num_steps` Euler steps.

    Raises:
        ValueError: a size in the configuration is not positive.
    """
    net, optimizer = build(config, spec, precision)

    def embed(params, time):
        return net.embed(params, TIME_SCALE * time)

    def loss(params, batch, weight, key):
        noise_key, time_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, batch.action.shape)
        time = jax.random.uniform(time_key, batch.action.shape[:1])
        value = flow_loss(
            lambda x, t: net.predict(params, batch.observation, x, embed(params, t)),
            batch.action, time, noise, batch.valid * weight[:, None],
        )  # fmt: skip
        return value, {"base/loss": value}

    def decode(params, observation, noise):
        conditions = embed(params, jnp.arange(config.num_steps)[:, None] / config.num_steps)
        lead = (1,) * (noise.ndim - 2)
        return euler_sample(lambda x, c: net.sample(params, observation, x, c.reshape(*lead, -1)), conditions, noise)

    return BasePolicy(net.init, loss, decode, (spec.chunk_length, spec.action_dim), optimizer)
