"""The dense building blocks that every network shares."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from exporl.types import Observation, Precision

xavier = nn.initializers.xavier_uniform()


def flat_observation(observation: Observation) -> Float[Array, "*b o"]:
    """The state encoder: low-dimensional entries concatenated in the order of their sorted names."""
    return jnp.concatenate([jnp.asarray(observation[name]) for name in sorted(observation)], axis=-1)


def flat_action(action: Float[Array, "*b h a"]) -> Float[Array, "*b h*a"]:
    """A chunk as one vector."""
    return action.reshape(*action.shape[:-2], action.shape[-2] * action.shape[-1])


def product(precision: Precision) -> Callable[..., Array]:
    """`jax.lax.dot_general` in a precision: bfloat16 rounds both operands, sums and returns float32."""

    def rounded(x: Array, y: Array, dimension_numbers: Any, precision: Any = None, **options: Any) -> Array:
        x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
        return jax.lax.dot_general(x, y, dimension_numbers, preferred_element_type=jnp.float32)

    return rounded if precision == "bfloat16" else jax.lax.dot_general


class SplitDense(nn.Module):
    """A dense layer over concatenated inputs, computed input by input.

    Same parameters and result as `nn.Dense` on the concatenation, but inputs may broadcast over each other: an
    observation [b, 1, o] next to candidates [b, n, a] is multiplied once, not n times.
    """

    features: int
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, *inputs: Float[Array, "..."]) -> Float[Array, "..."]:
        sizes = [x.shape[-1] for x in inputs]
        kernel = self.param("kernel", xavier, (sum(sizes), self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        blocks = jnp.split(kernel, np.cumsum(sizes)[:-1])
        dot = product(self.precision)
        terms = [dot(x, w, (((x.ndim - 1,), (0,)), ((), ()))) for x, w in zip(inputs, blocks, strict=True)]
        out = functools.reduce(jnp.add, terms)
        return out + bias.reshape((1,) * (out.ndim - 1) + (-1,))


class MLP(nn.Module):
    """Dense layers, each followed by (dropout, layer norm and) an activation; the first one is a `SplitDense`."""

    hidden: Sequence[int]
    layer_norm: bool = False
    dropout: float = 0.0
    precision: Precision = "float32"
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, *inputs: Float[Array, "..."], deterministic: bool = True) -> Float[Array, "..."]:
        for i, size in enumerate(self.hidden):
            x = SplitDense(size, self.precision, name=f"Dense_{i}")(*(inputs if i == 0 else [x]))
            if self.dropout > 0:
                x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
            x = self.activation(nn.LayerNorm()(x) if self.layer_norm else x)
        return x
