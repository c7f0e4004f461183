"""Learning curves of success: every algorithm over its seeds, its base policy, and what has been
published about the task."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exporl.report.figures import BASE_COLOR, COLORS, Chart, Line
from exporl.report.findings import common_steps, gains
from exporl.report.labels import by_label
from exporl.report.published import published_lines
from exporl.report.run_data import RunData
from exporl.stats.over_seeds import Found, over_seeds, success_over_seeds

OTHERS = {"unguarded": "without its guard", "unedited": "without edits"}
"""Who else may have been evaluated."""

Mean = Callable[[Sequence[Sequence[Any]]], Found]
"""Of the episodes of every seed: the mean over seeds with its interval."""
Colors = Mapping[str, int]
"""Name of runs -> colour of their lines."""


def colors_of(runs: Sequence[RunData]) -> Colors:
    """A colour for every name, the same in all charts of a page."""
    return {name: i % COLORS for i, name in enumerate(dict.fromkeys(run.label for run in runs))}


def success_chart(runs: Sequence[RunData], colors: Colors) -> Chart:
    """Success over environment steps of runs on one task."""
    lines = all_lines(runs, colors, "success", success_over_seeds)
    lines += published_lines(runs, colors)
    return Chart(
        "Success over environment steps", "success", lines, percent=True, y_range=(0.0, 1.0),
        large=True,
    )  # fmt: skip


def all_lines(runs: Sequence[RunData], colors: Colors, key: str, mean: Mean) -> list[Line]:
    """The lines of runs on one task: policies, their bases in dashes, and who else was evaluated.

    Args:
        runs: on one task.
        colors: of all names.
        key: what is drawn: "success" or "returns".
        mean: over seeds of episodes, with its interval.
    """
    lines, groups = [], by_label([run for run in runs if run.evals])
    for group in groups:
        color = colors[group[0].label]
        lines += _of_group(group, "policy", color, key, mean)
        if group[0].algorithm != "bc":
            base = _of_group(group, "base", color if groups[1:] else BASE_COLOR, key, mean)
            if groups[1:]:  # bands of several bases would hide each other
                base = [dataclasses.replace(line, low=None, high=None) for line in base]
            lines += base
        for who in OTHERS:
            lines += _of_group(group, who, color, key, mean)
    return lines


def _of_group(
    runs: Sequence[RunData],
    who: str,
    color: int | str,
    key: str,
    mean: Mean,
) -> list[Line]:
    """The line of all seeds together with its interval, and those of each."""
    runs = [run for run in runs if _has(run, who, key)]
    if not runs:
        return []
    label, kind = runs[0].label, "" if who == "policy" else who
    words = {"policy": label, "base": f"base of {label}"}
    name = words.get(who) or f"{label} {OTHERS[who]}"
    alone = runs[0].name if len(runs) == 1 else ""
    steps = common_steps(runs, who)
    at = {step: [_line_at(run, step, who) for run in runs] for step in steps}
    found = [mean([line[who][key] for line in at[step]]) for step in steps]
    dash = {"policy": 0, "base": 1}.get(who, 3)
    together = Line(
        name,
        [float(step) for step in steps],
        [each[0] for each in found],
        color,
        [each[1] for each in found],
        [each[2] for each in found],
        [sum(line["time/train_s"] for line in at[step]) / len(runs) for step in steps],
        group=label,
        run=alone,
        kind=kind,
        dash=dash,
    )
    if len(runs) == 1 or who not in ("policy", "base"):
        return [together]
    return [together, *(_of_seed(run, who, color, key, dash) for run in runs)]


def _has(run: RunData, who: str, key: str) -> bool:
    return who in run.evals[0] and all(key in line[who] for line in run.evals if who in line)


def _line_at(run: RunData, step: int, who: str) -> Mapping[str, Any]:
    return [line for line in run.evals if line["env_steps"] == step and who in line][-1]


def _of_seed(run: RunData, who: str, color: int | str, key: str, dash: int) -> Line:
    lines = [line for line in run.evals if who in line]
    return Line(
        f"{run.name}, base" if who == "base" else run.name,
        [float(line["env_steps"]) for line in lines],
        [float(sum(line[who][key]) / len(line[who][key])) for line in lines],
        color,
        seconds=[line["time/train_s"] for line in lines],
        group=run.label,
        run=run.name,
        kind="base" if who == "base" else "seeds",
        thin=True,
        dash=dash,
    )


def difference_chart(runs: Sequence[RunData], colors: Colors) -> Chart:
    """The policy minus its base before training, paired by start, over environment steps."""
    known = [run for run in runs if run.evals and "base" in run.evals[0] and run.algorithm != "bc"]
    lines = []
    for group in by_label(known):
        steps = common_steps(group)
        found = [over_seeds(gains(group, step, "success")) for step in steps]
        lines.append(
            Line(
                group[0].label,
                [float(step) for step in steps],
                [each[0] for each in found],
                colors[group[0].label],
                [each[1] for each in found],
                [each[2] for each in found],
                group=group[0].label,
                run=group[0].name if len(group) == 1 else "",
            )
        )
    return Chart(
        "Policy minus base before training, on the same starts", "policy - base", lines,
        percent=True, large=True, zero=True,
    )  # fmt: skip
