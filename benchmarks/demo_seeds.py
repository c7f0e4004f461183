"""The demo on several seeds: success of base, EXPO and RLPD, training time and speed.

    .venv/bin/python benchmarks/demo_seeds.py --seeds 0 1 2

Runs in runs/demo-seeds (finished runs are not repeated); writes benchmarks/results/demo.json and
prints the table.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import write_result

from exporl.cli.demo import table
from exporl.files.atomic import read_lines
from exporl.report.findings import dip
from exporl.report.page import read_run, write_report
from exporl.stats.intervals import paired_difference

FOLDER = Path("runs/demo-seeds")


def seed_result(seed: int) -> dict[str, Any]:
    """All figures of one seed, from its run directories."""
    result: dict[str, Any] = {"seed": seed}
    for name in ("expo", "rlpd"):
        run = FOLDER / f"{name}-s{seed}"
        evals, summary = (
            read_lines(run / "eval.jsonl"),
            json.loads((run / "summary.json").read_text()),
        )
        result[name] = {
            "env_steps": [line["env_steps"] for line in evals],
            "success": [line["policy"]["success_rate"] for line in evals],
            "train_s": summary["train_s"],
            "env_steps_per_s": summary["env_steps_per_s"],
            "first_update_s": summary["first_update_s"],
        }
        if name == "expo":
            result[name]["base"] = [line["base"]["success_rate"] for line in evals]
            result["expo_minus_base_before"] = paired_difference(
                evals[-1]["policy"]["success"], evals[0]["base"]["success"]
            )
            last = evals[-1]["policy"]["success"]
        else:
            result["expo_minus_rlpd"] = paired_difference(last, evals[-1]["policy"]["success"])
    result["lowest_expo_minus_base_before"] = dip(read_run(FOLDER / f"expo-s{seed}"))
    result["printed"] = table(FOLDER, seed).strip()
    return result


def main() -> None:
    """Runs what is missing, one seed after the other, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    for seed in seeds:
        command = [
            sys.executable,
            "-m",
            "exporl.cli",
            "demo",
            "--dir",
            str(FOLDER),
            "--seed",
            str(seed),
        ]
        subprocess.run(command, check=True)
    results = [seed_result(seed) for seed in seeds]
    print(
        "| seed | base before | base after | EXPO | RLPD | EXPO training | env steps/s | first "
        "update |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for r in results:
        e = r["expo"]
        print(
            f"| {r['seed']} | {e['base'][0]:.2f} | {e['base'][-1]:.2f} | {e['success'][-1]:.2f} | "
            f"{r['rlpd']['success'][-1]:.2f} | {e['train_s']:.0f} s | {e['env_steps_per_s']:.0f} | "
            f"{e['first_update_s']:.1f} s |"
        )
    means = {
        "base_before": float(np.mean([r["expo"]["base"][0] for r in results])),
        "base_after": float(np.mean([r["expo"]["base"][-1] for r in results])),
        "expo": float(np.mean([r["expo"]["success"][-1] for r in results])),
        "rlpd": float(np.mean([r["rlpd"]["success"][-1] for r in results])),
    }
    print("mean", means)
    write_report(
        [FOLDER / f"{name}-s{seed}" for name in ("expo", "rlpd") for seed in seeds],
        FOLDER / "report.html",
    )
    print(
        write_result(
            "demo", {"command": "benchmarks/demo_seeds.py", "mean": means, "seeds": results}
        )
    )


if __name__ == "__main__":
    main()
