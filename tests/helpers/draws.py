"""Random draws made immaterial, so that a test need not know the order in which they are made: base
samples and edits that are the same for every key, and all pairs of critics that may have voted."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from exporl.policies.base import BasePolicy


def still(base: BasePolicy, num: int) -> BasePolicy:
    """A base policy whose i-th of up to `num` samples is decoded from the i-th of fixed noises."""
    fixed = np.random.default_rng(0).standard_normal((1, num, *base.noise_shape))

    def decode(params, observation, noise):
        same_noise = jnp.asarray(fixed[:, : noise.shape[1]], noise.dtype)
        return base.decode(params, observation, jnp.broadcast_to(same_noise, noise.shape))

    return base._replace(decode=decode)


def certain(params):
    """Parameters of a Gaussian policy as narrow as rounding: every sample is tanh(mean)."""
    narrow = jax.tree.map(np.zeros_like, params["params"]["log_std"])
    narrow["bias"] = narrow["bias"] - 18
    return {"params": {**params["params"], "log_std": narrow}}


def least_of_pairs(q) -> np.ndarray:
    """[e, ...] -> [e (e - 1) / 2, ...]: the minimum over each pair of critics."""
    q = np.asarray(q)
    return np.stack([np.minimum(q[i], q[j]) for i, j in itertools.combinations(range(len(q)), 2)])
