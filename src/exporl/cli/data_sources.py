"""Where files of episodes come from: `exporl data collect` and `exporl data download`."""

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from exporl.cli.bars import only_bar
from exporl.cli.data_options import make_parser, summary, task_named
from exporl.cli.numbers import number, target
from exporl.cli.status import say
from exporl.options import LARGEST_SEED, MOST_EPISODES


def _collect_options(args: list[str]) -> argparse.Namespace:
    parser = make_parser(
        "collect",
        "Record a task's scripted expert, failures included. Episode i depends on the seed and i "
        "only.",
        [
            "metaworld/push-v3 --output push.npz",
            "probe/bandit --episodes 5 --noise 0.1 --seed 3 --output five.npz",
        ],
    )
    parser.add_argument("task", help="family/name, see `exporl tasks`")
    parser.add_argument(
        "--output", type=target, required=True, metavar="FILE", help="file or folder to write"
    )
    parser.add_argument(
        "--episodes", type=number(1, MOST_EPISODES), default=20, help="how many (default 20)"
    )
    parser.add_argument(
        "--noise",
        type=number(0, whole=False),
        default=0.3,
        help="standard deviation of action noise (default 0.3)",
    )
    parser.add_argument(
        "--seed", type=number(0, LARGEST_SEED), default=0, help="fixes starts and noise (default 0)"
    )
    parser.add_argument(
        "--to", metavar="FORMAT", help="format to write (default: from FILE's ending)"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    return parser.parse_args(args)


def collect_command(args: list[str]) -> int:
    """`exporl data collect TASK --output FILE`."""
    options = _collect_options(args)
    from exporl.data import convert
    from exporl.envs.collect import watched

    to = convert.find_writer(options.output, options.to)
    convert.check_target(options.output, options.force)
    task = task_named(options.task)
    if task.collect is None:
        raise ValueError(
            f"task {task.name!r} has no scripted expert; its data comes from: "
            f"{task.source or 'files'}."
        )
    progress, began, steps, solved, done = (
        only_bar(Console(stderr=True)),
        time.perf_counter(),
        0,
        0,
        0,
    )

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
    # They were played in an environment of the task, whose actions are in [-1, 1].
    marked = (dataclasses.replace(episode, unit_actions=True) for episode in episodes)
    counted = convert.counted(marked, written)
    say(summary(convert.write(options.output, to, counted, written, force=options.force)))
    say(
        f"{task.source}, noise {options.noise:g}, seed {options.seed}: {written.steps / took:.0f} "
        f"steps/s, {took:.1f} s"
    )
    return 0


def download_command(args: list[str]) -> int:
    """`exporl data download NAME`."""
    parser = make_parser(
        "download",
        "Fetch a published data set: mirrors in order, checked by SHA-256, resumed where a download"
        " was cut off. Where\nno SHA-256 is published the first download records it in "
        "downloads.lock.json, and later ones must agree.",
        [
            "--list",
            "robomimic/can-mh-v141",
            "ogbench/cube-single-play-v0 --mirror /media/disk/data --offline",
        ],
    )
    parser.add_argument("name", nargs="?", help="which (see --list)")
    parser.add_argument(
        "--list", action="store_true", help="list the names and where the files are published"
    )
    parser.add_argument("--dir", type=Path, default=Path("data"), help="data folder (default data)")
    parser.add_argument(
        "--mirror", action="append", default=[], metavar="URL_OR_FOLDER", help="try here first"
    )
    parser.add_argument(
        "--offline", action="store_true", help="use local folders and file:// mirrors only"
    )
    options = parser.parse_args(args)
    from exporl.data import download

    if options.list:
        for name, sources in download.DATASETS.items():
            say(f"{name:<36} {sources[0].urls[0]}")
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
            path = download.fetch(
                source,
                options.dir,
                mirrors=options.mirror,
                offline=options.offline,
                say=progress.say,
                advance=advance,
            )
        finally:
            progress.close()
        say(path)
    return 0
