"""What a run has learnt: evaluated while it is trained and afterwards."""

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium

from exporl.acting.evaluate import EvalResult, evaluate
from exporl.acting.failures import EnvironmentLost
from exporl.acting.filming import Film
from exporl.acting.guard import Arm
from exporl.acting.rollout import close_all
from exporl.algos import Algorithm
from exporl.envs.task import Task
from exporl.outside import Trust
from exporl.run.build import Parts, build
from exporl.run.config import RunConfig
from exporl.run.directory import load_config
from exporl.run.learner import Learner
from exporl.run.phases import online_updates
from exporl.run.progress import Progress, Silent
from exporl.run.saved import find_saved
from exporl.types import Mode

LOST_TRIES = 3
"""How often an evaluation is begun that loses an environment which another can replace."""


class Evaluator:
    """Evaluates what a run has learnt, in environments of its own.

    They are made when they are first needed. As a context it closes them in the end.
    """

    def __init__(self, parts: Parts):
        self._parts = parts
        self._envs: list[gymnasium.Env] = []
        self._alone: tuple[str, dict[str, Any]] | None = None

    def __enter__(self) -> "Evaluator":
        """Nothing to begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the environments."""
        self.close()

    def evaluate(
        self,
        mode: Mode,
        *,
        episodes: int | None = None,
        seed: int | None = None,
        film: Film | None = None,
    ) -> EvalResult:
        """Plays evaluation episodes.

        Args:
            mode: who acts, and how.
            episodes: how many; by default `eval.episodes`.
            seed: of the starts; by default `eval.seed`.
            film: films some of the episodes.

        Raises:
            ValueError: a mode that needs a base policy, without one.
        """
        parts, options = self._parts, self._parts.config.eval
        episodes = episodes or options.episodes
        if mode in ("base", "unedited", "sample") and not parts.algorithm.has_base:
            raise ValueError(f"{parts.config.algorithm} has no base policy to evaluate.")
        while len(self._envs) < min(options.num_envs, episodes):
            self._envs.append(parts.make_env())
        seed = options.seed if seed is None else seed
        envs = self._envs if film is None else film.around(self._envs, seed)
        play = functools.partial(
            evaluate,
            envs,
            parts.algorithm.act,
            parts.learner.acting(),
            parts.task.reward,
            mode=mode,
            episodes=episodes,
            seed=seed,
            execute_length=parts.config.actions_played,
            discount=parts.config.train.discount,
            watch=parts.watch,
        )
        result = _again_where_lost(play)
        if film is not None:
            film.finish(result.success, result.returns, result.lengths)
        return result

    def during_training(self, deployed: Arm, *, guarded: bool) -> dict[str, Any]:
        """Results by name: "policy" is what is deployed; with a guard "unguarded" is the policy in
        any case; "base" and "unedited" as far as `eval` asks for them.

        Args:
            deployed: whom the guard would let act.
            guarded: whether there is a guard.
        """
        options, has_base = self._parts.config.eval, self._parts.algorithm.has_base
        results: dict[str, Any] = {}
        if has_base and (options.base or deployed == "base"):
            results["base"] = self._base_alone()
        if deployed == "explore" or guarded:
            results["policy"] = self.evaluate("evaluate").to_json()
        if guarded:
            results["unguarded"] = results["policy"]
        if deployed == "base":
            results["policy"] = results["base"]
        if options.unedited and has_base:
            results["unedited"] = self.evaluate("unedited").to_json()
        return results

    def _base_alone(self) -> dict[str, Any]:
        """The base policy alone. One from outside that stays as it is plays once: again it would
        do the same."""
        base = self._parts.base
        if self._alone is None or base is None or base.steady != self._alone[0]:
            played = self.evaluate("base").to_json()
            steady = None if base is None else base.steady
            self._alone = None if steady is None else (steady, played)
            return played
        return dict(self._alone[1])

    def close(self) -> None:
        """Closes the environments; new ones are made if they are needed again."""
        envs, self._envs = self._envs, []
        self._parts.watch.close()
        close_all(envs)


def _again_where_lost(play: Callable[[], EvalResult]) -> EvalResult:
    """An evaluation, from its beginning again where an environment was lost: its episodes and draws
    follow from its seed."""
    for _ in range(LOST_TRIES - 1):
        with contextlib.suppress(EnvironmentLost):
            return play()
    return play()


@dataclasses.dataclass(frozen=True)
class Session:
    """A run that exists, ready to evaluate or act."""

    parts: Parts
    deployed: Arm = "explore"
    """Whom the guard would let act; without a guard, the policy."""
    checkpoint_name: str = ""
    """Where the parameters come from."""
    problems: tuple[str, ...] = ()
    """What is wrong with newer checkpoints, or that there were any: a sentence each."""
    updates: int = 0
    """Minibatches learnt from since acting began."""

    @property
    def config(self) -> RunConfig[Any]:
        """What the run is."""
        return self.parts.config

    @property
    def task(self) -> Task:
        """Its task."""
        return self.parts.task

    @property
    def algorithm(self) -> Algorithm:
        """Its algorithm."""
        return self.parts.algorithm

    @property
    def learner(self) -> Learner:
        """What it has learnt."""
        return self.parts.learner

    def evaluate(
        self,
        *,
        base: bool = False,
        mode: Mode | None = None,
        episodes: int | None = None,
        seed: int | None = None,
        film: Film | None = None,
    ) -> EvalResult:
        """Evaluates in environments that are made for it and closed after it.

        Args:
            base: the base policy alone.
            mode: another way of acting; by default that of the deployed policy.
            episodes: how many; by default `eval.episodes`.
            seed: of the starts; by default `eval.seed`.
            film: films some of the episodes.
        """
        if mode is None:
            mode = "base" if base or self.deployed == "base" else "evaluate"
        with Evaluator(self.parts) as evaluator:
            return evaluator.evaluate(mode, episodes=episodes, seed=seed, film=film)


def load_run(
    run_dir: Path,
    progress: Progress | None = None,
    *,
    task: Task | None = None,
    trust: Trust = False,
    base: Any = None,
) -> Session:
    """A finished or interrupted run, ready to evaluate.

    Args:
        run_dir: its directory.
        progress: what to report to; by default nothing, and doubts about the checkpoint are
            warnings.
        task: what `train` was given, if it was given one.
        trust: whether code that the run names, `module:attribute`, may be loaded: all of it, or
            these names.
        base: the policy from outside that `train` was given, if it was given one.

    Raises:
        ValueError: not a run directory, no intact checkpoint, files that are not what the
            checkpoint was made with, or code that is not trusted.
    """
    run_dir, say = Path(run_dir), (progress or Silent()).say
    config = load_config(run_dir, trust=trust, task=task is None)
    found = find_saved(config, run_dir, only=("learner",))
    if found is None:
        raise ValueError(
            f"{run_dir} has no checkpoint yet. Let it train first: exporl train --resume {run_dir}"
        )
    for problem in found.problems:
        if progress is None:
            warnings.warn(f"{run_dir}: {problem}", stacklevel=2)
        say(problem)
    parts = build(config, run_dir, say, task=task, learns=False, base=base)
    parts.learner.load(found.parts["learner"], found.record["updates"])
    record, train = found.record, parts.config.train
    updates = online_updates(
        train, record["updates"], record["offline_steps"], record["critic_steps"]
    )
    deployed, problems = record.get("deployed", "explore"), tuple(found.problems)
    return Session(parts, deployed, found.name, problems, updates)
