"""The tables of a suite: numbers with intervals, as Markdown, LaTeX and long form."""

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from exporl.bench.results import LONG_FORM, Result, Results, long_form
from exporl.stats.bootstrap import interval, mean_over_strata
from exporl.stats.enough import seeds_for_difference
from exporl.stats.intervals import paired_difference
from exporl.stats.reach import Ratio, Reach, horizon_of, ratio_to_best, reach, restricted
from exporl.stats.scores import (
    area_under_curve,
    iqm_of_tasks,
    performance_profile,
    probability_of_improvement,
)

SEED = 0
"""Of every interval: the same runs give the same table."""
NOTHING = "-"
"""A cell with nothing to say."""
PROFILE = (0.25, 0.5, 0.75, 0.9)
"""Success rates at which the profile is read."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table as text."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    """What the numbers mean."""


class Comparison:
    """The runs of a suite and what is computed from them."""

    def __init__(self, results: Results):
        self.results, self.suite = results, results.suite
        self.tasks = [task for task in self.suite.scores if any(self._runs(task).values())]

    def _runs(self, task: str) -> dict[str, list[Result]]:
        found = {label: self.results.of(label, task) for label in self.suite.labels}
        return {label: runs for label, runs in found.items() if runs}

    def reaches(self, label: str, task: str) -> list[Reach]:
        """When each run reached the task's score."""
        score, window = self.suite.scores[task], self.suite.window
        return [
            reach(run.steps, run.scores(self.suite.measure), score, window)
            for run in self.results.of(label, task)
        ]

    def final(self, label: str, task: str) -> np.ndarray:
        """The last score of each run."""
        runs = self.results.of(label, task)
        return np.array([run.scores(self.suite.measure)[-1] for run in runs])

    def areas(self, label: str, task: str) -> np.ndarray:
        """The mean score of each run over its training."""
        runs = self.results.of(label, task)
        curves = ((run.steps, run.scores(self.suite.measure)) for run in runs)
        return np.array([area_under_curve(*curve) for curve in curves])

    def baselines(self, task: str) -> list[str]:
        """The baselines that have run on a task."""
        return [label for label in self.suite.baselines if self.results.of(label, task)]

    def online(self, label: str, task: str) -> bool:
        """Whether an algorithm has made environment steps on a task: imitation alone has none to
        compare."""
        runs = self.results.of(label, task)
        return bool(runs) and all(run.steps[-1] > 0 for run in runs)

    def common(self, label: str) -> list[str]:
        """The tasks on which an algorithm and a baseline have run."""
        return [
            task for task in self.tasks if self.results.of(label, task) and self.baselines(task)
        ]

    def ratio(self, label: str, tasks: Sequence[str]) -> Ratio | None:
        """Steps of the best baseline divided by those of an algorithm, on the tasks where both made
        any and somebody reached the score; None for a baseline, and where there is no such
        task."""
        if label in self.suite.baselines:
            return None
        groups = [
            (self.reaches(label, task), others)
            for task in tasks
            if self.online(label, task) and (others := self._others(task))
        ]
        groups = [(own, others) for own, others in groups if _anybody(own, *others.values())]
        return ratio_to_best(groups, np.random.default_rng(SEED)) if groups else None

    def _others(self, task: str) -> dict[str, list[Reach]]:
        """The baselines that have made environment steps on a task."""
        return {
            other: self.reaches(other, task)
            for other in self.baselines(task)
            if self.online(other, task)
        }

    def steps(self, label: str, task: str) -> str:
        """The mean of the steps to the score, up to where all runs on a task were watched."""
        if not self.online(label, task):
            return NOTHING
        groups = {each: self.reaches(each, task) for each in self._runs(task)}
        horizon = horizon_of([group for each, group in groups.items() if self.online(each, task)])
        steps, censored = restricted(groups[label], horizon)
        return f"{'≥ ' if censored.any() else ''}{steps.mean():,.0f}"

    def seeds_enough(self, label: str, task: str, baseline: str) -> str:
        """Seeds that would tell the steps of an algorithm from those of a baseline."""
        groups = [self.reaches(each, task) for each in (label, baseline)]
        horizon = horizon_of(groups)
        values = [restricted(group, horizon) for group in groups]
        if any(len(steps) < 2 or censored.all() for steps, censored in values):
            return NOTHING
        found = seeds_for_difference(*(np.log(steps) for steps, _ in values))
        return "none would" if math.isinf(found) else f"{found:.0f}"


