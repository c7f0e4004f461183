"""The runs of a suite with their configurations, every one of them checked."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from exporl.bench.suite import AskedRun, Suite
from exporl.envs.registry import make_task
from exporl.files.run_files import CONFIG
from exporl.run.config import RunConfig, check
from exporl.run.directory import finished
from exporl.run.plan import never_happens
from exporl.run.presets import preset_config, with_plain
from exporl.run.prior import check_file


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a suite with everything that defines it."""

    asked: AskedRun
    config: RunConfig[Any]

    @property
    def run_dir(self) -> Path:
        """Where it lies."""
        return self.asked.run_dir

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with."""
        return (self.run_dir / CONFIG).is_file()

    @property
    def summary(self) -> dict[str, Any] | None:
        """What it ended with; None where it has not yet."""
        return finished(self.run_dir, self.config) if self.begun else None

    @property
    def steps(self) -> int:
        """Environment steps; imitation steps where there are no others."""
        return self.config.train.online_steps or self.config.train.offline_steps


def plan_runs(
    suite: Suite, find_task: Callable[[str, Any], object] = make_task
) -> list[PlannedRun]:
    """The runs of a suite in their order.

    Args:
        suite: what is asked for.
        find_task: makes a task from its name and reward, to see that it can be made.

    Raises:
        ValueError: algorithms, presets, tasks, options or values that do not exist, or files of
            prior data that cannot be read: all that there are, a line each.
    """
    planned, problems = [], dict[str, None]()
    tasks: dict[tuple[str, Any], str | None] = {}
    for asked in suite.runs:
        try:
            config = configuration(asked)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            problems[f"{asked.label} on {asked.task}: {error}"] = None
            continue
        key = config.task, config.reward
        if key not in tasks:
            tasks[key] = _problem(find_task, *key)
            if tasks[key] is not None:
                problems[f"{asked.task}: {tasks[key]}"] = None
        planned.append(PlannedRun(asked, config))
    if problems:
        raise ValueError("\n".join((f"{suite.path} cannot be run:", *problems)))
    return planned


def configuration(asked: AskedRun) -> RunConfig[Any]:
    """The configuration that a run of a suite is made with.

    Raises:
        ValueError: an unknown algorithm, preset or option (names the closest), or a value that is
            not possible.
        FileNotFoundError, ModuleNotFoundError: its prior data cannot be read.
    """
    config = preset_config(asked.algorithm, asked.preset, asked.task)
    config = with_plain(dataclasses.replace(config, seed=asked.seed), asked.options)
    check(config)
    check_file(config)
    return config


def _problem(find_task: Callable[[str, Any], object], name: str, reward: Any) -> str | None:
    """Why a task cannot be made."""
    try:
        find_task(name, reward)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return str(error)
    return None


def never_in(runs: Sequence[PlannedRun]) -> list[str]:
    """What would never happen in runs of the suite, such as an update: a sentence for each
    algorithm and task, with what to change."""
    return [
        f"{label} on {task}: {sentence}"
        for (label, task), group in of_pairs(runs).items()
        for sentence in never_happens(group[0].config)
    ]


def of_pairs(runs: Sequence[PlannedRun]) -> dict[tuple[str, str], list[PlannedRun]]:
    """Algorithm and task -> their runs."""
    found: dict[tuple[str, str], list[PlannedRun]] = {}
    for run in runs:
        found.setdefault(run.asked.pair, []).append(run)
    return found
