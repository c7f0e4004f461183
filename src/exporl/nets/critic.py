"""The critic ensemble."""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from exporl.nets.mlp import MLP, flat_action, flat_observation, xavier
from exporl.types import Observation, Precision


class _Value(nn.Module):
    hidden: Sequence[int]
    precision: Precision

    @nn.compact
    def __call__(self, *inputs: Float[Array, "..."]) -> Float[Array, "..."]:
        x = MLP(self.hidden, layer_norm=True, precision=self.precision, name="MLP_0")(*inputs)
        return nn.Dense(1, kernel_init=xavier, name="Dense_0")(x)[..., 0]


class Critic(nn.Module):
    """Q(s, a) of `num_qs` independent MLPs with layer norm: [..., o], [..., h, a] -> [e, ...] (RLPD, arXiv 2302.02948).

    Every parameter leaf starts with the ensemble axis. To evaluate some members only, build a `Critic` with their
    number and apply it to `ops.ensemble.take_members` of the parameters.
    """

    hidden: Sequence[int]
    num_qs: int
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, observation: Observation, action: Float[Array, "*b h a"]) -> Float[Array, "e *b"]:
        ensemble = nn.vmap(
            _Value,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,  # pyright: ignore[reportArgumentType]
            axis_size=self.num_qs,
        )
        return ensemble(self.hidden, self.precision, name="ensemble")(
            flat_observation(observation), flat_action(action)
        )
