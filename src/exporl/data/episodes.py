"""Recorded episodes: the record, its validation, observation statistics."""

import collections
import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from exporl.spec import Spec

Range = tuple[float, float] | None
"""Least and greatest value; None: unknown."""
_SLACK = 1e-6
"""Rounding of rewards, as a share of their range."""
LARGEST = np.float64(np.finfo(np.float32).max)
"""Beyond it, what is finite in a file or environment would be stored as infinity."""


@dataclasses.dataclass(frozen=True)
class Episode:
    """One recorded episode of t steps, in the environment's own units."""

    observations: dict[str, np.ndarray]
    """[t + 1, ...] per entry: the first observation up to the one after the last step."""
    actions: np.ndarray
    """[t, a] in [-1, 1]."""
    rewards: np.ndarray
    """[t], as the environment paid them; `Task.reward` turns them into the learning convention."""
    successes: np.ndarray
    """[t] bool, the task's measure of success at each step."""
    terminated: bool
    """The last step was a true end (otherwise the recording stopped: a time limit)."""
    infos: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Whatever else the file has per step, [t, ...] or [t + 1, ...] (simulator states, say): for
    tasks that compute rewards from it. Never learnt from."""
    unit_actions: bool = False
    """The actions are known to be in [-1, 1] already (written by this library, or scaled by it).
    Otherwise they are as the file has them, mostly in the environment's own bounds."""
    question: str = ""
    """What counts as success here, where neither the file nor its rewards tell. `successes` are
    all False then; a task whose own rule answers it clears the question."""
    notes: tuple[str, ...] = ()
    """What had to be left out, or is odd without being wrong: one sentence each."""

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def success(self) -> bool:
        """Whether the task was solved at any step."""
        return bool(self.successes.any())


LOST_STEP = "the last step is left out: the observation after it is not recorded"
LOST_SUCCESS = f"{LOST_STEP}, and with it a success or a reward above 0"


def adapted(episode: Episode, adapt: Callable[[Episode], Episode] | None) -> Episode:
    """The episode in a task's units (see `Task.adapt`), which are [-1, 1] for actions.

    A question about success is answered by the task's own rule, unless `adapt` asks another.
    """
    if adapt is None:
        return episode
    result = adapt(episode)
    kept = result.notes[: len(episode.notes)] == episode.notes
    return dataclasses.replace(
        result,
        unit_actions=True,
        question="" if result.question == episode.question else result.question,
        notes=result.notes if kept else episode.notes + result.notes,
    )


def owned(episode: Episode) -> Episode:
    """The episode with arrays of its own, where they were views of larger ones."""

    def own(array: np.ndarray) -> np.ndarray:
        return array if array.base is None else array.copy()

    return dataclasses.replace(
        episode,
        observations={name: own(values) for name, values in episode.observations.items()},
        actions=own(episode.actions),
        rewards=own(episode.rewards),
        successes=own(episode.successes),
        infos={name: own(values) for name, values in episode.infos.items()},
    )


def validate_episodes(
    episodes: Sequence[Episode], spec: Spec, source: str = "data", paid: Range = None
) -> None:
    """Checks shapes, finiteness and ranges of every episode against a task.

    Raises:
        ValueError: naming source, episode, field, row, the value found and what to do about it.
    """
    if not episodes:
        raise ValueError(f"{source} has no episodes: collect or point to at least one.")
    for index, episode in enumerate(episodes):
        for fault in faults(episode, spec, paid):
            raise ValueError(f"{source}, episode {index}: {fault}")


