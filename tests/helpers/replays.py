"""A list-based twin of the replay, a writer of numbered steps for both, and exact comparison."""

import dataclasses

import jax
import numpy as np

from exporl.data.columns import Column
from exporl.data.replay import Replay
from exporl.types import Spec, Step

DISCOUNT = 0.9


ACTIONS = (
    "step",
    "step",
    "step",
    "solve",
    "terminate",
    "solve and terminate",
    "truncate",
    "both",
    "cut",
)


def to_go(rewards, terminated, success):
    """The discounted return from each step on, with the episode's end written into it."""
    end, values = 100.0 * terminated + 1000.0 * success, []
    for reward in rewards[::-1]:
        values.append(reward + DISCOUNT * (values[-1] if values else 0.0))
    return np.array(values[::-1]) + end


def left_and_length(rewards, terminated, success):
    """[t, 2] steps that are left after each step, and rewards that were given."""
    steps = len(rewards)
    return np.stack([np.arange(steps)[::-1], np.full(steps, steps)], axis=1)


COLUMNS = {
    "to_go": Column(fill=-np.inf, finish=to_go),
    "left": Column((2,), "int32", at="next", fill=-1, finish=left_and_length),
    "mark": Column((1,), fill=3),
    "number": Column(numbered=True),
}
"""One of each kind; nobody writes `mark`."""


def spec_of(chunk_length: int) -> Spec:
    return Spec((("state", (2,), "float32"),), action_dim=2, chunk_length=chunk_length)


def state(number: int) -> dict[str, np.ndarray]:
    return {"state": np.array([number, -number], np.float32)}


@dataclasses.dataclass
class Recording:
    """One episode as the twin keeps it."""

    steps: list[Step] = dataclasses.field(default_factory=list)
    over: bool = False
    number: int = 0


class Twin:
    """What a replay promises, from a list of all episodes: nothing is overwritten, rows are counted
    from the end."""

    def __init__(
        self, chunk_length: int, capacity: int, num_streams: int, bootstrap_timeouts: bool
    ):
        self.chunk_length, self.capacity, self.bootstrap_timeouts = (
            chunk_length,
            capacity,
            bootstrap_timeouts,
        )
        self.streams = [[Recording()] for _ in range(num_streams)]

    def add(self, step: Step, stream: int) -> None:
        self.streams[stream][-1].steps.append(step)
        if step.terminated or step.truncated:
            self._end(stream)

    def cut(self, stream: int) -> None:
        steps = self.streams[stream][-1].steps
        if steps:
            steps[-1] = steps[-1]._replace(truncated=True)
            self._end(stream)

    def _end(self, stream: int) -> None:
        """The episode is over; its number is the next after those that are still stored."""
        self.streams[stream][-1].over = True
        self.streams[stream][-1].number = 1 + max(each.number for each, _ in self.stored())
        self.streams[stream].append(Recording())

    def stored(self) -> list[tuple[Recording, int]]:
        """(episode, step in it) of what fits: every step is a row, and so is each episode's last
        observation."""
        result = []
        for episodes in self.streams:
            rows = [
                (episode, t)
                for episode in episodes
                if episode.steps
                for t in range(len(episode.steps) + 1)
            ]
            result += [
                (episode, t) for episode, t in rows[-self.capacity :] if t < len(episode.steps)
            ]
        return result

    def chunks(self) -> dict[int, dict[str, np.ndarray]]:
        """Every chunk that can be sampled, by the number in its first observation."""
        result, h = {}, self.chunk_length
        for episode, start in self.stored():
            steps = episode.steps[start : start + h]
            if len(steps) < h and not episode.over:
                continue
            last, padding = steps[-1], h - len(steps)
            all_rewards = np.array([step.reward for step in episode.steps])
            ended = episode.steps[-1].terminated, any(step.success for step in episode.steps)
            left = len(episode.steps) - start - len(steps)
            held = min(len(episode.steps), self.capacity - 1)
            over = last.terminated or (last.truncated and not self.bootstrap_timeouts)
            result[int(steps[0].observation["state"][0])] = {
                "action": np.stack([step.action for step in steps] + [last.action] * padding),
                "reward": sum(DISCOUNT**i * step.reward for i, step in enumerate(steps)),
                "discount": 0.0 if over else DISCOUNT ** len(steps),
                "next_observation": last.next_observation["state"],
                "valid": np.array([1.0] * len(steps) + [0.0] * padding),
                "success": float(episode.over and any(step.success for step in episode.steps)),
                "to_go": to_go(all_rewards, *ended)[start] if episode.over else -np.inf,
                "left": np.array([left, held] if episode.over else [-1, -1]),
                "mark": np.array([3.0]),
                "number": float(episode.number),
            }
        return result


class Writer:
    """Turns words into steps whose observations are numbered, and gives them to whoever has `add`
    and `cut`."""

    def __init__(self, num_streams: int):
        self.numbers = [1_000 * (stream + 1) for stream in range(num_streams)]

    def write(self, action: str, stream: int, *targets) -> None:
        if action == "cut":
            for target in targets:
                target.cut(stream)
            self.numbers[stream] += 1
            return
        number = self.numbers[stream]
        values = np.array(
            [number * 37 % 199 / 100 - 0.99, number * 53 % 197 / 100 - 0.98], np.float32
        )
        step = Step(
            observation=state(number),
            action=values,
            reward=float(number % 7 - 3),
            terminated=action in ("terminate", "solve and terminate", "both"),
            truncated=action in ("truncate", "both"),
            next_observation=state(number + 1),
            success=action in ("solve", "solve and terminate"),
        )
        self.numbers[stream] += 2 if step.terminated or step.truncated else 1
        for target in targets:
            target.add(step, stream)


def same_batch(a, b) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def snapshot(replay: Replay) -> dict[str, np.ndarray]:
    return {name: value.copy() for name, value in replay.state().items()}


def same_state(replay: Replay, expected: dict[str, np.ndarray]) -> None:
    got = replay.state()
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
