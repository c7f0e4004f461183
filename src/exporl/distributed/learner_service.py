"""The learner's side of actors: what each is asked for, what it gave, which parameters are
published."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from exporl.acting.guard import Outcome
from exporl.acting.parameters import to_arrays
from exporl.distributed.messages import Chunk, Order
from exporl.types import Params, Step

CHUNK_STEPS = 10
"""Steps of each environment in one chunk: few messages, and parameters that are not old."""


@dataclasses.dataclass
class Place:
    """What is known of the actor in one place; it is replaced by another where it is lost."""

    given: int = 0
    """Steps of each environment that it gave."""
    order: Order | None = None
    """What it was asked for last, as long as it has not given it."""
    updates: int = 0
    """Update calls that its newest parameters had seen."""
    lag: int = 0
    """Update calls that its last chunk was behind when it came."""


class LearnerService:
    """Keeps the books of `num_actors` actors; each has its own streams of the replay."""

    def __init__(
        self,
        num_actors: int,
        envs_each: int,
        total: int,
        updates: Callable[[], int],
        cut: Callable[[int], None],
    ):
        """Nothing is ordered yet.

        Args:
            num_actors: places of actors.
            envs_each: environments of each.
            total: environment steps of the run: not more are ordered than make it full.
            updates: update calls made so far.
            cut: ends the open episode of a stream as truncated.
        """
        self.places = [Place() for _ in range(num_actors)]
        self.env_steps = self.restarts = self.lost_steps = 0
        self.begun = 0
        """Actors begun so far: the next one's number is one more."""
        self.outcomes: list[Outcome] = []
        self.params: dict[str, np.ndarray] = {}
        """The published parameters."""
        self.version = 0
        self._envs, self._total = envs_each, total
        self._updates, self._cut, self._leaves = updates, cut, []
        self._published_at = 0

    def begin(self) -> int:
        """The number of an actor that begins; none had it before."""
        self.begun += 1
        return self.begun

    def publish(self, acting: Params) -> bool:
        """Publishes acting parameters, unless they are those published last; whether they were
        new."""
        leaves = jax.tree.leaves(acting)
        same = len(leaves) == len(self._leaves)
        if same and all(new is old for new, old in zip(leaves, self._leaves, strict=True)):
            return False
        # copies: the next update overwrites what it was made from
        self.params = {name: np.array(value) for name, value in to_arrays(acting).items()}
        self._leaves, self._published_at = leaves, self._updates()
        self.version += 1
        return True

    def order(self, place: int, mode: str) -> Order | None:
        """What to ask the actor in a place for; None as long as it owes what it was asked for, or
        where nothing is left to do."""
        actor = self.places[place]
        ordered = sum(each.order.steps for each in self.places if each.order is not None)
        left = self._total - self.env_steps - ordered * self._envs
        if actor.order is not None or left <= 0:
            return None
        actor.order = Order(mode, min(CHUNK_STEPS, -(-left // self._envs)), actor.given)
        actor.updates = self._published_at
        return actor.order

    def take(self, place: int, chunk: Chunk) -> list[tuple[int, Step]]:
        """The steps of a chunk as (stream, step) pairs.

        Raises:
            ValueError: the chunk is not the one that was ordered.
        """
        actor = self.places[place]
        wanted = actor.order
        if wanted is None or chunk.first != wanted.first:
            raise ValueError(f"actor {place} gave a chunk from step {chunk.first}: not ordered.")
        if len(chunk.steps) != wanted.steps * self._envs:
            raise ValueError(f"actor {place} gave {len(chunk.steps)} steps: not what was ordered.")
        actor.order, actor.given = None, actor.given + wanted.steps
        actor.lag = self._updates() - actor.updates
        self.env_steps += len(chunk.steps)
        self.outcomes += [each._replace(env_steps=self.env_steps) for each in chunk.outcomes]
        return [(place * self._envs + env, step) for env, step in chunk.steps]

    def lose(self, place: int) -> None:
        """The actor in a place is lost, with what it owes: its open episodes end as truncated, and
        another begins in its place."""
        order = self.places[place].order
        self.lost_steps += 0 if order is None else order.steps * self._envs
        self.restarts += 1
        self.places[place] = Place()
        self._cut_streams(place)

    def _cut_streams(self, place: int) -> None:
        for env in range(self._envs):
            self._cut(place * self._envs + env)

    def metrics(self) -> dict[str, float]:
        """Counts, and how far behind the last chunk of every actor was."""
        lags = {f"actors/staleness_updates/{i}": each.lag for i, each in enumerate(self.places)}
        counts: dict[str, float] = {
            "actors/number": len(self.places),
            "actors/restarts": self.restarts,
        }
        counts["actors/lost_steps"] = self.lost_steps
        counts["actors/staleness_updates"] = sum(lags.values()) / len(lags)
        return {name: float(value) for name, value in (counts | lags).items()}

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """What a checkpoint keeps, in the form of `Rollout.state`: no episode is open."""
        streams = len(self.places) * self._envs
        arrays = {"episodes": np.zeros(streams, np.int64), "returns": np.zeros(streams)}
        arrays["succeeded"] = np.zeros(streams, bool)
        for stream in range(streams):
            nothing = np.zeros((0, 1), np.float32)
            arrays |= {f"actions/{stream}": nothing, f"queue/{stream}": nothing}
        counts = {"begun": self.begun, "restarts": self.restarts, "lost_steps": self.lost_steps}
        record = {"env_steps": self.env_steps, "outcomes": [list(each) for each in self.outcomes]}
        return arrays, record | {"actors": counts}

    def load(self, record: Mapping[str, Any]) -> None:
        """Restores `state`. All actors begin new episodes: those that were open end as
        truncated."""
        self.env_steps = record["env_steps"]
        self.outcomes = [Outcome(*outcome) for outcome in record["outcomes"]]
        for name, value in record["actors"].items():
            setattr(self, name, max(value, getattr(self, name)))
        for place in range(len(self.places)):
            self._cut_streams(place)
