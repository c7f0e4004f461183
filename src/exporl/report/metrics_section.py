"""Every metric that runs logged while acting, over environment steps, with what it is."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from exporl.report.curves import Colors
from exporl.report.figures import BASE_COLOR, Chart, Figures, Line, Numbers
from exporl.report.markup import text
from exporl.report.numbers import short
from exporl.report.run_data import RunData

TOGETHER = (("_min", "_mean", "_max"), ("_prior", "_online"))
"""Endings of metrics that share a chart."""
LIMITS = ("target_", "max_")
"""Beginnings of metrics that share the chart of what they limit: `edit/target_entropy`."""
SHADES = (0, BASE_COLOR, 1, 7)
"""Colours of the metrics of one chart, where it shows one run."""
STROKES = ("", "dashed:", "dotted:", "dashes and dots:")
"""How the lines of the metrics of one chart are drawn, where it shows several runs."""
ALL_POINTS, FEWEST_POINTS = 4000, 50
"""Points of a metric over all runs at most, and of each run at least: pages stay small."""


def chart_of(name: str, names: Collection[str]) -> str:
    """The chart that a metric is drawn in: its own name, or what it has in common with others."""
    prefix, _, rest = name.partition("/")
    for start in LIMITS:
        limited = f"{prefix}/{rest.removeprefix(start)}"
        if rest.startswith(start) and limited in names:
            return limited
    for endings in TOGETHER:
        for ending in endings:
            stem = name.removesuffix(ending)
            if stem != name and sum(stem + other in names for other in endings) > 1:
                return stem + "/".join(endings)
    return name


def metrics_section(
    runs: Sequence[RunData], colors: Colors, figures: Figures, *, is_open: bool
) -> str:
    """Charts of all metrics of runs on one task, by the prefix of their names.

    Args:
        runs: on one task.
        colors: of all names.
        figures: where charts go.
        is_open: whether they are shown at once.
    """
    lines = {
        run.name: [line for line in run.metrics if line.get("phase") == "online"] for run in runs
    }
    runs = [run for run in runs if lines[run.name]]
    names = dict.fromkeys(
        name for run in runs for line in lines[run.name] for name in line if "/" in name
    )
    glossary: dict[str, str] = {}
    for run in runs:
        glossary |= {name: what for name, what in run.glossary.items() if name not in glossary}
    order = {name: place for place, name in enumerate(glossary)}
    charts: dict[str, dict[str, list[str]]] = {}
    for name in sorted(names, key=lambda name: order.get(name, len(order))):
        of_prefix = charts.setdefault(name.partition("/")[0], {})
        of_prefix.setdefault(chart_of(name, names), []).append(name)
    parts = []
    for prefix, by_chart in charts.items():
        found = [
            _figure(members, runs, lines, glossary, colors, figures)
            for members in by_chart.values()
        ]
        parts.append(f'<h3>{text(prefix)}</h3><div class="grid-of-charts">{"".join(found)}</div>')
    if not parts:
        return ""
    shown = " open" if is_open else ""
    return f"<details{shown}><summary><h2>Metrics</h2></summary>{''.join(parts)}</details>"


def _figure(
    names: Sequence[str],
    runs: Sequence[RunData],
    lines: Mapping[str, Sequence[Mapping[str, Any]]],
    glossary: Mapping[str, str],
    colors: Colors,
    figures: Figures,
) -> str:
    """One chart with its caption: of one run a colour for each metric, of several a colour for each
    name of runs and dashes for each metric."""
    most = max(ALL_POINTS // len(runs), FEWEST_POINTS)
    drawn, captions = [], []
    for i, name in enumerate(names):
        own_color = SHADES[i % len(SHADES)]
        for run in runs:
            known = [line for line in lines[run.name] if name in line]
            x, y = thinned([line["env_steps"] for line in known], [line[name] for line in known],
                           name, most)  # fmt: skip
            color = own_color if len(runs) == 1 else colors[run.label]
            words = name if len(runs) == 1 else f"{run.name} {_rest(name) if names[1:] else ''}"
            dash = 0 if len(runs) == 1 else i
            drawn.append(Line(words.strip(), x, y, color, group=run.label, run=run.name, dash=dash))
        captions.append(_caption(i, name, glossary.get(name, ""), own_color, runs, drawn))
    chart = figures.add(Chart(" and ".join(names), _title(names), drawn))
    return f"<figure><figcaption>{''.join(captions)}</figcaption>{chart}</figure>"


def _caption(
    i: int, name: str, what: str, color: int | str, runs: Sequence[RunData], drawn: Sequence[Line]
) -> str:
    """A metric's name and what it is. What was logged once is a number: there is no line."""
    what = text(what)
    last = drawn[-1]
    if len(runs) == 1 and len(last.x) == 1:
        what = f"{short(last.y[0])} at step {int(last.x[0]):,}. {what}"
    mark = f'<span class="muted">{STROKES[i % len(STROKES)]}</span> ' if i else ""
    if len(runs) == 1:
        place = f"--c{color}" if isinstance(color, int) else f"--{color}"
        mark = f'<i style="background:var({place})"></i>'
    return f'<p>{mark}<b>{text(name)}</b> <span class="muted">{what}</span></p>'


def thinned(x: Numbers, y: Numbers, name: str, most: int) -> tuple[list[float], list[float]]:
    """At most so many points: neighbours are averaged; a `_min` or `_max` metric keeps its
    extremes."""
    if len(x) <= most:
        return [float(each) for each in x], [float(each) for each in y]
    reduce = np.min if name.endswith("_min") else np.max if name.endswith("_max") else np.mean
    parts = np.array_split(np.arange(len(x)), most)
    steps, values = np.asarray(x, float), np.asarray(y, float)
    return (
        [float(steps[part].mean()) for part in parts],
        [float(reduce(values[part])) for part in parts],
    )


def _rest(name: str) -> str:
    return name.partition("/")[2]


def _title(names: Sequence[str]) -> str:
    """What the vertical axis of a chart of metrics shows."""
    return _rest(names[0]) if len(names) == 1 else names[0].partition("/")[0]
