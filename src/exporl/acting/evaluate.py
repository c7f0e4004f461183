"""Evaluation: own environments, own fixed seeds, every episode kept."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import jax
import numpy as np

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
) -> EvalResult:
    """Plays `episodes` episodes in the given environments, which nothing else may use.

    Args:
        envs: environments stepped together; episode i goes to whichever is free first.
        act: the acting function.
        acting: its parameters.
        reward: environment reward -> learning reward.
        mode: how it acts: the policy at evaluation, or the base policy alone.
        episodes: how many.
        seed: fixes episode i's start for every policy, run and training seed alike.
        execute_length: actions played of each chunk.
    """
    envs = list(envs)[:episodes]
    success, returns, lengths = [False] * episodes, [0.0] * episodes, [0] * episodes
    current: list[int | None] = list(range(len(envs)))
    waiting = list(range(len(envs), episodes))
    observations = [env.reset(seed=env_seed(seed, i))[0] for i, env in enumerate(envs)]
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
            observations[slot], paid, terminated, truncated, info = envs[slot].step(actions[slot])
            returns[episode] += reward(float(paid))
            lengths[episode] += 1
            success[episode] |= bool(info.get("success", False))
            if terminated or truncated:
                chunks.clear(slot)
                following = waiting.pop(0) if waiting else None
                current[slot] = following
                if following is not None:
                    observations[slot] = envs[slot].reset(seed=env_seed(seed, following))[0]
    return EvalResult(success, returns, lengths)
