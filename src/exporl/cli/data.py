"""`exporl data`: parses and dispatches, as `cli` does."""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from exporl.cli.bars import only_bar
from exporl.cli.data_options import add_reading, make_parser, records_of, summary, task_named
from exporl.cli.data_sources import collect_command, download_command
from exporl.cli.numbers import target
from exporl.cli.status import FAILED, say
from exporl.suggest import closest

HELP = """exporl data: files of recorded episodes, in any format the library knows

  exporl data inspect PATH           what is in it: lengths, returns, success, actions, duplicates
  exporl data validate PATH          every fault, not just the first; exit status 2 if there is one
  exporl data convert SRC DST        write it in another format, episode by episode
  exporl data collect TASK --output FILE    record a task's scripted expert
  exporl data download NAME          fetch a published dataset (nothing else ever downloads)

`exporl data COMMAND --help` shows options and examples. PATH may be a file or a folder; its format
is recognised.
"""
SHOWN = 3
"""Faults of a kind that are shown one by one; of more only the number, and where the first is."""


def inspect_command(args: list[str]) -> int:
    """`exporl data inspect PATH`."""
    parser = make_parser(
        "inspect",
        "What a file of episodes contains. Episodes with faults stay in the statistics as far as "
        "they can be read (so\nthat wrong ranges can be seen); --skip-bad leaves them out.",
        ["demos.npz", "low_dim.hdf5 --filter-key train", "demos.npz --plot demos.html"],
    )
    parser.add_argument("path", type=Path, help="file or folder")
    parser.add_argument(
        "--task", help="first turn the episodes into this task's units, as training does"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.html", help="also write a page with plots"
    )
    add_reading(parser)
    options = parser.parse_args(args)
    from exporl.data.describe import describe
    from exporl.data.inspect import survey

    task = task_named(options.task)
    name, records = records_of(options.path, options)
    found = survey(
        records,
        adapt=task.adapt if task else None,
        limit=options.limit,
        skip_bad=options.skip_bad,
        max_steps=task.max_episode_steps if task else None,
    )
    if not found.records and found.faults:
        raise ValueError(found.faults[0][1])
    title = f"{options.path} ({name})"
    say(describe(found, title))
    if options.plot is not None:
        from exporl.report.data_page import write_page

        say(f"plot: {write_page(found, title, options.plot)}")
    return 0


def validate_command(args: list[str]) -> int:
    """`exporl data validate PATH [--task T]`: 0 if all is well, 2 if anything is not."""
    parser = make_parser(
        "validate",
        "All faults of a file: lengths, NaN and infinity, action ranges, entries that change "
        "between episodes and, with\n--task, everything that does not fit the task. Exit status 0"
        " without faults, 2 with.",
        ["demos.npz", "demos.npz --task metaworld/push-v3"],
    )
    parser.add_argument("path", type=Path, help="file or folder")
    parser.add_argument("--task", help="also check against this task's observations and actions")
    add_reading(parser)
    options = parser.parse_args(args)
    from exporl.data.episodes import kind, kinds
    from exporl.data.inspect import survey

    task = task_named(options.task)
    name, records = records_of(options.path, options)
    found = survey(
        records,
        spec=task.spec if task else None,
        paid=task.reward_range if task else None,
        adapt=task.adapt if task else None,
        limit=options.limit,
        max_steps=task.max_episode_steps if task else None,
    )
    against = f" against {options.task}" if task else ""
    often = {kind(example) for example, count, _ in kinds(found.faults) if count > SHOWN}
    for episode, sentence in found.faults:
        if kind(sentence) not in often:
            say(sentence if episode == "file" else f"{options.path}, {episode}: {sentence}")
    for episode, first in found.duplicates:
        say(f"note: {episode} repeats {first}")
    _print_notes(found.notes)
    if not found.records and not found.faults:
        found.faults.append(("file", "no episodes"))
        say(f"{options.path} has no episodes.")
    if not found.faults:
        say(f"{options.path} ({name}): {found.records:,} episodes checked{against}, no faults")
        return 0
    say(
        f"{options.path} ({name}): {found.records:,} episodes checked{against}, "
        f"{len(found.faults):,} faults in {len([n for n in found.damaged if n != 'file']):,}"
        " episodes"
    )
    for example, count, first in kinds(found.faults):
        where = f", first in {first}" if count > SHOWN else " such as"
        say(f"  {count:>5,} x{where}: {example}")
    return FAILED


def _print_notes(notes: list[tuple[str, str]]) -> None:
    """What is odd without being wrong, one line per kind."""
    from exporl.data.episodes import kinds

    for example, count, first in kinds(notes):
        where = "" if first == "file" else f"{count:,} x, first in {first}: "
        say(f"note: {where}{example}")