def _anybody(*groups: Sequence[Reach]) -> bool:
    """Whether a run reached the score: where none did, all that is known is that none did."""
    return any(not each.censored for group in groups for each in group)


def tables(results: Results) -> list[Table]:
    """All tables that the finished runs allow."""
    found = Comparison(results)
    made = [_by_task(found), _overall(found), _paired(found)]
    if found.suite.measure == "success":
        made.append(_profile(found))
    return [table for table in made if table.rows]


def _by_task(found: Comparison) -> Table:
    suite, rows = found.suite, []
    for task in found.tasks:
        for label in suite.labels:
            reaches = found.reaches(label, task)
            if not reaches:
                continue
            ratio = found.ratio(label, [task])
            reached = sum(not each.censored for each in reaches)
            enough = (
                NOTHING if ratio is None else found.seeds_enough(label, task, ratio.baselines[0])
            )
            rows.append(
                (
                    task,
                    label,
                    f"{reached} of {len(reaches)}",
                    found.steps(label, task),
                    ratio_text(ratio),
                    NOTHING if ratio is None else ratio.baselines[0],
                    enough,
                    _interval([found.final(label, task)], mean_over_strata),
                    _interval([found.areas(label, task)], mean_over_strata),
                )
            )
    scores = ", ".join(f"{task}: {score:g}" for task, score in suite.scores.items())
    averaged = f", averaged over {suite.window} evaluations" if suite.window > 1 else ""
    return Table(
        "Steps to a score",
        (
            "task", "algorithm", "reached", "steps", "ratio", "best baseline", "seeds enough",
            "final", "mean over training",
        ),
        tuple(rows),
        f"Score: {suite.measure}{averaged}; reached from the first evaluation after which it "
        f"stays at or above ({scores}). steps: mean over seeds, where a run that never gets there "
        "counts with the steps up to which all runs of its task were watched (then ≥). ratio: "
        "steps of the best baseline divided by these: above 1 is faster; ≥ and ≤ where runs of the "
        "baseline, or of the algorithm, never got there, ~ where runs of both. seeds enough: seeds "
        "per algorithm that would tell the steps of both apart (5%, power 80%), by the spread of "
        "these runs. Brackets: 95% bootstrap intervals over seeds.",
    )  # fmt: skip


def _overall(found: Comparison) -> Table:
    suite, rows = found.suite, []
    for label in suite.labels:
        tasks = [task for task in found.tasks if found.results.of(label, task)]
        if not tasks:
            continue
        finals = [found.final(label, task) for task in tasks]
        common = found.common(label)
        rows.append(
            (
                label,
                f"{len(tasks)}",
                f"{sum(map(len, finals))}",
                ratio_text(found.ratio(label, common)),
                _interval(finals, iqm_of_tasks),
                _interval([found.areas(label, task) for task in tasks], mean_over_strata),
                _improvement(found, label, common),
            )
        )
    return Table(
        "Over all tasks",
        (
            "algorithm", "tasks", "runs", "ratio", "final, IQM", "mean over training",
            "better than the best baseline",
        ),
        tuple(rows),
        "ratio: geometric mean over tasks of the ratios above. IQM: mean of the middle half of all "
        "runs. better: the probability that a run ends higher than one of the baseline with the "
        "highest final mean of the task, ties half. Brackets: 95% bootstrap intervals, seeds "
        "resampled within each task.",
    )  # fmt: skip


def _improvement(found: Comparison, label: str, tasks: Sequence[str]) -> str:
    if label in found.suite.baselines or not tasks:
        return NOTHING
    strata = []
    for task in tasks:
        strata += [found.final(label, task), found.final(_highest(found, task), task)]
    return _interval(strata, probability_of_improvement)


