"""The command line: parses and dispatches, no logic of its own."""

import argparse
import dataclasses
import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from exporl.cli_data import data_command
from exporl.cli_tasks import check_command, tasks_command
from exporl.terminal import Drawn

HELP = """exporl: stable reinforcement learning with expressive policies (EXPO)

  exporl demo                      imitation, then EXPO and RLPD on a robot task, and a report: start here
  exporl train ALGO --task TASK    train (expo, rlpd, bc); `exporl train expo --help` lists every option
  exporl train ALGO ... --seeds 8  many seeds: one process per core, or one program on an accelerator
  exporl train --resume RUN        go on where a run (or a folder of seeds) stopped, bit for bit
  exporl eval RUN                  evaluate a run's policy and its base policy on the same starts
  exporl report RUN [RUN ...]      one HTML page about one or more runs
  exporl tasks [FAMILY]            the tasks: dimensions, horizon, data, what to install
  exporl check TASK                whether a task, or your own environment, keeps every promise, and how to mend it
  exporl presets [ALGO [PRESET]]   named option sets, every number with its source
  exporl data COMMAND              inspect, validate, convert, collect and download files of episodes
"""
FAILED, STOPPED = 2, 130


def _split(args: Sequence[str], *names: str) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(f"--{name}", f"--{name.replace('-', '_')}", dest=name.replace("-", "_"))
    return parser.parse_known_args(list(args))


def train_command(args: list[str]) -> int:
    """`exporl train ALGO --task TASK [options]` and `exporl train --resume RUN [options]`."""
    from exporl.algos import ALGORITHMS, find_algorithm
    from exporl.config import RunConfig
    from exporl.presets import preset_config
    from exporl.runs import load_config, seed_runs

    known, rest = _split(args, "run-dir", "resume", "preset", "task", "seeds", "seeds-mode")
    rest = ["--train.asynchronous" if arg == "--async" else arg for arg in rest]
    begun = {} if known.resume is None else seed_runs(Path(known.resume))
    algorithm = rest.pop(0) if rest and not rest[0].startswith("-") else None
    if known.resume is not None:
        config = load_config(begun[min(begun)] if begun else Path(known.resume))
        if algorithm not in (None, config.algorithm):
            raise ValueError(f"{known.resume} was started with {config.algorithm}, not {algorithm}.")
        run_dir = Path(known.resume)
        changes = {"task": known.task, "preset": known.preset}
        config = dataclasses.replace(config, **{name: value for name, value in changes.items() if value is not None})
    else:
        if algorithm is None:
            raise ValueError(f"name an algorithm first: exporl train {'|'.join(ALGORITHMS)} --task TASK [options]")
        find_algorithm(algorithm)
        helping = "--help" in rest or "-h" in rest
        if known.task is None and not helping:
            raise ValueError(
                "name a task: --task family/name (`exporl tasks` lists them), or module:function of your own"
            )
        config = preset_config(algorithm, known.preset or "small", known.task or "family/name")
    algo_class = type(config.algo)
    description = (
        f"Train with {config.algorithm.upper()}. Shown defaults are those of the preset {config.preset!r}; choose "
        "another with --preset. More options: --run-dir DIR (default: runs/<algo>-<task>-s<seed>), --resume RUN, "
        "--seeds N (that many runs, seeds seed, seed+1, ..., in runs/<algo>-<task>/s<seed>), --seeds-mode "
        "auto|processes|vmap, --async (short for --train.asynchronous)."
    )
    config = tyro.cli(
        RunConfig[algo_class],
        default=config,
        args=rest,
        prog=f"exporl train {config.algorithm}",
        description=description,
    )
    if known.seeds is not None and not known.seeds.isdecimal():
        raise ValueError(f"--seeds must be a number of seeds, got {known.seeds!r}.")
    many = begun or known.seeds is not None
    if known.resume is None:
        name = re.sub("[/:]", "-", f"{config.algorithm}-{config.task}") + ("" if many else f"-s{config.seed}")
        run_dir = Path(known.run_dir or Path("runs") / name)
    from exporl.tuning import keep_compiled_programs

    keep_compiled_programs()
    if many:
        num = max(int(known.seeds or 0), max(begun, default=config.seed) - config.seed + 1 if begun else 0)
        return _train_seeds(config, run_dir, num, known.seeds_mode or "auto", resume=known.resume is not None)
    return _train(config, run_dir, resume=known.resume is not None)


def _train(config: Any, run_dir: Path, *, resume: bool) -> int:
    from exporl.train import Interrupted, train

    console = Console(stderr=True)
    progress = Drawn(console)
    try:
        summary = train(config, run_dir, progress, resume=resume)
    except Interrupted as stopped:
        progress.close()
        console.print(f"{stopped}. Go on with: exporl train --resume {run_dir}", highlight=False, soft_wrap=True)
        return STOPPED
    finally:
        progress.close()
    if "after" in summary:
        for when in ("before", "after"):
            record = summary[when]
            rates = ", ".join(f"{who} {100 * record[who]:.0f}%" for who in ("base", "policy") if who in record)
            print(f"{when}: {rates} at {record['env_steps']} environment steps")
    print(f"report: {run_dir / 'report.html'}")
    return 0


