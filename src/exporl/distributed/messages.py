"""What actors and learner tell each other."""

from typing import NamedTuple

from exporl.acting.guard import Outcome
from exporl.types import Step


class Order(NamedTuple):
    """What an actor is asked for."""

    mode: str
    """How its steps are chosen, as in `Rollout.step`."""
    steps: int
    """Steps of each of its environments."""
    first: int
    """Number of the first of them: steps of one environment that this actor has given before."""


class Chunk(NamedTuple):
    """What it gives: whole, in order, or not at all."""

    first: int
    """Number of its first step, as ordered."""
    steps: list[tuple[int, Step]]
    """(environment of this actor, step) pairs."""
    outcomes: list[Outcome]
    """The episodes that ended."""
