"""All the pieces of a run, built from its configuration: what training and later evaluation have in
common."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from exporl.acting.evaluate import EvalResult, evaluate
from exporl.acting.guard import Arm
from exporl.acting.interface import Interface, write_interface
from exporl.acting.of_task import interface_of
from exporl.algos import Algorithm, Measurements, find_algorithm, make_algorithm
from exporl.data.columns import Column, needed_columns
from exporl.data.episodes import Episode, Normalizer, validate_episodes
from exporl.data.formats import load_episodes, save_npz
from exporl.data.memory import ReplayPlan, available_bytes, row_bytes
from exporl.data.replay import Replay, rows_needed
from exporl.envs.registry import make_task
from exporl.envs.task import Task, state_spec, value_range
from exporl.envs.wrappers import NormalizedObservation
from exporl.files import checkpoint
from exporl.files.atomic import write_text
from exporl.files.run_files import (
    CHECKPOINTS,
    DEMONSTRATIONS,
    POLICY,
    STATISTICS,
    TUNING,
    read_object,
)
from exporl.policies import make_base
from exporl.run.config import RunConfig, check
from exporl.run.directory import load_config
from exporl.run.learner import Learner
from exporl.run.progress import Progress, Silent
from exporl.speed.tuning import hoisting_pays
from exporl.types import Mode, Spec

Share = Callable[[Algorithm], Algorithm] | None
"""What a session does to its algorithm's record before using it."""


class Session:
    """Task, data, statistics, algorithm and learner of one run."""

    def __init__(
        self,
        config: RunConfig[Any],
        run_dir: Path,
        progress: Progress,
        share: Share = None,
        task: Task | None = None,
        learns: bool = True,
    ):
        """With `learns` off nothing is to be learnt: demonstrations are left unread, and statistics
        that the run keeps are enough."""
        check(config)
        self.config, self.run_dir, self.progress = config, run_dir, progress
        self.task: Task = task or make_task(config.task, config.reward)
        self.episodes = self._prior_episodes() if learns else []
        self.normalizer = self._statistics(learns)
        shapes, values = self.task.spec, value_range(self.task, config.train.discount)
        self.spec = Spec(shapes.observation, shapes.action_dim, config.chunk_length, values)
        self.network_spec = state_spec(self.spec)
        base = make_base(config.base, self.network_spec, config.precision)
        algorithm = make_algorithm(
            config.algorithm, self._algo_options(), self.network_spec, base, config.precision
        )
        algorithm = algorithm if share is None else share(algorithm)
        self.algorithm: Algorithm = _reading(algorithm, self.spec, self.network_spec)
        self.learner = Learner(self.algorithm, config.seed)
        self._eval_envs: list[Any] = []
        self.deployed: Arm = "explore"
        if learns or not (run_dir / POLICY).is_file():  # runs of earlier versions have none
            write_interface(run_dir, self._interface())

    def _interface(self) -> Interface:
        played, normalized = self.config.actions_played, self.normalizer is not None
        return interface_of(
            self.task, self.network_spec, execute_length=played, normalized=normalized
        )

    def _algo_options(self) -> Any:
        """The algorithm's options, with what is decided by measurement decided: once per run."""
        algo, train = self.config.algo, self.config.train
        if "auto" not in vars(algo).values():
            return algo
        stored = self.run_dir / TUNING
        if stored.is_file():
            return dataclasses.replace(algo, **json.loads(stored.read_text()))
        u, width = train.utd_ratio * train.update_every, self.config.base.width

        def pays(samples: int) -> bool:
            return hoisting_pays(train.batch_size * samples, u, width)

        measured = Measurements(pays)
        resolved = find_algorithm(self.config.algorithm).resolve(algo, measured)
        decided = {
            name: value for name, value in vars(resolved).items() if value != getattr(algo, name)
        }
        write_text(stored, json.dumps(decided))
        return resolved

    def _prior_episodes(self) -> list[Episode]:
        data, stored = self.config.data, self.run_dir / DEMONSTRATIONS
        source = str(data.path or stored)
        if data.path is not None:
            episodes = load_episodes(
                Path(data.path),
                data.demos or None,
                adapt=self.task.adapt,
                skip_bad=data.skip_bad,
                say=self.progress.say,
            )
        elif data.demos == 0:
            return []
        elif stored.is_file():
            episodes = load_episodes(stored)
        elif self.task.collect is None:
            raise ValueError(
                f"task {self.task.name!r} has no scripted expert: give data.path, a file of "
                "episodes."
            )
        else:
            self.progress.say(
                f"collecting {data.demos} demonstrations ({self.task.source}, noise "
                f"{data.demo_noise:g})"
            )
            episodes = self.task.collect(data.demos, data.demo_noise, data.demo_seed)
            save_npz(stored, episodes)
        validate_episodes(episodes, self.task.spec, source)
        return episodes

    def _statistics(self, learns: bool) -> Normalizer | None:
        stored = self.run_dir / STATISTICS
        if not self.task.normalize:
            return None
        if stored.is_file():
            return Normalizer.from_json(read_object(stored))
        episodes = self.episodes if learns else self._prior_episodes()
        if not episodes:
            return None
        normalizer = Normalizer.fit(episodes)
        write_text(stored, json.dumps(normalizer.to_json()))
        return normalizer

    def columns(self, algorithm: Algorithm) -> dict[str, Column]:
        """What the replays keep beside the steps, because the algorithm reads it."""
        needs = algorithm.needs
        discount = self.config.train.discount
        return needed_columns(needs.columns, needs.proposals, self.spec, discount)

    def replays(self) -> tuple[Replay | None, Replay]:
        """The demonstrations, normalised and in the learning reward (None without any), and an
        empty online replay.

        Says beforehand how much memory both will take. `episodes` is empty afterwards: data is not
        held twice.

        Raises:
            ValueError: more than there is.
        """
        data, streams = self.config.data, self.config.num_envs
        timeouts, h = data.bootstrap_timeouts, self.spec.chunk_length
        rows = min(data.capacity, 2 * max(self.config.train.online_steps, 1) + h + 2)
        prior_rows = rows_needed(self.spec, map(len, self.episodes)) if self.episodes else 0
        columns = self.columns(self.algorithm)
        plan = ReplayPlan(row_bytes(self.spec, columns), prior_rows, rows, streams)
        self.progress.say(str(plan))
        plan.check(available_bytes())
        prior = (
            Replay.from_episodes(
                self.spec,
                _given_away(self.episodes),
                self.task.reward,
                rows=prior_rows,
                bootstrap_timeouts=timeouts,
                columns=columns,
                transform=self.normalizer,
            )
            if self.episodes
            else None
        )
        return prior, Replay(
            self.spec, rows, num_streams=streams, bootstrap_timeouts=timeouts, columns=columns
        )

    def make_env(self) -> Any:
        """A new environment, normalised like the data."""
        env = self.task.make_env()
        return env if self.normalizer is None else NormalizedObservation(env, self.normalizer)

    def evaluate(
        self,
        *,
        base: bool = False,
        mode: Mode | None = None,
        episodes: int | None = None,
        seed: int | None = None,
    ) -> EvalResult:
        """Evaluates on the evaluation environments.

        Args:
            base: the base policy alone.
            mode: another way of acting; by default that of the deployed policy.
            episodes: how many; by default `eval.episodes`.
            seed: of the starts; by default `eval.seed`.
        """
        options = self.config.eval
        if mode is None:
            mode = "base" if base or self.deployed == "base" else "evaluate"
        if not self._eval_envs:
            self._eval_envs = [
                self.make_env() for _ in range(min(options.num_envs, episodes or options.episodes))
            ]
        if mode in ("base", "unedited") and not self.algorithm.has_base:
            raise ValueError(f"{self.config.algorithm} has no base policy to evaluate.")
        return evaluate(
            self._eval_envs,
            self.algorithm.act,
            self.learner.acting(),
            self.task.reward,
            mode=mode,
            episodes=episodes or options.episodes,
            seed=options.seed if seed is None else seed,
            execute_length=self.config.actions_played,
        )