def faults(episode: Episode, spec: Spec | None = None, paid: Range = None) -> Iterator[str]:
    """Everything wrong with one episode, one sentence each: lengths, finiteness, ranges; with a
    task's spec, shapes; with what its environment pays, rewards that it never pays."""
    steps = len(episode.actions)
    if steps == 0:
        yield "no steps. Remove the episode."
        return
    if episode.actions.ndim != 2:
        yield (
            f"actions has shape {episode.actions.shape}, expected [steps, action dimensions]. "
            f"Store one dimension as ({steps}, 1)."
        )
    elif spec is not None:
        yield from _shape("actions", episode.actions, (steps, spec.action_dim))
    yield from _shape("rewards", episode.rewards, (steps,))
    yield from _shape("successes", episode.successes, (steps,))
    entries = (
        [(name, value.shape[1:], str(value.dtype)) for name, value in episode.observations.items()]
        if spec is None else spec.observation
    )  # fmt: skip
    for name, shape, dtype in entries:
        if name not in episode.observations:
            yield f"observation {name!r} is missing; found {sorted(episode.observations)}."
            continue
        value, what = episode.observations[name], f"observations[{name!r}]"
        if dtype == "uint8" and value.dtype != np.uint8:
            yield f"{what} is {value.dtype}, the task needs uint8 (0-255)."
        yield from _shape(what, value, (steps + 1, *shape))
        yield from _empty(what, value)
        yield from _finite(what, value)
    yield from _empty("actions", episode.actions)
    yield from _finite("actions", episode.actions)
    yield from _finite("rewards", episode.rewards)
    yield from _outside(episode.actions)
    yield from _unpaid(episode.rewards, paid)
    if spec is not None and episode.question:
        yield episode.question


def _shape(what: str, array: np.ndarray, shape: tuple[int, ...]) -> Iterator[str]:
    if array.shape != shape:
        yield (
            f"{what} has shape {array.shape}, the task needs {shape}. Is this the right file for "
            "the task?"
        )


def _empty(what: str, array: np.ndarray) -> Iterator[str]:
    if len(array) and not array.size:
        yield f"{what} has shape {array.shape}: it holds nothing. Leave it out, or record it."


def _finite(what: str, array: np.ndarray) -> Iterator[str]:
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        yield f"{what} row {row} holds NaN or infinity. Remove or repair the episode."
    elif array.dtype == np.float64 and not (np.abs(array) <= LARGEST).all():
        row = int(np.argwhere(np.abs(array) > LARGEST)[0][0])
        yield f"{what} row {row} holds a number beyond float32. Remove or repair the episode."


def _outside(actions: np.ndarray) -> Iterator[str]:
    outside = ~(np.abs(actions) <= 1) & np.isfinite(actions)
    if outside.any():
        row = int(np.argwhere(outside)[0][0])
        worst = float(np.nanmax(np.abs(actions[row])))
        yield (
            f"actions row {row} reaches {worst:g}, outside [-1, 1]; the episode's range from "
            f"{np.nanmin(actions):g} to {np.nanmax(actions):g}. In the environment's own units? "
            "Then give its task (--task T, as training does), which scales them, or map a known "
            "range with `exporl data convert --scale-actions`. Clip only what is noise."
        )


def within(reward: float | np.ndarray, paid: tuple[float, float]) -> Any:
    """Whether rewards are what an environment pays, but for rounding.

    Args:
        reward: one or many.
        paid: least and most, as `Task.reward_range`.
    """
    slack = _SLACK * max(1.0, paid[1] - paid[0])
    return (paid[0] - slack <= reward) & (reward <= paid[1] + slack)


def _unpaid(rewards: np.ndarray, paid: Range) -> Iterator[str]:
    if paid is None or not np.isfinite(rewards).all() or within(rewards, paid).all():
        return
    row = int(np.argwhere(~within(rewards, paid))[0][0])
    yield (
        f"rewards row {row} is {rewards[row]:g}, outside [{paid[0]:g}, {paid[1]:g}], which the "
        f"task states (Task.reward_range) and which bounds all values; the episode's rewards go "
        f"from {rewards.min():g} to {rewards.max():g}. Record what the environment pays, before "
        "Task.reward, or recompute it in Task.adapt."
    )


