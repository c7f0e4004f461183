"""The actors of a run: environments of its own, and what chooses who acts."""

import contextlib
from collections.abc import Callable
from typing import Any

import gymnasium

from exporl.acting.guard import Guard
from exporl.acting.rollout import Actors, Rollout, close_all
from exporl.envs.task import Task
from exporl.run.build import Parts
from exporl.run.config import RunConfig

MakeActors = Callable[[Parts, Callable[[int], None]], Actors]
"""What makes the actors of a run: its parts, and what ends a stream's open episode."""


def actors_here(parts: Parts, cut: Callable[[int], None]) -> Actors:
    """Actors in this process, which lose no episode.

    Raises:
        ValueError: the configuration asks for actors in others.
    """
    if parts.config.train.actors:
        raise ValueError(
            f"train.actors={parts.config.train.actors} needs somebody who starts them: `exporl "
            "train` does; in Python give train(actors=ray_actors(print))."
        )
    return make_actors(parts)


def make_actors(
    parts: Parts,
    num_envs: int | None = None,
    actor: int = 0,
    make: Callable[..., Rollout] = Rollout,
) -> Rollout:
    """Environments of its own for a run to learn in, at their first step.

    Args:
        parts: of the run.
        num_envs: how many; by default all of the run.
        actor: number of this actor, where several act for the run.
        make: what steps them, with the arguments of `Rollout`.
    """
    config = parts.config
    num_envs = config.num_envs if num_envs is None else num_envs
    envs: list[gymnasium.Env] = []
    with contextlib.ExitStack() as on_error:
        on_error.callback(close_all, envs)
        while len(envs) < num_envs:
            envs.append(parts.make_env())
        rollout = make(
            envs,
            parts.algorithm.act,
            reward=parts.task.reward,
            chunk_length=config.chunk_length,
            action_dim=parts.spec.action_dim,
            execute_length=config.actions_played,
            seed=config.seed,
            guard=make_guard(config, parts.task),
            alone=parts.algorithm.needs.alone,
            actor=actor,
            watch=parts.watch,
        )
        on_error.pop_all()
    return rollout


def make_guard(config: RunConfig[Any], task: Task) -> Guard | None:
    """What chooses between base policy and policy; None where nobody asked for it."""
    measure = config.train.guard
    if measure == "off":
        return None
    if measure == "auto":
        paid = sorted(map(task.reward, task.reward_range or ()))
        measure = "success" if paid in ([-1.0, 0.0], [0.0, 1.0]) else "return"
    return Guard(measure)
