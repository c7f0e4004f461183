"""`exporl eval`: a run that exists, evaluated."""

import argparse
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from exporl.acting.evaluate import EvalResult
from exporl.acting.filming import Film
from exporl.bundle.evaluation import load_evaluated
from exporl.cli.films import Filming, add_film_options, can_film, filming, folder_of
from exporl.cli.numbers import number
from exporl.cli.parsing import Parser
from exporl.cli.status import FAILED, notice, say
from exporl.files.atomic import append_line
from exporl.files.bundle import is_bundle
from exporl.files.run_files import EVALUATIONS, VIDEOS, runs_in
from exporl.options import LARGEST_SEED, MOST_EPISODES
from exporl.report.returns import return_words
from exporl.run.progress import Silent
from exporl.run.session import load_run
from exporl.speed.tuning import keep_compiled_programs
from exporl.stats.intervals import paired_difference, wilson


class _Said(Silent):
    """What is said while a run is loaded, on the error stream."""

    def say(self, message: str) -> None:
        """One line."""
        notice(message)


def eval_command(args: list[str]) -> int:
    """`exporl eval RUN [--task TASK] [--episodes N] [--seed S] [--video [N]] [--trust]`."""
    parser = Parser(
        prog="exporl eval", description="Evaluate a run's policy and base policy, paired."
    )
    parser.add_argument(
        "run", type=Path, help="run directory, a folder of seeds or of runs, or a bundle"
    )
    parser.add_argument(
        "--task", help="of a bundle: where to play (default: the task that it was trained on)"
    )
    parser.add_argument(
        "--episodes", type=number(1, MOST_EPISODES), default=100, help="episodes (default 100)"
    )
    parser.add_argument(
        "--seed",
        type=number(0, LARGEST_SEED),
        default=2_000_003,
        help="seed of the starts; training evaluates on others",
    )
    parser.add_argument(
        "--trust", action="store_true", help="load code that the run names, module:attribute"
    )
    add_film_options(parser)
    options = parser.parse_args(args)
    if options.task is not None and not is_bundle(options.run):
        raise ValueError(
            f"--task is for bundles, and {options.run} is none: a run is evaluated in its own task."
        )
    can_film(options)
    keep_compiled_programs(notice)
    if is_bundle(options.run):
        _evaluate_bundle(options)
        return 0
    runs = runs_in(options.run)
    if len(runs) == 1:
        _evaluate(runs[0], options)
        return 0
    return _evaluate_all(runs, options)


def _evaluate_all(runs: Sequence[Path], options: argparse.Namespace) -> int:
    """Evaluates several runs; one that cannot be evaluated does not keep the others from it."""
    records, failed = [], 0
    for run in runs:
        say(f"{run}:")
        try:
            records.append(_evaluate(run, options))
        except (ValueError, OSError, ModuleNotFoundError) as error:
            notice(f"error: {error}")
            failed += 1
    for who in ("policy", "base"):
        rates = [100 * each[who]["success_rate"] for each in records if who in each]
        if len(rates) > 1:
            spread = f"{min(rates):.0f} to {max(rates):.0f}"
            say(f"{who:6s} success {sum(rates) / len(rates):.0f}% over {len(rates)} runs, {spread}")
    return FAILED if failed else 0


def _evaluate(run_dir: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Evaluates one run, prints and keeps what came out of it."""
    run = load_run(run_dir, _Said(), trust=options.trust)
    record: dict[str, Any] = {
        "episodes": options.episodes,
        "seed": options.seed,
        "updates": run.updates,
        "checkpoint": run.checkpoint_name,
    }
    films = filming(
        folder_of(run_dir, options.run, options.video_dir, run_dir / VIDEOS),
        f"{run.checkpoint_name}-seed-{options.seed}",
        options.video,
        run.task.control_hz,
        run.parts.make_env,
    )
    named = record | {"task": run.task.name}
    record |= {"problems": run.problems} if run.problems else {}
    names = ("policy", "base") if run.algorithm.has_base else ("policy",)

    def play(who: str, film: Film | None) -> EvalResult:
        return run.evaluate(
            base=who == "base", episodes=options.episodes, seed=options.seed, film=film
        )

    record |= _played(play, names, films, returns=run.config.reward == "env")
    append_line(run_dir / EVALUATIONS, record)
    if films is not None:
        films.finish(named)
        if options.video_dir is None:
            say(f"`exporl report {run_dir}` shows them.")
    return record


def _evaluate_bundle(options: argparse.Namespace) -> None:
    """Evaluates a bundle and prints what came out; nothing is written into it."""
    place, run = options.video_dir, options.run.resolve()
    if options.video is not None and (place is None or place.resolve().is_relative_to(run)):
        raise ValueError(
            f"{options.run} is a bundle, into which nothing is written. Say where its films go: "
            "--video-dir DIR."
        )
    bundle = load_evaluated(options.run, options.task, trust=options.trust)
    names = ("policy", "base") if bundle.has_two else ("policy",)
    hz, name = bundle.task.control_hz, f"seed-{options.seed}"
    films = filming(options.video_dir, name, options.video, hz, bundle.make_env)

    def play(who: str, film: Film | None) -> EvalResult:
        return bundle.evaluate(
            base=who == "base", episodes=options.episodes, seed=options.seed, film=film
        )

    _played(play, names, films, returns=bundle.reward == "env")
    if films is not None:
        record = {"bundle": options.run.resolve().name, "task": bundle.task.name}
        films.finish(record | {"episodes": options.episodes, "seed": options.seed})


def _played(
    play: Callable[[str, Film | None], EvalResult],
    names: Sequence[str],
    films: Filming | None,
    *,
    returns: bool,
) -> dict[str, Any]:
    """Lets everyone play, prints and returns the outcomes by name."""
    record: dict[str, Any] = {}
    for who in names:
        with contextlib.nullcontext() if films is None else films.of(who) as film:
            result = play(who, film)
        episodes = len(result.success)
        low, high = wilson(sum(result.success), episodes)
        say(
            f"{who:6s} success {100 * result.success_rate:.0f}% [{100 * low:.0f}, "
            f"{100 * high:.0f}], mean length {sum(result.lengths) / episodes:.0f} steps"
        )
        record[who] = result.to_json()
    if "base" in record:
        mean, low, high = paired_difference(record["policy"]["success"], record["base"]["success"])
        interval = f"[{100 * low:+.0f}, {100 * high:+.0f}]"
        same = len(record["base"]["success"])
        say(f"policy - base: {100 * mean:+.0f} points {interval}, same {same} starts")
    if returns:
        say(return_words(record))
    return record
