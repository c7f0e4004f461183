"""`exporl report`: one page about runs, folders of them or a suite, once or while they go on."""

import functools
import time
from collections.abc import Sequence
from pathlib import Path

from exporl.bench.page import labels_in, labels_of, suite_tables
from exporl.bench.results import read_results
from exporl.bench.suite import Suite, read_suite
from exporl.bench.trial_suite import with_trials
from exporl.cli.numbers import file_target, number
from exporl.cli.parsing import Parser
from exporl.cli.status import STOPPED, notice, say
from exporl.files.run_files import CONFIG, REPORT, runs_in
from exporl.report.page import write_report
from exporl.report.reading import read_configuration
from exporl.report.watch import watch

SUITE = ".toml"
EVERY_S = 10
"""Seconds between looks at runs that go on."""


def report_command(args: list[str]) -> int:
    """`exporl report RUN [RUN ...] [--output FILE] [--watch [--every SECONDS]]`."""
    parser = Parser(prog="exporl report", description="One HTML page about one or more runs.")
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        help="run directories, folders of seeds, of runs or of a suite, or one suite file",
    )
    parser.add_argument(
        "--output",
        type=file_target,
        help="file to write (default: report.html in the first run or in the suite's folder)",
    )
    parser.add_argument(
        "--watch", action="store_true", help="write it again while the runs go on; Ctrl-C ends it"
    )
    parser.add_argument(
        "--every",
        type=number(1, 3600),
        help=f"with --watch: seconds between looks (default {EVERY_S})",
    )
    options = parser.parse_args(args)
    if options.every is not None and not options.watch:
        raise ValueError("--every is for --watch: how often to look at runs that go on.")
    suite = _suite(options.runs)
    path = options.output or (options.runs[0] if suite is None else suite.folder) / REPORT
    find = functools.partial(_runs, options.runs, suite)
    if not options.watch:
        say(_write(suite, path, None, find()))
        return 0
    return _watch(suite, path, find, options.every or EVERY_S)


def _suite(given: Sequence[Path]) -> Suite | None:
    """The suite that is asked for, if one is."""
    files = [path for path in given if path.suffix == SUITE and path.is_file()]
    if not files:
        return None
    if len(given) > 1:
        raise ValueError(f"{files[0]} is a suite: a page is about one suite, or about runs.")
    return read_suite(files[0])


def _runs(given: Sequence[Path], suite: Suite | None) -> list[Path]:
    """The runs that are there."""
    if suite is None:
        return list(dict.fromkeys(run for path in given for run in runs_in(path)))
    runs = with_trials(suite).runs
    found = [asked.run_dir for asked in runs if (asked.run_dir / CONFIG).is_file()]
    if not found:
        raise ValueError(
            f"no run of {suite.path} has begun yet: make them with `exporl bench {suite.path}`."
        )
    return found


def _write(
    suite: Suite | None, path: Path, refresh_s: float | int | None, runs: Sequence[Path]
) -> Path:
    if suite is not None:
        suite = with_trials(suite)
        made = suite_tables(read_results(suite))
        return write_report(runs, path, labels=labels_of(suite), tables=made, refresh_s=refresh_s)
    tasks = [read_configuration(run)["task"] for run in runs]
    return write_report(runs, path, labels=labels_in(runs, tasks), refresh_s=refresh_s)


def _watch(
    suite: Suite | None, path: Path, find: functools.partial[list[Path]], every_s: float | int
) -> int:
    """Until the runs are finished, or somebody stops it; the last page stands still."""
    told = False

    def write(runs: Sequence[Path], last: bool) -> None:
        nonlocal told
        _write(suite, path, None if last else every_s, runs)
        if not told:
            say(path)
        told = True

    try:
        watch(find, write, functools.partial(time.sleep, every_s), notice)
    except KeyboardInterrupt:
        if told:
            _write(suite, path, None, find())
        return STOPPED
    return 0
