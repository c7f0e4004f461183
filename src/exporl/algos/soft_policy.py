"""How the Gaussian policies of soft actor-critic learn: those of RLPD, Cal-QL and DSRL.

Such a policy climbs a value, which is each algorithm's own, and is paid for its entropy by the
temperature alpha, which steers that entropy towards a goal. Every state here has the policy as
`policy` and log alpha as `log_temperature`.
"""

import dataclasses
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from exporl.algos import common
from exporl.algos.common import Model
from exporl.types import Params


@runtime_checkable
class SoftOptions(Protocol):
    """The options that every algorithm with such a policy has."""

    @property
    def policy_learning_rate(self) -> float: ...

    @property
    def temperature_learning_rate(self) -> float: ...

    @property
    def initial_temperature(self) -> float: ...


@runtime_checkable
class WithSoftPolicy(Protocol):
    """A state with such a policy in it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def policy(self) -> Model: ...

    @property
    def log_temperature(self) -> Model: ...


StateT = TypeVar("StateT", bound=WithSoftPolicy)


@dataclasses.dataclass(frozen=True)
class SoftTrainer:
    """How the policy and its temperature learn."""

    optimizer: optax.GradientTransformation
    """Of the policy."""
    temperature_optimizer: optax.GradientTransformation
    initial_temperature: float
    entropy_goal: float
    """Nats that the temperature steers the entropy of the policy towards."""

    @classmethod
    def adam(cls, config: SoftOptions, entropy_goal: float) -> "SoftTrainer":
        """With Adam, whose step sizes stay as they are."""
        return cls(
            optimizer=optax.flatten(optax.adam(config.policy_learning_rate)),
            temperature_optimizer=optax.adam(config.temperature_learning_rate),
            initial_temperature=config.initial_temperature,
            entropy_goal=entropy_goal,
        )

    def init(self, params: Params) -> Model:
        """The policy before its first step."""
        return Model.create(params, self.optimizer)

    def init_temperature(self) -> Model:
        """The log temperature before its first step."""
        log_temperature = jnp.log(jnp.float32(self.initial_temperature))
        return Model.create(log_temperature, self.temperature_optimizer)

    def step(self, state: StateT, grads: Params, entropy: Float[Array, ""]) -> StateT:
        """One step of the policy, and one of its temperature towards the entropy goal.

        Args:
            state: before the step.
            grads: of the policy's loss.
            entropy: of the policy as it was, in nats.
        """
        policy = state.policy.apply_gradients(grads, self.optimizer)
        log_temperature = common.update_temperature(
            state.log_temperature, self.temperature_optimizer, entropy, self.entropy_goal
        )
        return dataclasses.replace(state, policy=policy, log_temperature=log_temperature)
