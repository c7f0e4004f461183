"""Command lines that should not work, made from the commands' own tables of options: every option
with values out of its range, not numbers, endless, empty, of another type; names that do not exist,
options twice, without a value, contradicting each other; paths that lead nowhere, or where nothing
can be read or written."""

import argparse
import contextlib
import dataclasses
import random
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from exporl.algos import ALGORITHMS
from exporl.cli.data import COMMANDS as DATA_COMMANDS
from exporl.cli.demo import demo_command
from exporl.cli.presets import presets_command
from exporl.cli.report import report_command
from exporl.cli.runs import eval_command
from exporl.cli.tasks import check_command, tasks_command
from exporl.options import Interval
from exporl.run.presets import preset_config

TASK = "probe/bandit"
FILE, RUN = "demos.npz", "run"
"""What is there: a file of demonstrations and a finished run."""
NO_NUMBERS = (
    "nan", "NaN", "inf", "-inf", "1e400", "-1e400", "", " ", "abc", "0x10", "1,5", "1/2", "None",
    "null", "--", "1e", "1__0", "++1", "1e5.5", "nan nan", "9" * 400 + ".", "½", "\u202e5", "[1]",
)  # fmt: skip
"""Texts that are no finite number; 1e400 and what is longer is more than a float holds."""
NO_WHOLE = (*NO_NUMBERS, "1.5", "1e-5", "-0.1")
NO_PATHS = (
    "nowhere", "nowhere/deep", "", "a" * 300, "/dev/zero", "/proc/self/mem", "pipe",
    "folder", "loop", "\udcff.npz", "*", "~", "/etc/passwd", "/dev/full", "empty.npz", "text.npz",
)  # fmt: skip
"""Paths that hold no episodes and no run; the folder of a case has a pipe, an empty folder, a loop
of links, and files that are none of ours."""
NO_TARGETS = (
    "/proc/x/y.npz", "a" * 300 + ".npz", "text.npz/in.npz", "folder", "", "out.unknown",
    "demos.npz", "pipe", "out.npz/", "text.npz",
)  # fmt: skip
"""Places where nothing can be written, or something is already."""
TARGETS = ("--output", "--plot", "--dir")
"""Options whose path is written."""
WRONG = ("banana", "", " ", "EXPO!", "../expo", "expo\n", "é", "a" * 300)
"""Names that nothing has."""


@dataclasses.dataclass(frozen=True)
class Line:
    """A command line."""

    args: tuple[str, ...]
    refused: bool
    """Whether it certainly has to be refused; otherwise it may be accepted."""
    names: tuple[str, ...] = ()
    """The message must have one of these: the option, the path, the word that is wrong."""
    what: str = ""
    """The kind of mistake."""


class _Seen(Exception):
    """Carries a command's parser out of it."""


