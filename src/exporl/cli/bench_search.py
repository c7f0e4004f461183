"""Making the trials of a search under bars, and what they are expected to take."""

import threading
from collections.abc import Sequence

from exporl.bench.grid import PlannedRun, of_pairs
from exporl.bench.pace import paces
from exporl.bench.search_file import Range
from exporl.bench.searching import TrialOutcome, run_search
from exporl.bench.space import BEST, checked_space
from exporl.bench.suite import Suite
from exporl.bench.trial_suite import trial_name
from exporl.bench.trial_table import about_best, options_text, value_name, value_text
from exporl.bench.trials import COMPLETE, FAILED, PRUNED, Trial
from exporl.cli.bench import BenchRequest
from exporl.cli.bench_run import Screen
from exporl.cli.status import SOME_FAILED, STOPPED, notice
from exporl.parallel.processes import Start
from exporl.run.progress import duration
from exporl.run.stopping import stop_on_signals


def make_trials(
    request: BenchRequest,
    suite: Suite,
    runs: Sequence[PlannedRun],
    at_once: int,
    start: Start | None,
) -> int:
    """Makes the trials of a suite's search; the exit status.

    Args:
        request: the command line.
        suite: with a search.
        runs: the runs of every trial without its options, checked.
        at_once: runs at a time.
        start: starts a run somewhere else; None for processes here.

    Raises:
        ValueError: options that cannot be searched, or runs made with something else.
        ModuleNotFoundError: Optuna is not installed.
    """
    screen, stop = Screen(), threading.Event()

    def told(outcome: TrialOutcome) -> None:
        print(trial_line(suite, outcome), flush=True)

    try:
        with stop_on_signals(stop, screen.bars.say):
            trials = run_search(
                suite,
                runs,
                stop,
                at_once=at_once,
                allowed=request.allowed,
                row=screen.row,
                say=screen.bars.say,
                told=told,
                start=start,
            )
    finally:
        screen.bars.close()
    if stop.is_set():
        notice(f"stopped; everything is saved. Go on with: exporl bench {suite.path}")
        return STOPPED
    return _summary(suite, trials)


def _summary(suite: Suite, trials: Sequence[Trial]) -> int:
    """Says what came of a search; the exit status."""
    assert suite.search is not None
    counts = {state: sum(t.state == state for t in trials) for state in (COMPLETE, PRUNED, FAILED)}
    print(", ".join(f"{number} trials {state}" for state, number in counts.items()))
    if (about := about_best(suite, trials)) is not None:
        first = suite.runs[0]
        print(f"best: {about}")
        print(
            f"use it: exporl train {first.algorithm} --task {first.task} "
            f"--preset {suite.folder / BEST}"
        )
    print(f"tables: exporl bench {suite.path} --table")
    missing = suite.search.trials - counts[COMPLETE] - counts[PRUNED]
    if missing > 0:
        print(f"{missing} trials are missing: the same command makes others in their place")
    return SOME_FAILED if missing > 0 else 0


def trial_line(suite: Suite, outcome: TrialOutcome) -> str:
    """How a trial ended, and how long the search still takes."""
    assert suite.search is not None
    trial, best = outcome.trial, outcome.best
    if trial.state == COMPLETE:
        how = f"{value_name(suite)} {value_text(trial.value)}"
    elif trial.state == PRUNED:
        last = max(trial.reported)
        how = f"ended early, {value_text(trial.reported[last])} after {last + 1} evaluations"
    else:
        how = f"failed: {trial.reason}"
    if best is not None:
        how += f" (best {value_text(best.value)}, trial {best.number})"
    total = suite.search.trials
    left = "" if outcome.left_s is None else f"; about {duration(outcome.left_s)} left"
    name = trial_name(suite, trial.number)
    return (
        f"[{outcome.done:{len(str(total))}}/{total}] {name}: {how}, with "
        f"{options_text(trial.options)}{left if outcome.done < total else ''}"
    )


def expected_search(suite: Suite, runs: Sequence[PlannedRun], at_once: int) -> str:
    """What a search tries, and the hours it is expected to take without ending trials early.

    Raises:
        ValueError: options that cannot be searched.
    """
    assert suite.search is not None
    search = checked_space(suite, suite.search, runs)
    lines = ["| option | values |", "|---|---|"]
    for name, entry in search.space.items():
        if isinstance(entry, Range):
            kind = "whole numbers" if entry.whole else "numbers"
            spread = ", log" if entry.log else ""
            values = f"{kind} from {entry.low:g} to {entry.high:g}{spread}"
        else:
            values = ", ".join(map(str, entry.values))
        lines.append(f"| {name} | {values} |")
    lines += ["", f"{search.trials} trials of {len(runs)} runs each in {suite.folder}."]
    known, hours = paces(runs), 0.0
    for pair, group in of_pairs(runs).items():
        seconds = known[pair].seconds
        if seconds is None:
            lines.append("Their speed is not known: give seconds_per_step in the suite's file.")
            return "\n".join(lines) + "\n"
        hours += sum(run.steps for run in group) * seconds / 3600
    total = hours * search.trials
    lines.append(
        f"{total:.2f} hours of computing, {total / at_once:.2f} with {at_once} at a time; less "
        "where trials end early."
    )
    return "\n".join(lines) + "\n"
