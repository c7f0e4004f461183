"""The guard of a run: which policy acted and which one is deployed, with the records that it
decides by."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from exporl.report.figures import BASE_COLOR, Chart, Figures, Line
from exporl.report.markup import table, text
from exporl.report.returns import number
from exporl.report.run_data import RunData

RECORDS = {"guard/base": "base alone", "guard/explore": "policy around it"}
"""Metric of a record -> whose it is."""
SHARE = "guard/base_episodes"


def guard_section(runs: Sequence[RunData], figures: Figures) -> str:
    """A chart for each run with a guard, and a table of how they ended."""
    known = [(run, lines) for run in runs if (lines := _lines(run))]
    if not known:
        return ""
    charts, rows = [], []
    for run, lines in known:
        chart = figures.add(_chart(run, lines))
        if chart:
            title = f"<figcaption><b>{text(run.name)}</b> {_legend()}</figcaption>"
            charts.append(f"<figure>{title}{chart}</figure>")
        rows.append(_row(run, lines))
    head = ("run", "deployed", "base deployed", "record of base", "of policy", "by the base")
    return (
        "<h2>The guard</h2><p class='muted'>What it expects of the base policy alone and of the "
        "policy around it, by their last training episodes (posterior means). Shaded: the base is "
        "deployed. Dotted: the share of the last 20 training episodes that the base played.</p>"
        f'<div class="grid-of-charts">{"".join(charts)}</div>{table(head, rows)}'
        "<p class='muted'>Deployed: at the end. By the base: of the last 20 training episodes.</p>"
    )


def _lines(run: RunData) -> list[Mapping[str, Any]]:
    return [line for line in run.metrics if all(name in line for name in RECORDS)]


def _chart(run: RunData, lines: Sequence[Mapping[str, Any]]) -> Chart:
    x = [float(line["env_steps"]) for line in lines]
    colors = dict(zip(RECORDS, (BASE_COLOR, 0), strict=True))
    drawn = [
        Line(words, x, [line[name] for line in lines], colors[name], group=run.label, run=run.name)
        for name, words in RECORDS.items()
    ]
    if not run.pays_return:
        shares = [line for line in lines if SHARE in line]
        drawn.append(
            Line(
                "share of episodes by the base",
                [float(line["env_steps"]) for line in shares],
                [line[SHARE] for line in shares],
                "published",
                group=run.label,
                run=run.name,
                dash=2,
            )
        )
    return Chart(
        f"The guard of {run.name}", "mean return" if run.pays_return else "success", drawn,
        percent=not run.pays_return, y_range=None if run.pays_return else (0.0, 1.0),
        spans=base_deployed(run),
    )  # fmt: skip


def base_deployed(run: RunData) -> list[tuple[float, float]]:
    """Parts [from, to] of environment steps in which the base was deployed, as far as log lines
    and evaluations tell."""
    told = sorted(
        (float(line["env_steps"]), line["deployed"] == "base")
        for line in [*run.metrics, *run.evals]
        if "deployed" in line
    )
    spans: list[tuple[float, float]] = []
    for (begin, is_base), (end, _) in itertools.pairwise(told):
        if not is_base or begin == end:
            continue
        if spans and spans[-1][1] == begin:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((begin, end))
    return spans


def _legend() -> str:
    colors = zip(RECORDS.values(), (f"--{BASE_COLOR}", "--c0"), strict=True)
    return " ".join(
        f'<i style="background:var({color})"></i>{text(words)}' for words, color in colors
    )


def _row(run: RunData, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    last = lines[-1]
    whole = float(last["env_steps"]) or 1.0
    share = sum(end - begin for begin, end in base_deployed(run)) / whole
    deployed = {"base": "base alone", "explore": "policy"}.get(str(last.get("deployed")), "-")
    show = number if run.pays_return else _percent
    return [
        text(run.name),
        deployed,
        f"{min(share, 1.0):.0%} of steps",
        *(show(float(last[name])) for name in RECORDS),
        f"{last[SHARE]:.0%}" if SHARE in last else "-",
    ]


def _percent(value: float) -> str:
    return f"{value:.0%}"
