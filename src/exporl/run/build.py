"""All the parts of a run, built from its configuration in one place: what training and later
evaluation have in common."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium

from exporl.acting.around import base_of
from exporl.acting.asked import Watch
from exporl.acting.checked import Checked
from exporl.acting.failures import EnvironmentFailed
from exporl.acting.interface import write_interface
from exporl.acting.of_task import interface_of
from exporl.algos import (
    Algorithm,
    Measurements,
    described_metrics,
    find_algorithm,
    make_algorithm,
)
from exporl.data.columns import Column, needed_columns, proposal_columns
from exporl.data.episodes import Episode, Normalizer
from exporl.data.memory import ReplayPlan, available_bytes, row_bytes
from exporl.data.replay import Replay, rows_needed
from exporl.envs.registry import make_task
from exporl.envs.task import Task, value_range
from exporl.envs.wrappers import NormalizedObservation
from exporl.external import OutsideBase
from exporl.external.fit import refuse_misfit, refuse_other_shapes, some_observations
from exporl.files.atomic import write_text
from exporl.files.reading import read_object
from exporl.files.run_files import POLICY, STATISTICS, TUNING
from exporl.plain import from_plain
from exporl.policies import make_base
from exporl.run import memory
from exporl.run.config import RunConfig, check
from exporl.run.learner import Learner
from exporl.run.metrics import write_glossary
from exporl.run.outside_learning import read_spec, surrounded
from exporl.run.prior import Say, collects, prior_episodes, statistics
from exporl.spec import state_spec
from exporl.speed.compile_ahead import Program, compile_ahead
from exporl.speed.devices import DataParallel, spread
from exporl.speed.tuning import hoisting_pays
from exporl.types import Spec

Share = Callable[[Algorithm], Algorithm] | None
"""What a run does to its algorithm's record before using it."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a run consists of."""

    config: RunConfig[Any]
    run_dir: Path
    task: Task
    episodes: list[Episode]
    """Prior data in the task's units, until `replays` has taken it over."""
    normalizer: Normalizer | None
    """Statistics of the prior data, where the task wants them."""
    spec: Spec
    """What the environments show and the replays keep."""
    network_spec: Spec
    """What the networks see of it."""
    columns: dict[str, Column]
    """What the replays keep beside the steps, because the algorithm reads it."""
    algorithm: Algorithm
    learner: Learner
    base: OutsideBase | None = None
    """The base policy, where it is from outside: environments and replays then show observations as
    they are, and `normalizer` is None."""
    watch: Watch = dataclasses.field(default_factory=Watch)
    """Looks whether environments answer."""

    def make_env(self) -> gymnasium.Env:
        """A new environment, whose values are checked as they come and normalised like the data.

        Raises:
            EnvironmentFailed: it cannot be made.
        """
        try:
            made = self.task.make_env()
        except (ValueError, OSError, ImportError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise EnvironmentFailed(
                f"making an environment of {self.task.name} raised {type(error).__name__}: {error}."
            ) from error
        env = Checked(made, self.spec, self.task.reward_range)
        return env if self.normalizer is None else NormalizedObservation(env, self.normalizer)


def build(
    config: RunConfig[Any],
    run_dir: Path,
    say: Say,
    *,
    task: Task | None = None,
    share: Share = None,
    ahead: Sequence[Program] = (),
    learns: bool = True,
    data: str | None = None,
    base: Any = None,
) -> Parts:
    """Builds the parts of a run in their order: task, data, statistics, networks, learner.

    Args:
        config: what the run is.
        run_dir: where it keeps demonstrations, statistics and decisions: they are made once.
        say: told what takes time.
        task: used instead of the one that `config.task` names.
        share: gives the run another algorithm record that computes the same.
        ahead: updates whose compilation begins here, unless `share` is given.
        learns: off, demonstrations are left unread, and statistics that the run keeps are enough.
        data: the `fingerprint` that prior data must have; any by default.
        base: a policy from outside, used instead of what `config.base.policy` names.

    Raises:
        ValueError: contradictory options, unusable data, an unfit policy, or too few devices.
    """
    check(config)
    parallel = DataParallel.over(config.train.devices if learns and share is None else 1)
    task = task or make_task(config.task, config.reward)
    outside = opened_base(config, task, base, learns=learns)
    episodes, normalizer = _data(config, run_dir, task, say, data, learns, outside)
    spec, network_spec = specs_of(config, task)
    record = make_base(config.base, network_spec, config.precision)
    options = decided_options(config, run_dir)
    algorithm = make_algorithm(config.algorithm, options, network_spec, record, config.precision)
    needs, rows = algorithm.needs, config.train.batch_size
    columns = needed_columns(needs.columns, needs.proposals, spec, config.train.discount)
    algorithm, learning = surrounded(config, algorithm, outside, record, network_spec, normalizer)
    carried = columns | proposal_columns(needs.attached, spec)
    algorithm = _compiled(spread(algorithm, parallel), network_spec, share, ahead, rows, carried)
    algorithm = _reading(algorithm, spec, network_spec) if outside is None else algorithm
    if learns or not (run_dir / POLICY).is_file():  # runs of earlier versions have none
        _keep_interface(config, run_dir, task, read_spec(spec, network_spec, outside), normalizer)
        write_glossary(run_dir, described_metrics(config.algorithm, algorithm, record))
    return Parts(
        config=config,
        run_dir=run_dir,
        task=task,
        episodes=episodes,
        normalizer=normalizer if outside is None else None,
        spec=spec,
        network_spec=network_spec,
        columns=columns,
        algorithm=algorithm,
        learner=Learner(algorithm, config.seed, learning, parallel),
        base=outside,
        watch=Watch(config.log.silence_s, say),
    )


def opened_base(
    config: RunConfig[Any], task: Task, given: Any = None, *, learns: bool = True
) -> OutsideBase | None:
    """The policy from outside that a run is around, which fits by what it says of itself; None
    where it has none. Nothing is asked of it.

    Args:
        config: what the run is.
        task: what it has to fit.
        given: the policy itself, used instead of what `config.base.policy` names.
        learns: off, the run is loaded, not trained: what the policy says is not compared.

    Raises:
        ValueError: it cannot be had, does not fit, or has nothing to learn; says why.
        FileNotFoundError, ModuleNotFoundError, ConnectionError, TimeoutError: see `find_policy`.
    """
    base = base_of(config.base, specs_of(config, task)[0], given, task.action_units)
    if base is None:
        return None
    if config.train.offline_steps and not base.learns:
        raise ValueError(
            f"train.offline_steps={config.train.offline_steps} imitation steps have nothing to "
            f"learn: {base.name} is frozen. Set it to 0, or let it learn (base.learns=True)."
        )
    if learns:
        refuse_other_shapes(base, task)
    return base


def _try_out(
    config: RunConfig[Any],
    base: OutsideBase,
    task: Task,
    episodes: Sequence[Episode] = (),
    say: Say | None = None,
) -> None:
    """Asks a policy that is to act in training; `say` is told what to warn of.

    Raises:
        ValueError: it does not fit; says everything that does not.
    """
    num = getattr(config.algo, "num_base_samples", None)
    seen = some_observations(task, config.seed, episodes)
    refuse_misfit(base, seen, episodes, say, task=task, num=num, data=config.data.path)


def specs_of(config: RunConfig[Any], task: Task) -> tuple[Spec, Spec]:
    """What the environments show, with the run's chunks and the values that its rewards allow; and
    what the networks see of it."""
    shapes, values = task.spec, value_range(task, config.train.discount)
    shown = Spec(shapes.observation, shapes.action_dim, config.chunk_length, values)
    return shown, state_spec(shown)


def _compiled(
    algorithm: Algorithm,
    spec: Spec,
    share: Share,
    ahead: Sequence[Program],
    batch_size: int,
    columns: Mapping[str, Column],
) -> Algorithm:
    """The algorithm shared with other runs, or with its updates being compiled from now on."""
    if share is not None:
        return share(algorithm)
    return compile_ahead(algorithm, spec, ahead, batch_size, columns) if ahead else algorithm


def _data(
    config: RunConfig[Any],
    run_dir: Path,
    task: Task,
    say: Say,
    wanted: str | None,
    learns: bool,
    base: OutsideBase | None,
) -> tuple[list[Episode], Normalizer | None]:
    """Prior data (the `wanted` one, if that is given) of a run that certainly fits into memory, and
    the statistics of it. A base policy from outside is tried on it, and before any is collected."""
    if learns:
        memory.check_memory(config, task.spec, available_bytes())
        if base is not None and collects(config, run_dir):
            _try_out(config, base, task)
    episodes = prior_episodes(config, run_dir, task, say, wanted) if learns else []
    if base is not None and learns:
        _try_out(config, base, task, episodes, say)
    if not task.normalize:
        return episodes, None
    known = learns or (run_dir / STATISTICS).is_file()
    seen = episodes if known else prior_episodes(config, run_dir, task, say)
    return episodes, statistics(run_dir, seen)


def _keep_interface(
    config: RunConfig[Any], run_dir: Path, task: Task, spec: Spec, normalizer: Normalizer | None
) -> None:
    """Writes what acting needs to know of the task, so that it needs no task."""
    played, normalized = config.actions_played, normalizer is not None
    interface = interface_of(task, spec, execute_length=played, normalized=normalized)
    write_interface(run_dir, interface)


def decided_options(config: RunConfig[Any], run_dir: Path) -> Any:
    """The algorithm's options, with what is decided by measurement decided: once per run."""
    algo, train, stored = config.algo, config.train, run_dir / TUNING
    if "auto" not in vars(algo).values():
        return algo
    if stored.is_file():
        return _decided(algo, stored)
    minibatches, width = train.utd_ratio * train.update_every, config.base.width

    def pays(samples: int) -> bool:
        if config.base.policy is not None:  # nothing is sampled on the device
            return False
        return hoisting_pays(train.batch_size // train.devices * samples, minibatches, width)

    resolved = find_algorithm(config.algorithm).resolve(algo, Measurements(pays))
    decided = {
        name: value for name, value in vars(resolved).items() if value != getattr(algo, name)
    }
    write_text(stored, json.dumps(decided))
    return resolved


def _decided(algo: Any, stored: Path) -> Any:
    """Options with what a file says was decided.

    Raises:
        ValueError: it decides something else, or nothing; names the file.
    """
    found, open_ones = read_object(stored), {n for n, v in vars(algo).items() if v == "auto"}
    try:
        if not set(found) <= open_ones or "auto" in found.values():
            raise ValueError(f"it says {sorted(found)}, to be decided: {sorted(open_ones)}")
        return from_plain(type(algo), dataclasses.asdict(algo) | found, "algo")
    except ValueError as error:
        raise ValueError(
            f"{stored} does not say what was decided ({error}). Remove it: a checkpoint remembers "
            "it, or it is measured again."
        ) from error


def replays(parts: Parts, say: Say) -> tuple[Replay | None, Replay]:
    """The demonstrations, normalised and in the learning reward (None without any), and an empty
    online replay.

    Says beforehand how much memory both will take. `parts.episodes` is empty afterwards: data is
    not held twice.

    Raises:
        ValueError: more than there is.
    """
    config, spec, episodes = parts.config, parts.spec, parts.episodes
    data, streams = config.data, config.num_envs
    rows, in_files = memory.online_rows(config), memory.mapped_row_bytes(config, spec)
    prior_rows = rows_needed(spec, map(len, episodes)) if episodes else 0
    plan = ReplayPlan(row_bytes(spec, parts.columns), prior_rows, rows, streams, in_files)
    say(str(plan))
    plan.check(available_bytes())
    plan.check_disk(memory.replay_folder(config, parts.run_dir), parts.run_dir)
    memory.check_devices(config, parts.learner, parts.network_spec, parts.columns, say)
    prior = None
    if episodes:
        prior = Replay.from_episodes(
            spec,
            given_away(episodes),
            parts.task.reward,
            rows=prior_rows,
            bootstrap_timeouts=data.bootstrap_timeouts,
            columns=parts.columns,
            transform=parts.normalizer,
            checked=True,
        )
    online = Replay(
        spec,
        rows,
        num_streams=streams,
        bootstrap_timeouts=data.bootstrap_timeouts,
        columns=parts.columns,
        zeros=memory.replay_zeros(config, parts.run_dir),
    )
    read = [name for name, _, _ in parts.network_spec.observation]
    read += [] if parts.base is None else [name for name in parts.base.reads if name not in read]
    for replay in (online,) if prior is None else (prior, online):
        replay.sampled = tuple(read)
    return prior, online


def given_away(episodes: list[Episode]) -> Iterator[Episode]:
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
