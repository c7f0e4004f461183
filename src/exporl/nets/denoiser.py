"""The network of the base policies: noise of a diffusion step, or velocity of a flow."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from exporl.nets.mlp import SplitDense, flat_action, flat_observation, product, xavier
from exporl.types import Observation, Precision


class Denoiser(nn.Module):
    """Residual MLP over (noisy action chunk, observation, time embedding), as in the EXPO release and IDQL.

    Learnt Fourier features of time -> two dense layers (swish); concatenated with action and observation -> dense ->
    blocks of (layer norm, dense 4x, swish, dense, residual) -> swish -> dense.
    """

    width: int = 256
    num_blocks: int = 3
    expansion: int = 4
    time_dim: int = 128
    precision: Precision = "float32"

    def setup(self):
        self.frequencies = self.param("frequencies", nn.initializers.normal(0.2), (self.time_dim // 2, 1))
        self.time_hidden = nn.Dense(2 * self.time_dim, kernel_init=xavier)
        self.time_out = nn.Dense(2 * self.time_dim, kernel_init=xavier)
        self.input = SplitDense(self.width, self.precision)
        self.blocks = [_Block(self.expansion, self.precision) for _ in range(self.num_blocks)]

    def embed(self, time: Float[Array, "*b 1"]) -> Float[Array, "*b c"]:
        """Time embedding. It depends on time alone, so samplers compute it once per step, not per action."""
        angle = 2 * jnp.pi * time @ self.frequencies.T
        features = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        return self.time_out(nn.swish(self.time_hidden(features)))

    @nn.compact
    def __call__(
        self, observation: Observation, x: Float[Array, "*b h a"], condition: Float[Array, "..."]
    ) -> Float[Array, "*b h a"]:
        """Prediction shaped like x. `condition` is `embed(time)`; observation and condition may broadcast over x."""
        out = self.input(flat_action(x), flat_observation(observation), condition)
        for block in self.blocks:
            out = block(out)
        size = x.shape[-2] * x.shape[-1]
        return SplitDense(size, self.precision, name="output")(nn.swish(out)).reshape(x.shape)


class _Block(nn.Module):
    expansion: int
    precision: Precision

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        dot, width = product(self.precision), x.shape[-1]
        y = nn.LayerNorm(name="norm")(x)
        y = nn.swish(nn.Dense(self.expansion * width, dot_general=dot, name="expand")(y))
        return x + nn.Dense(width, dot_general=dot, name="contract")(y)
