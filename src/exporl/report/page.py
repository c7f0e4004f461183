"""Runs -> one self-contained HTML page: learning curve over the base policy, table, diagnostics,
configuration."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporl.files.atomic import write_text
from exporl.report.charts import STYLE, Series, legend, line_chart
from exporl.report.markup import text
from exporl.report.returns import return_section
from exporl.report.run_data import COLORS, OTHER_COLOR, RunData, read_run
from exporl.stats.intervals import paired_difference, wilson

SHADES = ("#2563eb", "#d97706", "#059669", "#6b7280")
TOGETHER = (("_min", "_mean", "_max"), ("_prior", "_online"))
"""Endings of metrics that share a chart."""
LIMITS = ("target_", "max_")
"""Beginnings of metrics that share the chart of what they limit: `edit/target_entropy`."""


def _rate(successes: Sequence[bool]) -> str:
    low, high = wilson(sum(successes), len(successes))
    return f"{100 * sum(successes) / len(successes):.0f}% [{100 * low:.0f}, {100 * high:.0f}]"


def dip(run: RunData) -> tuple[int, float, float, float] | None:
    """Where the policy fell furthest below the base policy as it was before training.

    Returns:
        (env steps, difference policy - base, low, high) at the worst evaluation after step 0,
        paired on the same starts with a 95% interval; None without a base policy or without later
        evaluations.
    """
    if len(run.evals) < 2 or "base" not in run.evals[0]:
        return None
    start = run.evals[0]["base"]["success"]
    worst = min(run.evals[1:], key=lambda line: line["policy"]["success_rate"])
    return (worst["env_steps"], *paired_difference(*_common(worst["policy"]["success"], start)))


def _common(a: Sequence[bool], b: Sequence[bool]) -> tuple[Sequence[bool], Sequence[bool]]:
    """The episodes that both have: a resumption may change `eval.episodes`, and the first starts
    stay the same."""
    num = min(len(a), len(b))
    return a[:num], b[:num]


def _curves(runs: Sequence[RunData]) -> list[Series]:
    """Per algorithm the pooled success over seeds with a 95% interval, thin lines per seed, and the
    base alone."""
    series = []
    for algorithm in dict.fromkeys(run.algorithm for run in runs):
        group = [run for run in runs if run.algorithm == algorithm and run.evals]
        for who, label in (("policy", algorithm), ("base", "base")):
            members = [run for run in group if who in run.evals[0]]
            if not members or (who == "base" and algorithm == "bc"):
                continue
            steps = sorted(
                set.intersection(*({line["env_steps"] for line in run.evals} for run in members))
            )
            pooled = {
                s: [
                    ok
                    for run in members
                    for line in run.evals
                    if line["env_steps"] == s
                    for ok in line[who]["success"]
                ]
                for s in steps
            }
            bands = [wilson(sum(pooled[s]), len(pooled[s])) for s in steps]
            name = label.upper() if who == "policy" else f"base alone ({algorithm} run)"
            color = COLORS.get(label, OTHER_COLOR)
            series.append(
                Series(
                    name,
                    [float(s) for s in steps],
                    [sum(pooled[s]) / len(pooled[s]) for s in steps],
                    color,
                    [b[0] for b in bands],
                    [b[1] for b in bands],
                )
            )
            if len(members) > 1:
                series += [
                    Series(
                        f"{name} seed {run.seed}",
                        [float(line["env_steps"]) for line in run.evals],
                        [line[who]["success_rate"] for line in run.evals],
                        color,
                        thin=True,
                    )
                    for run in members
                ]
    return series


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
    return f"<table>{head}{''.join(rows)}</table>"


def _findings(runs: Sequence[RunData]) -> str:
    sentences = []
    for run in runs:
        if not run.evals or "base" not in run.evals[0] or run.algorithm == "bc":
            continue
        last, start = run.evals[-1], run.evals[0]["base"]["success"]
        after, before = _common(last["policy"]["success"], start)
        gain, low, high = paired_difference(after, before)
        sentences.append(
            f"<b>{text(run.algorithm.upper())}, seed {text(run.seed)}</b>: {100 * gain:+.0f} "
            f"points [{100 * low:+.0f}, {100 * high:+.0f}] over its base policy after"
            f" {last['env_steps']:,} environment steps (same {len(before)} starts)."
        )
        found = dip(run)
        if found is not None:
            step, drop, drop_low, drop_high = found
            verdict = (
                f"The lowest evaluation, at step {step:,}, was {100 * drop:+.0f} points "
                f"[{100 * drop_low:+.0f}, {100 * drop_high:+.0f}] against the base before training"
            )
            sentences.append(
                verdict
                + (
                    ": no evaluation was below the base."
                    if drop >= 0
                    else ": a dip below the base."
                )
            )
    return "".join(f"<p>{sentence}</p>" for sentence in sentences)


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
    """One chart: a line for each metric, its name and what it is."""
    series, captions = [], []
    for i, name in enumerate(names):
        color, known = SHADES[i % len(SHADES)], [line for line in lines if name in line]
        x = [float(line["env_steps"]) for line in known]
        series.append(Series(name, x, [float(line[name]) for line in known], color))
        what = text(glossary.get(name, ""))
        captions.append(
            f'<p><i style="background:{color}"></i><b>{text(name)}</b> '
            f'<span class="muted">{what}</span></p>'
        )
    chart = line_chart(series, width=340, height=190)
    return f"<figure><figcaption>{''.join(captions)}</figcaption>{chart}</figure>"


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
            _findings(runs),
            "<h2>Success over environment steps</h2>",
            line_chart(curves, width=1000, height=360, y_range=(0.0, 1.0), percent=True),
            legend(curves),
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
            "Success over environment steps; brackets and bands are 95% Wilson intervals over "
            "evaluation episodes, differences are paired on the same starts with a 95% bootstrap "
            "interval.</p>"
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
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path