def kind(sentence: str) -> str:
    """The sentence without its numbers."""
    return re.sub(r"-?\d+(\.\d+)?(e[-+]?\d+)?", "#", sentence)


def kinds(found: Iterable[tuple[str, str]]) -> list[tuple[str, int, str]]:
    """Sentences that differ only in their numbers counted together: (an example, how often, where
    first), most first."""
    counts: collections.Counter[str] = collections.Counter()
    examples: dict[str, tuple[str, str]] = {}
    for name, sentence in found:
        counts[kind(sentence)] += 1
        examples.setdefault(kind(sentence), (sentence, name))
    return [(examples[key][0], count, examples[key][1]) for key, count in counts.most_common()]


def fingerprint(episodes: Iterable[Episode]) -> str:
    """SHA-256 over all arrays: two runs used the same data exactly when these agree."""
    digest = hashlib.sha256()
    for episode in episodes:
        arrays = {**episode.observations, "actions": episode.actions, "rewards": episode.rewards}
        for name in sorted(arrays):
            digest.update(f"{name}{arrays[name].shape}{arrays[name].dtype}".encode())
            digest.update(np.ascontiguousarray(arrays[name]).tobytes())
        digest.update(bytes([episode.terminated, *episode.successes.astype(np.uint8).tolist()]))
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Normalizer:
    """Shifts and scales float observations with stored statistics: clip((x - mean) / std, -clip,
    clip)."""

    mean: dict[str, np.ndarray]
    std: dict[str, np.ndarray]
    """Standard deviation per entry, at least `min_std` of `fit`."""
    clip: float = 5.0
    """In standard deviations."""

    @classmethod
    def fit(
        cls, episodes: Sequence[Episode], min_std: float = 1e-2, clip: float = 5.0
    ) -> "Normalizer":
        """Statistics of all observations; entries that are not floating point (images) are left
        alone."""
        mean, std = {}, {}
        for name, first in episodes[0].observations.items():
            if np.issubdtype(first.dtype, np.floating):
                # summed one by one: no copy of it all
                parts = [episode.observations[name] for episode in episodes]
                rows = sum(map(len, parts))
                center = (
                    np.sum([part.sum(axis=0, dtype=np.float64) for part in parts], axis=0) / rows
                )
                spread = (
                    np.sum(
                        [((part.astype(np.float64) - center) ** 2).sum(axis=0) for part in parts],
                        axis=0,
                    )
                    / rows
                )
                mean[name] = center.astype(np.float32)
                std[name] = np.maximum(np.sqrt(spread), min_std).astype(np.float32)
        return cls(mean, std, clip)

    def __call__(self, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Normalises a dictionary of observations with any leading axes."""
        result = dict(observation)
        for name, mean in self.mean.items():
            scaled = (np.asarray(observation[name], np.float32) - mean) / self.std[name]
            result[name] = np.clip(scaled, -self.clip, self.clip)
        return result

    def to_json(self) -> dict:
        """Plain lists; float32 survives the round trip exactly."""
        mean = {name: array.tolist() for name, array in self.mean.items()}
        std = {name: array.tolist() for name, array in self.std.items()}
        return {"mean": mean, "std": std, "clip": self.clip}

    @classmethod
    def from_json(cls, data: dict) -> "Normalizer":
        """Inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: something else.
        """
        mean = {name: np.asarray(values, np.float32) for name, values in data["mean"].items()}
        std = {name: np.asarray(values, np.float32) for name, values in data["std"].items()}
        for name in sorted(mean.keys() | std.keys()):
            center, spread = mean[name], std[name]
            if center.shape != spread.shape or not (np.isfinite(center) & (spread > 0)).all():
                raise ValueError(f"mean and standard deviation of {name!r} are of no use")
        if not 0 < float(data["clip"]) < np.inf:
            raise ValueError(f"clip is {data['clip']}, it must be above 0")
        return cls(mean, std, data["clip"])