def _convert_options(args: list[str]) -> argparse.Namespace:
    parser = make_parser(
        "convert",
        "Write episodes in another format, one at a time. DST is written beside its place and then "
        "moved there: an\ninterruption leaves nothing, or what was there before. Its ending"
        " chooses the format unless --to does.",
        [
            "low_dim.hdf5 demos.npz",
            "demos.npz first20.npz --limit 20",
            "pixels.npz scaled.npz --scale-actions 0 512",
            "arm.npz scaled.npz --scale-actions -1 0 1 2   (-1 to 1 in the first dimension, 0 to 2 "
            "in the second)",
            "own.npz clipped.npz --task my_robot:task --clip-actions",
            "mixed.npz good.npz --skip-bad",
        ],
    )
    parser.add_argument("source", type=Path, help="file or folder to read")
    parser.add_argument("target", type=target, help="file or folder to write")
    parser.add_argument(
        "--to", metavar="FORMAT", help="format to write (default: from DST's ending)"
    )
    parser.add_argument(
        "--task", help="first turn the episodes into this task's units, as training does"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--clip-actions",
        action="store_true",
        help=(
            "move actions outside [-1, 1], or with --task outside the bounds of its environment, to"
            " the nearest bound"
        ),
    )
    how.add_argument(
        "--scale-actions",
        type=float,
        nargs="*",
        metavar="N",
        help=(
            "LOW HIGH: map that range to [-1, 1]; the LOWs of all dimensions and then the HIGHs: "
            "one range each; without numbers the range found per dimension (reads twice)"
        ),
    )
    parser.add_argument("--force", action="store_true", help="replace DST if it exists")
    add_reading(parser)
    return parser.parse_args(args)


def convert_command(args: list[str]) -> int:
    """`exporl data convert SRC DST`."""
    options = _convert_options(args)
    from exporl.data import convert
    from exporl.data.episodes import adapted
    from exporl.envs.custom_data import clipping

    to = convert.find_writer(options.target, options.to)
    convert.check_target(options.target, options.force)
    task = task_named(options.task)
    adapt = functools.partial(adapted, adapt=None if task is None else task.adapt)
    change, note = _scaling(options, adapt)
    clip = clipping(task) if options.clip_actions else None
    name, records = records_of(options.source, options)
    written = convert.Written(options.target, to.name)
    episodes = convert.good_episodes(
        records,
        written,
        change=change,
        clip=clip,
        limit=options.limit,
        skip_bad=options.skip_bad,
        say=only_bar(Console(stderr=True)).say,
    )
    try:
        convert.write(options.target, to, episodes, written, force=options.force)
    except ValueError as error:
        hint = (
            ""
            if options.skip_bad or not written.episodes
            else " (--skip-bad leaves damaged episodes out)"
        )
        raise ValueError(f"{options.source}, {error}{hint} Nothing was written.") from error
    say(f"{options.source} ({name}) -> {summary(written)}")
    if written.skipped:
        say(f"skipped {written.skipped:,} damaged episodes")
    if options.clip_actions:
        bounds = "[-1, 1]" if task is None else "the bounds of the environment's actions"
        say(f"clipped actions of {written.changed:,} episodes to {bounds}")
    if note:
        say(note)
    _print_notes(written.notes)
    return 0


def _scaling(
    options: argparse.Namespace, adapt: Callable[[Any], Any]
) -> tuple[Callable[[Any], Any], str]:
    """What is done to each episode, and a sentence about it."""
    import numpy as np

    from exporl.data.convert import action_range, given_range, scale_actions

    numbers = options.scale_actions
    if numbers is None:
        return adapt, ""
    if numbers:
        low, high = given_range(numbers)
    else:
        episodes = _readable(records_of(options.source, options)[1], adapt, options)
        low, high = action_range(episodes, str(options.source))
    words = f"{np.round(low, 4).tolist()} to {np.round(high, 4).tolist()}"

    def scaled(episode: Any) -> Any:
        return scale_actions(adapt(episode), low, high)

    return scaled, f"scaled actions from {words} to [-1, 1]"


def _readable(records: Any, adapt: Callable[[Any], Any], options: argparse.Namespace) -> Any:
    for index, record in enumerate(records):
        if options.limit is not None and index >= options.limit:
            return
        try:
            yield adapt(record.read())
        except ValueError as error:
            if not options.skip_bad:
                raise ValueError(f"{options.source}, {record.name}: {error}") from error


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "inspect": inspect_command,
    "validate": validate_command,
    "convert": convert_command,
    "collect": collect_command,
    "download": download_command,
}


def data_command(args: list[str]) -> int:
    """Runs one `exporl data` command; exit statuses are those of `exporl`."""
    if not args or args[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if args[0] not in COMMANDS:
        rest = f"One of: {', '.join(COMMANDS)}."
        raise ValueError(f"unknown command 'data {args[0]}'. {closest(args[0], COMMANDS, rest)}")
    return COMMANDS[args[0]](args[1:])
