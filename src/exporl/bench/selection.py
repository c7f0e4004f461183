"""A part of a suite, by the names of algorithms, tasks and seeds. Nothing here needs JAX."""

import dataclasses
from collections.abc import Sequence

from exporl.bench.suite import Suite
from exporl.suggest import closest

SEED = "seed="
"""What a seed's name begins with."""


def selected(suite: Suite, only: Sequence[str]) -> Suite:
    """The suite with some of its runs, in their order.

    Args:
        suite: the whole one.
        only: names of its algorithms and tasks, and seeds as "seed=0". Of one kind any of the
            named, and of every kind that is named one. None: all runs.

    Raises:
        ValueError: a name is none of the suite's (names the closest), nothing is left, or only
            some runs of a search's trials are asked for.
    """
    if not only:
        return suite
    if suite.search is not None:
        raise ValueError(
            f"{suite.path} is a search, and every trial is all of its runs: leave --only out."
        )
    kinds = (
        set(suite.labels),
        set(suite.scores),
        {f"{SEED}{run.seed}" for run in suite.runs},
    )
    known = sorted(set[str]().union(*kinds))
    for name in only:
        if name not in known:
            raise ValueError(
                f"--only names {name!r}, which is no algorithm, task or seed of {suite.path}. "
                f"{closest(name, known)}"
            )
    labels, tasks, seeds = ((set(only) & kind) or kind for kind in kinds)
    runs = tuple(
        run
        for run in suite.runs
        if run.label in labels and run.task in tasks and f"{SEED}{run.seed}" in seeds
    )
    if not runs:
        raise ValueError(f"no run of {suite.path} is all of {', '.join(only)}.")
    return dataclasses.replace(
        suite,
        runs=runs,
        scores={task: score for task, score in suite.scores.items() if task in tasks},
        labels=tuple(label for label in suite.labels if label in labels),
        baselines=tuple(label for label in suite.baselines if label in labels),
    )
