"""`exporl data`: parses and dispatches, as `cli` does."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from exporl.cli.bars import only_bar
from exporl.cli.status import FAILED
from exporl.suggest import closest

HELP = """exporl data: files of recorded episodes, in any format the library knows

  exporl data inspect PATH           what is in it: lengths, returns, success, actions, observations, duplicates
  exporl data validate PATH          every fault in it, not just the first; exit status 2 if there is one
  exporl data convert SRC DST        write it in another format, episode by episode
  exporl data collect TASK --output FILE    record a task's scripted expert
  exporl data download NAME          fetch a published dataset, checked and resumable (nothing else ever downloads)

`exporl data COMMAND --help` shows options and examples. PATH may be a file or a folder; its format is recognised.
"""
PLACES = 2


def _parser(command: str, description: str, examples: Sequence[str]) -> argparse.ArgumentParser:
    lines = "\n".join(f"  exporl data {command} {example}" for example in examples)
    return argparse.ArgumentParser(
        prog=f"exporl data {command}", description=description, epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip


def _reading(parser: argparse.ArgumentParser) -> None:
    from exporl.data.formats import FORMATS

    group = parser.add_argument_group("reading")
    group.add_argument("--format", choices=list(FORMATS), help="how to read it (default: recognised from the file)")
    group.add_argument("--keys", type=lambda text: tuple(text.split(",")), default=(), metavar="A,B",
                       help="observation entries to read, in this order (default: all)")  # fmt: skip
    group.add_argument("--filter-key", metavar="NAME", help="robomimic: only the demonstrations under mask/NAME")
    group.add_argument("--horizon", type=_positive, metavar="N", help="D4RL without timeouts: steps per episode")
    group.add_argument("--images", action="store_true", help="LeRobot: also decode the videos (slow)")
    group.add_argument("--assume-success", action="store_true", help="LeRobot without rewards: all are successes")
    group.add_argument("--skip-bad", action="store_true", help="leave damaged episodes out, and say which")
    group.add_argument("--limit", type=_positive, metavar="N", help="read the first N episodes only")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _records(path: Path, options: argparse.Namespace) -> tuple[str, Any]:
    """The format's name and an iterator over the records."""
    from exporl.data.formats import ReadOptions, find_format, read_records

    reading = ReadOptions(options.keys, options.filter_key, options.horizon, options.images, options.assume_success)
    return find_format(path, options.format).name, read_records(path, options.format, reading)


def _task(name: str | None) -> Any:
    if name is None:
        return None
    from exporl.envs.registry import make_task

    return make_task(name)


def inspect_command(args: list[str]) -> int:
    """`exporl data inspect PATH`."""
    parser = _parser(
        "inspect",
        "What a file of episodes contains. Episodes with faults stay in the statistics as far as they can be read (so\n"
        "that wrong ranges can be seen); --skip-bad leaves them out.",
        ["demos.npz", "low_dim.hdf5 --filter-key train", "demos.npz --plot demos.html"],
    )
    parser.add_argument("path", type=Path, help="file or folder")
    parser.add_argument("--task", help="first turn the episodes into this task's units, as training does")
    parser.add_argument("--plot", type=Path, metavar="FILE.html", help="also write a page with plots")
    _reading(parser)
    options = parser.parse_args(args)
    from exporl.data.describe import describe
    from exporl.data.inspect import survey

    task = _task(options.task)
    name, records = _records(options.path, options)
    found = survey(records, adapt=task.adapt if task else None, limit=options.limit, skip_bad=options.skip_bad)
    if not found.records and found.faults:
        raise ValueError(found.faults[0][1])
    title = f"{options.path} ({name})"
    print(describe(found, title))
    if options.plot is not None:
        from exporl.report.data_page import write_page

        print(f"plot: {write_page(found, title, options.plot)}")
    return 0


