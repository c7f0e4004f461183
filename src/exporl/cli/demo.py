"""Collect noisy scripted demonstrations of a Meta-World task, imitate them with a flow policy, make
it reliable with EXPO online, run RLPD beside it under the same budget, and report. Finished steps
are not repeated; an interrupted one goes on where it stopped."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exporl.cli.numbers import number
from exporl.cli.parsing import Parser
from exporl.cli.status import notice, say
from exporl.cli.train import train_one
from exporl.data.formats import save_npz
from exporl.envs.registry import make_task
from exporl.files.atomic import read_lines
from exporl.files.run_files import CONFIG, EVAL, REPORT
from exporl.options import LARGEST_SEED
from exporl.report.findings import dip
from exporl.report.page import read_run, write_report
from exporl.run.config import check, override
from exporl.run.directory import finished, load_config
from exporl.run.presets import preset_config
from exporl.speed.tuning import keep_compiled_programs
from exporl.stats.intervals import paired_difference, wilson

TASK = "metaworld/peg-insert-side-v3"
STEPS = 4_000
DEMO_NOISE = 0.6
"""Action noise of the scripted expert: enough that imitation alone leaves something to learn."""
PRESETS = {"expo": "stable", "rlpd": "stable"}


def demo(folder: Path, *, seed: int, task: str, steps: int, run: Callable[..., int]) -> int:
    """Everything, once.

    Args:
        folder: where demonstrations, both runs and the report go.
        seed: training seed of both runs; demonstrations and evaluation starts are the same for all
            seeds.
        task: a Meta-World task.
        steps: environment steps of each run.
        run: (config, run directory, resume=bool) -> exit status; trains and shows progress.

    Returns:
        0, or the exit status of the run that did not finish.
    """
    demonstrations = folder / f"demonstrations-{task.split('/')[-1]}.npz"
    given: dict[str, Any] = {"data.path": str(demonstrations), "data.demo_noise": DEMO_NOISE}
    given["train.online_steps"] = steps
    configs = {}
    for name, preset in PRESETS.items():
        new = override(preset_config(name, preset, task), given)
        configs[name] = dataclasses.replace(new, seed=seed)
        check(configs[name])  # before anything is collected
    data = configs["expo"].data
    if not demonstrations.is_file():
        say(
            f"collecting {data.collected} demonstrations of {task} (scripted expert, action noise "
            f"{data.demo_noise:g})"
        )
        collect = make_task(task).collect
        if collect is None:
            raise ValueError(
                f"task {task!r} has no scripted expert to collect demonstrations from."
            )
        save_npz(demonstrations, collect(data.collected, data.demo_noise, data.demo_seed))
    for name, config in configs.items():
        run_dir = folder / f"{name}-s{seed}"
        started = load_config(run_dir) if (run_dir / CONFIG).is_file() else None
        if started is not None and started.task != task:
            raise ValueError(
                f"{run_dir} holds a run on {started.task}, not on {task}. Choose another --dir."
            )
        if started is not None and finished(run_dir, config) is not None:
            say(f"{name}: already finished in {run_dir}")
            continue
        if started is not None:
            config = override(started, given)
        say(f"{name}: {steps} environment steps in {run_dir}")
        status = run(config, run_dir, resume=started is not None)
        if status:
            return status
    report = write_report([folder / f"{name}-s{seed}" for name in configs], folder / REPORT)
    say(table(folder, seed))
    say(f"report: {report}")
    return 0


def table(folder: Path, seed: int) -> str:
    """The paired result as text: success with 95% intervals, and differences on the same starts."""
    expo, rlpd = (read_lines(folder / f"{name}-s{seed}" / EVAL) for name in ("expo", "rlpd"))
    before, after = expo[0], expo[-1]
    rows: list[tuple[str, dict[str, Any]]] = [
        ("base policy before", before["base"]),
        ("base policy after", after["base"]),
        ("EXPO", after["policy"]),
        ("RLPD", rlpd[-1]["policy"]),
    ]
    episodes = len(before["base"]["success"])
    lines = [
        f"\nsuccess after {after['env_steps']} environment steps, {episodes} evaluation episodes "
        "each [95% interval]"
    ]
    for name, result in rows:
        low, high = wilson(sum(result["success"]), episodes)
        lines.append(f"  {name:20s} {result['success_rate']:.2f} [{low:.2f}, {high:.2f}]")
    for name, other in (("base before", before["base"]), ("RLPD", rlpd[-1]["policy"])):
        mean, low, high = paired_difference(after["policy"]["success"], other["success"])
        lines.append(
            f"  EXPO - {name:13s} {mean:+.2f} [{low:+.2f}, {high:+.2f}] on the same starts"
        )
    lowest = dip(read_run(folder / f"expo-s{seed}"))
    if lowest is not None:
        lines.append(
            f"  lowest EXPO evaluation: {lowest[1]:+.2f} against the base before, at step "
            f"{lowest[0]}"
        )
    return "\n".join(lines)


def demo_command(args: list[str]) -> int:
    """`exporl demo [--dir DIR] [--seed S]`."""
    parser = Parser(prog="exporl demo", description=__doc__)
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("runs/demo"),
        help="where everything goes (default runs/demo)",
    )
    parser.add_argument(
        "--seed", type=number(0, LARGEST_SEED), default=0, help="training seed (default 0)"
    )
    parser.add_argument("--task", default=TASK, help=f"a Meta-World task (default {TASK})")
    parser.add_argument(
        "--steps", type=number(0), default=STEPS, help=f"environment steps (default {STEPS})"
    )
    options = parser.parse_args(args)
    keep_compiled_programs(notice)
    return demo(
        options.dir, seed=options.seed, task=options.task, steps=options.steps, run=train_one
    )
