"""A bundle plays in a task."""

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium

from exporl.acting.checked import Checked
from exporl.acting.evaluate import EvalResult, evaluate
from exporl.acting.filming import Film
from exporl.acting.policy import Policy, load_policy
from exporl.acting.rollout import close_all
from exporl.envs.registry import make_task
from exporl.envs.task import Task
from exporl.envs.wrappers import NormalizedObservation
from exporl.files.reading import read_object
from exporl.files.run_files import CONFIG
from exporl.outside import Trust, is_outside
from exporl.types import Decision, KeyArray, Mode, Observation, Params

ENVIRONMENTS = 10
"""Environments that are stepped together, as evaluation in training has them by default: results
are then those of the run, to the bit."""


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """The policy of a bundle and a task to play in."""

    policy: Policy
    task: Task
    reward: str
    """The convention of the rewards, see `Task.reward`."""
    has_two: bool
    """Whether its base policy can be evaluated beside it."""

    def evaluate(
        self, *, base: bool = False, episodes: int, seed: int, film: Film | None = None
    ) -> EvalResult:
        """Plays evaluation episodes, in environments that are made for it and closed after it.

        Args:
            base: the base policy alone.
            episodes: how many.
            seed: of the starts.
            film: films some of the episodes.
        """
        mode: Mode = "base" if base else self.policy.mode
        envs = [self.make_env() for _ in range(min(ENVIRONMENTS, episodes))]
        try:
            result = evaluate(
                envs if film is None else film.around(envs, seed),
                self._act,
                self.policy.parameters,
                self.task.reward,
                mode=mode,
                episodes=episodes,
                seed=seed,
                execute_length=self.policy.execute_length,
            )
            if film is not None:
                film.finish(result.success, result.returns, result.lengths)
            return result
        finally:
            close_all(envs)

    def make_env(self) -> gymnasium.Env:
        """A new environment of the task, as the policy sees it."""
        env = Checked(self.task.make_env(), self.task.spec, self.task.reward_range)
        normalizer = self.policy.normalizer
        return env if normalizer is None else NormalizedObservation(env, normalizer)

    def _act(
        self,
        acting: Params,
        observation: Observation,
        key: KeyArray,
        *,
        mode: Mode = "evaluate",
        proposals: Any = None,
    ) -> Decision:
        """Acts on the entries that the policy reads."""
        read = {name: observation[name] for name, _, _ in self.policy.interface.spec.observation}
        return self.policy.algorithm.act(acting, read, key, mode=mode, proposals=proposals)


def load_evaluated(folder: Path, task: str | None = None, *, trust: Trust = False) -> Evaluated:
    """A bundle, ready to play.

    Args:
        folder: the bundle.
        task: where it plays; by default the task that it was trained on.
        trust: whether an algorithm or a base policy that it names may be loaded.

    Raises:
        ValueError: a damaged bundle, a task that does not fit, or one that is code which the bundle
            names and nobody asked for.
    """
    policy = load_policy(folder, trust=trust)
    config, own = read_object(Path(folder) / CONFIG), policy.interface.task
    if task is None and is_outside(own):
        raise ValueError(
            f"{folder} was trained on {own!r}, which is code of its own, and a bundle runs none. "
            f"Where you have that code, name it: --task {own}."
        )
    reward: Any = config.get("reward", "-1/0")
    made = make_task(task or own, reward)
    _check_fits(policy, made)
    has_two = policy.algorithm.has_base and config.get("part") != "base"
    return Evaluated(policy, made, reward, has_two)


def _check_fits(policy: Policy, task: Task) -> None:
    """Whether a task shows what a policy reads, and takes what it gives.

    Raises:
        ValueError: it does not; says where they differ.
    """
    interface, shown = policy.interface, {name: rest for name, *rest in task.spec.observation}
    for name, shape, dtype in interface.spec.observation:
        if shown.get(name) != [shape, dtype]:
            found = f"shows {name!r} as {shown[name]}" if name in shown else f"has no {name!r}"
            raise ValueError(
                f"the policy was trained on {interface.task} and reads {name!r} as "
                f"{[shape, dtype]}; {task.name} {found}. Give a task with the same observations."
            )
    if task.spec.action_dim != interface.spec.action_dim:
        raise ValueError(
            f"the policy gives actions of {interface.spec.action_dim} dimensions, {task.name} takes"
            f" {task.spec.action_dim}. Give a task with the same actions."
        )
    if task.action_units != interface.units:
        raise ValueError(
            f"the policy's actions are in other units than those of {task.name}: "
            f"{interface.units} and {task.action_units}. Give a task with the same action bounds."
        )
