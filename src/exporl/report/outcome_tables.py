"""Tables of what came out: success, steps to a success rate, outcomes by start, times, machines."""

from collections.abc import Sequence
from statistics import median

from exporl.report.findings import common
from exporl.report.labels import by_label
from exporl.report.markup import table, text
from exporl.report.run_data import RunData
from exporl.stats.intervals import wilson
from exporl.stats.reach import horizon_of, reach, restricted

SCORES = (0.5, 0.8, 0.9)
"""Success rates whose steps are shown."""


def rate(successes: Sequence[bool]) -> str:
    """A success rate with its Wilson interval."""
    low, high = wilson(sum(successes), len(successes))
    return f"{100 * sum(successes) / len(successes):.0f}% [{100 * low:.0f}, {100 * high:.0f}]"


def results_table(runs: Sequence[RunData]) -> str:
    """Every run with its base before and after, and its policy."""
    rows = []
    for run in runs:
        if not run.evals:
            continue
        first, last = run.evals[0], run.evals[-1]
        base = [rate(line["base"]["success"]) if "base" in line else "-" for line in (first, last)]
        cells = [text(run.name), text(run.label), text(run.seed), f"{last['env_steps']:,}", *base]
        rows.append([*cells, f"<b>{rate(last['policy']['success'])}</b>"])
    head = ("run", "algorithm", "seed", "steps", "base before", "base after", "policy after")
    return f"<h2>Results</h2>{table(head, rows)}"


def reach_table(runs: Sequence[RunData], scores: Sequence[float] = SCORES) -> str:
    """Environment steps from which success stays at or above a rate; nothing before there are two
    evaluations."""
    groups = [
        [run for run in group if run.evals and run.evals[-1]["env_steps"] > 0]
        for group in by_label(runs)
    ]
    groups = [group for group in groups if group]
    if not groups:
        return ""
    columns = []
    for score in scores:
        of_groups = [[reach(*_curve(run), score) for run in group] for group in groups]
        horizon, column = horizon_of(of_groups), []
        for reaches in of_groups:
            steps, censored = restricted(reaches, horizon)
            reached = sum(not each.censored for each in reaches)
            mean = f"{'≥ ' if censored.any() else ''}{steps.mean():,.0f}"
            column.append(f"{mean} ({reached} of {len(reaches)})")
        columns.append(column)
    rows = [
        [text(groups[i][0].label), *cells] for i, cells in enumerate(zip(*columns, strict=True))
    ]
    head = ("algorithm", *(f"to {score:.0%}" for score in scores))
    return (
        f"<h2>Steps to success</h2>{table(head, rows)}<p class='muted'>Environment steps of the "
        "first evaluation after which success stays at or above the rate, mean over seeds, and "
        "how many seeds get there. A seed that does not counts with the steps up to which all runs "
        "were watched: then ≥.</p>"
    )


def _curve(run: RunData) -> tuple[list[float], list[float]]:
    rates = {line["env_steps"]: line["policy"]["success_rate"] for line in run.evals}
    steps = sorted(rates)
    return [float(step) for step in steps], [float(rates[step]) for step in steps]


OUTCOMES = (
    ("both", "both"),
    ("gained", "the policy only"),
    ("lost", "the base only"),
    ("neither", "neither"),
)
"""Class of a bar -> who succeeds from a start."""


def paired_table(runs: Sequence[RunData]) -> str:
    """How many starts the policy at the end and its base before training succeed from; nothing
    without base policies."""
    rows = []
    for run in runs:
        if not run.evals or "base" not in run.evals[0] or run.algorithm == "bc":
            continue
        after, before = common(run.evals[-1]["policy"]["success"], run.evals[0]["base"]["success"])
        pairs = list(zip(after, before, strict=True))
        kinds = ((True, True), (True, False), (False, True), (False, False))
        counts = [pairs.count(kind) for kind in kinds]
        bar = "".join(
            f'<b class="{name}" style="width:{100 * count / len(pairs):.2f}%"></b>'
            for (name, _), count in zip(OUTCOMES, counts, strict=True)
        )
        rows.append([text(run.name), f'<div class="shares">{bar}</div>', *map(str, counts)])
    if not rows:
        return ""
    head = ("run", "starts", *(words for _, words in OUTCOMES))
    marks = " ".join(f'<i class="{name}"></i>{words}' for name, words in OUTCOMES)
    return (
        f"<h3>Who succeeds from the same starts</h3><p>{marks}</p>{table(head, rows)}"
        "<p class='muted'>The policy at the last evaluation, its base before training.</p>"
    )


def time_table(runs: Sequence[RunData]) -> str:
    """Where the time of every run went."""
    rows = []
    for run in runs:
        if not run.evals:
            continue
        speeds = [line[name] for line in run.metrics if (name := "time/env_steps_per_s") in line]
        evaluating = sum(line.get("time/eval_s", 0.0) for line in run.evals)
        last = run.evals[-1]
        cells = [text(run.name), f"{last['env_steps']:,}", f"{last['time/train_s'] / 60:.1f}"]
        cells += [f"{evaluating / 60:.1f}", f"{median(speeds):.1f}" if speeds else "-"]
        rows.append(cells)
    head = ("run", "environment steps", "training, minutes", "evaluation, minutes",
            "steps per second")  # fmt: skip
    return f"<h2>Time</h2>{table(head, rows)}"


def machine_table(runs: Sequence[RunData]) -> str:
    """Machines and versions; every value once, with the runs that have it where they differ."""
    found: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        versions = run.config.get("versions")
        for name, value in versions.items() if isinstance(versions, dict) else ():
            found.setdefault(str(name), {}).setdefault(str(value), []).append(run.name)
    rows = []
    for name, values in found.items():
        several = len(values) > 1
        words = [
            f"{value} ({', '.join(of_runs)})" if several else value
            for value, of_runs in values.items()
        ]
        rows.append([text(name), "<br>".join(map(text, words))])
    if not rows:
        return ""
    return f"<details><summary>Machine and versions</summary>{table(('', ''), rows)}</details>"
