"""Learning curves of the exact and the accelerated modes: same tasks, seeds, data, starts and
environment steps.

    .venv/bin/python benchmarks/curves.py --seeds 0 1 2

float32 and bfloat16 are exact; filtered and cached approximate (algo.backup), both in float32.
Preset `demo`, 5,000 steps. One run per core at a time, each in a process of its own; finished runs
are not repeated, and `--collect` reports what there is. Per task and mode: success at every
evaluation, final success with its difference from exact float32 on the same starts (mean over
seeds; interval by bootstrap over starts), environment steps until the mean curve reaches 80%,
training seconds without evaluation. Writes benchmarks/results/curves.json.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
from common import write_result

from exporl.files.atomic import read_lines
from exporl.run.config import override
from exporl.run.loop import train
from exporl.run.presets import preset_config
from exporl.speed.tuning import keep_compiled_programs
from exporl.stats.intervals import paired_difference, wilson

FOLDER = Path("runs/curves")
TASKS = {"metaworld/peg-insert-side-v3": 0.4, "metaworld/push-v3": 0.4}
"""Task -> action noise of its 20 scripted demonstrations."""
MODES = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "filtered": {"algo.backup": "filtered"},
    "cached": {"algo.backup": "cached"},
}
GOAL = 0.8


def run_folder(task: str, mode: str, seed: int) -> Path:
    """Where one run lives."""
    return FOLDER / f"{task.split('/')[1]}-{mode}-s{seed}"


def one(task: str, mode: str, seed: int) -> None:
    """Trains one run unless it is finished."""
    keep_compiled_programs()
    run = run_folder(task, mode, seed)
    options = {
        "data.demo_noise": TASKS[task],
        "algo.hoist_sampling": False,
        "eval.base": mode == "float32",
    }
    config = override(preset_config("expo", "demo", task), options | MODES[mode])
    train(dataclasses.replace(config, seed=seed), run, resume=(run / "config.json").is_file())


def launch(jobs: list[tuple[str, str, int]], cores: list[int]) -> None:
    """Every job in a process pinned to one core, as many at a time as there are cores."""
    free: Queue[int] = Queue()
    for core in cores:
        free.put(core)

    def work(job: tuple[str, str, int]) -> None:
        core = free.get()
        code = (
            "import os, sys\n"
            f"if hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {{{core}}})\n"
            f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import curves\ncurves.one{job!r}\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        free.put(core)
        print(
            *job,
            "finished" if done.returncode == 0 else "FAILED: " + done.stderr[-500:],
            flush=True,
        )

    with ThreadPoolExecutor(len(cores)) as pool:
        list(pool.map(work, jobs))


def collected(task: str, mode: str, seeds: list[int]) -> dict[str, Any] | None:
    """The figures of one mode on one task over the seeds that are finished."""
    done = [seed for seed in seeds if (run_folder(task, mode, seed) / "summary.json").is_file()]
    if not done:
        return None
    evals = {seed: read_lines(run_folder(task, mode, seed) / "eval.jsonl") for seed in done}
    steps = [line["env_steps"] for line in evals[done[0]]]
    curves = np.array([[line["policy"]["success_rate"] for line in evals[seed]] for seed in done])
    reached = [
        step for step, value in zip(steps, curves.mean(axis=0), strict=True) if value >= GOAL
    ]
    outcomes = [success for seed in done for success in evals[seed][-1]["policy"]["success"]]
    metrics = [
        line for seed in done for line in read_lines(run_folder(task, mode, seed) / "metrics.jsonl")
    ]
    result: dict[str, Any] = {
        "task": task,
        "mode": mode,
        "seeds": done,
        "env_steps": steps,
        "success": curves.tolist(),
        "final": float(curves[:, -1].mean()),
        "final_interval": wilson(sum(outcomes), len(outcomes)),
        "steps_to_80": reached[0] if reached else None,
        "train_s": [evals[seed][-1]["time/train_s"] for seed in done],
        "env_steps_per_s": float(
            np.median([m["time/env_steps_per_s"] for m in metrics if m.get("mode") == "policy"])
        ),
    }
    if mode == "float32":
        result["base"] = [[line["base"]["success_rate"] for line in evals[seed]] for seed in done]
    pairs = [
        seed for seed in done if (run_folder(task, "float32", seed) / "summary.json").is_file()
    ]
    if pairs and mode != "float32":
        exact = {
            seed: read_lines(run_folder(task, "float32", seed) / "eval.jsonl")[-1] for seed in pairs
        }
        ours = np.mean([evals[seed][-1]["policy"]["success"] for seed in pairs], axis=0).tolist()
        theirs = np.mean([exact[seed]["policy"]["success"] for seed in pairs], axis=0).tolist()
        result["final_minus_float32"] = paired_difference(ours, theirs)
    return result


def main() -> None:
    """Trains what is missing, then reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument(
        "--collect", action="store_true", help="report the finished runs, train nothing"
    )
    options = parser.parse_args()
    jobs = [(t, m, s) for s in options.seeds for t in options.tasks for m in options.modes]
    missing = [job for job in jobs if not (run_folder(*job) / "summary.json").is_file()]
    if not options.collect:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        launch(missing, cores)
    results = [
        r
        for t in options.tasks
        for m in options.modes
        if (r := collected(t, m, options.seeds)) is not None
    ]
    for r in results:
        low, high = r["final_interval"]
        text = f"{r['task']:30s} {r['mode']:9s} final {r['final']:.2f} [{low:.2f}, {high:.2f}]"
        if "final_minus_float32" in r:
            text += " {:+.2f} [{:+.2f}, {:+.2f}] against float32".format(*r["final_minus_float32"])
        curve = " ".join(f"{value:.2f}" for value in np.mean(r["success"], axis=0))
        print(
            text, f"| 80% at {r['steps_to_80']}, {np.mean(r['train_s']):.0f} s training | {curve}"
        )
    print(
        write_result(
            "curves", {"command": "benchmarks/curves.py", "demo_noise": TASKS, "results": results}
        )
    )


if __name__ == "__main__":
    main()
