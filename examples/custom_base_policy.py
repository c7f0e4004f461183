"""A base policy of your own in one file: one Gaussian per observation instead of a diffusion or a
flow. EXPO imitates with it, and edits and ranks its samples as it does any other's.

From this folder: python custom_base_policy.py. Also `exporl train expo --task probe/bandit --preset
tiny --base.kind custom_base_policy:gaussian`.
"""

from pathlib import Path

import jax.numpy as jnp
import optax

import exporl
from exporl.nets.encoder import flat_observation
from exporl.nets.gaussian import TanhGaussian, distribution


def gaussian(config, spec, precision):
    """Options (--base.*), the task's shapes, precision of sampling -> base policy."""
    hidden = (config.width,) * config.num_blocks
    network = TanhGaussian(hidden, spec.chunk_length, spec.action_dim)
    sampling_network = network.clone(precision=precision)

    def init(key):
        observation, _ = spec.example()
        return network.init(key, flat_observation(observation))

    def loss(params, batch, weight, key):
        """Negative log likelihood of the rows' actions, [b, h, a], up to a constant."""
        mean, log_std = distribution(network, params, flat_observation(batch.observation))
        error = 0.5 * jnp.square((batch.action - mean) / jnp.exp(log_std)) + log_std
        rows = batch.valid * weight[:, None]
        value = (error.sum(axis=-1) * rows).sum() / jnp.maximum(rows.sum(), 1)
        return value, {"base/loss": value}

    def decode(params, observation, noise):
        """Noise [..., h, a] -> action chunks [..., h, a]."""
        mean, log_std = distribution(sampling_network, params, flat_observation(observation))
        return jnp.clip(mean + jnp.exp(log_std) * noise, -1, 1)

    shape, optimizer = (spec.chunk_length, spec.action_dim), optax.adam(config.learning_rate)
    metrics = (("base/loss", "negative log likelihood of the actions, nats, up to a constant"),)
    return exporl.BasePolicy(init, loss, decode, shape, optimizer, metrics=metrics)


if __name__ == "__main__":
    preset = exporl.preset_config("expo", "tiny", "probe/bandit")
    steps = {"train.offline_steps": 200, "train.online_steps": 200, "train.utd_ratio": 1}
    base = {"base.kind": "custom_base_policy:gaussian", "base.learning_rate": 3e-3}
    warmup = {"train.critic_warmup_steps": 100, "train.update_after": 50}
    config = exporl.override(preset, {**base, **steps, **warmup})
    print(exporl.train(config, Path("runs/gaussian")))
