"""The one-step policy of FQL: from noise to an action without integration."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from exporl.nets.mlp import MLP, flat_action, xavier
from exporl.types import Params


class OneStep(nn.Module):
    """An MLP (GELU) that maps features and a noise chunk to an action chunk, not yet clipped."""

    hidden: Sequence[int]

    @nn.compact
    def __call__(
        self, features: Float[Array, "*#b f"], noise: Float[Array, "*b h a"]
    ) -> Float[Array, "*b h a"]:
        """Features [b, 1, f] broadcast over noise [b, n, h, a]."""
        x = MLP(self.hidden, activation=nn.gelu, name="MLP_0")(features, flat_action(noise))
        size = noise.shape[-2] * noise.shape[-1]
        return nn.Dense(size, kernel_init=xavier, name="Dense_0")(x).reshape(noise.shape)


def one_step_action(
    network: OneStep,
    params: Params,
    features: Float[Array, "*#b f"],
    noise: Float[Array, "*b h a"],
) -> Float[Array, "*b h a"]:
    """The action that the policy makes of noise; it may leave [-1, 1]."""
    action: Any = network.apply(params, features, noise)
    return action
