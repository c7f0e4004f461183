"""An environment whose calls an actor on another machine answers, and the task around it."""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import gymnasium
import numpy as np

from exporl.acting.failures import EnvironmentFailed, EnvironmentLost
from exporl.distributed.described import Described, number, told
from exporl.distributed.place import Call
from exporl.distributed.pool import ActorPool
from exporl.envs.custom import custom_task
from exporl.envs.task import Reward, Task
from exporl.serve.messages import MessageError
from exporl.units import EXECUTED

WAIT_S = 0.5
"""Longest wait for an actor before it is looked whether the training can go on."""


class RemoteEnv(gymnasium.Env[Any, np.ndarray]):
    """Asks the actor in its place. Open environments share the places in turn: where another one
    has begun an episode with the same actor, or the actor was lost, this one's episode is over.

    `reset` waits for an actor until the deadline, unless `waits` is off; `step` does not wait.
    """

    def __init__(self, pool: ActorPool):
        """Asks nothing yet.

        Args:
            pool: where actors join; one has, so that it is known what they are like.

        Raises:
            ValueError: more environments are open than two for each actor.
        """
        self._pool = pool
        self._described = cast(Described, pool.described)
        self.observation_space = self._described.observation_space()
        self.action_space = self._described.action_space()
        self.max_episode_steps = self._described.max_episode_steps
        self._number = pool.take_number()
        if self._number >= 2 * len(pool.places):
            pool.give_number(self._number)
            raise ValueError(
                f"{len(pool.places)} actors evaluate {len(pool.places)} episodes at a time: set "
                f"eval.num_envs to {len(pool.places)} or less."
            )
        self.place = pool.places[self._number % len(pool.places)]
        self._joined = 0
        self.waits = True
        """Whether `reset` waits for an actor where none is there, or raises."""

    @property
    def goes_on(self) -> bool:
        """Whether its episode can go on: its actor is there, and plays it."""
        return self.place.has(self._joined) and self.place.user is self

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Begins an episode with whoever has the place.

        Raises:
            EnvironmentFailed: nobody took the place in time.
            EnvironmentLost: nobody is there, where it does not wait.
        """
        while self.waits:
            self._pool.check()
            if not self.place.present:
                self._pool.wait(WAIT_S)
                continue
            with contextlib.suppress(EnvironmentLost):
                return self._begin(seed)
        return self._begin(seed)

    def _begin(self, seed: int | None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode with who is there now."""
        self._joined = self.place.joined
        answer = self._pool.ask(self.place, self._joined, "reset", seed=seed)
        self.place.user = self
        with self._useful("reset"):
            return self._described.shown(answer.get("observation")), dict(told(answer.get("info")))

    def step(self, action: np.ndarray):
        """One step; its info has the action that was executed.

        Raises:
            EnvironmentLost: the actor was lost, or plays another episode.
        """
        if not self.goes_on:
            raise EnvironmentLost(f"actor {self.place.number} plays this episode no longer.")
        answer = self._pool.ask(self.place, self._joined, "step", action=action)
        with self._useful("step"):
            info = answer.get("info")
            success = told(info)
            executed = self._described.executed(info.get(EXECUTED))
            reward = number(answer.get("reward"), "the reward")
            ends = [number(answer.get(name), name) != 0 for name in ("terminated", "truncated")]
            seen = self._described.shown(answer.get("observation"))
        return seen, reward, *ends, {**success, EXECUTED: executed}

    def observation(self) -> Any:
        """What is seen now, without acting.

        Raises:
            EnvironmentLost: the actor was lost.
        """
        answer = self._pool.ask(self.place, self._joined, "observation")
        with self._useful("observation"):
            return self._described.shown(answer.get("observation"))

    def close(self) -> None:
        """Lets go of the place; the actor stays."""
        self._pool.give_number(self._number)

    @contextlib.contextmanager
    def _useful(self, call: Call) -> Iterator[None]:
        """Gives up an actor whose answer to a call is of no use."""
        try:
            yield
        except MessageError as error:
            raise self._pool.give_up(self.place, self._joined, call, str(error)) from error


def remote_task(pool: ActorPool, name: str, reward: Reward, **options: Any) -> Task:
    """The task that a pool's actors play, as `custom_task` makes it of the environment itself.

    Args:
        pool: all of whose actors have joined.
        name: of the task.
        reward: what is learnt from.
        options: others of `custom_task`.

    Raises:
        ValueError: their environments cannot be made into a task; says what to change.
        EnvironmentFailed: no actor has joined.
    """
    if pool.described is None:
        raise EnvironmentFailed("no actor has joined: call wait_until_full first.")
    hz = pool.described.control_hz

    def make_env() -> gymnasium.Env:
        return RemoteEnv(pool)

    return custom_task(make_env, name=name, reward=reward, control_hz=hz, **options)
