"""The dense building blocks that every network shares."""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from exporl.types import Precision

xavier = nn.initializers.xavier_uniform()


def flat_action(action: Float[Array, "*b h a"]) -> Float[Array, "*b h*a"]:
    """A chunk as one vector."""
    return action.reshape(*action.shape[:-2], action.shape[-2] * action.shape[-1])


def product(precision: Precision) -> Callable[..., Array]:
    """`dot_general` in a precision: bfloat16 rounds both operands, sums and returns float32."""

    def rounded(
        x: Float[Array, "..."],
        y: Float[Array, "..."],
        dimension_numbers: lax.DotDimensionNumbers,
        precision: lax.PrecisionLike = None,
        **options: object,
    ) -> Float[Array, "..."]:
        """Called as flax calls `dot_general`; the operands' type decides the precision."""
        x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
        return lax.dot_general(x, y, dimension_numbers, preferred_element_type=jnp.float32)

    return rounded if precision == "bfloat16" else lax.dot_general


class SplitDense(nn.Module):
    """A dense layer over concatenated inputs, computed input by input.

    Same parameters and result as `nn.Dense` on the concatenation, but inputs may broadcast over
    each other: features [b, 1, f] next to candidates [b, n, h*a] are multiplied once, not n times.
    """

    features: int
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, *inputs: Float[Array, "..."]) -> Float[Array, "..."]:
        """Inputs [..., size] of any number and size -> [..., features]."""
        sizes = [x.shape[-1] for x in inputs]
        kernel = self.param("kernel", xavier, (sum(sizes), self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        blocks = jnp.split(kernel, np.cumsum(sizes)[:-1])
        dot = product(self.precision)
        terms = []
        for x, block in zip(inputs, blocks, strict=True):
            contracted = ((x.ndim - 1,), (0,))
            terms.append(dot(x, block, (contracted, ((), ()))))
        out = functools.reduce(jnp.add, terms)
        return out + bias.reshape((1,) * (out.ndim - 1) + (-1,))


class MLP(nn.Module):
    """Dense layers, each followed by (dropout, layer norm and) an activation."""

    hidden: Sequence[int]
    layer_norm: bool = False
    dropout: float = 0.0
    precision: Precision = "float32"
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(
        self, *inputs: Float[Array, "..."], deterministic: bool = True
    ) -> Float[Array, "..."]:
        """Inputs [..., size] of any number and size -> [..., hidden[-1]]."""
        layer_inputs = inputs
        for i, size in enumerate(self.hidden):
            x = SplitDense(size, self.precision, name=f"Dense_{i}")(*layer_inputs)
            if self.dropout > 0:
                x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
            if self.layer_norm:
                x = nn.LayerNorm()(x)
            layer_inputs = (self.activation(x),)
        return layer_inputs[0]