def validate_command(args: list[str]) -> int:
    """`exporl data validate PATH [--task T]`: 0 if all is well, 2 if anything is not."""
    parser = _parser(
        "validate",
        "All faults of a file: lengths, NaN and infinity, action ranges, entries that change between episodes and, with\n"
        "--task, everything that does not fit the task. Exit status 0 without faults, 2 with.",
        ["demos.npz", "demos.npz --task metaworld/push-v3"],
    )
    parser.add_argument("path", type=Path, help="file or folder")
    parser.add_argument("--task", help="also check against this task's observations and actions")
    _reading(parser)
    options = parser.parse_args(args)
    from exporl.data.inspect import kinds, survey

    task = _task(options.task)
    name, records = _records(options.path, options)
    found = survey(
        records, spec=task.spec if task else None, adapt=task.adapt if task else None, limit=options.limit,
    )  # fmt: skip
    against = f" against {options.task}" if task else ""
    for episode, sentence in found.faults:
        print(sentence if episode == "file" else f"{options.path}, {episode}: {sentence}")
    for episode, first in found.duplicates:
        print(f"note: {episode} repeats {first}")
    if not found.records and not found.faults:
        found.faults.append(("file", "no episodes"))
        print(f"{options.path} has no episodes.")
    if not found.faults:
        print(f"{options.path} ({name}): {found.records:,} episodes checked{against}, no faults")
        return 0
    print(f"{options.path} ({name}): {found.records:,} episodes checked{against}, {len(found.faults):,} faults in "
          f"{len([n for n in found.damaged if n != 'file']):,} episodes")  # fmt: skip
    for example, count, _ in kinds(found.faults):
        print(f"  {count:>5,} x such as: {example}")
    return FAILED


def convert_command(args: list[str]) -> int:
    """`exporl data convert SRC DST`."""
    parser = _parser(
        "convert",
        "Write episodes in another format, one at a time. DST is written beside its place and then moved there: an\n"
        "interruption leaves nothing, or what was there before. Its ending chooses the format unless --to does.",
        ["low_dim.hdf5 demos.npz", "demos.npz first20.npz --limit 20", "pixels.npz scaled.npz --scale-actions 0 512",
         "mixed.npz good.npz --skip-bad"],
    )  # fmt: skip
    parser.add_argument("source", type=Path, help="file or folder to read")
    parser.add_argument("target", type=Path, help="file or folder to write")
    parser.add_argument("--to", metavar="FORMAT", help="format to write (default: from DST's ending)")
    parser.add_argument("--task", help="first turn the episodes into this task's units, as training does")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--clip-actions", action="store_true", help="move actions outside [-1, 1] to the nearest bound")
    how.add_argument("--scale-actions", type=float, nargs="*", metavar="LOW HIGH",
                     help="map [LOW, HIGH] to [-1, 1]; without numbers the range found per dimension (reads twice)")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace DST if it exists")
    _reading(parser)
    options = parser.parse_args(args)
    from exporl.data import convert

    to = convert.find_writer(options.target, options.to)
    convert.check_target(options.target, options.force)
    task = _task(options.task)
    adapt = task.adapt if task is not None and task.adapt is not None else lambda episode: episode
    change, note = _scaling(options, adapt)
    name, records = _records(options.source, options)
    written = convert.Written(options.target, to.name)
    episodes = convert.good_episodes(
        records, written, change=change, clip=options.clip_actions, limit=options.limit, skip_bad=options.skip_bad,
        say=only_bar(Console(stderr=True)).say,
    )  # fmt: skip
    try:
        convert.write(options.target, to, episodes, written, force=options.force)
    except ValueError as error:
        hint = "" if options.skip_bad or not written.episodes else " (--skip-bad leaves damaged episodes out)"
        raise ValueError(f"{options.source}, {error}{hint} Nothing was written.") from error
    print(f"{options.source} ({name}) -> {_summary(written)}")
    if written.skipped:
        print(f"skipped {written.skipped:,} damaged episodes")
    if options.clip_actions:
        print(f"clipped actions of {written.changed:,} episodes to [-1, 1]")
    if note:
        print(note)
    return 0


def _scaling(options: argparse.Namespace, adapt: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], str]:
    """What is done to each episode, and a sentence about it."""
    import numpy as np

    from exporl.data.convert import action_range, scale_actions

    numbers = options.scale_actions
    if numbers is None:
        return adapt, ""
    if len(numbers) not in (0, PLACES) or (numbers and not numbers[0] < numbers[1]):
        raise ValueError(f"--scale-actions takes LOW and HIGH with LOW < HIGH, or nothing; got {numbers}.")
    if numbers:
        low, high = numbers
    else:
        low, high = action_range(_readable(_records(options.source, options)[1], adapt, options))
    words = f"{np.round(low, 4).tolist()} to {np.round(high, 4).tolist()}"
    return lambda episode: scale_actions(adapt(episode), low, high), f"scaled actions from {words} to [-1, 1]"


def _readable(records: Any, adapt: Callable[[Any], Any], options: argparse.Namespace) -> Any:
    for index, record in enumerate(records):
        if options.limit is not None and index >= options.limit:
            return
        try:
            yield adapt(record.read())
        except ValueError as error:
            if not options.skip_bad:
                raise ValueError(f"{options.source}, {record.name}: {error}") from error


