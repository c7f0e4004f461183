"""What algorithms share that train a diffusion policy by regression on its noise: DAC and QSM.

The policy starts as a copy of the base that has imitated; the base is then left as it is.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from exporl.algos import common
from exporl.algos.common import Imitation
from exporl.algos.second_policy import SecondPolicy
from exporl.policies.base import BasePolicy
from exporl.types import AnyArray, Batch, KeyArray, Observation, Params, Spec


class Noised(NamedTuple):
    """The actions of some rows, each diffused to a random step."""

    action: Float[Array, "b h a"]
    """The noisy actions."""
    time: Float[Array, "b 1"]
    """Their steps, 0 ... k-1."""
    noise: Float[Array, "b h a"]
    """What was added, standard normal."""
    share: Float[Array, "b 1 1"]
    """How much of it: sqrt(1 - alpha_hat)."""


@dataclasses.dataclass(frozen=True)
class Regression(SecondPolicy):
    """A diffusion policy that is trained by regression on its noise."""

    predict_noise: Callable[..., Float[Array, "b h a"]]
    """`BasePolicy.predict`."""
    diffuse: Callable[..., tuple[Float[Array, "b h a"], Float[Array, "b 1 1"]]]
    """`BasePolicy.diffuse`."""

    @classmethod
    def create(
        cls, name: str, spec: Spec, base: BasePolicy | None, optimizer: optax.GradientTransformation
    ) -> "Regression":
        """A policy with the network of a base policy.

        Raises:
            ValueError: there is no base policy, or it is no diffusion.
        """
        base = common.required(base, name)
        if base.predict is None or base.diffuse is None:
            raise ValueError(
                f"{name} trains the noise that a diffusion predicts, and this base policy is "
                "another kind. Use base.kind=diffusion."
            )
        return cls(name, spec, Imitation(base), optimizer, base.predict, base.diffuse)

    def noised(self, batch: Batch, key: KeyArray) -> Noised:
        """The data's actions, each at a random step."""
        time_key, noise_key = jax.random.split(key)
        num_steps = self.imitation.base.noise_shape[0]
        time = jax.random.randint(time_key, batch.action.shape[:1], 0, num_steps)
        noise = jax.random.normal(noise_key, batch.action.shape)
        action, share = self.diffuse(batch.action, time, noise)
        return Noised(action, time[:, None].astype(jnp.float32), noise, share)

    def predict(
        self, params: Params, observation: Observation, noised: Noised
    ) -> Float[Array, "b h a"]:
        """The noise that the policy sees in noisy actions."""
        return self.predict_noise(params, observation, noised.action, noised.time)


def valid_mean(values: Float[Array, "b h a"], valid: Float[AnyArray, "b h"]) -> Float[Array, ""]:
    """Mean over the dimensions of the actions that lie inside their episode."""
    weighted = (values * valid[..., None]).sum()
    return weighted / (jnp.maximum(valid.sum(), 1.0) * values.shape[-1])
