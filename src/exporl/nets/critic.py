"""The critic ensemble, and the value of a state."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int

from exporl.nets.mlp import MLP, flat_action, xavier
from exporl.ops.ensemble import take_members
from exporl.types import Params, Precision


class _Value(nn.Module):
    hidden: Sequence[int]
    precision: Precision

    @nn.compact
    def __call__(self, *inputs: Float[Array, "..."]) -> Float[Array, "..."]:
        mlp = MLP(self.hidden, layer_norm=True, precision=self.precision, name="MLP_0")
        x = mlp(*inputs)
        return nn.Dense(1, kernel_init=xavier, name="Dense_0")(x)[..., 0]


class Critic(nn.Module):
    """Q(s, a) of `num_qs` independent MLPs with layer norm (RLPD, arXiv 2302.02948).

    Every parameter leaf starts with the ensemble axis. To evaluate some members only: `min_q`.
    """

    hidden: Sequence[int]
    num_qs: int
    precision: Precision = "float32"

    @nn.compact
    def __call__(
        self, features: Float[Array, "*#b f"], action: Float[Array, "*#b h a"]
    ) -> Float[Array, "e *b"]:
        """Values of every member. Features [b, 1, f] broadcast over candidates [b, n, h, a]."""
        ensemble = nn.vmap(
            _Value,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,  # pyright: ignore[reportArgumentType]
            axis_size=self.num_qs,
        )
        return ensemble(self.hidden, self.precision, name="ensemble")(features, flat_action(action))


class StateValue(nn.Module):
    """V(s): the network of one critic, of the state alone."""

    hidden: Sequence[int]

    @nn.compact
    def __call__(self, features: Float[Array, "*b f"]) -> Float[Array, "*b"]:
        """Value of every state."""
        return _Value(self.hidden, "float32", name="value")(features)


def state_value(
    network: StateValue, params: Params, features: Float[Array, "*b f"]
) -> Float[Array, "*b"]:
    """V(s)."""
    value: Any = network.apply(params, features)
    return value


def q_values(
    critic: Critic,
    params: Params,
    features: Float[Array, "*#b f"],
    action: Float[Array, "*#b h a"],
) -> Float[Array, "e *b"]:
    """Q(s, a) of every member."""
    values: Any = critic.apply(params, features, action)
    return values


def action_gradient(
    critic: Critic,
    params: Params,
    features: Float[Array, "b f"],
    action: Float[Array, "b h a"],
) -> Float[Array, "b h a"]:
    """Gradient of the members' mean Q(s, a) in the action, row by row."""

    def total(action: Float[Array, "b h a"]) -> Float[Array, ""]:
        return q_values(critic, params, features, action).mean(axis=0).sum()

    return jax.grad(total)(action)


def min_q(
    critic: Critic,
    params: Params,
    features: Float[Array, "b f"],
    action: Float[Array, "b n h a"],
    members: Int[Array, " m"],
) -> Float[Array, "b n"]:
    """Minimum over some members, for every candidate. The others are not evaluated."""
    some = critic.clone(num_qs=members.shape[0])
    return q_values(some, take_members(params, members), features[:, None], action).min(axis=0)
