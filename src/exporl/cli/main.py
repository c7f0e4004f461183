"""The command line: finds the command and turns its errors into sentences. Commands are imported
when they are used."""

import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NoReturn

from exporl.acting.failures import EnvironmentFailed, in_words
from exporl.cli.status import FAILED, STOPPED, notice
from exporl.cli.streams import unbroken
from exporl.run.stopping import (
    ignore_signals,
    interrupted_by_signals,
    interruptions_as_such,
)
from exporl.suggest import closest

HELP = """exporl: stable reinforcement learning with expressive policies (EXPO)

  exporl demo                      start here: imitation, then EXPO and RLPD on a robot task
  exporl train ALGO --task TASK    train (expo, rlpd, ...); `exporl train --help`: examples, options
  exporl train ALGO ... --seeds 8  many seeds: a process per core, or one program (accelerators)
  exporl train --resume RUN        go on where a run (or a folder of seeds) stopped, bit for bit
  exporl eval RUN                  evaluate a run's (or a bundle's) policy and its base policy
  exporl actor --env M:F ...       act for a training elsewhere: a robot's PC, without JAX
  exporl serve RUN                 answer robots over the network, openpi's protocol
  exporl report RUN [RUN ...]      one HTML page about runs or a suite; --watch: while they go on
  exporl export RUN DIR            one folder to give away: model card, digests, ONNX
  exporl bench SUITE.toml          algorithms x tasks x seeds: runs, resumes and compares them
  exporl tasks [FAMILY]            the tasks: dimensions, horizon, data, what to install
  exporl check TASK                whether a task, or yours, keeps its promises; how to mend it
  exporl presets [ALGO [PRESET]]   named option sets, every number with its source
  exporl data COMMAND              inspect, validate, convert, collect, download episodes
  exporl --version                 which version this is
"""
COMMANDS = {
    "actor": "exporl.cli.actor:actor_command",
    "demo": "exporl.cli.demo:demo_command",
    "train": "exporl.cli.train_request:train_command",
    "eval": "exporl.cli.runs:eval_command",
    "serve": "exporl.cli.serve:serve_command",
    "report": "exporl.cli.report:report_command",
    "export": "exporl.cli.export:export_command",
    "bench": "exporl.cli.bench:bench_command",
    "tasks": "exporl.cli.tasks:tasks_command",
    "check": "exporl.cli.tasks:check_command",
    "presets": "exporl.cli.presets:presets_command",
    "data": "exporl.cli.data:data_command",
}
"""Name -> module:function; the function takes the remaining arguments and returns the exit
status."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0 for success, 2 for a mistake in the request or an environment that
    failed, 1 where parts of what was asked for failed, 130 when stopped by a signal. What the
    command does goes on when its output is no longer read."""
    with unbroken(), interrupted_by_signals():
        return _main(argv)


def command() -> NoReturn:
    """`exporl` in a shell: the process ends with the command, also where a program is still being
    compiled in the background that nobody needs any more, which takes up to half a minute."""
    status = main()
    ignore_signals()
    ahead = sys.modules.get("exporl.speed.compile_ahead")
    if ahead is not None and ahead.compiling():
        os._exit(status)
    sys.exit(status)


def _main(argv: Sequence[str] | None) -> int:
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if args[0] in ("-V", "--version"):
        print(f"exporl {metadata.version('exporl')}")
        return 0
    if args[0] not in COMMANDS:
        notice(f"error: unknown command {args[0]!r}. {closest(args[0], COMMANDS, '')}".rstrip())
        print(HELP, file=sys.stderr)
        return FAILED
    try:
        module, function = COMMANDS[args[0]].split(":")
        with interruptions_as_such():
            return getattr(importlib.import_module(module), function)(args[1:])
    except KeyboardInterrupt as stopped:
        notes = " ".join(getattr(stopped, "__notes__", ()))
        notice(f"stopped at once. {notes}".rstrip())
        return STOPPED
    except (
        ValueError,
        OSError,
        ModuleNotFoundError,
        FloatingPointError,
        MemoryError,
        EnvironmentFailed,
    ) as error:
        notice(f"error: {in_words(error)}")
        return FAILED
