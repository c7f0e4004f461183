"""The report about a suite: its tables above the charts of all its runs, which have the names that
the suite gives them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from exporl.bench.prints import PRINTS
from exporl.bench.results import Results
from exporl.bench.suite import Suite
from exporl.bench.tables import tables
from exporl.report.markup import table, text


def labels_of(suite: Suite) -> dict[Path, str]:
    """What the suite calls each of its runs."""
    return {asked.run_dir: asked.label for asked in suite.runs}


def labels_in(run_dirs: Sequence[Path], tasks: Sequence[str]) -> Mapping[Path, str]:
    """The names of runs that lie in the folder of a suite, by their own folders,
    `<name>-<task>/s<seed>`; none for other runs.

    Args:
        run_dirs: run directories.
        tasks: of each of them.
    """
    found = {}
    for run_dir, task in zip(run_dirs, tasks, strict=True):
        place, ending = run_dir.parent, "-" + task.replace("/", "-").replace(":", "-")
        if (place.parent / PRINTS).is_dir() and place.name.endswith(ending):
            found[run_dir] = place.name.removesuffix(ending)
    return found


def suite_tables(results: Results) -> str:
    """The tables of a suite as HTML, after what is left out of them."""
    problems = "".join(f"<li>{text(problem)}" for problem in results.problems)
    parts = [f"<ul>{problems}</ul>"] if problems else []
    for made in tables(results) if results.runs else ():
        rows = [[text(cell) for cell in row] for row in made.rows]
        parts.append(f"<h2>{text(made.title)}</h2>{table(made.head, rows)}")
        parts.append(f"<p class='muted'>{text(made.note)}</p>")
    return "".join(parts)