def parser_of(command: Callable[[list[str]], int]) -> argparse.ArgumentParser:
    """The parser that a command makes for itself."""

    def show(parser: argparse.ArgumentParser, *_: Any) -> Any:
        raise _Seen(parser)

    with contextlib.ExitStack() as back:
        before = argparse.ArgumentParser.parse_args
        back.callback(setattr, argparse.ArgumentParser, "parse_args", before)
        argparse.ArgumentParser.parse_args = show  # type: ignore[method-assign]
        try:
            command(["--help"])
        except _Seen as seen:
            return seen.args[0]
    raise AssertionError(f"{command} has no parser")


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a command."""

    spelling: str
    kind: Literal["whole", "number", "choice", "path", "name", "flag", "list"]
    least: float | None = None
    """What is below is refused; None: unknown."""
    most: float | None = None
    optional: bool = False
    """Whether "None" is a value of it."""


BASES: dict[str, tuple[str, ...]] = {
    "eval": ("eval", RUN),
    "report": ("report", RUN),
    "check": ("check", TASK),
    "tasks": ("tasks",),
    "presets": ("presets",),
    "demo": ("demo", "--dir", "d"),
    "data inspect": ("data", "inspect", FILE),
    "data validate": ("data", "validate", FILE),
    "data convert": ("data", "convert", FILE, "out.npz"),
    "data collect": ("data", "collect", TASK, "--output", "out.npz"),
    "data download": ("data", "download", "robomimic/can-mh-v141", "--offline", "--dir", "d"),
} | {f"train {name}": ("train", name, "--task", TASK, "--run-dir", "new") for name in ALGORITHMS}
"""Command -> its line without a mistake."""
FUNCTIONS: dict[str, Callable[[list[str]], int]] = {
    "eval": eval_command, "report": report_command, "check": check_command, "tasks": tasks_command,
    "presets": presets_command, "demo": demo_command,
} | {f"data {name}": function for name, function in DATA_COMMANDS.items()}  # fmt: skip
AT_LEAST = {"--episodes": 1, "--seed": 0, "--demos": 0, "--noise": 0, "--steps": 0, "--limit": 1,
            "--horizon": 1}  # fmt: skip
"""The ranges of options that are no fields of a configuration."""


def options_of(command: str) -> list[Option]:
    """The options of a command."""
    if command.startswith("train "):
        return [*fields_of(command.split()[1]), *_OF_TRAIN]
    found = []
    for action in parser_of(FUNCTIONS[command])._actions:
        if not action.option_strings or isinstance(action, argparse._HelpAction):
            continue
        spelling = action.option_strings[-1]
        if action.nargs == 0:
            kind = "flag"
        elif action.choices:
            kind = "choice"
        elif action.type is Path:
            kind = "path"
        elif action.type is float:
            kind = "list" if action.nargs == "*" else "number"
        elif getattr(action.type, "__name__", "") in ("whole_number", "positive"):
            kind = "whole"
        else:
            kind = "name"
        found.append(Option(spelling, typing.cast(Any, kind), AT_LEAST.get(spelling)))
    return found


_OF_TRAIN = [
    Option("--seeds", "whole", 1, optional=False),
    Option("--seeds-mode", "choice"),
    Option("--preset", "choice"),
    Option("--task", "choice"),
    Option("--resume", "path"),
    Option("--async", "flag"),
]


def fields_of(algorithm: str) -> Iterator[Option]:
    """Every option of a run of an algorithm, with its range."""
    config = preset_config(algorithm, "tiny", TASK)
    parts = [("", config)] + [
        (f"{name}.", getattr(config, name))
        for name in ("algo", "base", "data", "train", "eval", "log")
    ]
    for prefix, part in parts:
        hints = typing.get_type_hints(type(part))
        for field in dataclasses.fields(part):
            if dataclasses.is_dataclass(getattr(part, field.name)) or field.name in (
                "task",
                "algorithm",
            ):
                continue
            spelling = f"--{prefix}{field.name}".replace("_", "-")
            yield _option(spelling, hints[field.name], field.metadata)


def _option(spelling: str, hint: Any, metadata: Any) -> Option:
    kinds = {hint, *typing.get_args(hint)}
    least = most = None
    if "within" in metadata:
        interval = Interval.parse(metadata["within"])
        least, most = interval.low, interval.high
    kind: Any = "name"
    if (
        any(typing.get_origin(each) is Literal for each in kinds)
        or typing.get_origin(hint) is Literal
    ):
        kind = "choice"
    elif bool in kinds:
        kind = "flag"
    elif typing.get_origin(hint) is tuple:
        kind = "list" if kinds & {int, float} else "name"
    elif float in kinds:
        kind = "number"
    elif int in kinds:
        kind = "whole"
    elif spelling == "--data.path":
        kind = "path"
    return Option(spelling, kind, least, most, type(None) in kinds)


def wrong_values(option: Option, rng: random.Random) -> Iterator[tuple[str, bool, str]]:
    """(value, whether it must be refused, kind of mistake) for one option."""
    if option.kind in ("whole", "number", "list"):
        yield from _wrong_numbers(option, rng)
    elif option.kind == "flag":
        yield "maybe", True, "value of a flag"
    elif option.kind == "path":
        places = NO_TARGETS if option.spelling in TARGETS else NO_PATHS
        for text in rng.sample(places, 4):
            yield text, False, "path"
    else:
        choice = option.kind == "choice"
        for text in rng.sample(WRONG, 2):
            yield text, choice, "no such name" if choice else "name"


def _wrong_numbers(option: Option, rng: random.Random) -> Iterator[tuple[str, bool, str]]:
    texts = NO_NUMBERS if option.kind == "number" else NO_WHOLE
    for text in rng.sample(texts, 3):
        yield text, not (option.optional and text == "None"), "not a number"
    if option.least is not None and option.least > -1e6:
        yield f"{option.least - 1:g}", True, "below its range"
        yield "-99999999999999999999", True, "below its range"
    if option.most is not None and option.most < 1e6:
        yield f"{option.most + 1:g}", True, "above its range"
    yield rng.choice(("1e15", "1e30", "99999999999999999999")), False, "huge"


def of_options(rng: random.Random) -> Iterator[Line]:
    """Every option of every command with wrong values, without one, and twice."""
    for command, base in BASES.items():
        for option in options_of(command):
            names = spellings(option.spelling)
            for value, refused, what in wrong_values(option, rng):
                given = [f"{option.spelling}={value}"]
                if option.kind != "flag" and not value.startswith("-") and rng.random() < 0.7:
                    given = [option.spelling, *([value] if value != "nan nan" else value.split())]
                yield Line(
                    (*base, *given), refused, (*names, *value.split(), *filter(None, [value])), what
                )
            if option.kind not in ("flag", "list"):
                yield Line((*base, option.spelling), True, names, "without a value")
                twice = (option.spelling, "1", option.spelling, "banana")
                yield Line((*base, *twice), False, (*names, "banana"), "twice")
            wrong = option.spelling[:-1] + rng.choice("xyz") + option.spelling[-1]
            yield Line((*base, wrong, "1"), True, (wrong,), "no such option")


def spellings(option: str) -> tuple[str, ...]:
    """How a message may call an option."""
    bare = option.removeprefix("--")
    return option, bare.replace("-", "_"), bare.rsplit(".", 1)[-1].replace("-", "_")


def of_places(rng: random.Random) -> Iterator[Line]:
    """What stands without an option: commands, algorithms, tasks, runs, files."""
    for text in (*WRONG, "trian", "--", "-", "-x", "nan", "-1", "train ", "\udcff"):
        yield Line((text,), bool(text), (text.strip() or "command",), "no such command")
        yield Line(("data", text), bool(text), (text.strip() or "command",), "no such command")
        for before in (("train",), ("tasks",), ("presets",), ("presets", "expo")):
            rest = ("--task", TASK) if before == ("train",) else ()
            refused = text not in ("--",)
            yield Line(
                (*before, text, *rest),
                refused,
                (text.strip() or "unknown", "name "),
                "no such name",
            )
        yield Line(("check", text), True, (text.strip() or "task",), "no such task")
        # what looks like an option is none's value: the message names the option that lacks one
        names = (text.strip() or "task", *(("--task",) if text.startswith("-") else ()))
        yield Line(("train", "expo", "--task", text), True, names, "no such task")
    for task in ("probe/", "/", "probe/bandit/x", "os:system", ":", "a:b", "sys:exit", "os:_exit",
                 "builtins:exec", "json:loads", "probe:bandit", "metaworld/push", "antigravity:x:y",
                 "posix:abort ", "time:sleep", "builtins:input"):  # fmt: skip
        for line in (
            ("check", task),
            ("train", "bc", "--task", task),
            ("data", "validate", FILE, "--task", task),
        ):
            yield Line(line, True, (task, task.partition(":")[0]), "no such task")
    for path in NO_PATHS:
        last = (path or ".",)
        for line in (("eval", path), ("report", path), ("train", "--resume", path),
                     ("data", "inspect", path), ("data", "validate", path)):  # fmt: skip
            yield Line(line, True, (*last, "cannot be read"), "path")
        yield Line(("data", "convert", path, "out.npz"), True, last, "path")
        yield Line(("check", TASK, "--data", path), True, last, "path")
    for path in NO_TARGETS:
        names = (path or "name", "format")
        yield Line(("data", "convert", FILE, path), True, names, "target")
        collect = ("data", "collect", TASK, "--episodes", "1", "--output", path)
        yield Line(collect, False, names, "target")
        run = ("train", "bc", "--task", TASK, "--run-dir", path)
        yield Line(run, False, (path or ".",), "target")


CONTRADICTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("EXPO --data.demos 0 --train.offline-steps 5", ("prior", "data.")),
    ("EXPO --chunk-length 2 --execute-length 3", ("execute_length",)),
    ("EXPO --train.batch-size 1", ("batch_size",)),
    ("EXPO --algo.num-qs 2 --algo.num-min-qs 3", ("num_min_qs",)),
    ("EXPO --seeds-mode vmap", ("seeds-mode",)),
    ("EXPO --seeds 2 --seeds-mode vmap --async", ("asynchronous",)),
    ("RLPD --base.width 16", ("base.",)),
    ("EXPO --data.format arrays", ("data.format",)),
    ("EXPO --data.path demos.npz --data.images", ("images",)),
    ("train expo --task probe/bandit --run-dir run", ("run",)),
    ("train expo --resume run", ("expo", "bc")),
    ("train bc --resume run --task probe/delay", ("task",)),
    ("train --resume run --seed 5", ("seed",)),
    ("train --resume run --train.online-steps 1", ("online_steps", "at step")),
    ("train --resume run --base.width 64", ("width",)),
    ("train --resume run --run-dir other --preset paper", ("preset", "run-dir")),
    ("train expo rlpd --task probe/bandit --run-dir new", ("rlpd",)),
    ("EXPO --algo.clip-targets True", ("clip_targets",)),
    ("EXPO --reward 2/0", ("reward",)),
    ("train", ("algorithm",)),
    ("train expo", ("task",)),
    ("train --resume", ("--resume",)),
    ("train --lr 1 expo --task probe/bandit", ("--lr",)),
    ("eval", ("run",)),
    ("eval run run", ("run",)),
    ("report", ("runs",)),
    ("report run nowhere", ("nowhere",)),
    ("check", ("task",)),
    ("check probe/bandit --filter-key x", ("filter",)),
    ("data inspect", ("path",)),
    ("data inspect demos.npz demos.npz", ("demos.npz",)),
    ("data inspect demos.npz --format d4rl", ("demos.npz",)),
    ("data inspect demos.npz --filter-key train", ("filter_key",)),
    ("data inspect demos.npz --keys nothing", ("nothing",)),
    ("data inspect demos.npz --plot /proc/x.html", ("/proc/x.html",)),
    ("data convert demos.npz", ("target",)),
    ("data convert demos.npz demos.npz --force", ("demos.npz",)),
    ("data convert demos.npz out.npz --clip-actions --scale-actions 0 1", ("scale-actions",)),
    ("data convert demos.npz out.npz --scale-actions 1 0", ("1",)),
    ("data convert demos.npz out.npz --scale-actions 1", ("scale-actions", "even")),
    ("data convert demos.npz out.npz --scale-actions 0 0", ("0",)),
    ("data convert demos.npz out.npz --scale-actions nan 1", ("nan",)),
    ("data convert demos.npz out.npz --scale-actions 0 inf", ("inf",)),
    ("data convert demos.npz out.npz --scale-actions 1 2 3 4 5 6", ("dimension", "already")),
    ("data convert demos.npz out.npz --to banana", ("banana",)),
    ("data collect probe/bandit", ("output",)),
    ("data collect pusht/keypoints --output out.npz", ("pusht", "expert")),
    ("data download banana", ("banana",)),
    ("data download", ("name",)),
    ("data download robomimic/can-mh-v141 x", ("x",)),
    ("data", ()),
    ("presets expo banana extra", ("extra",)),
    ("presets banana small", ("banana",)),
)  # fmt: skip
"""Command lines whose parts are right and do not go together, and what the message has to name.
EXPO and RLPD stand for the beginning of a run of theirs."""


ALLOWED = ("data", "data convert demos.npz demos.npz --force")
"""Of them, what may be meant: help, and a file that takes its own place."""


def of_contradictions() -> Iterator[Line]:
    """What does not go together."""
    for text, names in CONTRADICTIONS:
        for algorithm in ALGORITHMS:
            text = text.replace(algorithm.upper(), " ".join(BASES[f"train {algorithm}"]))
        yield Line(tuple(text.split()), text not in ALLOWED, names, "contradiction")


def command_lines(count: int, seed: int) -> list[Line]:
    """A seeded choice of command lines, of every kind; all contradictions among them."""
    rng = random.Random(seed)
    chosen = list(of_contradictions())
    pools: list[Sequence[Line]] = [list(of_options(rng)), list(of_places(rng))]
    shares = (0.65, 1.0)
    for pool, share in zip(pools, shares, strict=True):
        wanted = round((count - len(chosen)) * share)
        chosen += rng.sample(pool, min(wanted, len(pool)))
    rng.shuffle(chosen)
    return chosen
