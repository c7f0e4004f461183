"""The commands about tasks: `exporl tasks` and `exporl check`."""

import argparse
import dataclasses
import importlib.util
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from exporl.cli.data_options import add_format, reading
from exporl.cli.numbers import number
from exporl.cli.parsing import Parser
from exporl.cli.status import FAILED, plain, say
from exporl.data.episodes import Episode
from exporl.data.formats import load_episodes
from exporl.envs.check import Finding, check_task
from exporl.envs.registry import list_tasks, make_task
from exporl.envs.task import Family, Task
from exporl.external import outside_base
from exporl.external.fit import check_fit, some_observations
from exporl.options import LARGEST_SEED, MOST_EPISODES
from exporl.suggest import closest

COLORS = {"pass": "green", "fail": "red", "skip": "yellow", "warn": "magenta"}


def tasks_command(args: list[str]) -> int:
    """`exporl tasks [FAMILY]`."""
    parser = Parser(
        prog="exporl tasks", description="List the task families, or one family's tasks."
    )
    parser.add_argument("family", nargs="?", help="list every task of this family")
    name = parser.parse_args(args).family
    families: dict[str, Family] = {task.split("/", 1)[0]: family for task, family in list_tasks()}
    if name is None:
        table = Table(
            "family",
            "tasks",
            "observation, action, horizon, reward, data",
            "install",
            title="Families",
        )
        for family, record in families.items():
            table.add_row(family, str(len(record.names)), record.summary, _install(record))
        Console().print(table)
        print(
            "exporl tasks FAMILY lists its tasks; exporl check TASK plays one. Yours: --task "
            "module:function"
        )
        return 0
    if name not in families:
        rest = f"There are {', '.join(families)}."
        raise ValueError(f"unknown family {name!r}. {closest(name, families, rest)}")
    Console().print(_family_table(name, families[name]))
    print(f"install: {_install(families[name], markup=False)}")
    return 0


def _family_table(name: str, record: Family) -> Table:
    """One row per task; what cannot be made here says why."""
    table = Table(
        "task",
        "observation",
        "action",
        "steps",
        "the environment pays",
        "demonstrations",
        title=record.summary,
    )
    for short in record.names:
        try:
            task = record.make(short, "env")
        except (ModuleNotFoundError, ValueError) as error:
            table.add_row(f"{name}/{short}", escape(str(error)))
            continue
        entries = ", ".join(
            f"{entry} {'x'.join(map(str, shape))}" for entry, shape, _ in task.spec.observation
        )
        note = f": {task.observation_note}" if task.observation_note else ""
        source = task.source or "files"
        row = (
            f"{name}/{short}",
            entries + note,
            str(task.spec.action_dim),
            str(task.max_episode_steps),
        )
        table.add_row(
            *map(
                escape,
                (
                    *row,
                    task.reward_note,
                    source + ("" if task.collect else " (read with --data.path)"),
                ),
            )
        )
    return table


def _install(record: Family, markup: bool = True) -> str:
    """The command that installs what a family needs, and whether that is done."""
    if record.module is None:
        return "nothing"
    command = f"pip install 'exporl[{record.extra}]'"
    installed = importlib.util.find_spec(record.module) is not None
    return (escape(command) if markup else command) + (
        " (installed)" if installed else " (not installed)"
    )


def _check_parser() -> Parser:
    parser = Parser(
        prog="exporl check",
        description=(
            "Play a task, check that it keeps every promise, and say how to mend those it does not."
        ),
    )
    parser.add_argument("task", help="family/name, or module:function of your own environment")
    parser.add_argument(
        "--data",
        type=Path,
        help="file or folder of episodes; default: collect from the task's expert",
    )
    parser.add_argument(
        "--demos",
        type=number(0, MOST_EPISODES),
        default=3,
        help="episodes to collect, or read from --data (default 3)",
    )
    parser.add_argument(
        "--noise",
        type=number(0, whole=False),
        default=0.1,
        help="action noise of collected episodes (default 0.1)",
    )
    parser.add_argument(
        "--reward", default="-1/0", help="learning reward: -1/0 (default), 0/1 or env"
    )
    parser.add_argument(
        "--seed",
        type=number(0, LARGEST_SEED),
        default=0,
        help="seed of starts and actions (default 0)",
    )
    parser.add_argument(
        "--base",
        "--policy",
        help="also check this policy as base: module:attribute, torch:..., sb3:..., onnx:..., "
        "lerobot:..., ws://HOST:PORT",
    )
    parser.add_argument(
        "--chunk-length",
        type=number(1),
        help="actions that this policy predicts at once (default 1)",
    )
    add_format(parser)
    return parser


def check_command(args: list[str]) -> int:
    """`exporl check TASK [--data PATH] [--demos N] [--noise S] [--seed S] [--reward R]
    [--base POLICY]`."""
    options = _check_parser().parse_args(args)
    asked = (("format",) if options.format else ()) + reading(options).asked()
    if options.data is None and asked:
        raise ValueError(
            f"--{asked[0].replace('_', '-')} says how a file is read, and there is none: give "
            "--data as well, or leave it out."
        )
    if options.base is None and options.chunk_length is not None:
        raise ValueError(
            "--chunk-length is that of a base policy, and there is none: give --base as well, or "
            "leave it out."
        )
    task, episodes = make_task(options.task, options.reward), None
    if options.data is not None:
        episodes = load_episodes(
            options.data,
            options.demos or None,
            format_name=options.format,
            options=reading(options),
            adapt=task.adapt,
        )
    table, failed = Table("check", "", "what was found, and how to mend it"), 0
    findings = check_task(
        task, episodes, demos=options.demos, demo_noise=options.noise, seed=options.seed
    )
    if options.base is not None:
        findings = itertools.chain(findings, _check_base(options, task, episodes or []))
    for name, status, detail in findings:
        table.add_row(name, f"[{COLORS[status]}]{status}", escape(plain(detail)))
        failed += status == "fail"
    Console().print(table)
    say(f"{options.task}: " + (f"{failed} promises broken" if failed else "keeps its promises"))
    return FAILED if failed else 0


def _check_base(
    options: argparse.Namespace, task: Task, episodes: Sequence[Episode]
) -> Iterator[Finding]:
    """Findings about a policy from outside as base of a run on a task."""
    spec = dataclasses.replace(task.spec, chunk_length=options.chunk_length or 1)
    units = task.action_units
    try:
        base = outside_base(options.base, None, spec, learns=False, learning_rate=0.0, units=units)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        yield Finding("base: opens", "fail", str(error))
        return
    assert base is not None
    seen = some_observations(task, options.seed, episodes)
    for finding in check_fit(base, seen, episodes, task=task, data=options.data):
        yield finding._replace(name=f"base: {finding.name}")
