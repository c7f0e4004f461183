"""What the critic predicts at evaluation starts against what came of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from exporl.report.curves import Colors
from exporl.report.figures import Chart, Figures, Line
from exporl.report.labels import by_label
from exporl.report.markup import table, text
from exporl.report.returns import interval, number
from exporl.report.run_data import RunData
from exporl.stats.over_seeds import over_seeds

MOST_POINTS = 1000
"""Points of a cloud at most, so that pages of many runs stay small."""


def acted(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """The result of the policy itself at an evaluation, also where its base is deployed."""
    return line.get("unguarded", line["policy"])


class Start(NamedTuple):
    """An evaluation episode."""

    predicted: float
    realised: float
    cut_off: bool


def starts_of(result: Mapping[str, Any]) -> list[Start]:
    """The episodes of one evaluation; none where it does not say, as with algorithms without a
    critic and runs of earlier versions."""
    lists: list[list[Any]] = []
    for name in ("values", "discounted", "cut_off"):
        found = result.get(name)
        if not isinstance(found, list):
            return []
        lists.append(found)
    values, discounted, cut_off = lists
    if not len(values) == len(discounted) == len(cut_off):
        return []
    numbers = [*values, *discounted]
    if not all(type(each) in (int, float) and math.isfinite(each) for each in numbers):
        return []
    rows = zip(values, discounted, cut_off, strict=True)
    return [Start(float(value), float(came), bool(cut)) for value, came, cut in rows]


def calibration_section(runs: Sequence[RunData], colors: Colors, figures: Figures) -> str:
    """Clouds of the last evaluation, and the difference of means over training."""
    known = [run for run in runs if run.evals and starts_of(acted(run.evals[-1]))]
    if not known:
        return ""
    clouds, drift, rows = [], [], []
    for group in by_label(known):
        color = colors[group[0].label]
        for run in group:
            clouds += _clouds(run, color, MOST_POINTS // len(known) + 1)
            rows.append(_row(run))
        drift.append(_drift(group, color))
    cloud = Chart(
        "Predicted against realised discounted return at evaluation starts", "realised", clouds,
        x_title="predicted (Q of the first choice)", large=True, points=True,
    )  # fmt: skip
    over = Chart(
        "Predicted minus realised discounted return over environment steps",
        "predicted - realised", drift, large=True, zero=True,
    )  # fmt: skip
    head = ("run", "starts", "predicted", "realised", "predicted - realised")
    return (
        "<h2>Calibration of Q</h2><p class='muted'>Q of the first choice in each episode of the "
        "last evaluation against the discounted rewards that came: on the diagonal the critic is "
        "right. Grey: episodes that a time limit cut off. They are left out below, for Q also "
        "counts what would have followed.</p>"
        f"{figures.add(cloud)}"
        "<h3>Predicted minus realised, episodes that ended by themselves</h3>"
        f"{figures.add(over)}{table(head, rows)}"
    )


def _clouds(run: RunData, color: int, most: int) -> list[Line]:
    starts, lines = starts_of(acted(run.evals[-1]))[:most], []
    for cut, words in ((False, run.name), (True, f"{run.name}, cut off")):
        points = sorted(start for start in starts if start.cut_off == cut)
        x, y = [start.predicted for start in points], [start.realised for start in points]
        shade = "published" if cut else color
        lines.append(Line(words, x, y, shade, group=run.label, run=run.name))
    return lines


def gaps(result: Mapping[str, Any]) -> list[float]:
    """Predicted minus realised of the episodes that ended by themselves."""
    starts = starts_of(result)
    return [start.predicted - start.realised for start in starts if not start.cut_off]


def _drift(group: Sequence[RunData], color: int) -> Line:
    """The mean gap over all seeds at each evaluation where all have one."""
    by_step: dict[int, list[list[float]]] = {}
    for run in group:
        for line in run.evals:
            if found := gaps(acted(line)):
                by_step.setdefault(line["env_steps"], []).append(found)
    steps = sorted(step for step, found in by_step.items() if len(found) == len(group))
    found = [over_seeds(by_step[step]) for step in steps]
    return Line(
        group[0].label,
        [float(step) for step in steps],
        [each[0] for each in found],
        color,
        [each[1] for each in found],
        [each[2] for each in found],
        group=group[0].label,
        run=group[0].name if len(group) == 1 else "",
    )


def _row(run: RunData) -> list[str]:
    starts = starts_of(acted(run.evals[-1]))
    ended = [start for start in starts if not start.cut_off]
    cells = [text(run.name), f"{len(ended)} of {len(starts)}"]
    if not ended:
        return [*cells, "-", "-", "-"]
    cells += [number(sum(start.predicted for start in ended) / len(ended))]
    cells += [number(sum(start.realised for start in ended) / len(ended))]
    return [*cells, interval(over_seeds([gaps(acted(run.evals[-1]))]), "+")]