def _train_seeds(config: Any, folder: Path, num: int, mode: Any, *, resume: bool) -> int:
    from exporl.console import Board
    from exporl.seeds import train_seeds
    from exporl.stopping import Interrupted

    board = Board(Console(stderr=True))
    try:
        results = train_seeds(config, folder, num, mode=mode, progress=board.row, resume=resume)
    except Interrupted as stopped:
        board.say(f"{stopped}. Go on with: exporl train --resume {folder}")
        return STOPPED
    finally:
        board.close()
    for result in results:
        after = (result.summary or {}).get("after", {})
        rates = ", ".join(f"{who} {100 * after[who]:.0f}%" for who in ("base", "policy") if who in after)
        outcome = f"failed: {result.error}" if result.error else f"{rates} at {after['env_steps']} environment steps"
        print(f"s{result.seed}: {outcome}")
    if any(result.summary for result in results):
        print(f"report: {folder / 'report.html'}")
    return FAILED if any(result.error for result in results) else 0


def eval_command(args: list[str]) -> int:
    """`exporl eval RUN [--episodes N] [--seed S]`."""
    parser = argparse.ArgumentParser(prog="exporl eval", description="Evaluate a run's policy and base policy, paired.")
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--episodes", type=int, default=100, help="episodes (default 100)")
    parser.add_argument("--seed", type=int, default=2_000_003, help="seed of the starts; training evaluates on others")
    options = parser.parse_args(args)
    if options.episodes < 1 or options.seed < 0:
        raise ValueError(f"need --episodes >= 1 and --seed >= 0, got {options.episodes} and {options.seed}.")
    from exporl.metrics import append_line
    from exporl.session import load_run
    from exporl.stats import paired_difference, wilson
    from exporl.tuning import keep_compiled_programs

    keep_compiled_programs()
    run = load_run(options.run)
    record: dict[str, Any] = {"episodes": options.episodes, "seed": options.seed, "updates": run.learner.updates}
    for who in ("policy", "base") if run.algorithm.has_base else ("policy",):
        result = run.evaluate(base=who == "base", episodes=options.episodes, seed=options.seed)
        low, high = wilson(sum(result.success), options.episodes)
        print(f"{who:6s} success {100 * result.success_rate:.0f}% [{100 * low:.0f}, {100 * high:.0f}], "
              f"mean length {sum(result.lengths) / options.episodes:.0f} steps")  # fmt: skip
        record[who] = result.to_json()
    if "base" in record:
        mean, low, high = paired_difference(record["policy"]["success"], record["base"]["success"])
        interval = f"[{100 * low:+.0f}, {100 * high:+.0f}]"
        print(f"policy - base: {100 * mean:+.0f} points {interval}, same {options.episodes} starts")
    append_line(options.run / "evaluations.jsonl", record)
    return 0


def report_command(args: list[str]) -> int:
    """`exporl report RUN [RUN ...] [--output FILE]`."""
    parser = argparse.ArgumentParser(prog="exporl report", description="One HTML page about one or more runs.")
    parser.add_argument("runs", type=Path, nargs="+", help="run directories, or folders of seeds")
    parser.add_argument("--output", type=Path, help="file to write (default: report.html in the first run)")
    options = parser.parse_args(args)
    from exporl.report import write_report
    from exporl.runs import seed_runs

    runs = [run for given in options.runs for run in (seed_runs(given).values() or [given])]
    print(write_report(runs, options.output or options.runs[0] / "report.html"))
    return 0


def presets_command(args: list[str]) -> int:
    """`exporl presets [ALGO [PRESET]]`."""
    parser = argparse.ArgumentParser(prog="exporl presets", description="List presets, or one with its sources.")
    parser.add_argument("algorithm", nargs="?")
    parser.add_argument("preset", nargs="?")
    options = parser.parse_args(args)
    from exporl.presets import PRESETS, preset_config

    if options.preset is None:
        if options.algorithm is not None and options.algorithm not in {algo for algo, _ in PRESETS}:
            preset_config(options.algorithm, "", "")
        for algo, name in PRESETS:
            if options.algorithm in (None, algo):
                print(f"{algo} {name}")
        return 0
    preset_config(options.algorithm, options.preset, "")
    table = Table("option", "value", "source")
    for option, (value, source) in PRESETS[options.algorithm, options.preset].items():
        table.add_row(option, str(value), source)
    Console().print(table)
    return 0


def demo_command(args: list[str]) -> int:
    """`exporl demo [--dir DIR] [--seed S]`."""
    from exporl import demo
    from exporl.tuning import keep_compiled_programs

    parser = argparse.ArgumentParser(prog="exporl demo", description=demo.__doc__)
    parser.add_argument("--dir", type=Path, default=Path("runs/demo"), help="where everything goes (default runs/demo)")
    parser.add_argument("--seed", type=int, default=0, help="training seed (default 0)")
    parser.add_argument("--task", default=demo.TASK, help=f"a Meta-World task (default {demo.TASK})")
    parser.add_argument("--steps", type=int, default=demo.STEPS, help=f"environment steps (default {demo.STEPS})")
    options = parser.parse_args(args)
    keep_compiled_programs()
    return demo.demo(options.dir, seed=options.seed, task=options.task, steps=options.steps, run=_train)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": demo_command,
    "train": train_command,
    "eval": eval_command,
    "report": report_command,
    "tasks": tasks_command,
    "check": check_command,
    "presets": presets_command,
    "data": data_command,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0 for success, 2 for a mistake in the request, 130 when stopped by a signal."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if args[0] not in COMMANDS:
        match = difflib.get_close_matches(args[0], COMMANDS, n=1)
        print(
            f"error: unknown command {args[0]!r}." + (f" Did you mean {match[0]!r}?" if match else ""), file=sys.stderr
        )
        print(HELP, file=sys.stderr)
        return FAILED
    try:
        return COMMANDS[args[0]](args[1:])
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ModuleNotFoundError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("stopped at once; the last checkpoint is intact", file=sys.stderr)
        return STOPPED


if __name__ == "__main__":
    sys.exit(main())
