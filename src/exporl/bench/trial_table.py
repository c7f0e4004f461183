"""The table of a search: its trials, the best one first. Nothing here needs JAX."""

from collections.abc import Mapping, Sequence
from typing import Any

from exporl.bench.search_file import Search
from exporl.bench.suite import Suite
from exporl.bench.tables import NOTHING, Table
from exporl.bench.trial_suite import trial_name
from exporl.bench.trials import COMPLETE, FAILED, PRUNED, RUNNING, Trial, best_of

ORDER = (COMPLETE, PRUNED, RUNNING, FAILED)


def value_name(suite: Suite) -> str:
    """What the value of a trial is, in a few words."""
    assert suite.search is not None
    mean = suite.search.objective == "mean"
    return f"mean {suite.measure} over training" if mean else f"final {suite.measure}"


def about_best(suite: Suite, trials: Sequence[Trial]) -> str | None:
    """The best trial in a sentence; None where none is complete."""
    best = best_of(trials)
    if best is None:
        return None
    complete = sum(trial.state == COMPLETE for trial in trials)
    return (
        f"{trial_name(suite, best.number)} of {suite.path.name}: {value_name(suite)} "
        f"{best.value:.3g}, mean of {len(suite.runs)} runs; best of {complete} finished trials"
    )


def trial_table(suite: Suite, trials: Sequence[Trial]) -> Table:
    """The trials of a suite's search."""
    assert suite.search is not None
    search = suite.search
    averaged = f" over {suite.window} evaluations" if suite.window > 1 else ""
    return Table(
        "Trials",
        ("trial", "state", "value", "evaluations", *search.space),
        tuple(_row(suite, search, trial) for trial in sorted(trials, key=_place)),
        f"value: {value_name(suite)}{averaged if search.objective == 'final' else ''}, mean of "
        f"{len(suite.runs)} runs; of a trial that did not finish, after its last evaluation. The "
        "highest of many noisy values is too high: run the best one again, with other seeds.",
    )


def _row(suite: Suite, search: Search, trial: Trial) -> tuple[str, ...]:
    last = trial.reported[max(trial.reported)] if trial.reported else None
    value = last if trial.value is None else trial.value
    return (
        trial_name(suite, trial.number),
        trial.state if trial.reason is None else f"{trial.state}: {trial.reason}",
        NOTHING if value is None else f"{value:.3g}",
        f"{len(trial.reported)}",
        *(value_text(trial.options.get(name)) for name in search.space),
    )


def _place(trial: Trial) -> tuple[int, float, int]:
    value = 0.0 if trial.value is None else trial.value
    return ORDER.index(trial.state), -value, trial.number


def value_text(value: Any) -> str:
    """A value of an option, short."""
    if value is None:
        return NOTHING
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"


def options_text(options: Mapping[str, Any]) -> str:
    """Options of a trial in one line."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in options.items())