def _given_away(episodes: list[Episode]) -> Iterator[Episode]:
    """All episodes in order, each leaving the list as it is handed out."""
    episodes.reverse()
    while episodes:
        yield episodes.pop()


def _reading(algorithm: Algorithm, seen: Spec, read: Spec) -> Algorithm:
    """The algorithm, acting on the entries of an observation that it reads: the others are not sent
    to the device."""
    if read == seen:
        return algorithm

    def only(function: Any) -> Any:
        def reading(params: Any, observation: Any, key: Any, **options: Any) -> Any:
            kept = {name: observation[name] for name, _, _ in read.observation}
            return function(params, kept, key, **options)

        return function and reading

    return algorithm._replace(act=only(algorithm.act), propose=only(algorithm.propose))


def load_run(
    run_dir: Path, progress: Progress | None = None, *, task: Task | None = None
) -> Session:
    """A finished or interrupted run, ready to evaluate; `task` is what `train` was given, if
    it was given one.

    Raises:
        ValueError: not a run directory, or no intact checkpoint.
    """
    run_dir, progress = Path(run_dir), progress or Silent()
    session = Session(load_config(run_dir), run_dir, progress, task=task, learns=False)
    found = checkpoint.find_newest(run_dir / CHECKPOINTS, only=("learner",))
    if found is None:
        raise ValueError(
            f"{run_dir} has no checkpoint yet. Let it train first: exporl train --resume {run_dir}"
        )
    for problem in found.problems:
        progress.say(f"skipped a damaged checkpoint: {problem} This is the older {found.name}.")
    session.learner.load(found.parts["learner"], found.record["updates"])
    session.deployed = found.record.get("deployed", "explore")
    return session
