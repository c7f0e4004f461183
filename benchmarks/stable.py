"""Does EXPO stay above its base policy, and what is each part of the preset `stable` worth?

    .venv/bin/python benchmarks/stable.py --rows new demo --tasks assembly push --seeds 0 1 2

Preset `stable`, 20 scripted demonstrations, 50 or 100 paired evaluation starts. A row changes
options of the preset (`ROWS`). At every evaluation: the deployed policy, the policy without its
guard, the policy without edits (best of its base samples, same parameters) and the base alone. The
row `edits-act` deploys its edits as well. It learns as `new` does, to the bit, so where there is no
run of `new`, its evaluations without edits say what `new` deploys (`"from": "edits-act"`). One run
per core at a time; finished runs are not repeated, and `--collect` reports what there is. Writes
benchmarks/results/stable.json.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
from common import write_result

from exporl.acting.guard import ARMS, Guard, Outcome
from exporl.files import checkpoint
from exporl.files.atomic import read_lines
from exporl.files.run_files import CHECKPOINTS
from exporl.run.config import override
from exporl.run.loop import train
from exporl.run.presets import preset_config
from exporl.speed.tuning import keep_compiled_programs

FOLDER = Path("runs/stable")
TASKS = {
    "assembly": 0.3,
    "box-close": 0.3,
    "peg-insert-side": 0.4,
    "push": 0.4,
    "pick-place-wall": 0.3,
    "door-open": 0.4,
    "driving/parking": 0.3,
    "adroit/door": 0.5,
    "adroit/pen": 0.3,
    "robomimic/lift": 0.3,
}
"""Task, of Meta-World where no family is named -> action noise of its demonstrations."""
PRESETS = {"adroit/door": "stable-adroit", "adroit/pen": "stable-adroit"}
"""What `stable` is called on the tasks that have it in a version of their own."""
EPISODES = {"driving/parking": 50, "robomimic/lift": 50}
"""Paired starts of the simulators that are slow; 100 of all others."""
BOUNDS = ("algo.pessimistic_start", "algo.return_bound", "algo.clip_targets")
DEMO: dict[str, Any] = {
    "chunk_length": 4,
    **dict.fromkeys(BOUNDS, False),
    "algo.base_data": "all",
    "algo.base_tau": 0.001,
    "algo.base_updates": 1,
    "algo.min_noise_scale": 1.0,
    "algo.deploy_noise_scale": 1.0,
    "algo.edits_act": "always",
    "train.guard": "off",
}
"""What the preset `demo` has instead, with cached backups as well."""
FAST_BASE: dict[str, Any] = {"algo.base_tau": 0.005, "algo.base_updates": 4}
"""What `stable` has where `stable-adroit` follows as slowly as the release."""
ROWS: dict[str, dict[str, Any]] = {
    "new": {},
    "demo": DEMO,
    "no-guard": {"train.guard": "off"},
    "all-data": {"algo.base_data": "all"},
    "shorter": {"algo.base_weight": "shorter"},
    "recent": {"algo.base_weight": "recent"},
    "chunks-of-4": {"chunk_length": 4},
    "chunks-of-8": {"chunk_length": 8},
    "slow-base": {"algo.base_tau": 0.001, "algo.base_updates": 1},
    "fast-base": FAST_BASE | {"algo.edits_act": "always"},
    "fast-base-all-data": FAST_BASE | {"algo.base_data": "all"},
    "full-noise": {"algo.min_noise_scale": 1.0},
    "no-bounds": dict.fromkeys(BOUNDS, False),
    "no-edits": {"algo.num_edit_samples": 0},
    "edits-act": {"algo.edits_act": "always"},
    "noise-edits": {"algo.edit_learning_rate": 0.0},
    "small-edits": {"algo.edit_scale": 0.05, "algo.edits_act": "always"},
    "deploy-full-noise": {"algo.deploy_noise_scale": 1.0, "algo.edits_act": "always"},
    "large-edits": {"algo.edit_scale": 0.2, "algo.edits_act": "always"},
    "careful-edits": {"algo.edit_value": "min", "algo.edits_act": "always"},
    "updates-8": {"train.utd_ratio": 8},
    "discount-98": {"train.discount": 0.98},
    "critics-10": {"algo.num_qs": 10},
    "wide-critics": {"algo.hidden": (256, 256)},
    "prior-25": {"data.prior_ratio": 0.25},
}
AT = (0, 1_000, 2_000, 4_000, 6_000, 8_000)
WHO = ("policy", "unguarded", "unedited", "base")


def run_folder(task: str, row: str, seed: int) -> Path:
    """Where one run lives."""
    return FOLDER / f"{task.replace('/', '-')}-{row}-s{seed}"


def one(task: str, row: str, seed: int, steps: int) -> None:
    """Trains one run unless it is finished."""
    keep_compiled_programs()
    run = run_folder(task, row, seed)
    options: dict[str, Any] = {
        "data.demo_noise": TASKS[task],
        "train.online_steps": steps,
        "eval.episodes": EPISODES.get(task, 100),
        "eval.at": tuple(at for at in AT if at <= steps),
        "eval.unedited": row != "no-edits",
        "log.save_every": 2_000,
    }
    name = task if "/" in task else f"metaworld/{task}-v3"
    config = override(preset_config("expo", PRESETS.get(task, "stable"), name), options | ROWS[row])
    train(dataclasses.replace(config, seed=seed), run, resume=(run / "config.json").is_file())


def launch(jobs: list[tuple[str, str, int, int]], cores: list[int]) -> None:
    """Every job in a process pinned to one core, as many at a time as there are cores."""
    free: Queue[int] = Queue()
    for core in cores:
        free.put(core)

    def work(job: tuple[str, str, int, int]) -> None:
        core = free.get()
        code = (
            "import os, sys\n"
            f"if hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {{{core}}})\n"
            f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import stable\nstable.one{job!r}\n"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        free.put(core)
        outcome = "finished" if done.returncode == 0 else "FAILED: " + done.stderr[-500:]
        print(*job, outcome, flush=True)

    with ThreadPoolExecutor(len(cores)) as pool:
        list(pool.map(work, jobs))


def collected(task: str, row: str, seed: int) -> dict[str, Any] | None:
    """The evaluations of one run, as far as it went; None where there are none."""
    lines = read_lines(run_folder(task, row, seed) / "eval.jsonl")
    if not lines:
        return None
    result: dict[str, Any] = {"task": task, "row": row, "seed": seed}
    result["env_steps"] = [line["env_steps"] for line in lines]
    result["deployed"] = [line.get("deployed", "explore") for line in lines]
    for who in WHO:
        if all(who in line for line in lines):
            result[who] = [line[who]["success_rate"] for line in lines]
    result |= guarded_anew(run_folder(task, row, seed), result)
    result["train_s"] = lines[-1]["time/train_s"]
    return result


def guarded_anew(run: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Whom this version's guard deploys, by the episodes that a run's newest checkpoint tells of:
    nothing that is learnt depends on it. With the episodes that each arm had ended by then, and the
    arm with the better record."""
    if "unguarded" not in result:
        return {}
    newest = max((run / CHECKPOINTS).glob("checkpoint-*"))
    told = checkpoint.load(newest)[1]["rollout"]["outcomes"]
    outcomes = [Outcome(*outcome) for outcome in told]
    until = [
        [outcome for outcome in outcomes if outcome.env_steps <= step]
        for step in result["env_steps"]
    ]
    deployed = [Guard().deployed(known) for known in until]
    either = zip(deployed, result["base"], result["unguarded"], strict=True)
    return {
        "deployed": deployed,
        "policy": [base if arm == "base" else policy for arm, base, policy in either],
        "episodes": {
            arm: [sum(outcome.arm == arm for outcome in known) for known in until] for arm in ARMS
        },
        "better_by_record": [
            max(estimates, key=lambda arm: estimates[arm])
            for estimates in map(Guard().estimates, until)
        ],
    }


