"""How far EXPO falls below its base policy at first, and what helps: four starts on two tasks.

    .venv/bin/python benchmarks/dip.py --seeds 0 1

none: the untrained critic chooses from the first step (the release). warmup: the base acts alone
for 1,000 steps while the critic learns. pretrain: 2,000 critic updates on the demonstrations with
the on-the-fly backup first. both: both. Writes benchmarks/results/dip.json and prints a table: the
lowest evaluation against the base before training, and the success of the first episodes that the
robot itself experienced.
"""

import argparse
import dataclasses
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from common import write_result

from exporl.files.atomic import read_lines
from exporl.report.findings import dip
from exporl.report.run_data import read_run
from exporl.run.config import override
from exporl.run.loop import train
from exporl.run.presets import preset_config

FOLDER = Path("runs/dip")
TASKS = {"metaworld/assembly-v3": 0.3, "metaworld/peg-insert-side-v3": 0.4}
STARTS = {
    "none": {"train.critic_warmup_steps": 0},
    "warmup": {"train.critic_warmup_steps": 1_000},
    "pretrain": {"train.critic_warmup_steps": 0, "train.critic_pretrain_steps": 2_000},
    "both": {"train.critic_warmup_steps": 1_000, "train.critic_pretrain_steps": 2_000},
}
STEPS = 2_000


def one(task: str, start: str, seed: int, collect: bool) -> dict[str, Any] | None:
    """Trains one run unless it is finished, and reads its figures; None where there is nothing to
    read."""
    run = FOLDER / f"{task.split('/')[1]}-{start}-s{seed}"
    options = {
        "train.online_steps": STEPS,
        "eval.every": 500,
        "eval.episodes": 50,
        "data.demo_noise": TASKS[task],
    }
    config = override(preset_config("expo", "demo", task), options | STARTS[start])
    if not (collect or (run / "summary.json").is_file()):
        train(dataclasses.replace(config, seed=seed), run, resume=(run / "config.json").is_file())
    if not (run / "eval.jsonl").is_file():
        return None
    data = read_run(run)
    evals = [line for line in data.evals if line["env_steps"] <= STEPS]
    lowest = dip(dataclasses.replace(data, evals=evals))
    if lowest is None:
        return None
    return {
        "task": task,
        "start": start,
        "seed": seed,
        "env_steps": [line["env_steps"] for line in evals],
        "policy": [line["policy"]["success_rate"] for line in evals],
        "base": [line["base"]["success_rate"] for line in evals],
        "lowest_step": lowest[0],
        "lowest_minus_base_before": lowest[1:],
        "training_episodes": [
            line["rollout/success_rate"]
            for line in read_lines(run / "metrics.jsonl")
            if "rollout/success_rate" in line and line["env_steps"] <= STEPS
        ],
    }


def main() -> None:
    """All combinations, two at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--collect", action="store_true", help="train nothing; report the runs there are"
    )
    options = parser.parse_args()
    jobs = list(product(options.tasks, STARTS, options.seeds))
    with ProcessPoolExecutor(options.processes) as pool:
        found = pool.map(one, *zip(*jobs, strict=True), [options.collect] * len(jobs))
        results = [result for result in found if result is not None]
    print(
        "| task | start | base before | lowest EXPO - base (mean of seeds) | at 0 | at 500 | at "
        "1,000 | at 1,500 | at 2,000 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for task, start in product(options.tasks, STARTS):
        group = [r for r in results if (r["task"], r["start"]) == (task, start)]
        if not group:
            continue
        steps = min(r["env_steps"][-1] for r in group)
        mean = lambda f, group=group: float(np.mean([f(r) for r in group]))  # noqa: E731
        print(
            f"| {task.split('/')[1]} | {start} | {mean(lambda r: r['base'][0]):.2f} | "
            f"{mean(lambda r: r['lowest_minus_base_before'][0]):+.2f} | "
            + " | ".join(
                (
                    f"{mean(lambda r, s=s: r['policy'][r['env_steps'].index(s)]):.2f}"
                    if s <= steps
                    else "-"
                )
                for s in (0, 500, 1_000, 1_500, 2_000)
            )
            + " |"
        )
    print(write_result("dip", {"command": "benchmarks/dip.py", "runs": results}))


if __name__ == "__main__":
    main()
