"""Diffusion base policy: DDPM with the network, schedule and clipping of the EXPO release."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from exporl.ops.generative import ddpm_loss, ddpm_sample, diffuse, vp_schedule
from exporl.policies.base import BaseConfig, BasePolicy, build
from exporl.types import AnyArray, Batch, KeyArray, Metrics, Observation, Params, Precision, Spec

METRICS = {
    "base/loss": "squared error of the predicted noise, summed over a, mean over valid actions",
}


def diffusion(config: BaseConfig, spec: Spec, precision: Precision = "float32") -> BasePolicy:
    """A DDPM policy with a variance-preserving schedule over `config.num_steps` steps.

    Raises:
        ValueError: a size in the configuration is not positive.
    """
    network, optimizer = build(config, spec, precision)
    schedule = vp_schedule(config.num_steps)

    def loss(
        params: Params, batch: Batch, weight: Float[AnyArray, " b"], key: KeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        """Noise prediction at one uniform step per row."""
        noise_key, time_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, batch.action.shape)
        time = jax.random.randint(time_key, batch.action.shape[:1], 0, config.num_steps)
        predict = functools.partial(network.predict, params, batch.observation)
        weight = batch.valid * weight[:, None]
        value = ddpm_loss(predict, schedule, batch.action, time, noise, weight)
        return value, {"base/loss": value}

    def decode(
        params: Params, observation: Observation, noise: Float[Array, "*b k h a"]
    ) -> Float[Array, "*b h a"]:
        """Denoises from the first noise; adds the others on the way."""
        steps = jnp.arange(config.num_steps, dtype=jnp.float32)[:, None]
        conditions = network.embed(params, steps)
        return ddpm_sample(network.sampler(params, observation), conditions, schedule, noise)

    return BasePolicy(
        init=network.init,
        loss=loss,
        predict=network.predict,
        decode=decode,
        noise_shape=(config.num_steps, spec.chunk_length, spec.action_dim),
        optimizer=optimizer,
        diffuse=functools.partial(diffuse, schedule),
        metrics=tuple(METRICS.items()),
    )
