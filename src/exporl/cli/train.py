"""`exporl train`: one run, or many seeds of it, new or resumed."""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from exporl.algos import ALGORITHMS, find_algorithm
from exporl.cli.bars import Bars, only_bar
from exporl.cli.status import FAILED, STOPPED, notice
from exporl.files.run_files import REPORT, seed_runs
from exporl.outside import outside_names
from exporl.parallel.seeds import train_seeds
from exporl.run.config import RunConfig, to_json
from exporl.run.directory import load_config
from exporl.run.loop import train
from exporl.run.presets import preset_config
from exporl.run.stopping import Interrupted
from exporl.speed.tuning import keep_compiled_programs


def _split(args: Sequence[str], *names: str) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(f"--{name}", f"--{name.replace('-', '_')}", dest=name.replace("-", "_"))
    return parser.parse_known_args(list(args))


def train_command(args: list[str]) -> int:
    """`exporl train ALGO --task TASK [options]` and `exporl train --resume RUN [options]`."""
    known, rest = _split(args, "run-dir", "resume", "preset", "task", "seeds", "seeds-mode")
    trust, rest = "--trust" in rest, [arg for arg in rest if arg != "--trust"]
    rest = ["--train.asynchronous" if arg == "--async" else arg for arg in rest]
    algorithm = rest.pop(0) if rest and not rest[0].startswith("-") else None
    resume = known.resume is not None
    begun = seed_runs(Path(known.resume)) if resume else {}
    if resume:
        config = _begun_config(known, algorithm, begun, trust)
    else:
        config = _new_config(known, algorithm, helping="--help" in rest or "-h" in rest)
    config = _with_options(config, rest)
    if known.seeds is not None and not known.seeds.isdecimal():
        raise ValueError(f"--seeds must be a number of seeds, got {known.seeds!r}.")
    many = begun or known.seeds is not None
    if known.seeds_mode is not None and not many:
        raise ValueError(
            f"--seeds-mode {known.seeds_mode} has no effect on one run: give --seeds N, or leave it"
            " out."
        )
    name = f"{config.algorithm}-{re.sub('[/:]', '-', config.task)}" + (
        "" if many else f"-s{config.seed}"
    )
    run_dir = Path(known.resume or known.run_dir or Path("runs") / name)
    keep_compiled_programs(notice)
    if not many:
        return train_one(config, run_dir, resume=resume)
    already = max(begun) - config.seed + 1 if begun else 0
    num_seeds = max(int(known.seeds or 0), already)
    return train_many(config, run_dir, num_seeds, known.seeds_mode or "auto", resume=resume)


def _begun_config(
    known: argparse.Namespace, algorithm: str | None, begun: dict[int, Path], trust: bool
) -> RunConfig[Any]:
    """The configuration that a run, or the first of a folder of seeds, was started with. Code that
    was named in the command is trusted."""
    named = [name for name in (known.task, algorithm) if name is not None]
    run_dir = begun[min(begun)] if begun else Path(known.resume)
    config = load_config(run_dir, trust=trust or named)
    if algorithm not in (None, config.algorithm):
        raise ValueError(f"{known.resume} was started with {config.algorithm}, not {algorithm}.")
    changes = {"task": known.task, "preset": known.preset}
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(config, **given)


def _new_config(
    known: argparse.Namespace, algorithm: str | None, *, helping: bool
) -> RunConfig[Any]:
    """The preset's configuration; who only asks for help need not name a task."""
    if algorithm is None:
        names = "|".join(ALGORITHMS)
        raise ValueError(f"name an algorithm first: exporl train {names} --task TASK [options]")
    find_algorithm(algorithm)
    if known.task is None and not helping:
        raise ValueError(
            "name a task: --task family/name (`exporl tasks` lists them), or module:function of "
            "your own"
        )
    return preset_config(algorithm, known.preset or "small", known.task or "family/name")


def _with_options(config: RunConfig[Any], args: list[str]) -> RunConfig[Any]:
    """The configuration with options of the command line replaced."""
    algo_class = type(config.algo)
    return tyro.cli(
        RunConfig[algo_class],
        default=config,
        args=args,
        prog=f"exporl train {config.algorithm}",
        description=(
            f"Train with {config.algorithm.upper()}. Shown defaults are those of the preset "
            f"{config.preset!r}; choose another with --preset. More options: --run-dir DIR"
            " (default: runs/<algo>-<task>-s<seed>), --resume RUN (--trust loads code that the "
            "run names, module:attribute), --seeds N (that many runs, "
            "seeds seed, seed+1, ..., in runs/<algo>-<task>/s<seed>), --seeds-mode"
            " auto|processes|vmap, --async (short for --train.asynchronous)."
        ),
    )


def _trust_of(config: RunConfig[Any]) -> str:
    """What has to be added to go on with a run: it may name code of the user's own."""
    return " --trust" if outside_names(to_json(config)) else ""


def train_one(config: RunConfig[Any], run_dir: Path, *, resume: bool) -> int:
    """Trains one run under a bar; the exit status."""
    console = Console(stderr=True)
    progress = only_bar(console)
    try:
        summary = train(config, run_dir, progress, resume=resume)
    except Interrupted as stopped:
        progress.close()
        console.print(
            f"{stopped}. Go on with: exporl train --resume {run_dir}{_trust_of(config)}",
            highlight=False,
            soft_wrap=True,
        )
        return STOPPED
    finally:
        progress.close()
    if "after" in summary:
        for when in ("before", "after"):
            record = summary[when]
            rates = ", ".join(
                f"{who} {100 * record[who]:.0f}%" for who in ("base", "policy") if who in record
            )
            print(f"{when}: {rates} at {record['env_steps']} environment steps")
    print(f"report: {run_dir / REPORT}")
    return 0


def train_many(
    config: RunConfig[Any], folder: Path, num_seeds: int, mode: str, *, resume: bool
) -> int:
    """Trains several seeds, each under a bar of its own; the exit status."""
    bars = Bars(Console(stderr=True))
    try:
        results = train_seeds(
            config, folder, num_seeds, mode=mode, progress=bars.add, resume=resume
        )
    except Interrupted as stopped:
        bars.say(f"{stopped}. Go on with: exporl train --resume {folder}{_trust_of(config)}")
        return STOPPED
    finally:
        bars.close()
    for result in results:
        after = (result.summary or {}).get("after", {})
        rates = ", ".join(
            f"{who} {100 * after[who]:.0f}%" for who in ("base", "policy") if who in after
        )
        outcome = (
            f"failed: {result.error}"
            if result.error
            else f"{rates} at {after['env_steps']} environment steps"
        )
        print(f"s{result.seed}: {outcome}")
    if any(result.summary for result in results):
        print(f"report: {folder / REPORT}")
    return FAILED if any(result.error for result in results) else 0