def _highest(found: Comparison, task: str) -> str:
    """The baseline with the highest final mean."""
    means = {other: found.final(other, task).mean() for other in found.baselines(task)}
    return max(means, key=lambda other: means[other])


def _paired(found: Comparison) -> Table:
    rows = []
    for label in found.suite.compared:
        for task in found.common(label):
            other = _highest(found, task)
            if (
                len({run.starts for each in (label, other) for run in found.results.of(each, task)})
                > 1
            ):
                continue
            means = [_per_start(found, each, task) for each in (label, other)]
            num = min(map(len, means))
            if num:
                mean, low, high = paired_difference(means[0][:num], means[1][:num])
                rows.append((
                    task, label, other, f"{num}",
                    f"{_number(mean, '+')} [{_number(low, '+')}, {_number(high, '+')}]",
                ))  # fmt: skip
    return Table(
        "At the end, on the same starts",
        ("task", "algorithm", "baseline", "starts", "difference"),
        tuple(rows),
        "Mean over seeds per evaluation start, algorithm minus baseline; brackets: 95% bootstrap "
        "intervals over starts, for these seeds.",
    )


def _per_start(found: Comparison, label: str, task: str) -> list[float]:
    """The mean over seeds for every start that all of them have."""
    runs = [run.episodes(found.suite.measure) for run in found.results.of(label, task)]
    return [float(np.mean(values)) for values in zip(*runs, strict=False)]


def _profile(found: Comparison) -> Table:
    rows = []
    for label in found.suite.labels:
        finals = [found.final(label, task) for task in found.tasks]
        finals = [scores for scores in finals if len(scores)]
        if finals:
            shares = performance_profile(finals, PROFILE)
            rows.append((label, *(f"{share:.2f}" for share in shares)))
    return Table(
        "Performance profile",
        ("algorithm", *(f"above {threshold:g}" for threshold in PROFILE)),
        tuple(rows),
        "The share of runs that end above each success rate, averaged over tasks.",
    )


def ratio_text(ratio: Ratio | None) -> str:
    """A ratio with its interval; a sign says where censored runs make it a bound."""
    if ratio is None:
        return NOTHING
    if ratio.own_censored and ratio.baseline_censored:
        bound = "~ "
    else:
        bound = "≤ " if ratio.own_censored else "≥ " if ratio.baseline_censored else ""
    return f"{bound}{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def _interval(
    strata: Sequence[np.ndarray], statistic: Callable[[Sequence[np.ndarray]], np.ndarray]
) -> str:
    values = interval(strata, statistic, np.random.default_rng(SEED))
    mean, low, high = (_number(value) for value in values)
    return f"{mean} [{low}, {high}]"


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}.2f}"


def markdown(made: Sequence[Table], problems: Sequence[str] = ()) -> str:
    """Tables as Markdown."""
    parts = [*(f"**{problem}**" for problem in problems)]
    for table in made:
        lines = [f"| {' | '.join(cells)} |" for cells in (table.head, *table.rows)]
        lines.insert(1, "|---" * len(table.head) + "|")
        parts += [f"### {table.title}", "\n".join(lines), table.note]
    return "\n\n".join(parts) + "\n"


_LATEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "≥": r"$\geq$", "≤": r"$\leq$",
}  # fmt: skip


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def latex(made: Sequence[Table], problems: Sequence[str] = ()) -> str:
    """Tables as LaTeX, for the package booktabs."""
    parts = [f"% {problem}" for problem in problems]
    for table in made:
        lines = [" & ".join(map(_escaped, cells)) + r" \\" for cells in (table.head, *table.rows)]
        parts.append("\n".join((
            r"\begin{table}", r"\centering",
            rf"\begin{{tabular}}{{{'l' * len(table.head)}}}", r"\toprule", lines[0], r"\midrule",
            *lines[1:], r"\bottomrule", r"\end{tabular}",
            rf"\caption{{{_escaped(f'{table.title}. {table.note}')}}}", r"\end{table}",
        )))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def csv_text(results: Results) -> str:
    """The evaluations of all runs, one row each."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(LONG_FORM)
    writer.writerows(long_form(results))
    return file.getvalue()
