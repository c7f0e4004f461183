"""How the algorithms beside EXPO make their critics, and one step of them.

Every state here has the critics as `critic` and their slow copy as `target_critic`, and every
algorithm its own TD target for them.
"""

import dataclasses
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from jaxtyping import Array, Float

from exporl.algos.bounds import TargetBounds
from exporl.algos.common import CriticTrainer, Model, Penalty
from exporl.nets.critic import Critic
from exporl.nets.encoder import flat_observation
from exporl.options import check_members, check_options
from exporl.types import Batch, KeyArray, Metrics, Params, Spec


@runtime_checkable
class CriticOptions(Protocol):
    """The options that every algorithm with critics has."""

    @property
    def hidden(self) -> tuple[int, ...]: ...

    @property
    def num_qs(self) -> int: ...

    @property
    def critic_learning_rate(self) -> float: ...

    @property
    def tau(self) -> float: ...


@runtime_checkable
class MinimumOptions(CriticOptions, Protocol):
    """The options of an algorithm whose TD target is a minimum over some of the critics."""

    @property
    def num_min_qs(self) -> int: ...


@runtime_checkable
class WithCritics(Protocol):
    """A state with critics in it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def critic(self) -> Model: ...

    @property
    def target_critic(self) -> Params: ...


StateT = TypeVar("StateT", bound=WithCritics)


def check_minimum(config: MinimumOptions) -> None:
    """Checks ranges, and how many critics are in a minimum.

    Raises:
        ValueError: naming the options, their values and what is possible.
    """
    check_options(config)
    check_members(config.num_qs, config.num_min_qs)


def adam_trainer(config: CriticOptions, bounds: TargetBounds) -> CriticTrainer:
    """Critics as the options describe them, which learn by Adam with a constant step size."""
    critic = Critic(config.hidden, config.num_qs)
    return CriticTrainer.adam(critic, config.critic_learning_rate, config.tau, bounds)


def init_critics(trainer: CriticTrainer, spec: Spec, key: KeyArray) -> Model:
    """Critics of a task before the first step."""
    observation, action = spec.example()
    return trainer.init(key, flat_observation(observation), action)


def step_critics(
    trainer: CriticTrainer,
    state: StateT,
    batch: Batch,
    y: Float[Array, " b"],
    penalty: Penalty | None = None,
) -> tuple[StateT, Metrics]:
    """One step of all critics towards y, one Polyak step of the target critics; nothing else of the
    state changes."""
    features = flat_observation(batch.observation)
    critic, slow, metrics = trainer.step(
        state.critic, state.target_critic, batch, features, y, penalty
    )
    return dataclasses.replace(state, critic=critic, target_critic=slow), metrics
