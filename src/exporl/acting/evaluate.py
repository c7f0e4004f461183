"""Evaluation: own environments, own fixed seeds, every episode kept."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import jax
import numpy as np

from exporl.acting.asked import Asked, Watch
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

    @property
    def success_rate(self) -> float:
        """Share of episodes that were solved."""
        return float(np.mean(self.success))

    def to_json(self) -> dict[str, Any]:
        """Per-episode lists and their means."""
        means = {"success_rate": self.success_rate, "return_mean": float(np.mean(self.returns))}
        return {**means, "length_mean": float(np.mean(self.lengths)), **dataclasses.asdict(self)}


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
        watch: looks whether environments answer.
    """
    envs = list(envs)[:episodes]
    asked = Asked(envs, reward, evaluating=True, watch=watch)
    success, returns, lengths = [False] * episodes, [0.0] * episodes, [0] * episodes
    current: list[int | None] = list(range(len(envs)))
    waiting = list(range(len(envs), episodes))
    observations = [asked.reset(i, episode=i, seed=env_seed(seed, i)) for i in range(len(envs))]
    chunks, decisions, decided = Chunks(len(envs), execute_length), 0, np.zeros((0, 0, 0))

    def decide(slots: list[int]) -> np.ndarray:
        nonlocal decisions, decided
        decisions += 1  # also where only slots without an episode ask: draws are numbered by it
        if any(current[slot] is not None for slot in slots):
            key = run_key(seed, EVALUATE, decisions)
            decided = jax.device_get(act(acting, stack(observations), key, mode=mode).action)
        return decided[slots]

    while any(episode is not None for episode in current):
        actions = chunks.next(decide)
        for slot, episode in enumerate(current):
            if episode is None:  # a row of the batch, whose action is not played
                continue
            answer = asked.step(slot, actions[slot])
            observations[slot], lengths[episode] = answer.observation, lengths[episode] + 1
            returns[episode] += answer.reward
            success[episode] |= answer.success
            if answer.terminated or answer.truncated:
                chunks.clear(slot)
                current[slot] = following = waiting.pop(0) if waiting else None
                if following is not None:
                    observations[slot] = asked.reset(
                        slot, episode=following, seed=env_seed(seed, following)
                    )
    return EvalResult(success, returns, lengths)
