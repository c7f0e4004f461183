"""The Gaussian policies: EXPO's edit policy and RLPD's actor."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from exporl.nets.mlp import MLP, flat_action, xavier
from exporl.types import KeyArray, Params, Precision

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class Normal(NamedTuple):
    """Independent normal distributions over a chunk, before tanh."""

    mean: Float[Array, "*b h a"]
    log_std: Float[Array, "*b h a"]


class TanhGaussian(nn.Module):
    """A Gaussian over action chunks [..., h, a], before tanh.

    With `action` given the policy is conditioned on it (an edit policy); without, on the
    observation alone.
    """

    hidden: Sequence[int]
    chunk_length: int
    action_dim: int
    dropout: float = 0.0
    precision: Precision = "float32"

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "*#b f"],
        action: Float[Array, "*#b h a"] | None = None,
        deterministic: bool = True,
    ) -> Normal:
        """Features [b, 1, f] broadcast over candidates [b, n, h, a]."""
        inputs = (features,) if action is None else (features, flat_action(action))
        mlp = MLP(self.hidden, dropout=self.dropout, precision=self.precision, name="MLP_0")
        x = mlp(*inputs, deterministic=deterministic)
        size = self.chunk_length * self.action_dim
        mean = nn.Dense(size, kernel_init=xavier, name="mean")(x)
        log_std = nn.Dense(size, kernel_init=xavier, name="log_std")(x)
        shape = (*x.shape[:-1], self.chunk_length, self.action_dim)
        log_std = jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)
        return Normal(mean.reshape(shape), log_std.reshape(shape))


def distribution(
    policy: TanhGaussian,
    params: Params,
    features: Float[Array, "*#b f"],
    action: Float[Array, "*#b h a"] | None = None,
    dropout_key: KeyArray | None = None,
) -> Normal:
    """What the policy draws from; with dropout only where its key is given."""
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    normal: Any = policy.apply(params, features, action, deterministic=rngs is None, rngs=rngs)
    return normal
