"""Runs -> one self-contained HTML page: learning curve over the base policy, table, diagnostics,
configuration."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporl.files.atomic import write_text
from exporl.files.naming import make_folder_of
from exporl.report.axes import short
from exporl.report.charts import STYLE, Series, drawable, large_chart, line_chart
from exporl.report.findings import common_steps, findings
from exporl.report.markup import text
from exporl.report.returns import return_section
from exporl.report.run_data import COLORS, OTHER_COLOR, RunData, read_run
from exporl.stats.intervals import wilson
from exporl.stats.over_seeds import success_over_seeds

SHADES = ("#2563eb", "#d97706", "#059669", "#6b7280")
TOGETHER = (("_min", "_mean", "_max"), ("_prior", "_online"))
"""Endings of metrics that share a chart."""
LIMITS = ("target_", "max_")
"""Beginnings of metrics that share the chart of what they limit: `edit/target_entropy`."""


def _rate(successes: Sequence[bool]) -> str:
    low, high = wilson(sum(successes), len(successes))
    return f"{100 * sum(successes) / len(successes):.0f}% [{100 * low:.0f}, {100 * high:.0f}]"


def _curves(runs: Sequence[RunData]) -> list[Series]:
    """Per algorithm the success over all seeds with its 95% interval, thin lines per seed, and the
    base alone."""
    series = []
    for algorithm in dict.fromkeys(run.algorithm for run in runs):
        group = [run for run in runs if run.algorithm == algorithm and run.evals]
        for who, label in (("policy", algorithm), ("base", "base")):
            members = [run for run in group if who in run.evals[0]]
            if not members or (who == "base" and algorithm == "bc"):
                continue
            name = label.upper() if who == "policy" else f"base alone ({algorithm} run)"
            series += _of_group(members, who, name, COLORS.get(label, OTHER_COLOR))
    return series


def _of_group(runs: Sequence[RunData], who: str, name: str, color: str) -> list[Series]:
    """The line of all seeds together, and those of each."""
    steps = common_steps(runs, who)
    at = {
        step: [
            line[who]["success"]
            for run in runs
            for line in run.evals
            if line["env_steps"] == step and who in line
        ]
        for step in steps
    }
    found = [success_over_seeds(at[step]) for step in steps]
    means, low, high = (list(each) for each in zip(*found, strict=True)) if found else ([], [], [])
    together = Series(name, [float(step) for step in steps], means, color, low, high)
    if len(runs) == 1:
        return [together]
    each = [
        Series(
            f"{name} seed {run.seed}",
            [float(line["env_steps"]) for line in run.evals if who in line],
            [line[who]["success_rate"] for line in run.evals if who in line],
            color,
            thin=True,
        )
        for run in runs
    ]
    return [together, *each]


def _table(runs: Sequence[RunData]) -> str:
    head = (
        "<tr><th>run<th>algorithm<th>seed<th>steps<th>base before<th>base after<th>policy "
        "after<th>training</tr>"
    )
    rows = []
    for run in runs:
        if not run.evals:
            continue
        first, last = run.evals[0], run.evals[-1]
        base = [_rate(line["base"]["success"]) if "base" in line else "-" for line in (first, last)]
        cells = [text(run.name), text(run.algorithm), text(run.seed)]
        cells += [f"{last['env_steps']:,}", *base]
        cells += [f"<b>{_rate(last['policy']['success'])}</b>", f"{last['time/train_s']:.0f} s"]
        rows.append("<tr>" + "".join(f"<td>{cell}" for cell in cells) + "</tr>")
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


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


def _diagnostics(run: RunData) -> str:
    """Every metric of the online phase over environment steps, by the prefix of its name; beside
    each name what the run's glossary says that it is."""
    lines = [line for line in run.metrics if line.get("phase") == "online"]
    names = dict.fromkeys(name for line in lines for name in line if "/" in name)
    order = {name: place for place, name in enumerate(run.glossary)}
    charts: dict[str, dict[str, list[str]]] = {}
    for name in sorted(names, key=lambda name: order.get(name, len(order))):
        of_prefix = charts.setdefault(name.partition("/")[0], {})
        of_prefix.setdefault(chart_of(name, names), []).append(name)
    parts = []
    for prefix, by_chart in charts.items():
        figures = "".join(_figure(members, lines, run.glossary) for members in by_chart.values())
        parts.append(f'<h3>{text(prefix)}</h3><div class="grid-of-charts">{figures}</div>')
    return "".join(parts)


