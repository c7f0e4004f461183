"""Runs -> one self-contained HTML page: findings, learning curves, tables, the guard, films,
values, metrics, time, configurations."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporl.report.calibration import calibration_section
from exporl.report.curves import OTHERS, Colors, colors_of, difference_chart, success_chart
from exporl.report.document import write_document
from exporl.report.figures import Figures
from exporl.report.films import films_section, how_many_fit
from exporl.report.findings import findings
from exporl.report.guard_section import guard_section
from exporl.report.labels import differences, labelled
from exporl.report.markup import text
from exporl.report.metrics_section import metrics_section
from exporl.report.outcome_tables import (
    machine_table,
    paired_table,
    reach_table,
    results_table,
    time_table,
)
from exporl.report.published import published_note
from exporl.report.returns import return_section
from exporl.report.run_data import NothingToReport, RunData, read_run

KINDS = {
    "base": "base policies",
    "seeds": "single seeds",
    "intervals": "intervals",
    **OTHERS,
    "published": "published curves",
}
"""What can be hidden in all charts, beside algorithms and runs."""


def write_report(
    run_dirs: Sequence[Path],
    path: Path,
    *,
    labels: Mapping[Path, str] | None = None,
    tables: str = "",
    refresh_s: float | int | None = None,
) -> Path:
    """Writes one HTML page about one or more runs, every task by itself; it loads nothing from
    anywhere.

    Args:
        run_dirs: the runs.
        path: the file.
        labels: what runs are called that have a name beside their algorithm's.
        tables: HTML that stands before all tasks.
        refresh_s: the page shows itself again after so many seconds; by default never.

    Raises:
        NothingToReport: no evaluation in any of them yet; a ValueError.
        ValueError: not a run directory.
    """
    runs = labelled([read_run(Path(run_dir)) for run_dir in run_dirs], labels)
    if not any(run.evals for run in runs):
        damage = "".join(f" {problem}" for run in runs for problem in run.problems[:1])
        raise NothingToReport(f"nothing to report yet: none of the runs has an evaluation.{damage}")
    tasks = list(dict.fromkeys(run.task for run in runs))
    title = tasks[0] if len(tasks) == 1 else f"{len(runs)} runs on {len(tasks)} tasks"
    figures, colors = Figures(), colors_of(runs)
    counts = how_many_fit([run.films for run in runs])
    shown = {run.folder: count for run, count in zip(runs, counts, strict=True)}
    body = [_head(title, runs, live=refresh_s is not None), _problems(runs), tables]
    for task in tasks:
        body += [f"<h1>{text(task)}</h1>"] if len(tasks) > 1 else []
        members = [run for run in runs if run.task == task]
        body.append(_of_task(members, colors, figures, shown, alone=len(tasks) == 1))
    body += [time_table(runs), differences(runs), machine_table(runs)]
    for run in runs:
        options = text(json.dumps(run.config, indent=1))
        body.append(
            "<details><summary>Configuration of "
            f"{text(run.name)}</summary><pre>{options}</pre></details>"
        )
    data = figures.data() | _controls(runs, colors, figures) | {"refresh": refresh_s}
    has_films = any(run.films.strips for run in runs)
    return write_document(path, title, "".join(body), data, images=has_films)


def _head(title: str, runs: Sequence[RunData], *, live: bool) -> str:
    again = "This page shows itself again while the runs go on. " if live else ""
    return (
        f"<h1>{text(title)}</h1><p class='muted'>exporl {_version(runs[0])}. {again}"
        "Brackets and bands are 95% intervals: of one run over its evaluation episodes "
        "(Wilson), of several seeds over seeds and episodes (bootstrap). Differences are "
        "paired on the same starts (bootstrap).</p><noscript><p>Charts are drawn by a script in "
        'this page: allow it, or read the tables.</p></noscript><div id="controls"></div>'
    )


def _of_task(
    runs: Sequence[RunData],
    colors: Colors,
    figures: Figures,
    shown: Mapping[Path, int],
    *,
    alone: bool,
) -> str:
    """What came out of runs on one task, with so many films of each as are `shown`; metrics are
    shown at once where it is the only one."""
    success = figures.add(success_chart(runs, colors))
    return "".join(
        [
            findings(runs),
            f"<h2>Success over environment steps</h2>{success}",
            published_note(runs[0].task),
            results_table(runs),
            reach_table(runs),
            _against_base(runs, colors, figures),
            return_section(runs, colors, figures),
            guard_section(runs, figures),
            films_section([(run.name, run.films, shown[run.folder]) for run in runs]),
            calibration_section(runs, colors, figures),
            metrics_section(runs, colors, figures, is_open=alone),
        ]
    )


def _against_base(runs: Sequence[RunData], colors: Colors, figures: Figures) -> str:
    """The policy and its base on the same starts; nothing without base policies."""
    paired = paired_table(runs)
    if not paired:
        return ""
    return (
        "<h2>Against the base policy</h2><p class='muted'>The policy minus its base policy before "
        f"training, paired by start.</p>{figures.add(difference_chart(runs, colors))}{paired}"
    )


def _controls(runs: Sequence[RunData], colors: Colors, figures: Figures) -> dict[str, Any]:
    """What can be hidden: rows of (title, prefix, (name, words, colour)); and what is at first."""
    used = {line.get("kind") for chart in figures.data()["charts"] for line in chart["lines"]}
    kinds = [
        (kind, words, None) for kind, words in KINDS.items() if kind in used or kind == "intervals"
    ]
    rows: list[tuple[str, str, Sequence[tuple[str, str, int | None]]]] = []
    if len(colors) > 1:
        groups = [(name, name, color) for name, color in colors.items()]
        rows.append(("algorithms", "group", groups))
    rows.append(("show", "kind", kinds))
    if len(runs) > 1:
        names = dict.fromkeys((run.name, run.label) for run in runs)
        rows.append(("runs", "run", [(name, name, colors[label]) for name, label in names]))
    return {"controls": rows, "hidden": [f"kind:{who}" for who in OTHERS]}


def _problems(runs: Sequence[RunData]) -> str:
    """What is wrong with the files that the page is made of, before anything that follows from
    them."""
    items = "".join(f"<li>{text(problem)}" for run in runs for problem in run.problems)
    return f"<h2>Damaged files</h2><ul>{items}</ul>" if items else ""


def _version(run: RunData) -> str:
    versions = run.config.get("versions")
    return text(versions.get("exporl", "") if isinstance(versions, dict) else "")
