"""Every domain end to end: its promises, its experts, and EXPO on ten demonstrations.

    .venv/bin/python benchmarks/smoke_tasks.py               # everything that is installed
    .venv/bin/python benchmarks/smoke_tasks.py --tasks adroit/pen pusht/state-90
    .venv/bin/python benchmarks/smoke_tasks.py --collect     # only print the table again

For each task: `check`; with an expert, demonstrations without noise and with it (success, steps per
second); ten demonstrations, from ../shared/data where that has a file for the task, else collected;
200 environment steps of EXPO with the preset "small", whose 4,000 imitation steps are cut to 200
and whose evaluation to one episode at each end, so that a task takes about a minute: it shows that
everything fits together, not how well it learns. Results are written after every task to
benchmarks/results/smoke_tasks.json; tasks that are there already are left out unless named.
"""

import argparse
import dataclasses
import importlib.util
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, write_result

from exporl.data.episodes import Episode
from exporl.data.formats import load_episodes, save_npz
from exporl.envs.check import check_task
from exporl.envs.registry import list_tasks, make_task
from exporl.envs.task import Task
from exporl.run.config import override
from exporl.run.directory import summarize
from exporl.run.loop import train
from exporl.run.presets import preset_config

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CASES: dict[str, tuple[str, float, int]] = {
    "adroit/pen": ("adroit/pen-mixed.npz", 0.3, 20),
    "adroit/door": ("adroit/door-mixed.npz", 0.3, 20),
    "adroit/relocate": ("adroit/relocate-mixed.npz", 0.3, 20),
    "adroit/hammer": ("", 0.3, 20),
    "antmaze/d4rl-medium": ("ogbench/antmaze-medium-navigate-60ep.npz", 0.2, 10),
    "antmaze/ogbench-medium": ("ogbench/antmaze-medium-navigate-60ep.npz", 0.2, 10),
    "antmaze/umaze": ("", 0.2, 10),
    "robomimic/lift": ("robosuite/Lift-mixed.npz", 0.3, 10),
    "robomimic/can": ("robosuite/PickPlaceCan-mixed.npz", 0.3, 10),
    "robomimic/square": ("robosuite/NutAssemblySquare-mixed.npz", 0.3, 10),
    "robomimic/tool_hang": ("", 0.3, 10),
    "robomimic/transport": ("", 0.3, 10),
    "mimicgen/stack_d0": ("", 0.3, 10),
    "mimicgen/square_d0": ("robosuite/NutAssemblySquare-mixed.npz", 0.3, 10),
    "ogbench/pointmaze-medium": ("", 0.3, 10),
    "ogbench/cube-single": ("ogbench/cube-single-play-20ep.npz", 0.1, 10),
    "ogbench/scene": ("", 0.1, 10),
    "ogbench/puzzle-3x3": ("", 0.1, 10),
    "metaworld/peg-insert-side-v3": ("metaworld/peg-insert-side-v3-mixed.npz", 0.3, 20),
    "metaworld/push-v3": ("metaworld/push-v3-mixed.npz", 0.3, 20),
    "pusht/state-90": ("pusht/pusht_human_lowdim.npz", 0.0, 0),
    "pusht/state-95": ("pusht/pusht_human_lowdim.npz", 0.0, 0),
    "driving/parking": ("", 0.3, 20),
}
"""Task -> (file under `DATA` or "", action noise of its noisy demonstrations, episodes to
collect)."""


def demonstrations(task: Task, noise: float, episodes: int) -> tuple[list[Episode], dict[str, Any]]:
    """Collected episodes and how that went."""
    assert task.collect is not None
    began = time.perf_counter()
    found = task.collect(episodes, noise, 0)
    took = time.perf_counter() - began
    steps = sum(len(e) for e in found)
    return found, {
        "noise": noise,
        "episodes": episodes,
        "success_rate": float(np.mean([e.success for e in found])),
        "length_mean": steps / episodes,
        "steps_per_s": steps / took,
    }


