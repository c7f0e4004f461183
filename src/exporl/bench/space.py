"""The space of a search: what its options are, checked, and the runs that a trial is made of."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporl.bench.grid import PlannedRun, configuration
from exporl.bench.search_file import Range, Search
from exporl.bench.suite import OWN, AskedRun, Suite
from exporl.bench.trial_suite import asked_runs
from exporl.files.atomic import write_text
from exporl.options import check_options
from exporl.run.config import RunConfig, check_names, flatten
from exporl.run.preset_file import PresetFile, is_preset_file, preset_text, read_preset_file
from exporl.run.presets import with_plain

BEST = "best.toml"
"""File in a suite's folder: the best configuration, as a preset."""
FIXED = ("eval.", "log.", "train.online_steps")
"""Options that are the same in all trials, which could not be compared otherwise."""


def checked_space(suite: Suite, search: Search, runs: Sequence[PlannedRun]) -> Search:
    """The search with ranges of whole numbers only where the option is one.

    Args:
        suite: the suite.
        search: what it searches.
        runs: the runs of the suite without a trial's options.

    Raises:
        ValueError: options that do not exist or are not searched, or values that they cannot have:
            all that there are, a line each.
    """
    problems: dict[str, None] = {}
    space = dict(search.space)
    for name, entry in search.space.items():
        if refused := _refused(suite, name):
            problems[f"search.space.{name}: {refused}"] = None
            continue
        for run in runs:
            try:
                check_names(run.config, [name])
                if isinstance(entry, Range) and isinstance(flatten(run.config)[name], float):
                    space[name] = dataclasses.replace(entry, whole=False)
                for value in entry.ends:
                    _check_value(run.config, name, value)
            except ValueError as error:
                problems[f"search.space.{name}: {error}"] = None
    if problems:
        raise ValueError("\n".join((f"{suite.path} cannot be run:", *problems)))
    return dataclasses.replace(search, space=space)


def _refused(suite: Suite, name: str) -> str | None:
    """Why an option is not searched."""
    if name in OWN:
        return f"a suite says {OWN[name]} instead."
    if name.startswith(FIXED):
        return "it is the same in all trials, which could not be compared otherwise."
    if name == "reward" and suite.measure == "return":
        return 'returns of different rewards cannot be compared: use measure = "success".'
    return None


def _check_value(config: RunConfig[Any], name: str, value: Any) -> None:
    """Whether an option alone can have a value.

    Raises:
        ValueError: it cannot; says why.
    """
    group = name.rpartition(".")[0]
    made = with_plain(config, {name: value})
    check_options(getattr(made, group) if group else made, f"{group}." if group else "")


def trial_runs(suite: Suite, number: int, options: Mapping[str, Any]) -> list[PlannedRun]:
    """The runs of a trial with their configurations.

    Raises:
        ValueError: options that are possible one by one contradict each other; says which.
    """
    return [PlannedRun(asked, configuration(asked)) for asked in asked_runs(suite, number, options)]


def write_best(suite: Suite, options: Mapping[str, Any], about: str) -> Path:
    """Writes the best configuration as a preset file: all options of the suite's algorithm that are
    the same on all of its tasks, and those of the trial.

    Args:
        suite: the suite.
        options: of the trial.
        about: a sentence about it.

    Returns:
        The file.
    """
    common, differing = _common(suite.runs)
    first = suite.runs[0]
    preset, below = first.preset, {}
    if is_preset_file(preset):
        found = read_preset_file(Path(preset))
        preset, below = found.preset, dict(found.options)
    comments = [
        about,
        "The highest of many noisy values is too high: run it again, with other seeds.",
        *(f"Not here, because it differs between tasks: {name}" for name in differing),
    ]
    made = PresetFile(first.algorithm, preset, {**below, **common, **options})
    write_text(suite.folder / BEST, preset_text(made, comments))
    return suite.folder / BEST


def _common(runs: Sequence[AskedRun]) -> tuple[dict[str, Any], list[str]]:
    """Options that all runs have, and the names of the others."""
    names = sorted({name for asked in runs for name in asked.options})
    same = {
        name: runs[0].options[name]
        for name in names
        if all(name in a.options and a.options[name] == runs[0].options.get(name) for a in runs)
    }
    return same, [name for name in names if name not in same]
