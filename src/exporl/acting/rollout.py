"""Acting in one or more environments."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import jax
import numpy as np

from exporl.acting.chunks import ActionQueue
from exporl.randomness import ACT, RANDOM, env_seed, run_key, run_rng
from exporl.types import KeyArray, Observation, Params, Step

Act = Callable[[Params, Observation, KeyArray], Any]
"""(acting parameters, observation [b, ...], key) -> action chunks [b, h, a]."""


def stack(observations: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Observations of several environments as one batch."""
    return {
        name: np.stack([observation[name] for observation in observations])
        for name in observations[0]
    }


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
        act_base: Act | None,
        reward: Callable[[float], float],
        chunk_length: int,
        action_dim: int,
        execute_length: int,
        seed: int,
    ):
        self.envs, self.reward, self.seed = list(envs), reward, seed
        self._act, self._act_base = act, act_base
        self._shape = (len(self.envs), chunk_length, action_dim)
        self.env_steps = 0
        self.queue = ActionQueue(len(self.envs), execute_length)
        self.episodes = np.zeros(len(self.envs), np.int64)
        self.outcomes: list[tuple[int, bool, int, float]] = []
        self._actions: list[list[np.ndarray]] = [[] for _ in self.envs]
        self._returns = np.zeros(len(self.envs))
        self._succeeded = np.zeros(len(self.envs), bool)
        self._observations: list[dict[str, np.ndarray]] = [
            self._reset(env) for env in range(len(self.envs))
        ]

    def _reset(self, env: int) -> dict[str, np.ndarray]:
        observation, _ = self.envs[env].reset(
            seed=env_seed(self.seed, env, int(self.episodes[env]))
        )
        return observation

    def step(self, acting: Params, mode: str = "policy") -> list[tuple[int, Step]]:
        """One step of every environment: (stream, step) pairs.

        Args:
            acting: what the acting functions need.
            mode: "policy"; "base" lets the base policy act alone; "random" draws uniform actions.

        `outcomes` gains (env steps so far, success, length, return) for every episode that ended.

        Raises:
            ValueError: mode "base" without a base policy.
            FloatingPointError: the policy produced NaN or infinity.
        """
        actions = self.queue.next(lambda: self._decide(acting, mode))
        result = []
        for env, action in enumerate(actions):
            before = self._observations[env]
            after, reward, terminated, truncated, info = self.envs[env].step(action)
            reward = self.reward(float(reward))
            success = bool(info.get("success", False))
            result.append(
                (
                    env,
                    Step(before, action, reward, bool(terminated), bool(truncated), after, success),
                )
            )
            self.env_steps += 1
            self._observations[env] = after
            self._actions[env].append(action)
            self._returns[env] += reward
            self._succeeded[env] |= success
            if terminated or truncated:
                length = len(self._actions[env])
                outcome = (
                    self.env_steps,
                    bool(self._succeeded[env]),
                    length,
                    float(self._returns[env]),
                )
                self.outcomes.append(outcome)
                self._start_next_episode(env)
        return result

    def _start_next_episode(self, env: int) -> None:
        self.episodes[env] += 1
        self.queue.clear(env)
        self._actions[env], self._returns[env], self._succeeded[env] = [], 0.0, False
        self._observations[env] = self._reset(env)

    def _decide(self, acting: Params, mode: str) -> Any:
        if mode == "random":
            return (
                run_rng(self.seed, RANDOM, self.env_steps)
                .uniform(-1, 1, self._shape)
                .astype(np.float32)
            )
        act = self._act if mode == "policy" else self._act_base
        if act is None:
            raise ValueError(
                "this algorithm has no base policy that could act; set train.critic_warmup_steps=0."
            )
        return jax.device_get(
            act(acting, stack(self._observations), run_key(self.seed, ACT, self.env_steps))
        )

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
            arrays[f"queue/{env}"] = self.queue.chunks[env].reshape(-1, action_dim)
            arrays |= {
                f"observation/{env}/{name}": value
                for name, value in self._observations[env].items()
            }
        return arrays, {
            "env_steps": self.env_steps,
            "outcomes": [list(outcome) for outcome in self.outcomes],
        }

    def load(self, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> list[int]:
        """Restores `state` by repeating the open episodes' actions.

        Returns:
            The environments that did not arrive at the same observation again (they are not
            deterministic, such as real robots). Each of them starts a new episode; its stream in
            the replay must be cut.
        """
        self.env_steps = record["env_steps"]
        self.outcomes = [(int(s), bool(ok), int(n), float(r)) for s, ok, n, r in record["outcomes"]]
        self.episodes[...] = arrays["episodes"]
        lost = []
        for env in range(len(self.envs)):
            observation = self._reset(env)
            self._actions[env] = list(arrays[f"actions/{env}"])
            for action in self._actions[env]:
                observation = self.envs[env].step(action)[0]
            self.queue.chunks[env] = arrays[f"queue/{env}"]
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
                self._start_next_episode(env)
        return lost
