"""`exporl train`: one run, or many seeds of it, new or resumed."""

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
)

from exporl.cli.bars import Bars, only_bar
from exporl.cli.listening import for_actors, joined
from exporl.cli.numbers import whole_number
from exporl.cli.status import FAILED, STOPPED, notice, say
from exporl.cli.train_help import WIDTH, train_help
from exporl.cli.train_request import BASE, NOT_BEGUN, RUNS, Listen, Request
from exporl.distributed.dry_run import dry_run
from exporl.distributed.ray_actors import ray_actors
from exporl.files.run_files import CONFIG, REPORT, seed_runs
from exporl.parallel.order import ordered_config, ordered_seeds
from exporl.parallel.seeds import train_seeds
from exporl.report.returns import interval, number
from exporl.run.config import RunConfig, check, flatten, override
from exporl.run.directory import load_config
from exporl.run.endings import resumption
from exporl.run.loop import train
from exporl.run.presets import around_a_policy, preset_config
from exporl.run.stopping import Interrupted
from exporl.speed.tuning import keep_compiled_programs


def run_request(request: Request) -> int:
    """Trains what was asked for: one run or many seeds, new or resumed; the exit status."""
    resume = request.resume is not None
    folder = request.resume
    begun = {*seed_runs(folder), *ordered_seeds(folder)} if folder is not None else set[int]()
    config = _new_config(request) if not resume else _begun_config(request, begun)
    config = with_options(config, request.options)
    many = bool(begun) or request.seeds is not None
    config = for_actors(config, request.listen, many)
    name = f"{config.algorithm}-{re.sub('[/:]', '-', config.task)}" + (
        "" if many else f"-s{config.seed}"
    )
    run_dir = request.resume or request.run_dir or RUNS / name
    _check_actors(config, request.address, many, request.wait_for_cpus)
    keep_compiled_programs(notice)
    if request.dry_run:
        return _show_plan(config, many)
    if not many:
        waiting = request.wait_for_cpus
        return train_one(config, run_dir, resume, request.address, waiting, request.listen)
    already = max(begun) - config.seed + 1 if begun else 0
    num_seeds = max(request.seeds or 0, already)
    return train_many(config, run_dir, num_seeds, request.seeds_mode or "auto", resume=resume)


def _show_plan(config: RunConfig[Any], many: bool) -> int:
    """Says what a run would hold and send; the exit status."""
    if many:
        raise ValueError("--dry-run is for one run: leave --seeds out.")
    for line in dry_run(config):
        say(line)
    return 0


def _check_actors(
    config: RunConfig[Any], address: str | None, many: bool, wait_for_cpus: float | None = None
) -> None:
    """Whether actors, their address and seeds go together."""
    if address is not None and not config.train.actors:
        raise ValueError(
            f"--address {address} has no effect without actors: add --actors N, or leave it out."
        )
    if wait_for_cpus is not None and address is None:
        raise ValueError(
            f"--wait-for-cpus {wait_for_cpus:g} has no effect without --address: add the address "
            "of a Ray cluster, or leave it out."
        )
    if config.train.actors:
        check(config)  # before Ray is asked for
    if many and config.train.actors:
        raise ValueError(
            f"--actors {config.train.actors} is for one run at a time: leave --seeds out, and give "
            "each run its --seed."
        )


def _begun_config(request: Request, seeds: Collection[int]) -> RunConfig[Any]:
    """The configuration that a run, or the first of a folder of seeds, was started with. Code that
    was named in the command is trusted."""
    assert request.resume is not None
    trust = request.trust or [n for n in (request.task, request.algorithm) if n is not None]
    if not seeds:
        config = load_config(request.resume, trust=trust)
    else:
        runs = list(seed_runs(request.resume).values())
        load = load_config if runs else ordered_config
        config = load(runs[0] if runs else request.resume, trust=trust)
        config = dataclasses.replace(config, seed=min(seeds))
        if runs and ordered_seeds(request.resume):  # their runs are of one device each
            devices = ordered_config(request.resume, trust=trust).train.devices
            config = override(config, {"train.devices": devices})
    if request.algorithm not in (None, config.algorithm):
        raise ValueError(
            f"{request.resume} was started with {config.algorithm}, not {request.algorithm}."
        )
    changes = {"task": request.task, "preset": request.preset}
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(config, **given)


def _new_config(request: Request) -> RunConfig[Any]:
    """The preset's configuration; who only asks for help need not name a task."""
    assert request.algorithm is not None
    task = request.task or "family/name"
    config = preset_config(request.algorithm, request.preset or "small", task)
    named = any(option.partition("=")[0] == BASE for option in request.options)
    return around_a_policy(config) if named else config


def with_options(config: RunConfig[Any], args: Sequence[str]) -> RunConfig[Any]:
    """The configuration with options of the command line replaced.

    Raises:
        ValueError: an option without its group, such as --batch-size; names it in full.
        SystemExit: help was asked for and shown, or an option is unknown or has a wrong value,
            which is said.
    """
    for argument in args:
        _refuse_without_group(config, argument)
    algo_class = type(config.algo)
    description = (
        f"{train_help(config.algorithm)}\nDefaults are those of the preset {config.preset!r}."
    )
    with _narrow():
        return tyro.cli(
            RunConfig[algo_class],
            default=config,
            args=list(args),
            prog=f"exporl train {config.algorithm}",
            description=description,
            registry=_NUMBERS,
        )


