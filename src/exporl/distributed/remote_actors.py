"""Acting in environments that actors on other machines play: all of them at the same time, and
whoever is lost ends its episode alone."""

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import gymnasium
import numpy as np

from exporl.acting.failures import EnvironmentLost, StoppedAtOnce
from exporl.acting.guard import Outcome
from exporl.acting.rollout import Act, Rollout
from exporl.distributed.pool import ActorPool
from exporl.distributed.remote_env import WAIT_S, RemoteEnv
from exporl.run.actors import MakeActors, make_actors
from exporl.run.build import Parts
from exporl.types import Params, Step

Played = tuple[Step, dict[str, np.ndarray]]


def remote_actors(pool: ActorPool) -> MakeActors:
    """What makes the actors of a run whose task is `remote_task` of this pool: one environment for
    every place."""

    def make(parts: Parts, cut: Callable[[int], None]) -> Rollout:
        if parts.config.num_envs != len(pool.places):
            raise ValueError(
                f"num_envs={parts.config.num_envs} environments with {len(pool.places)} actors: "
                "every actor has one."
            )
        return make_actors(parts, make=functools.partial(RemoteRollout, pool=pool, cut=cut))

    return make


class RemoteRollout(Rollout):
    """A `Rollout` over `RemoteEnv`s, which are asked at the same time.

    An episode begins with the first step that needs it, not before. It ends as truncated where its
    actor is lost, or an evaluation took the actor: the step on its way is none, and the others go
    on. Without actors `step` waits a moment and gives no steps.
    """

    def __init__(
        self,
        envs: Sequence[gymnasium.Env],
        act: Act,
        *,
        pool: ActorPool,
        cut: Callable[[int], None],
        **options: Any,
    ):
        """No episode has begun.

        Args:
            envs: around a `RemoteEnv` each.
            act: the acting function.
            pool: of the actors.
            cut: ends the open episode of a stream of the replay as truncated.
            options: those of `Rollout`.
        """
        self._pool, self._cut = pool, cut
        self._remote = [cast(RemoteEnv, env.unwrapped) for env in envs]
        for remote in self._remote:
            remote.waits = False
        self._unbegun = set(range(len(envs)))
        self._together = ThreadPoolExecutor(len(envs), "actors")
        spaces = cast(gymnasium.spaces.Dict, envs[0].observation_space)
        self._nothing = {name: np.zeros(box.shape or (), box.dtype) for name, box in spaces.items()}
        super().__init__(envs, act, **options)

    def step(self, acting: Params, mode: str = "policy") -> list[tuple[int, Step]]:
        """One step of every environment whose actor is there; see `Rollout.step`.

        Raises:
            EnvironmentFailed: as there; or nobody took a lost actor's place in time.
        """
        try:
            self._begin_episodes()
            if len(self._unbegun) == len(self.envs):
                self._pool.wait(WAIT_S)
                return []
            return super().step(acting, mode)
        except StoppedAtOnce as stopped:
            stopped.inside = stopped.inside or "the actors' answers"
            raise

    def _begin_episodes(self) -> None:
        """Ends the episodes that cannot go on, and begins those that have not begun."""
        for env, remote in enumerate(self._remote):
            if env not in self._unbegun and not remote.goes_on:
                self._give_up(env)
        self._pool.check()
        ready = [env for env in sorted(self._unbegun) if self._remote[env].place.present]
        for env, seen in zip(ready, self._together.map(self._begin, ready), strict=True):
            if seen is not None:
                self.chunks.clear(env)
                self._arms[env], self._observations[env] = "", seen
                self._unbegun.discard(env)

    def _begin(self, env: int) -> dict[str, np.ndarray] | None:
        """The start of an environment's episode; None: its actor was lost."""
        try:
            return super()._reset(env, int(self.episodes[env]), self.env_steps)
        except EnvironmentLost:
            return None

    def _give_up(self, env: int) -> None:
        """Ends an episode as truncated. One without a step begins again as it was."""
        if self._actions[env]:
            self._cut(env)
            self._end_episode(env)
        self._unbegun.add(env)

    def _reset(self, env: int, episode: int, env_step: int) -> dict[str, np.ndarray]:
        """Left to the step that needs it: a robot is not moved before, and who resets may be
        lost without the step before."""
        self._unbegun.add(env)
        return self._nothing

    def _play_each(self, actions: np.ndarray) -> dict[int, Played]:
        acting = [env for env in range(len(self.envs)) if env not in self._unbegun]
        played = self._together.map(self._played, acting, [actions[env] for env in acting])
        found = zip(acting, list(played), strict=True)
        return {env: each for env, each in found if each is not None}

    def _played(self, env: int, action: np.ndarray) -> Played | None:
        """A step; None: its actor was lost, and the episode ends before it."""
        try:
            return self._play(env, action)
        except EnvironmentLost:
            return None

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """As `Rollout.state`, and the counts of lost actors."""
        arrays, record = super().state()
        counts = {"restarts": self._pool.restarts, "lost_steps": self._pool.lost_steps}
        return arrays, record | {"actors": counts}

    def load(self, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> list[int]:
        """Restores `state`. Open episodes end as truncated: what was done is not done again."""
        self.env_steps = record["env_steps"]
        self.outcomes = [Outcome(*outcome) for outcome in record["outcomes"]]
        self.episodes[...] = arrays["episodes"]
        for name, value in record["actors"].items():
            setattr(self._pool, name, getattr(self._pool, name) + value)
        for env in range(len(self.envs)):
            self._actions[env] = list(arrays[f"actions/{env}"])
            self._give_up(env)
        return []

    def metrics(self) -> dict[str, float]:
        """The number of actors, and what was lost with some. None is behind: they have no
        parameters."""
        return {
            "actors/number": float(len(self.envs)),
            "actors/restarts": float(self._pool.restarts),
            "actors/lost_steps": float(self._pool.lost_steps),
            "actors/staleness_updates": 0.0,
        }

    def close(self) -> None:
        """Closes the environments; the actors stay with the pool."""
        super().close()
        self._together.shutdown(wait=False, cancel_futures=True)