def one(name: str) -> dict[str, Any]:
    """All measurements of one task."""
    file, noise, episodes = CASES[name]
    task = make_task(name)
    result: dict[str, Any] = {"task": name, "source": task.source}
    collected: list[Episode] = []
    if task.collect is not None:
        _, clean = demonstrations(task, 0.0, episodes)
        collected, noisy = demonstrations(task, noise, episodes)
        result["collect"] = [clean, noisy]
    shared = DATA / file
    if file and shared.is_file():
        collected, result["data"] = (
            load_episodes(shared, 10, adapt=task.adapt),
            f"10 episodes of {file}",
        )
    elif collected:
        collected, result["data"] = collected[:10], f"10 collected, noise {noise:g}"
    else:
        result["data"] = "none here: files only"
    findings = list(check_task(task, collected or None))
    result["check"] = {f.name: [f.status, f.detail] for f in findings}
    result["check_passes"] = all(f.status != "fail" for f in findings)
    if not collected:
        return result
    options = {
        "train.offline_steps": 200,
        "train.online_steps": 200,
        "eval.episodes": 1,
        "eval.num_envs": 1,
        "data.demos": 10,
    }
    with tempfile.TemporaryDirectory() as folder:
        save_npz(Path(folder) / "demos.npz", collected)
        config = override(
            preset_config("expo", "small", name), options | {"data.path": f"{folder}/demos.npz"}
        )
        began = time.perf_counter()
        train(
            dataclasses.replace(config, log=dataclasses.replace(config.log, every=100)),
            Path(folder) / "run",
        )
        result["train_wall_s"] = time.perf_counter() - began
        summary = summarize(Path(folder) / "run")
    result["env_steps"] = summary["after"]["env_steps"]
    return result | {"env_steps_per_s": summary["env_steps_per_s"]}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        (
            "| task | check | demonstrations | success: no noise | with noise | collected steps/s |"
            " 200 steps of EXPO, s |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        if "error" in result:
            lines.append(f"| {name} | {result['error']} | | | | | |")
            continue
        rates = ["-", "-", "-"]
        if "collect" in result:
            clean, noisy = result["collect"]
            rates = [
                f"{clean['success_rate']:.2f} of {clean['episodes']}",
                f"{noisy['success_rate']:.2f} ({noisy['noise']:g})",
                f"{noisy['steps_per_s']:,.0f}",
            ]
        seconds = f"{result['train_wall_s']:.0f}" if "train_wall_s" in result else "-"
        check = "passes" if result["check_passes"] else "fails"
        lines.append(f"| {name} | {check} | {result['data']} | {' | '.join(rates)} | {seconds} |")
    return "\n".join(lines)


def main() -> None:
    """One task after the other, written as they end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tasks", nargs="+", choices=CASES, metavar="TASK", help=f"of {', '.join(CASES)}"
    )
    parser.add_argument(
        "--collect", action="store_true", help="measure nothing; print the table of what there is"
    )
    options = parser.parse_args()
    path = RESULTS / "smoke_tasks.json"
    results: dict[str, dict[str, Any]] = (
        json.loads(path.read_text())["tasks"] if path.is_file() else {}
    )
    families = dict(list_tasks())
    for name in (
        []
        if options.collect
        else options.tasks or [n for n in CASES if "check" not in results.get(n, {})]
    ):
        if name not in families:
            print(f"{name}: left out, there is no such task")
            continue
        module = families[name].module
        if module is not None and importlib.util.find_spec(module) is None:
            print(f"{name}: left out, {module} is not installed")
            continue
        began = time.perf_counter()
        try:
            results[name] = one(name)
        except Exception as error:  # the table shows what does not work, and the others go on
            results[name] = {"task": name, "error": f"{type(error).__name__}: {error}"}
        print(
            f"{name}: {time.perf_counter() - began:.0f} s {results[name].get('error', '')}",
            flush=True,
        )
        results = {n: results[n] for n in CASES if n in results}
        write_result("smoke_tasks", {"command": "benchmarks/smoke_tasks.py", "tasks": results})
    print(table(results))


if __name__ == "__main__":
    main()
