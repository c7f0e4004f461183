"""Flow-matching base policy (arXiv 2210.02747), integrated with a few Euler steps."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from exporl.ops.generative import euler_sample, flow_loss
from exporl.policies.base import BaseConfig, BasePolicy, build
from exporl.types import AnyArray, Batch, KeyArray, Metrics, Observation, Params, Precision, Spec

METRICS = {
    "base/loss": "squared error of the predicted velocity, summed over a, mean over valid actions",
}
TIME_SCALE = 10.0
"""The network reads 10 t, so that its Fourier features see the range of a 10-step diffusion."""


def flow(config: BaseConfig, spec: Spec, precision: Precision = "float32") -> BasePolicy:
    """A flow policy: straight paths from noise (t = 0) to the action (t = 1), `config.num_steps`
    Euler steps.

    Raises:
        ValueError: a size in the configuration is not positive.
    """
    network, optimizer = build(config, spec, precision)

    def predict(
        params: Params,
        observation: Observation,
        noisy_action: Float[Array, "*b h a"],
        time: Float[Array, "*b 1"],
    ) -> Float[Array, "*b h a"]:
        """Velocity at a time in [0, 1]."""
        return network.predict(params, observation, noisy_action, TIME_SCALE * time)

    def loss(
        params: Params, batch: Batch, weight: Float[AnyArray, " b"], key: KeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        """Flow matching at one uniform time per row."""
        noise_key, time_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, batch.action.shape)
        time = jax.random.uniform(time_key, batch.action.shape[:1])
        velocity = functools.partial(predict, params, batch.observation)
        value = flow_loss(velocity, batch.action, time, noise, batch.valid * weight[:, None])
        return value, {"base/loss": value}

    def decode(
        params: Params, observation: Observation, noise: Float[Array, "*b h a"]
    ) -> Float[Array, "*b h a"]:
        """Follows the velocity from the noise to the action."""
        times = jnp.arange(config.num_steps)[:, None] / config.num_steps
        conditions = network.embed(params, TIME_SCALE * times)
        return euler_sample(network.sampler(params, observation), conditions, noise)

    return BasePolicy(
        init=network.init,
        loss=loss,
        predict=predict,
        decode=decode,
        noise_shape=(spec.chunk_length, spec.action_dim),
        optimizer=optimizer,
        num_steps=config.num_steps,
        metrics=tuple(METRICS.items()),
    )
