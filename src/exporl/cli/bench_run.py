"""Making the runs of a suite under bars, and what they are expected to take."""

import contextlib
import importlib
import threading
from collections.abc import Iterator, Sequence

from rich.console import Console

from exporl.bench.grid import PlannedRun, never_in, of_pairs, plan_runs
from exporl.bench.on_ray import Share, on_ray
from exporl.bench.pace import paces
from exporl.bench.running import ELSEWHERE, Outcome, run_suite
from exporl.bench.suite import Suite
from exporl.cli.bars import Bar, Bars
from exporl.cli.bench import BenchRequest
from exporl.cli.status import SOME_FAILED, STOPPED, notice
from exporl.files.lock import check_place
from exporl.parallel.processes import Start
from exporl.run.progress import duration
from exporl.run.stopping import stop_on_signals
from exporl.speed.cores import usable_cores
from exporl.speed.tuning import keep_compiled_programs

QUIET_S = 300.0
"""Where nobody watches a bar: seconds between lines about the runs that go on."""


def run_request(request: BenchRequest, suite: Suite) -> int:
    """Checks the suite, and lists or makes its runs; the exit status.

    Raises:
        ValueError: entries that cannot be met, more jobs than cores, a folder that cannot be
            written, or runs that were made with something else.
    """
    at_once = _jobs_here(request)
    runs = plan_runs(suite)
    for sentence in never_in(runs):
        notice(sentence)
    if request.dry_run:
        check_place(suite.folder, ELSEWHERE)
    if suite.search is not None:
        searching = importlib.import_module("exporl.cli.bench_search")
        if request.dry_run:
            print(searching.expected_search(suite, runs, at_once), end="")
            return 0
        make = searching.make_trials
    elif request.dry_run:
        print(expected(suite, runs, at_once), end="")
        return 0
    else:
        make = _make
    keep_compiled_programs(notice)
    with _place(request, suite, at_once) as (at_once, start):
        return make(request, suite, runs, at_once, start)


def _jobs_here(request: BenchRequest) -> int:
    """Runs at a time on this machine.

    Raises:
        ValueError: more than it has cores.
    """
    cores = len(usable_cores())
    at_once = cores if request.jobs is None else request.jobs
    if at_once > cores and not request.ray:
        raise ValueError(
            f"--jobs {at_once}: this process may use {cores} core{'s' if cores > 1 else ''}, and "
            "every run needs one. Ask for fewer."
        )
    return at_once


@contextlib.contextmanager
def _place(request: BenchRequest, suite: Suite, at_once: int) -> Iterator[tuple[int, Start | None]]:
    """How many runs go on at a time, and what starts them: None for processes here."""
    if not request.ray:
        yield at_once, None
        return
    share = Share(request.cpus, request.gpus)
    if request.address is not None:  # Ray waits long, without a word, for one that does not answer
        notice(f"joining the Ray cluster at {request.address}; Ctrl-C where none runs there")
    with on_ray(suite.folder, share, request.address) as runs:
        yield request.jobs or runs.room, runs.start


def _make(
    request: BenchRequest,
    suite: Suite,
    runs: Sequence[PlannedRun],
    at_once: int,
    start: Start | None,
) -> int:
    screen, stop = Screen(), threading.Event()
    already = sum(run.summary is not None for run in runs)
    if already:
        screen.bars.say(f"{already} of {len(runs)} runs are finished already")
    try:
        with stop_on_signals(stop, screen.bars.say):
            outcomes = run_suite(
                suite,
                runs,
                stop,
                at_once=at_once,
                allowed=request.allowed,
                row=screen.row,
                say=screen.bars.say,
                told=screen.told,
                start=start,
            )
    finally:
        screen.bars.close()
    if stop.is_set():
        part = f" --only {','.join(request.only)}" if request.only else ""
        notice(f"stopped; everything is saved. Go on with: exporl bench {suite.path}{part}")
        return STOPPED
    failed = [outcome for outcome in outcomes if outcome.ended[1] is not None]
    if failed:
        print(f"{len(failed)} of {len(runs)} runs failed:")
        for outcome in failed:
            print(f"  {outcome.run.asked.name}: {outcome.ended[1]}")
    else:
        print(f"all {len(runs)} runs are finished")
    print(f"tables: exporl bench {suite.path} --table")
    return SOME_FAILED if failed else 0


