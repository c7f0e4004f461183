"""The Gaussian policies: EXPO's edit policy and RLPD's actor."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from exporl.nets.mlp import MLP, flat_action, flat_observation, xavier
from exporl.types import Observation, Precision

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class TanhGaussian(nn.Module):
    """Mean and log standard deviation, before tanh, of a Gaussian over a chunk [..., h, a].

    With `action` given the policy is conditioned on it (an edit policy); without, on the observation alone.
    """

    hidden: Sequence[int]
    chunk_length: int
    action_dim: int
    dropout: float = 0.0
    precision: Precision = "float32"

    @nn.compact
    def __call__(
        self, observation: Observation, action: Float[Array, "*b h a"] | None = None, deterministic: bool = True
    ) -> tuple[Float[Array, "*b h a"], Float[Array, "*b h a"]]:
        inputs = [flat_observation(observation)] + ([] if action is None else [flat_action(action)])
        x = MLP(self.hidden, dropout=self.dropout, precision=self.precision, name="MLP_0")(
            *inputs, deterministic=deterministic
        )
        size = self.chunk_length * self.action_dim
        mean = nn.Dense(size, kernel_init=xavier, name="mean")(x)
        log_std = nn.Dense(size, kernel_init=xavier, name="log_std")(x)
        shape = (*x.shape[:-1], self.chunk_length, self.action_dim)
        return mean.reshape(shape), jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX).reshape(shape)