def _figure(
    names: Sequence[str], lines: Sequence[Mapping[str, Any]], glossary: Mapping[str, str]
) -> str:
    """One chart: a line for each metric, its name and what it is. What was logged once is a number:
    there is no line to draw."""
    series, captions = [], []
    for i, name in enumerate(names):
        color, known = SHADES[i % len(SHADES)], [line for line in lines if name in line]
        x = [float(line["env_steps"]) for line in known]
        series.append(Series(name, x, [float(line[name]) for line in known], color))
        what = text(glossary.get(name, ""))
        if len(x) == 1:
            what = f"{short(series[-1].y[0])} at step {known[0]['env_steps']:,}. {what}"
        captions.append(
            f'<p><i style="background:{color}"></i><b>{text(name)}</b> '
            f'<span class="muted">{what}</span></p>'
        )
    chart = ""
    if drawable(series):
        chart = line_chart(series, width=340, height=220, y_title=_title(names))
    return f"<figure><figcaption>{''.join(captions)}</figcaption>{chart}</figure>"


def _title(names: Sequence[str]) -> str:
    """What the vertical axis of a chart of metrics shows."""
    return names[0].partition("/")[2] if len(names) == 1 else names[0].partition("/")[0]


def _problems(runs: Sequence[RunData]) -> str:
    """What is wrong with the files that the page is made of, before anything that follows from
    them."""
    items = "".join(f"<li>{text(problem)}" for run in runs for problem in run.problems)
    return f"<h2>Damaged files</h2><ul>{items}</ul>" if items else ""


def _version(run: RunData) -> str:
    versions = run.config.get("versions")
    return text(versions.get("exporl", "") if isinstance(versions, dict) else "")


def _results(runs: Sequence[RunData]) -> str:
    """What came out of runs on one task: sentences, learning curves, table; returns where they are
    learnt from."""
    curves = _curves(runs)
    return "".join(
        [
            findings(runs),
            "<h2>Success over environment steps</h2>",
            large_chart(curves, y_title="success", y_range=(0.0, 1.0), in_percent=True),
            "<h2>Results</h2>",
            _table(runs),
            return_section(runs),
        ]
    )


def write_report(run_dirs: Sequence[Path], path: Path) -> Path:
    """Writes one HTML page about one or more runs, every task by itself; it loads nothing from
    anywhere.

    Raises:
        ValueError: no runs, not a run directory, or no evaluation in any of them yet.
    """
    runs = [read_run(Path(run_dir)) for run_dir in run_dirs]
    if not any(run.evals for run in runs):
        damage = "".join(f" {problem}" for run in runs for problem in run.problems[:1])
        raise ValueError(f"nothing to report yet: none of the runs has an evaluation.{damage}")
    tasks = list(dict.fromkeys(run.task for run in runs))
    title = ", ".join(tasks)
    body = [
        (
            f"<h1>{text(title)}</h1><p class='muted'>exporl {_version(runs[0])}. "
            "Brackets and bands are 95% intervals: of one run over its evaluation episodes "
            "(Wilson), of several seeds over seeds and episodes (bootstrap). Differences are "
            "paired on the same starts (bootstrap).</p>"
        ),
        _problems(runs),
    ]
    for task in tasks:
        body += [f"<h1>{text(task)}</h1>"] if len(tasks) > 1 else []
        body.append(_results([run for run in runs if run.task == task]))
    for run in runs:
        body.append(f"<h2>Diagnostics: {text(run.name)}</h2>{_diagnostics(run)}")
    for run in runs:
        options = text(json.dumps(run.config, indent=1))
        body.append(
            "<details><summary>Configuration of "
            f"{text(run.name)}</summary><pre>{options}</pre></details>"
        )
    page = (
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' "
        "content='width=device-width'>"
        f"<title>{text(title)}</title><style>{STYLE}</style>"
        f"<body>{''.join(body)}</body></html>"
    )
    make_folder_of(path)
    write_text(path, page)
    return path
