"""Evaluation: own environments, own fixed seeds, every episode kept."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import jax
import numpy as np

from exporl.acting.asked import Answer, Asked, Watch
from exporl.acting.chunks import Chunks
from exporl.acting.rollout import Act, stack
from exporl.randomness import EVALUATE, env_seed, run_key
from exporl.types import Mode, Params


@dataclasses.dataclass(frozen=True)
class EvalResult:
    """Outcome per evaluation episode; episode i always starts from the same seed, so results pair
    up."""

    success: list[bool]
    returns: list[float]
    """Undiscounted sums of the learning reward."""
    lengths: list[int]
    """Steps."""
    values: list[float] = dataclasses.field(default_factory=list)
    """Q of the first decision; empty where the algorithm names none, or no discount was given."""
    discounted: list[float] = dataclasses.field(default_factory=list)
    """Discounted sums of the learning reward: what `values` predict. Empty where they are."""
    cut_off: list[bool] = dataclasses.field(default_factory=list)
    """Whether an episode ended at its time limit: the sum is then a part of what is predicted."""

    @property
    def success_rate(self) -> float:
        """Share of episodes that were solved."""
        return float(np.mean(self.success))

    def to_json(self) -> dict[str, Any]:
        """Per-episode lists, those of values only where there are any, and their means."""
        means = {"success_rate": self.success_rate, "return_mean": float(np.mean(self.returns))}
        lists = {name: each for name, each in dataclasses.asdict(self).items() if each}
        return {**means, "length_mean": float(np.mean(self.lengths)), **lists}


def evaluate(
    envs: Sequence[gymnasium.Env],
    act: Act,
    acting: Params,
    reward: Callable[[float], float],
    *,
    mode: Mode = "evaluate",
    episodes: int,
    seed: int,
    execute_length: int,
    discount: float | None = None,
    watch: Watch | None = None,
) -> EvalResult:
    """Plays `episodes` episodes. An environment that fails ends it with `EnvironmentFailed`.

    Args:
        envs: stepped together, and used by nothing else; episode i goes to whichever is free.
        act: the acting function.
        acting: its parameters.
        reward: environment reward -> learning reward.
        mode: how it acts: the policy at evaluation, or the base policy alone.
        episodes: how many.
        seed: fixes episode i's start for every policy, run and training seed alike.
        execute_length: actions played of each chunk.
        discount: per step; with it, the values of starts are kept, and what they came to.
        watch: looks whether environments answer.
    """
    envs = list(envs)[:episodes]
    asked, record = Asked(envs, reward, evaluating=True, watch=watch), _Record(episodes, discount)
    current: list[int | None] = list(range(len(envs)))
    waiting = list(range(len(envs), episodes))
    observations = [asked.reset(i, episode=i, seed=env_seed(seed, i)) for i in range(len(envs))]
    chunks, decisions, decided = Chunks(len(envs), execute_length), 0, np.zeros((0, 0, 0))

    def decide(slots: list[int]) -> np.ndarray:
        nonlocal decisions, decided
        decisions += 1  # also where only slots without an episode ask: draws are numbered by it
        if any(current[slot] is not None for slot in slots):
            key = run_key(seed, EVALUATE, decisions)
            decision = act(acting, stack(observations), key, mode=mode)
            decided, q = jax.device_get((decision.action, decision.info.get("q")))
            record.decided(current, q)
        return decided[slots]

    while any(episode is not None for episode in current):
        actions = chunks.next(decide)
        for slot, episode in enumerate(current):
            if episode is None:  # a row of the batch, whose action is not played
                continue
            answer = asked.step(slot, actions[slot])
            observations[slot] = answer.observation
            record.add(episode, answer)
            if answer.terminated or answer.truncated:
                chunks.clear(slot)
                current[slot] = following = waiting.pop(0) if waiting else None
                if following is not None:
                    observations[slot] = asked.reset(
                        slot, episode=following, seed=env_seed(seed, following)
                    )
    return record.result()


class _Record:
    """What is noted of episodes while they are played."""

    def __init__(self, episodes: int, discount: float | None):
        self._discount = discount
        self._success, self._cut_off = [False] * episodes, [False] * episodes
        self._returns, self._discounted = [0.0] * episodes, [0.0] * episodes
        self._lengths, self._values = [0] * episodes, [math.nan] * episodes

    def decided(self, current: Sequence[int | None], q: np.ndarray | None) -> None:
        """Values [b] of the decisions for the episodes of all slots, where there are any; those of
        starts are kept."""
        for episode, value in zip(current, q, strict=True) if q is not None else ():
            if episode is not None and self._lengths[episode] == 0:
                self._values[episode] = float(value)

    def add(self, episode: int, answer: Answer) -> None:
        """A step of an episode."""
        step = self._lengths[episode]
        self._lengths[episode] = step + 1
        self._returns[episode] += answer.reward
        if self._discount is not None:
            self._discounted[episode] += answer.reward * self._discount**step
        self._success[episode] |= answer.success
        self._cut_off[episode] = answer.truncated and not answer.terminated

    def result(self) -> EvalResult:
        """All of it; values only where every start has one."""
        played = EvalResult(self._success, self._returns, self._lengths)
        if self._discount is None or not np.isfinite(self._values).all():
            return played
        starts = {"values": self._values, "discounted": self._discounted, "cut_off": self._cut_off}
        return dataclasses.replace(played, **starts)
