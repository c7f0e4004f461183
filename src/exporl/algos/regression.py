"""What algorithms share that train a diffusion policy by regression on its noise: DAC and QSM.

The policy has the network of the base policy. It starts as a copy of the base that has imitated,
and goes on alone; the base is then left as it is.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from exporl.algos import common
from exporl.algos.common import Imitation, Model
from exporl.policies.base import BasePolicy, propose
from exporl.types import AnyArray, Batch, Decision, KeyArray, Observation, Params, Spec


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
class Regression:
    """A diffusion policy that is trained by regression on its noise, beside the base policy that it
    starts from."""

    name: str
    """Of the algorithm, for error messages."""
    spec: Spec
    imitation: Imitation
    predict_noise: Callable[..., Float[Array, "b h a"]]
    """`BasePolicy.predict`."""
    diffuse: Callable[..., tuple[Float[Array, "b h a"], Float[Array, "b 1 1"]]]
    """`BasePolicy.diffuse`."""
    optimizer: optax.GradientTransformation
    """Of the policy."""

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
        imitation, optimizer = Imitation(base), optax.flatten(optimizer)
        return cls(name, spec, imitation, base.predict, base.diffuse, optimizer)

    def start(self, base: Model) -> Model:
        """The policy before its first step: a copy of the base policy."""
        return Model.create(common.fresh(base.params), self.optimizer)

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

    def sample(
        self, params: Params, observation: Observation, num: int, key: KeyArray
    ) -> Float[Array, "b {num} h a"]:
        """`num` actions of the policy for every observation."""
        return propose(self.imitation.base, params, observation, num, key, self.spec)

    def act_alone(
        self,
        params: Params,
        observation: Observation,
        key: KeyArray,
        proposals: Float[Array, "b n h a"] | None,
    ) -> Decision:
        """One action of the base policy."""
        return self.imitation.act(params, observation, key, self.spec, proposals)

    def check_proposals(self, proposals: Float[Array, "b n h a"] | None) -> None:
        """Whether the policy is asked for its own samples.

        Raises:
            ValueError: it was given samples of the base policy to choose among.
        """
        if proposals is not None:
            raise ValueError(
                f"{self.name} acts with samples of its own policy, not of its base policy."
            )


def valid_mean(values: Float[Array, "b h a"], valid: Float[AnyArray, "b h"]) -> Float[Array, ""]:
    """Mean over the dimensions of the actions that lie inside their episode."""
    weighted = (values * valid[..., None]).sum()
    return weighted / (jnp.maximum(valid.sum(), 1.0) * values.shape[-1])
