"""What the critic predicts at evaluation starts against what came of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from exporl.report.curves import Colors
from exporl.report.figures import Chart, Figures, Line
from exporl.report.labels import by_label
from exporl.report.markup import table, text
from exporl.report.returns import interval, number
from exporl.report.run_data import RunData
from exporl.stats.over_seeds import over_seeds

MOST_POINTS = 1000
"""Points of a cloud at most, so that pages of many runs stay small."""


def starts_of(result: Mapping[str, Any]) -> tuple[list[float], list[float], list[bool]] | None:
    """(predicted, realised, cut off) of the episodes of one evaluation; None where it does not say,
    as with algorithms without a critic and runs of earlier versions."""
    found = [result.get(name) for name in ("values", "discounted", "cut_off")]
    if not all(isinstance(each, list) and each for each in found):
        return None
    values, discounted, cut_off = found
    numbers = [*values, *discounted]
    if not all(type(each) in (int, float) and math.isfinite(each) for each in numbers):
        return None
    if not len(values) == len(discounted) == len(cut_off):
        return None
    cut = [bool(each) for each in cut_off]
    return [float(each) for each in values], [float(each) for each in discounted], cut


def calibration_section(runs: Sequence[RunData], colors: Colors, figures: Figures) -> str:
    """Clouds of the last evaluation, and the difference of means over training."""
    known = [run for run in runs if run.evals and starts_of(run.evals[-1]["policy"])]
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
    found = starts_of(run.evals[-1]["policy"])
    assert found is not None
    lines = []
    for cut, words in ((False, run.name), (True, f"{run.name}, cut off")):
        rows = list(zip(*found, strict=True))[:most]
        points = sorted((value, came) for value, came, cut_off in rows if cut_off == cut)
        shade = "published" if cut else color
        x, y = [value for value, _ in points], [came for _, came in points]
        lines.append(Line(words, x, y, shade, group=run.label, run=run.name))
    return lines


def gaps(result: Mapping[str, Any]) -> list[float]:
    """Predicted minus realised of the episodes that ended by themselves."""
    found = starts_of(result)
    if found is None:
        return []
    return [value - came for value, came, cut_off in zip(*found, strict=True) if not cut_off]


def _drift(group: Sequence[RunData], color: int) -> Line:
    """The mean gap over all seeds at each evaluation where all have one."""
    by_step: dict[int, list[list[float]]] = {}
    for run in group:
        for line in run.evals:
            if found := gaps(line["policy"]):
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
    found = starts_of(run.evals[-1]["policy"])
    assert found is not None
    rows = [row for row in zip(*found, strict=True) if not row[2]]
    cells = [text(run.name), f"{len(rows)} of {len(found[0])}"]
    if not rows:
        return [*cells, "-", "-", "-"]
    cells += [number(sum(row[i] for row in rows) / len(rows)) for i in (0, 1)]
    return [*cells, interval(over_seeds([[row[0] - row[1] for row in rows]]), "+")]