class Screen:
    """Bars of the runs that go on, and one line for each that has ended."""

    def __init__(self) -> None:
        self.bars = Bars(Console(stderr=True), QUIET_S)

    def row(self, run: PlannedRun) -> "RunBar":
        """A bar for one run."""
        asked = run.asked
        return RunBar(self.bars, self.bars.add(f"{asked.label} {asked.task} s{asked.seed}"))

    def told(self, outcome: Outcome) -> None:
        """The line about a run that has ended."""
        print(line_of(outcome), flush=True)


class RunBar:
    """A bar that leaves the screen with its run; what the run says is kept where it lies."""

    def __init__(self, bars: Bars, bar: Bar):
        self._bars, self._bar = bars, bar

    def phase(self, name: str, total: int, done: int) -> None:
        """A phase begins."""
        self._bar.phase(name, total, done)

    def advance(self, steps: int, note: str) -> None:
        """Some steps are done."""
        self._bar.advance(steps, note)

    def say(self, message: str) -> None:
        """Beside the bar: a suite has one line per run."""
        self._bar.advance(0, message)

    def close(self) -> None:
        """Takes the bar off the screen."""
        self._bars.drop(self._bar)


def line_of(outcome: Outcome) -> str:
    """How a run ended, and how long the suite still takes."""
    summary, error = outcome.ended
    if error is not None:
        how = f"failed: {error}"
    elif summary is None:
        how = "stopped, saved"
    else:
        how = _success(summary)
    left = ""
    if outcome.place < outcome.of and outcome.ended != (None, None):
        left = "; time left not known yet"
        if outcome.left_s is not None:
            left = f"; about {duration(outcome.left_s)} left"
    width = len(str(outcome.of))
    return f"[{outcome.place:{width}}/{outcome.of}] {outcome.run.asked.name}: {how}{left}"


def _success(summary: dict[str, object]) -> str:
    after = summary.get("after")
    if not isinstance(after, dict):
        return "finished"
    rates = [f"{who} {100 * after[who]:.0f}%" for who in ("policy", "base") if who in after]
    seconds = summary.get("train_s")
    took = f", {duration(seconds)}" if isinstance(seconds, float | int) else ""
    return f"success {', '.join(rates)} at {after['env_steps']:,} steps{took}"


def expected(suite: Suite, runs: Sequence[PlannedRun], at_once: int) -> str:
    """The grid of a suite and the hours it is expected to take."""
    known, total, unknown, left = paces(runs), 0.0, 0, 0
    lines = ["| algorithm | task | seeds | finished | steps | seconds per step | hours left |"]
    lines.append("|---" * 7 + "|")
    for pair, group in of_pairs(runs).items():
        pace, done = known[pair], sum(run.summary is not None for run in group)
        steps = sum(run.steps for run in group if run.summary is None)
        left += len(group) - done
        hours = "not known" if pace.seconds is None else f"{steps * pace.seconds / 3600:.2f}"
        if pace.seconds is None:
            unknown += len(group) - done
        else:
            total += steps * pace.seconds / 3600
        speed = pace.source if pace.seconds is None else f"{pace.seconds:.3g} ({pace.source})"
        lines.append(
            f"| {pair[0]} | {pair[1]} | {len(group)} | {done} | {group[0].steps:,} | {speed} | "
            f"{hours if steps else '0'} |"
        )
    lines += ["", f"{len(runs)} runs in {suite.folder}, {left} of them left to make."]
    if unknown:
        lines.append(
            f"The speed of {unknown} of them is not known: make one run of each, or give "
            "seconds_per_step in the suite's file. Without them:"
        )
    lines.append(f"{total:.2f} hours of computing, {total / at_once:.2f} with {at_once} at a time.")
    return "\n".join(lines) + "\n"
