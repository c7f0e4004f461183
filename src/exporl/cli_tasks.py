"""The commands about tasks: `exporl tasks` and `exporl check`."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

FAILED = 2
COLORS = {"pass": "green", "fail": "red", "skip": "yellow"}


def tasks_command(args: list[str]) -> int:
    """`exporl tasks [FAMILY]`."""
    argparse.ArgumentParser(prog="exporl tasks", description="List the tasks.").parse_args(args)
    from importlib.util import find_spec

    from exporl.envs.task import list_tasks

    table = Table("family", "what", "needs", "tasks")
    for family, record in dict((name.split("/")[0], family) for name, family in list_tasks()).items():
        missing = record.module is not None and find_spec(record.module) is None
        needs = "-" if record.extra is None else f"exporl\\[{record.extra}]" + (" (not installed)" if missing else "")
        table.add_row(family, record.summary, needs, " ".join(f"{family}/{name}" for name in record.names))
    Console().print(table)
    return 0


def check_command(args: list[str]) -> int:
    """`exporl check TASK [--data PATH] [--demos N] [--noise S] [--seed S] [--reward R]`."""
    parser = argparse.ArgumentParser(
        prog="exporl check",
        description="Play a task, check that it keeps every promise, and say how to mend those it does not.",
    )
    parser.add_argument("task", help="family/name, or module:function of your own environment")
    parser.add_argument("--data", type=Path, help="file or folder of episodes; default: collect from the task's expert")
    parser.add_argument("--demos", type=int, default=3, help="episodes to collect, or read from --data (default 3)")
    parser.add_argument("--noise", type=float, default=0.1, help="action noise of collected episodes (default 0.1)")
    parser.add_argument("--reward", default="-1/0", help="learning reward: -1/0 (default), 0/1 or env")
    parser.add_argument("--seed", type=int, default=0, help="seed of starts and actions (default 0)")
    options = parser.parse_args(args)
    if options.demos < 0 or options.noise < 0 or options.seed < 0:
        raise ValueError("--demos, --noise and --seed must be at least 0.")
    from exporl.data.formats import load_episodes
    from exporl.envs.check import check_task
    from exporl.envs.task import make_task

    task, episodes = make_task(options.task, options.reward), None
    if options.data is not None:
        episodes = load_episodes(options.data, options.demos or None, adapt=task.adapt)
    table, failed = Table("check", "", "what was found, and how to mend it"), 0
    for name, status, detail in check_task(
        task, episodes, demos=options.demos, demo_noise=options.noise, seed=options.seed
    ):
        table.add_row(name, f"[{COLORS[status]}]{status}", escape(detail))
        failed += status == "fail"
    Console().print(table)
    print(f"{options.task}: " + (f"{failed} promises broken" if failed else "keeps its promises"))
    return FAILED if failed else 0
