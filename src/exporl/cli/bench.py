"""`exporl bench`: what it is asked to do. Help and tables are answered without waiting for JAX;
`cli/bench_run.py` does the rest."""

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporl.bench.prints import ALLOWED
from exporl.cli.bench_help import HELP
from exporl.cli.numbers import file_target, number, whole_number
from exporl.cli.parsing import Parser
from exporl.cli.status import notice
from exporl.files.atomic import write_text
from exporl.files.naming import make_folder_of
from exporl.suggest import closest


@dataclasses.dataclass(frozen=True)
class BenchRequest:
    """The command line of `exporl bench`."""

    suite: Path
    jobs: int | None
    dry_run: bool
    show: str | None
    """table, latex, csv or json; None to make runs."""
    output: Path | None
    allowed: tuple[str, ...]
    only: tuple[str, ...]
    """Algorithms, tasks and seeds that are meant; none: all of them."""
    ray: bool
    """Whether runs are made on Ray."""
    address: str | None
    """Of a Ray cluster; None: this machine."""
    cpus: int
    gpus: float
    """What each run gets there."""


def parse(args: Sequence[str]) -> BenchRequest:
    """The request that a command line makes.

    Raises:
        ValueError: it cannot be read.
    """
    parser = Parser(prog="exporl bench", add_help=False)
    parser.add_argument("suite", type=Path)
    parser.add_argument("--jobs", type=whole_number)
    parser.add_argument("--dry-run", "--dry_run", action="store_true")
    for name in ("table", "latex", "csv", "json"):
        parser.add_argument(f"--{name}", dest="show", action="append_const", const=name)
    parser.add_argument("--output", type=file_target)
    parser.add_argument("--allow", action="append", default=[])
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--address")
    parser.add_argument("--cpus", type=whole_number)
    parser.add_argument("--gpus", type=number(0, 1024, whole=False))
    found = parser.parse_args(list(args))
    shown = found.show or []
    if len(shown) + found.dry_run > 1:
        raise ValueError("ask for one of --dry-run, --table, --latex, --csv and --json at a time.")
    if found.output is not None and not shown:
        raise ValueError("--output is for --table, --latex, --csv and --json.")
    if found.jobs is not None and found.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {found.jobs}.")
    for name in ("address", "cpus", "gpus"):
        if getattr(found, name) is not None and not found.ray:
            raise ValueError(f"--{name} is for runs on Ray: add --ray, or leave it out.")
    if found.cpus is not None and found.cpus < 1:
        raise ValueError(f"--cpus must be at least 1, got {found.cpus}.")
    for each in found.allow:
        if each not in ALLOWED:
            raise ValueError(f"--allow cannot allow {each!r}. {closest(each, ALLOWED)}")
    show = shown[0] if shown else None
    allowed = tuple(found.allow)
    return BenchRequest(
        found.suite,
        found.jobs,
        found.dry_run,
        show,
        found.output,
        allowed,
        tuple(name.strip() for given in found.only for name in given.split(",")),
        found.ray,
        found.address,
        found.cpus or 1,
        found.gpus or 0.0,
    )


def _shown(show: str, suite: Any) -> str:
    """The table of a suite, or of the trials of its search."""
    tables = importlib.import_module("exporl.bench.tables")
    write = tables.markdown if show == "table" else tables.latex
    if suite.search is not None:
        trials = importlib.import_module("exporl.bench.trials")
        found = trials.read_trials(suite.folder, suite.search)
        suites = importlib.import_module("exporl.bench.trial_suite")
        if show in ("table", "latex"):
            made = importlib.import_module("exporl.bench.trial_table").trial_table(suite, found)
            return write([made])
        suite = suites.with_trials(suite, found)
    results = importlib.import_module("exporl.bench.results").read_results(suite)
    if show in ("table", "latex"):
        return write(tables.tables(results), results.problems)
    for problem in results.problems:
        notice(problem)
    if show == "json":
        return importlib.import_module("exporl.bench.collected").collected_text(results)
    return tables.csv_text(results)


def bench_command(args: list[str]) -> int:
    """`exporl bench SUITE.toml [--dry-run | --table | --latex | --csv | --json] [--jobs K]`."""
    if not args or "-h" in args or "--help" in args:
        print(HELP, end="")
        return 0
    request = parse(args)
    suite = importlib.import_module("exporl.bench.suite").read_suite(request.suite)
    suite = importlib.import_module("exporl.bench.selection").selected(suite, request.only)
    if request.show is None:
        return importlib.import_module("exporl.cli.bench_run").run_request(request, suite)
    text = _shown(request.show, suite)
    if request.output is None:
        print(text, end="")
    else:
        make_folder_of(request.output)
        write_text(request.output, text)
        print(request.output)
    return 0
