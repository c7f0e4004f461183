"""What `exporl train` is asked to do: help and the usual mistakes are answered at once, without
waiting for JAX; then `cli/train.py` does it."""

import argparse
import dataclasses
import importlib
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from exporl.cli.numbers import whole_number
from exporl.cli.parsing import Parser
from exporl.cli.resumable import resumable_runs
from exporl.cli.train_help import PRESETS, instead_of, train_help
from exporl.outside import is_outside
from exporl.run.stopping import interruptions_as_such
from exporl.suggest import closest

NAMED = ("run-dir", "preset", "task", "seeds", "seeds-mode", "address", "wait-for-cpus")
OF_LISTENING = ("listen", "key-file", "wait-for-actors")
"""Options with a value: of a run, and of one whose environments are actors elsewhere."""
JOIN_S = 600.0
"""Seconds that actors have to join, unless told otherwise."""
BASE = "--base.policy"
RUNS = Path("runs")
"""Where runs go unless told otherwise."""

SHORT = {
    "--async": "--train.asynchronous",
    "--actors": "--train.actors",
    "--base": BASE,
    "--devices": "--train.devices",
}
"""Short names of options."""
NOT_BEGUN = "Nothing had begun: start it again with the same command."


@dataclasses.dataclass(frozen=True)
class Listen:
    """Where a run listens for actors, and for which."""

    address: str
    """HOST:PORT."""
    key_file: Path | None
    """Of the key that they have to send; None: they need none."""
    is_open: bool
    """Whether they need none though other machines reach the address."""
    join_s: float
    """Seconds within which they have to join, and lost ones to be replaced."""


@dataclasses.dataclass(frozen=True)
class Request:
    """The command line of `exporl train`."""

    algorithm: str | None
    task: str | None
    preset: str | None
    run_dir: Path | None
    resume: Path | None
    """The run, or the folder of seeds, to go on with."""
    seeds: int | None
    """How many seeds; None for a single run."""
    seeds_mode: str | None
    trust: bool
    """Whether code that the run to resume names, module:attribute, may be loaded."""
    address: str | None
    """Of the Ray cluster whose machines act; None: this machine."""
    wait_for_cpus: float | None
    """Seconds within which that cluster has to have a CPU for every actor; None: at once."""
    listen: Listen | None
    """Where actors on other machines join; None: nowhere."""
    dry_run: bool
    """Whether the run's plan is to be shown, and nothing else is to happen."""
    helping: bool
    """Whether only the options are to be shown."""
    options: tuple[str, ...]
    """The other arguments: options of the configuration."""


def train_command(args: list[str]) -> int:
    """`exporl train ALGO --task TASK [options]` and `exporl train --resume RUN [options]`."""
    request = parse(args)
    if request.helping and request.algorithm is None and request.resume is None:
        print(train_help(), end="")
        return 0
    check_request(request)
    try:
        with interruptions_as_such():
            return importlib.import_module("exporl.cli.train").run_request(request)
    except KeyboardInterrupt as stopped:
        if not getattr(stopped, "__notes__", ()):
            stopped.add_note(_how_to_begin(request))
        raise


def _how_to_begin(request: Request) -> str:
    """What to do where training was stopped before it began, or before what it resumes was read."""
    if request.resume is None:
        return NOT_BEGUN
    folder, trust = shlex.quote(str(request.resume)), " --trust" if request.trust else ""
    return f"Nothing was changed; go on with: exporl train --resume {folder}{trust}"


def parse(args: Sequence[str]) -> Request:
    """The request that a command line makes.

    Raises:
        ValueError: it cannot be read; or it has an option of other programs: says what to use
            instead.
    """
    parser = Parser(prog="exporl train", add_help=False)
    for name in (*NAMED, *OF_LISTENING):
        spellings = dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}"))
        parser.add_argument(*spellings, dest=name.replace("-", "_"))
    parser.add_argument("--resume", nargs="?", const="")
    parser.add_argument("--trust", action="store_true")
    parser.add_argument("--open", action="store_true")
    parser.add_argument("--dry-run", "--dry_run", action="store_true")
    known, rest = parser.parse_known_args(list(args))
    if known.resume == "":
        raise ValueError(f"--resume needs the folder of a run, or of seeds. {resumable_runs(RUNS)}")
    for argument in rest:
        if instead := instead_of(argument):
            raise ValueError(instead)
    algorithm = rest.pop(0) if rest and not rest[0].startswith("-") else None
    return Request(
        algorithm=algorithm and _known_name(algorithm),
        task=known.task,
        preset=known.preset,
        run_dir=known.run_dir and Path(known.run_dir),
        resume=known.resume and Path(known.resume),
        seeds=None if known.seeds is None else _seeds(known.seeds),
        seeds_mode=known.seeds_mode,
        trust=known.trust,
        address=known.address,
        wait_for_cpus=_seconds("--wait-for-cpus", known.wait_for_cpus),
        listen=_listen(known),
        dry_run=known.dry_run,
        helping="--help" in rest or "-h" in rest,
        options=tuple(map(_in_full, rest)),
    )


def check_request(request: Request) -> None:
    """Checks what can be checked without the library: the algorithm's name, and that there is a
    task.

    Raises:
        ValueError: says what is missing, or names the closest algorithm.
    """
    algorithm = request.algorithm
    if algorithm is None and request.resume is None:
        names = "|".join(PRESETS)
        raise ValueError(
            f"name an algorithm first: exporl train {names} --task TASK [options] "
            "(`exporl train --help`)"
        )
    if algorithm is not None and algorithm not in PRESETS and not is_outside(algorithm):
        raise ValueError(f"unknown algorithm {algorithm!r}. {closest(algorithm, PRESETS)}")
    if request.seeds_mode is not None and request.seeds is None and request.resume is None:
        raise ValueError(
            f"--seeds-mode {request.seeds_mode} has no effect on one run: give --seeds N, or leave "
            "it out."
        )
    if request.resume is None and request.task is None and not request.helping:
        raise ValueError(
            "name a task: --task family/name (`exporl tasks` lists them), or module:function of "
            "your own"
        )


def _in_full(argument: str) -> str:
    """An option that has a short name, by its whole one."""
    name, equals, value = argument.partition("=")
    return SHORT.get(name, name) + equals + value


def _known_name(algorithm: str) -> str:
    """An algorithm's name without capitals, where that is one of the library's."""
    return algorithm.lower() if algorithm.lower() in PRESETS else algorithm


def _seeds(text: str) -> int:
    try:
        return whole_number(text)
    except ValueError as error:
        raise ValueError(f"--seeds must be a number of seeds, got {text!r}.") from error


def _seconds(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{option} must be a number of seconds, got {text!r}.")
    return seconds


def _listen(known: argparse.Namespace) -> Listen | None:
    """Where actors join, with the options that go with it."""
    if known.listen is None:
        values = {name: getattr(known, name.replace("-", "_")) for name in OF_LISTENING}
        for name, value in {**values, "open": known.open or None}.items():
            if value is not None:
                raise ValueError(f"--{name} has no effect without --listen HOST:PORT.")
        return None
    key_file = known.key_file and Path(known.key_file)
    wait_s = _seconds("--wait-for-actors", known.wait_for_actors)
    return Listen(known.listen, key_file, known.open, JOIN_S if wait_s is None else wait_s)
