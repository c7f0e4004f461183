"""Acting in one or more environments."""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import gymnasium
import jax
import numpy as np

from exporl.acting.asked import Answer, Asked, Watch
from exporl.acting.chunks import Chunks
from exporl.acting.guard import Arm, Guard, Outcome
from exporl.randomness import ACT, GUARD, RANDOM, actor_counters, env_seed, run_key, run_rng
from exporl.types import Decision, Mode, Params, Step

Act = Callable[..., Decision]
"""(acting parameters, observation [b, ...], key, *, mode) -> action chunks [b, h, a], and what
there is to say."""


def stack(observations: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Observations of several environments as one batch."""
    return {
        name: np.stack([observation[name] for observation in observations])
        for name in observations[0]
    }


def close_all(envs: Sequence[gymnasium.Env]) -> None:
    """Closes every environment, also if one of them fails to; the error is raised afterwards."""
    with contextlib.ExitStack() as closing:
        for env in envs:
            closing.callback(env.close)


@runtime_checkable
class Actors(Protocol):
    """Whoever steps the environments of a run: a `Rollout` here."""

    env_steps: int
    """Steps so far, over all environments."""
    outcomes: list[Outcome]
    """How every training episode went that has ended."""
    guard: Guard | None
    """Chooses between the policy and its base, if there is one."""

    @property
    def deployed(self) -> Arm:
        """Who should act outside training."""
        ...

    def step(self, acting: Params, mode: str = "policy") -> list[tuple[int, Step]]:
        """One step of every environment: (stream, step) pairs."""
        ...

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything needed to go on exactly here: arrays, and a JSON-able record."""
        ...

    def load(self, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> list[int]:
        """Restores `state`; returns the streams that could not go on and begin anew."""
        ...

    def metrics(self) -> dict[str, float]:
        """What a line of metrics says about them."""
        ...

    def close(self) -> None:
        """Closes the environments."""


class Rollout:
    """Steps environments for training. Everything it does follows from the seed, the counters and
    the policy.

    `env_steps` counts steps over all environments, `episodes` the episodes begun per environment.
    """

    def __init__(
        self,
        envs: Sequence[gymnasium.Env],
        act: Act,
        *,
        reward: Callable[[float], float],
        chunk_length: int,
        action_dim: int,
        execute_length: int,
        seed: int,
        guard: Guard | None = None,
        alone: Mode = "base",
        actor: int = 0,
        watch: Watch | None = None,
    ):
        """Environments at the start of their first episode.

        Args:
            envs: stepped together; nothing else may use them.
            act: the acting function.
            reward: environment reward -> learning reward.
            chunk_length: actions that `act` returns per environment.
            action_dim: dimensions of one action.
            execute_length: actions played of each chunk.
            seed: of the run.
            guard: chooses between the policy and its base, episode by episode.
            alone: the mode in which the base policy acts alone.
            actor: number of this one, where several act for one run.
            watch: looks whether environments answer.

        Raises:
            EnvironmentFailed: an environment cannot be reset.
        """
        self.envs, self.seed = list(envs), seed
        self._asked = Asked(self.envs, reward, watch=watch)
        self._act, self.guard, self._counters = act, guard, actor_counters(actor)
        self._alone = alone
        self._shape = (len(self.envs), chunk_length, action_dim)
        self.env_steps = 0
        self.chunks = Chunks(len(self.envs), execute_length)
        self.episodes = np.zeros(len(self.envs), np.int64)
        self.outcomes: list[Outcome] = []
        self._arms: list[str] = ["" for _ in self.envs]
        self._actions: list[list[np.ndarray]] = [[] for _ in self.envs]
        self._returns = np.zeros(len(self.envs))
        self._succeeded = np.zeros(len(self.envs), bool)
        self._observations: list[dict[str, np.ndarray]] = [
            self._reset(env, 0, self.env_steps) for env in range(len(self.envs))
        ]

    def _reset(self, env: int, episode: int, env_step: int) -> dict[str, np.ndarray]:
        seed = env_seed(self.seed, env, episode, *self._counters)
        return self._asked.reset(env, episode=episode, seed=seed, env_step=env_step)

    def step(self, acting: Params, mode: str = "policy") -> list[tuple[int, Step]]:
        """One step of every environment: (stream, step) pairs.

        Args:
            acting: what the acting functions need.
            mode: "policy"; "base" lets the base policy act alone; "random" draws uniform actions.
                With a guard, "policy" leaves the choice to it, and who begins an episode ends it.

        `outcomes` gains one for every episode that ended.

        If it fails, everything that `state` saves stands as before the step.

        Raises:
            ValueError: mode "base" without a base policy.
            FloatingPointError: the policy produced NaN or infinity.
            EnvironmentFailed: an environment raised something or gave what cannot be learnt from.
        """
        arms, chunks = list(self._arms), self.chunks.state()
        try:
            for env, arm in enumerate(arms):
                if not arm or self.guard is None:
                    self._arms[env] = self._arm(env, mode)
            actions = self.chunks.next(functools.partial(self._decide, acting))
            played = self._play_each(actions)
        except BaseException:
            self._arms = arms
            self.chunks.load(chunks)
            raise
        return [(env, self._note(env, actions[env], *one)) for env, one in played.items()]

    def _play_each(self, actions: np.ndarray) -> dict[int, tuple[Step, dict[str, np.ndarray]]]:
        """`_play` in every environment, by its number."""
        return {env: self._play(env, action) for env, action in enumerate(actions)}

    def _play(self, env: int, action: np.ndarray) -> tuple[Step, dict[str, np.ndarray]]:
        """Asks an environment for a step, and for the start of its next episode where one ended;
        nothing is noted yet. Returns the step, and what is seen after it."""
        number = self.env_steps + env + 1
        answer: Answer = self._asked.step(env, action, number)
        after, reward, terminated, truncated, success, executed = answer
        seen = self._observations[env]
        taken = action if executed is None else executed
        step = Step(seen, taken, reward, terminated, truncated, after, success)
        if terminated or truncated:
            return step, self._reset(env, int(self.episodes[env]) + 1, number)
        return step, after

    def _note(
        self, env: int, given: np.ndarray, step: Step, following: dict[str, np.ndarray]
    ) -> Step:
        """Counts a step that was played. `given` is what `load` would repeat."""
        self.env_steps += 1
        self._actions[env].append(given)
        self._returns[env] += step.reward
        self._succeeded[env] |= step.success
        if step.terminated or step.truncated:
            length, solved = len(self._actions[env]), bool(self._succeeded[env])
            total, arm = float(self._returns[env]), self._arms[env]
            self.outcomes.append(Outcome(self.env_steps, solved, length, total, arm))
            self._end_episode(env)
        self._observations[env] = following
        return step

    def _end_episode(self, env: int) -> None:
        self.episodes[env] += 1
        self.chunks.clear(env)
        self._actions[env], self._returns[env], self._succeeded[env] = [], 0.0, False
        self._arms[env] = ""

    @property
    def deployed(self) -> Arm:
        """Who should act outside training: what the guard found better; without one, the policy."""
        return "explore" if self.guard is None else self.guard.deployed(self.outcomes)

    def _arm(self, env: int, mode: str) -> str:
        """Who acts in an episode that begins."""
        if mode != "policy":
            return mode
        if self.guard is None:
            return "explore"
        episode = len(self.envs) * int(self.episodes[env]) + env
        return self.guard.choose(self.outcomes, run_rng(self.seed, GUARD, episode, *self._counters))

    def _decide(self, acting: Params, envs: list[int]) -> np.ndarray:
        """A chunk [len(envs), h, a] for each of some environments, decided by whose turn it is.

        All environments are in the batch, each in its own row: one shape to compile, and the draws
        of an environment do not depend on who else is asked.
        """
        chunks = np.zeros(self._shape, np.float32)
        for arm in sorted({self._arms[env] for env in envs}):
            mine = [env for env in envs if self._arms[env] == arm]
            chunks[mine] = self._all_chunks(acting, arm)[mine]
        return chunks[envs]

    def _all_chunks(self, acting: Params, arm: str) -> np.ndarray:
        if arm == "random":
            rng = run_rng(self.seed, RANDOM, self.env_steps, *self._counters)
            return rng.uniform(-1, 1, self._shape).astype(np.float32)
        key = run_key(self.seed, ACT, self.env_steps, *self._counters)
        observation = stack(self._observations)
        mode = self._alone if arm == "base" else "explore"
        return jax.device_get(self._act(acting, observation, key, mode=mode).action)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything needed to go on exactly here: arrays, and a JSON-able record.

        Environments are saved as their episode's seed and actions, so no simulator needs to know
        how to be saved.
        """
        arrays = {"episodes": self.episodes, "returns": self._returns, "succeeded": self._succeeded}
        action_dim = self._shape[2]
        for env in range(len(self.envs)):
            arrays[f"actions/{env}"] = np.array(self._actions[env], np.float32).reshape(
                -1, action_dim
            )
            arrays |= {
                f"observation/{env}/{name}": value
                for name, value in self._observations[env].items()
            }
        for env, left in self.chunks.state().items():
            arrays[f"queue/{env}"] = left.reshape(-1, action_dim)
        record: dict[str, Any] = {"env_steps": self.env_steps, "arms": list(self._arms)}
        return arrays, record | {"outcomes": [list(outcome) for outcome in self.outcomes]}

    def load(self, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> list[int]:
        """Restores `state` by repeating the open episodes' actions.

        Returns:
            The environments that did not arrive at the same observation again (they are not
            deterministic, such as real robots). Each of them starts a new episode; its stream in
            the replay must be cut.

        Raises:
            EnvironmentFailed: an environment raised something, or gave what cannot be learnt from.
        """
        self.env_steps = record["env_steps"]
        self.outcomes = [Outcome(*outcome) for outcome in record["outcomes"]]
        self.episodes[...] = arrays["episodes"]
        self.chunks.load({str(env): arrays[f"queue/{env}"] for env in range(len(self.envs))})
        self._arms = record.get("arms", self._arms)  # runs of earlier versions had no guard
        lost = []
        for env in range(len(self.envs)):
            observation = self._reset(env, int(self.episodes[env]), self.env_steps)
            self._actions[env] = list(arrays[f"actions/{env}"])
            for action in self._actions[env]:
                observation = self._asked.step(env, action, self.env_steps).observation
            self._observations[env] = observation
            self._returns[env], self._succeeded[env] = (
                arrays["returns"][env],
                arrays["succeeded"][env],
            )
            if any(
                not np.array_equal(value, arrays[f"observation/{env}/{name}"])
                for name, value in observation.items()
            ):
                lost.append(env)
                self._end_episode(env)
                self._observations[env] = self._reset(env, int(self.episodes[env]), self.env_steps)
        return lost

    def metrics(self) -> dict[str, float]:
        """Nothing beside its outcomes."""
        return {}

    def close(self) -> None:
        """Closes the environments."""
        close_all(self.envs)