def _refuse_without_group(config: RunConfig[Any], argument: str) -> None:
    """Names options that were given without their group."""
    name = argument[2:].split("=", 1)[0].replace("-", "_")
    known = flatten(config)
    if not argument.startswith("--") or name in known:
        return
    meant = [full for full in known if full.rsplit(".", 1)[-1] == name]
    if meant:
        options = " or ".join(f"--{full.replace('_', '-')}" for full in meant)
        raise ValueError(f"there is no option {argument.split('=', 1)[0]}: use {options}.")


@contextlib.contextmanager
def _narrow() -> Iterator[None]:
    """Texts as wide as the screen, but not wider than can be read."""
    before, width = os.environ.get("COLUMNS"), shutil.get_terminal_size().columns
    os.environ["COLUMNS"] = str(min(width, WIDTH))
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        os.environ.update({} if before is None else {"COLUMNS": before})


_NUMBERS = ConstructorRegistry()
"""How values are read beside what tyro knows."""


@_NUMBERS.primitive_rule
def _whole_numbers(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
    """Whole numbers may be written as 1e5."""
    if kind.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda texts: whole_number(texts[0]),
        is_instance=lambda value: type(value) is int,
        str_from_instance=lambda value: [str(value)],
    )


@contextlib.contextmanager
def _saying_what_goes_on(config: RunConfig[Any], folder: Path) -> Iterator[None]:
    """While it lasts, who stops at once is told what goes on with what has begun by then."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        begun = (folder / CONFIG).is_file() or ordered_seeds(folder)
        if begun and not getattr(stopped, "__notes__", ()):
            stopped.add_note(f"Go on with: {resumption(config, folder)}")
        raise


def train_one(
    config: RunConfig[Any],
    run_dir: Path,
    resume: bool,
    address: str | None = None,
    wait_for_cpus: float | None = None,
    listen: Listen | None = None,
) -> int:
    """Trains one run under a bar; the exit status."""
    console = Console(stderr=True)
    progress = only_bar(console)
    try:
        with _saying_what_goes_on(config, run_dir), contextlib.ExitStack() as until_the_end:
            task, actors = None, None
            if config.train.actors:
                actors = ray_actors(progress.say, address, wait_for_cpus_s=wait_for_cpus or 0.0)
            if listen is not None:
                joining = joined(config, run_dir, listen, progress.say, resume=resume)
                task, actors = until_the_end.enter_context(joining)
            summary = train(config, run_dir, progress, resume=resume, task=task, actors=actors)
    except Interrupted as stopped:
        progress.close()
        console.print(
            f"{stopped}. Go on with: {resumption(config, run_dir)}",
            highlight=False,
            soft_wrap=True,
        )
        return STOPPED
    finally:
        progress.close()
    if "after" in summary:
        for when in ("before", "after"):
            record = summary[when]
            say(f"{when}: {_outcome(record)} at {record['env_steps']} environment steps")
    say(f"report: {run_dir / REPORT}")
    return 0


def train_many(
    config: RunConfig[Any], folder: Path, num_seeds: int, mode: str, *, resume: bool
) -> int:
    """Trains several seeds, each under a bar of its own; the exit status."""
    bars = Bars(Console(stderr=True))
    try:
        with _saying_what_goes_on(config, folder):
            results = train_seeds(
                config, folder, num_seeds, mode=mode, progress=bars.add, resume=resume
            )
    except Interrupted as stopped:
        begun = ordered_seeds(folder)
        bars.say(f"{stopped}. Go on with: {resumption(config, folder)}" if begun else NOT_BEGUN)
        return STOPPED
    finally:
        bars.close()
    for result in results:
        after = (result.summary or {}).get("after", {})
        outcome = (
            f"failed: {result.error}"
            if result.error
            else f"{_outcome(after)} at {after['env_steps']} environment steps"
        )
        say(f"s{result.seed}: {outcome}")
    if any(result.error for result in results) and ordered_seeds(folder):
        say(f"go on with: {resumption(config, folder)}")
    if any(result.summary for result in results):
        say(f"report: {folder / REPORT}")
    return FAILED if any(result.error for result in results) else 0


def _outcome(record: Mapping[str, Any]) -> str:
    """Success, and where it is learnt from the return, of one end of a summary."""
    rates = [f"{who} {100 * record[who]:.0f}%" for who in ("base", "policy") if who in record]
    returns = record.get("return", {})
    words = [f"{who} {number(returns[who])}" for who in ("base", "policy") if who in returns]
    if "policy - base" in returns:
        mean, low, high = returns["policy - base"]
        words.append(f"policy - base {interval((mean, low, high), '+')}")
    return ", ".join(rates) + (f"; return {', '.join(words)}" if words else "")
