"""What the commands of `exporl data` share: options, reading, one line about a file that was
written."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporl.cli.numbers import number
from exporl.cli.parsing import Parser


def make_parser(command: str, description: str, examples: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of one command, with examples at the end of its help."""
    lines = "\n".join(f"  exporl data {command} {example}" for example in examples)
    return Parser(
        prog=f"exporl data {command}", description=description, epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how a file is read, and how much of it."""
    group = add_format(parser)
    group.add_argument(
        "--skip-bad", action="store_true", help="leave damaged episodes out, and say which"
    )
    group.add_argument("--limit", type=positive, metavar="N", help="read the first N episodes only")


def add_format(parser: argparse.ArgumentParser) -> Any:
    """Adds the options of the formats; returns their group."""
    from exporl.data.formats import FORMATS

    group = parser.add_argument_group("reading")
    group.add_argument(
        "--format", choices=list(FORMATS), help="how to read it (default: recognised from the file)"
    )
    group.add_argument(
        "--keys",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="A,B",
        help="observation entries to read, in this order (default: all)",
    )
    group.add_argument(
        "--filter-key", metavar="NAME", help="robomimic: only the demonstrations under mask/NAME"
    )
    group.add_argument(
        "--horizon",
        type=positive,
        metavar="N",
        help="D4RL or arrays without timeouts: steps per episode",
    )
    group.add_argument(
        "--images", action="store_true", help="LeRobot: also decode the videos (slow)"
    )
    group.add_argument(
        "--assume-success", action="store_true", help="LeRobot without rewards: all are successes"
    )
    return group


positive = number(1)
"""Reads a number of at least 1."""


def records_of(path: Path, options: argparse.Namespace) -> tuple[str, Any]:
    """The format's name and an iterator over the records."""
    from exporl.data.formats import find_format, read_records

    name = find_format(path, options.format).name
    return name, read_records(path, options.format, reading(options))


def reading(options: argparse.Namespace) -> Any:
    """The `ReadOptions` that were given."""
    from exporl.data.formats import ReadOptions

    return ReadOptions(
        options.keys, options.filter_key, options.horizon, options.images, options.assume_success
    )


def task_named(name: str | None) -> Any:
    """The task of a name; None without one."""
    if name is None:
        return None
    from exporl.envs.registry import make_task

    return make_task(name)


def summary(written: Any) -> str:
    """One line about a file that was written."""
    from exporl.data.memory import size

    rate = 100 * written.successes / written.episodes
    return (
        f"{written.path} ({written.format}): {written.episodes:,} episodes, {written.steps:,} "
        f"steps, success {rate:.0f}%, {size(written.bytes)}"
    )
