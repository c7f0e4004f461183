"""The network of the base policies: noise of a diffusion step, or velocity of a flow."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from exporl.nets.mlp import SplitDense, flat_action, product, xavier
from exporl.types import Precision


class Denoiser(nn.Module):
    """Residual MLP over noisy action chunk, features and time embedding (EXPO release, IDQL).

    Learnt Fourier features of time -> two dense layers (swish); concatenated with action and
    features -> dense -> blocks of (layer norm, dense 4x, swish, dense, residual) -> swish -> dense.
    """

    width: int = 256
    num_blocks: int = 3
    expansion: int = 4
    time_dim: int = 128
    precision: Precision = "float32"

    def setup(self) -> None:
        """The layers; in the order of the parameters that they draw."""
        shape = (self.time_dim // 2, 1)
        self.frequencies = self.param("frequencies", nn.initializers.normal(0.2), shape)
        self.time_hidden = nn.Dense(2 * self.time_dim, kernel_init=xavier)
        self.time_out = nn.Dense(2 * self.time_dim, kernel_init=xavier)
        self.input = SplitDense(self.width, self.precision)
        self.blocks = [_Block(self.expansion, self.precision) for _ in range(self.num_blocks)]

    def embed(self, time: Float[Array, "*b 1"]) -> Float[Array, "*b c"]:
        """Time embedding. It depends on time alone: samplers compute it once per step."""
        angle = 2 * jnp.pi * time @ self.frequencies.T
        waves = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        return self.time_out(nn.swish(self.time_hidden(waves)))

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "*#b f"],
        x: Float[Array, "*b h a"],
        condition: Float[Array, "*#b c"],
    ) -> Float[Array, "*b h a"]:
        """Prediction at `condition = embed(time)`; features and condition may broadcast over x."""
        out = self.input(flat_action(x), features, condition)
        for block in self.blocks:
            out = block(out)
        size = x.shape[-2] * x.shape[-1]
        return SplitDense(size, self.precision, name="output")(nn.swish(out)).reshape(x.shape)

    def with_time(
        self,
        features: Float[Array, "*#b f"],
        x: Float[Array, "*b h a"],
        time: Float[Array, "*#b 1"],
    ) -> Float[Array, "*b h a"]:
        """The prediction at a time that is not embedded yet."""
        return self(features, x, self.embed(time))


class _Block(nn.Module):
    expansion: int
    precision: Precision

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        dot = product(self.precision)
        width = x.shape[-1]
        y = nn.LayerNorm(name="norm")(x)
        y = nn.Dense(self.expansion * width, dot_general=dot, name="expand")(y)
        return x + nn.Dense(width, dot_general=dot, name="contract")(nn.swish(y))
