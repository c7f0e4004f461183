"""A second policy with the network of the base policy, which DAC, QSM and QAM train.

It starts as a copy of the base that has imitated, and goes on alone.
"""

import dataclasses

import optax
from jaxtyping import Array, Float

from exporl.algos import common
from exporl.algos.common import Imitation, Model
from exporl.algos.deploy_noise import noise_scales
from exporl.policies.base import learning_rate, propose
from exporl.types import Decision, KeyArray, Observation, Params, Spec


def clipped_adam(rate: float, longest: float, decay_steps: int = 0) -> optax.GradientTransformation:
    """Adam on gradients no longer than `longest`, the step size falling as `learning_rate` says."""
    clip = optax.clip_by_global_norm(longest)
    return optax.flatten(optax.chain(clip, optax.adam(learning_rate(rate, decay_steps))))


@dataclasses.dataclass(frozen=True)
class SecondPolicy:
    """A policy beside the base policy that it starts from."""

    name: str
    """Of the algorithm, for error messages."""
    spec: Spec
    imitation: Imitation
    """Of the base policy."""
    optimizer: optax.GradientTransformation
    """Of the second policy."""

    def start(self, base: Model) -> Model:
        """The policy before its first step: a copy of the base policy."""
        return Model.create(common.fresh(base.params), self.optimizer)

    def sample(
        self,
        params: Params,
        observation: Observation,
        num: int,
        key: KeyArray,
        factor: float = 1.0,
    ) -> Float[Array, "b {num} h a"]:
        """`num` actions of the policy for every observation, with a factor on their noise."""
        base, scales = self.imitation.base, noise_scales(num, factor)
        return propose(base, params, observation, num, key, self.spec, scales)

    def act_alone(
        self,
        params: Params,
        observation: Observation,
        key: KeyArray,
        proposals: Float[Array, "b n h a"] | None,
        factor: float,
    ) -> Decision:
        """One action of the base policy, with a factor on its noise."""
        return self.imitation.act(
            params, observation, key, self.spec, proposals, noise_scale=factor
        )

    def check_proposals(self, proposals: Float[Array, "b n h a"] | None) -> None:
        """Whether the policy is asked for its own samples.

        Raises:
            ValueError: it was given samples of the base policy to choose among.
        """
        if proposals is not None:
            raise ValueError(
                f"{self.name} acts with samples of its own policy, not of its base policy."
            )
