"""What a trial is worth, evaluation by evaluation, from the files of its runs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from exporl.bench.grid import PlannedRun
from exporl.bench.results import score_of
from exporl.bench.suite import Suite
from exporl.report.reading import read_evaluations
from exporl.stats.scores import area_under_curve


class News(NamedTuple):
    """What a trial is worth after an evaluation."""

    evaluation: int
    """From 0, counted over its runs one after the other."""
    value: float
    last: bool
    """Whether it is the last one of the last run."""


class Progression:
    """What a trial is worth as its runs go on. Their evaluations count in the order of the runs,
    whatever the order in which they are made: so the same task, seed and step of all trials are
    compared, also where the runs of a trial are made one after the other."""

    def __init__(self, suite: Suite, objective: str, reported: Mapping[int, float]):
        """Nothing is known but how many evaluations were reported already: the last of them counts
        once more, for nobody may have judged the trial by it."""
        self._suite, self._objective = suite, objective
        self._next = max(len(reported) - 1, 0)

    def news(self, runs: Sequence[PlannedRun]) -> Iterator[News]:
        """Evaluations that were not reported yet. Their value is the sum over the runs that are
        finished and the one that is not, divided by all runs: the last one is the mean."""
        finished, evaluation = 0.0, 0
        for run in runs:
            steps, scores = self._curve(run.run_dir)
            for i, step in enumerate(steps):
                if evaluation == self._next:
                    self._next += 1
                    worth = finished + self._worth(steps[: i + 1], scores[: i + 1])
                    last = run is runs[-1] and step >= run.config.train.online_steps
                    yield News(evaluation, worth / len(runs), last)
                evaluation += 1
            if not steps or steps[-1] < run.config.train.online_steps:
                return
            finished += self._worth(steps, scores)

    def value(self, runs: Sequence[PlannedRun]) -> float:
        """What finished runs are worth: the mean over all of them."""
        return sum(self._worth(*self._curve(run.run_dir)) for run in runs) / len(runs)

    def _worth(self, steps: Sequence[float], scores: Sequence[float]) -> float:
        if self._objective == "mean":
            return area_under_curve(steps, scores)
        return float(np.mean(scores[-self._suite.window :]))

    def _curve(self, run_dir: Path) -> tuple[list[float], list[float]]:
        """Environment steps and scores of the evaluations of a run.

        Raises:
            ValueError: an evaluation has no score by the suite's measure.
        """
        lines, _ = read_evaluations(run_dir)
        rising = {float(line["env_steps"]): line for line in lines}
        scores = []
        for step in sorted(rising):
            score = score_of(rising[step], self._suite.measure)
            if score is None:
                raise ValueError(f"{run_dir} has evaluations without {self._suite.measure}.")
            scores.append(score)
        return sorted(rising), scores