def _summary(written: Any) -> str:
    from exporl.data.memory import size

    rate = 100 * written.successes / written.episodes
    return (
        f"{written.path} ({written.format}): {written.episodes:,} episodes, {written.steps:,} steps, success "
        f"{rate:.0f}%, {size(written.bytes)}"
    )


def collect_command(args: list[str]) -> int:
    """`exporl data collect TASK --output FILE`."""
    parser = _parser(
        "collect",
        "Record a task's scripted expert, failures included. Episode i depends on the seed and i only.",
        ["metaworld/push-v3 --output push.npz", "probe/bandit --episodes 5 --noise 0.1 --seed 3 --output five.npz"],
    )
    parser.add_argument("task", help="family/name, see `exporl tasks`")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="file or folder to write")
    parser.add_argument("--episodes", type=_positive, default=20, help="how many (default 20)")
    parser.add_argument("--noise", type=float, default=0.3, help="standard deviation of action noise (default 0.3)")
    parser.add_argument("--seed", type=int, default=0, help="fixes starts and noise (default 0)")
    parser.add_argument("--to", metavar="FORMAT", help="format to write (default: from FILE's ending)")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    options = parser.parse_args(args)
    if options.noise < 0 or options.seed < 0:
        raise ValueError(f"need --noise >= 0 and --seed >= 0, got {options.noise:g} and {options.seed}.")
    from exporl.data import convert
    from exporl.envs.collect import watched

    to = convert.find_writer(options.output, options.to)
    convert.check_target(options.output, options.force)
    task = _task(options.task)
    if task.collect is None:
        raise ValueError(f"task {task.name!r} has no scripted expert; its data comes from: {task.source or 'files'}.")
    progress, began, steps, solved, done = only_bar(Console(stderr=True)), time.perf_counter(), 0, 0, 0

    def on_episode(episode: Any) -> None:
        nonlocal steps, solved, done
        steps, solved, done = steps + len(episode), solved + episode.success, done + 1
        speed = steps / (time.perf_counter() - began)
        progress.advance(1, f"success {100 * solved / done:.0f}%, {speed:.0f} steps/s")

    try:
        progress.phase(f"collecting {task.name}", options.episodes, 0)
        with watched(on_episode):
            episodes = task.collect(options.episodes, options.noise, options.seed)
        took = time.perf_counter() - began
    finally:
        progress.close()
    written = convert.Written(options.output, to.name)
    counted = convert.counted(episodes, written)
    print(_summary(convert.write(options.output, to, counted, written, force=options.force)))
    print(f"{task.source}, noise {options.noise:g}, seed {options.seed}: {written.steps / took:.0f} steps/s, "
          f"{took:.1f} s")  # fmt: skip
    return 0


def download_command(args: list[str]) -> int:
    """`exporl data download NAME`."""
    parser = _parser(
        "download",
        "Fetch a published data set: mirrors in order, checked by SHA-256, resumed where a download was cut off. Where\n"
        "no SHA-256 is published the first download records it in downloads.lock.json, and later ones must agree.",
        ["--list", "robomimic/can-mh-v141", "ogbench/cube-single-play-v0 --mirror /media/disk/data --offline"],
    )
    parser.add_argument("name", nargs="?", help="which (see --list)")
    parser.add_argument("--list", action="store_true", help="list the names and where the files are published")
    parser.add_argument("--dir", type=Path, default=Path("data"), help="data folder (default data)")
    parser.add_argument("--mirror", action="append", default=[], metavar="URL_OR_FOLDER", help="try here first")
    parser.add_argument("--offline", action="store_true", help="use local folders and file:// mirrors only")
    options = parser.parse_args(args)
    from exporl.data import download

    if options.list:
        for name, sources in download.DATASETS.items():
            print(f"{name:<36} {sources[0].urls[0]}")
        return 0
    if options.name is None:
        raise ValueError("name a data set; `exporl data download --list` shows them.")
    progress = only_bar(Console(stderr=True))
    for source in download.find_dataset(options.name):
        progress.phase(source.path, 1, 0)
        seen = 0

        def advance(received: int, total: int) -> None:
            nonlocal seen
            if seen == 0 and total:
                progress.phase(source.path, total, 0)  # noqa: B023 - called within this turn of the loop only
            progress.advance(received - seen, "")
            seen = received

        try:
            path = download.fetch(source, options.dir, mirrors=options.mirror, offline=options.offline,
                                  say=progress.say, advance=advance)  # fmt: skip
        finally:
            progress.close()
        print(path)
    return 0


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
