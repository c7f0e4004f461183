"""The trials of a search as a suite of their own: what they are called and where their runs lie.
Nothing here needs JAX."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from exporl.bench.suite import AskedRun, Suite
from exporl.bench.trials import FAILED, Trial, read_trials


def trial_name(suite: Suite, number: int) -> str:
    """What the algorithm is called in a trial."""
    return f"{suite.labels[0]}-t{number:03d}"


def asked_runs(suite: Suite, number: int, options: Mapping[str, Any]) -> list[AskedRun]:
    """The runs of a trial: those of the suite with the trial's options."""
    label = trial_name(suite, number)
    return [
        dataclasses.replace(
            asked,
            label=label,
            options={**asked.options, **options},
            run_dir=suite.folder / f"{label}-{re.sub('[/:]', '-', asked.task)}" / f"s{asked.seed}",
        )
        for asked in suite.runs
    ]


def with_trials(suite: Suite, trials: Sequence[Trial] | None = None) -> Suite:
    """The suite with its trials in the place of its algorithm; another suite as it is.

    Args:
        suite: any suite.
        trials: of its search; read from its folder by default.

    Raises:
        ModuleNotFoundError: Optuna is not installed.
        ValueError: the journal of the search is damaged.
    """
    if suite.search is None:
        return suite
    found = read_trials(suite.folder, suite.search) if trials is None else trials
    kept = [trial for trial in found if trial.state != FAILED]
    runs = (run for t in kept for run in asked_runs(suite, t.number, t.options))
    labels = tuple(trial_name(suite, trial.number) for trial in kept)
    return dataclasses.replace(suite, runs=tuple(runs), labels=labels, baselines=())
