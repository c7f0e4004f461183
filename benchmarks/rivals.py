"""Rivals whose policy is a diffusion or a flow that the critics' gradient trains, on one real task.

    .venv/bin/python benchmarks/rivals.py --algorithms dac qsm qam

Meta-World peg-insert-side with 20 demonstrations, the preset demo, 4,000 environment steps. Runs in
runs/rivals; finished ones are not repeated. Writes benchmarks/results/rivals.json and prints the
success of the policy and of the imitated base before training, on the same starts. With --collect
it trains nothing more, and reports the runs there are as far as they went.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from common import write_result

from exporl.files.atomic import read_lines
from exporl.run.config import override
from exporl.run.loop import train
from exporl.run.presets import preset_config
from exporl.stats.intervals import paired_difference

FOLDER = Path("runs/rivals")
TASK = "metaworld/peg-insert-side-v3"
OPTIONS = {
    "train.online_steps": 4_000,
    "eval.every": 2_000,
    "eval.episodes": 50,
    "data.demos": 20,
}


def one(algorithm: str, seed: int, collect: bool) -> dict[str, Any]:
    """Trains one run unless it is finished, and reads its figures."""
    run = FOLDER / f"{algorithm}-s{seed}"
    config = override(preset_config(algorithm, "demo", TASK), OPTIONS)
    if not (collect or (run / "summary.json").is_file()):
        train(dataclasses.replace(config, seed=seed), run, resume=(run / "config.json").is_file())
    evals = read_lines(run / "eval.jsonl")
    until = evals[-1]["env_steps"]
    last = [line for line in read_lines(run / "metrics.jsonl") if line["env_steps"] <= until][-1]
    return {
        "algorithm": algorithm,
        "task": TASK,
        "seed": seed,
        "env_steps": [line["env_steps"] for line in evals],
        "policy": [line["policy"]["success_rate"] for line in evals],
        "base": [line["base"]["success_rate"] for line in evals],
        "base_before": evals[0]["base"]["success_rate"],
        "policy_minus_base_before": paired_difference(
            evals[-1]["policy"]["success"], evals[0]["base"]["success"]
        ),
        "last_metrics": {
            name: value for name, value in last.items() if name.startswith(("policy/", "critic/"))
        },
    }


def main() -> None:
    """Every algorithm and seed, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithms", nargs="+", default=["dac", "qsm", "qam"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--collect", action="store_true", help="train nothing more")
    asked = parser.parse_args()
    runs = [
        one(algorithm, seed, asked.collect)
        for seed in asked.seeds
        for algorithm in asked.algorithms
    ]
    print("| algorithm | seed | steps | base before | policy | policy - base before |")
    print("|---|---|---|---|---|---|")
    for run in runs:
        gap, low, high = run["policy_minus_base_before"]
        print(
            f"| {run['algorithm']} | {run['seed']} | {run['env_steps'][-1]} | "
            f"{run['base_before']:.2f} | "
            f"{run['policy'][-1]:.2f} | {gap:+.2f} [{low:+.2f}, {high:+.2f}] |"
        )
    print(write_result("rivals", {"command": "benchmarks/rivals.py", "runs": runs}))


if __name__ == "__main__":
    main()
