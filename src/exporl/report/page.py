"""Runs -> one self-contained HTML page: learning curve over the base policy, table, diagnostics,
configuration."""

import html
import json
from collections.abc import Sequence
from pathlib import Path

from exporl.files.atomic import write_text
from exporl.report.charts import STYLE, Series, legend, line_chart
from exporl.report.returns import return_section
from exporl.report.run_data import COLORS, OTHER_COLOR, RunData, read_run
from exporl.report.stats import paired_difference, wilson

DIAGNOSTICS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Critic loss", ("critic/loss",)),
    ("Q over the minibatch", ("critic/q_min", "critic/q_mean", "critic/q_max")),
    ("Q of prior and online rows", ("critic/q_prior", "critic/q_online")),
    ("Disagreement of the critics", ("critic/q_spread",)),
    ("TD target", ("critic/target_min", "critic/target_mean", "critic/target_max")),
    ("Share of choices that are edits", ("edit/picked",)),
    ("Q advantage of the best edit", ("edit/advantage",)),
    ("Edit magnitude", ("edit/magnitude",)),
    ("Share of saturated edit dimensions", ("edit/saturated",)),
    ("Temperature", ("edit/temperature", "policy/temperature")),
    (
        "Entropy (nats)",
        ("edit/entropy", "edit/target_entropy", "edit/max_entropy", "policy/entropy"),
    ),
    ("Imitation loss of the base", ("base/loss",)),
    ("Success of the last 20 training episodes", ("rollout/success_rate",)),
    ("Environment steps per second", ("time/env_steps_per_s",)),
)
SHADES = ("#2563eb", "#d97706", "#059669", "#6b7280")


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
        cells = [html.escape(run.name), run.algorithm, run.seed, f"{last['env_steps']:,}", *base]
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
            f"<b>{run.algorithm.upper()}, seed {run.seed}</b>: {100 * gain:+.0f} points "
            f"[{100 * low:+.0f}, {100 * high:+.0f}] over its base policy after"
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


def _diagnostics(run: RunData) -> str:
    lines, charts = [line for line in run.metrics if line.get("phase") == "online"], []
    for title, names in DIAGNOSTICS:
        series = [
            Series(name, [float(line["env_steps"]) for line in lines if name in line],
                   [line[name] for line in lines if name in line], SHADES[i % len(SHADES)])
            for i, name in enumerate(n for n in names if any(n in line for line in lines))
        ]  # fmt: skip
        if series:
            chart = line_chart(series, width=340, height=190)
            charts.append(
                f"<figure><figcaption>{title}</figcaption>{chart}{legend(series)}</figure>"
            )
    return f'<div class="grid-of-charts">{"".join(charts)}</div>'


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
        raise ValueError("nothing to report yet: none of the runs has an evaluation.")
    tasks = list(dict.fromkeys(run.task for run in runs))
    title = ", ".join(tasks)
    body = [
        (
            f"<h1>{html.escape(title)}</h1><p class='muted'>exporl "
            f"{runs[0].config.get('versions', {}).get('exporl', '')}. Success over environment"
            " steps; brackets and bands are 95% Wilson intervals over evaluation episodes, "
            "differences are paired on the same starts with a 95% bootstrap interval.</p>"
        )
    ]
    for task in tasks:
        body += [f"<h1>{html.escape(task)}</h1>"] if len(tasks) > 1 else []
        body.append(_results([run for run in runs if run.task == task]))
    for run in runs:
        body.append(f"<h2>Diagnostics: {html.escape(run.name)}</h2>{_diagnostics(run)}")
    for run in runs:
        text = html.escape(json.dumps(run.config, indent=1))
        body.append(
            "<details><summary>Configuration of "
            f"{html.escape(run.name)}</summary><pre>{text}</pre></details>"
        )
    page = (
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' "
        "content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
        f"<body>{''.join(body)}</body></html>"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path