def deploying_no_edits(result: dict[str, Any]) -> dict[str, Any]:
    """What `new` would have shown where `edits-act` ran: the same parameters, deployed without
    edits."""
    deployed = [
        base if arm == "base" else unedited
        for arm, base, unedited in zip(
            result["deployed"], result["base"], result["unedited"], strict=True
        )
    ]
    return result | {
        "row": "new",
        "from": "edits-act",
        "policy": deployed,
        "unguarded": result["unedited"],
    }


def table(results: list[dict[str, Any]]) -> str:
    """Means over seeds, in %, at every evaluation that all seeds of a row have."""
    rows = []
    for task, row in dict.fromkeys((r["task"], r["row"]) for r in results):
        group = [r for r in results if (r["task"], r["row"]) == (task, row)]
        steps = sorted(set.intersection(*(set(r["env_steps"]) for r in group)))
        for who in WHO:
            members = [r for r in group if who in r]
            if len(members) < len(group):
                continue
            means = [
                100 * np.mean([r[who][r["env_steps"].index(step)] for r in members])
                for step in steps
            ]
            cells = " | ".join(f"{mean:.0f}" for mean in means)
            rows.append((tuple(steps), f"| {task} | {row} | {len(group)} | {who} | {cells} |"))
    text = []
    for steps in dict.fromkeys(steps for steps, _ in rows):
        text.append("| task | row | seeds | who | " + " | ".join(f"{s:,}" for s in steps) + " |")
        text.append("|---" * (4 + len(steps)) + "|")
        text += [line for own, line in rows if own == steps]
    return "\n".join(text)


def main() -> None:
    """Trains what is missing, then reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", default=["new", "demo"], choices=list(ROWS))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=4_000, help="environment steps per run")
    parser.add_argument(
        "--collect", action="store_true", help="train nothing, report what there is"
    )
    options = parser.parse_args()
    if not options.collect:
        jobs = [
            (task, row, seed, options.steps)
            for seed, row, task in product(options.seeds, options.rows, options.tasks)
            if not (run_folder(task, row, seed) / "summary.json").is_file()
        ]
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        launch(jobs, cores)
    every = [collected(*job) for job in product(TASKS, ROWS, range(20))]
    results = [result for result in every if result is not None]
    ran = {(result["task"], result["seed"]) for result in results if result["row"] == "new"}
    results += [
        deploying_no_edits(result)
        for result in results
        if result["row"] == "edits-act" and (result["task"], result["seed"]) not in ran
    ]
    print(table(results))
    print(
        write_result(
            "stable", {"command": "benchmarks/stable.py", "demo_noise": TASKS, "results": results}
        )
    )


if __name__ == "__main__":
    main()
