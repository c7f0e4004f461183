"""The demo's task with actors on Ray: success of EXPO with 4 actors, on several seeds.

    .venv/bin/python benchmarks/actors_seeds.py --seeds 0 1 2

Needs Ray (pip install 'exporl[ray]'). The preset, the demonstrations and the environment steps are
those of `exporl demo`, whose seeds benchmarks/demo_seeds.py measures in one process. Different are
the four actors with one environment each, and the guard, which is off: it works in one process
only. Finished runs in the folder are not repeated, stopped ones go on. Writes
benchmarks/results/actors_seeds.json after every seed.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from common import RESULTS, write_result

from exporl.cli.demo import DEMO_NOISE, STEPS, TASK
from exporl.cli.train import train_one
from exporl.data.formats import save_npz
from exporl.envs.registry import make_task
from exporl.files.atomic import read_lines
from exporl.files.run_files import CONFIG, EVAL, METRICS, SUMMARY
from exporl.run.config import RunConfig, override
from exporl.run.phases import update_calls_due
from exporl.run.presets import preset_config
from exporl.speed.tuning import keep_compiled_programs
from exporl.stats.intervals import paired_difference, wilson

ACTORS = 4


def configuration(data: Path, seed: int, steps: int) -> RunConfig[Any]:
    """The demo's EXPO, with actors."""
    changes: dict[str, Any] = {"data.path": str(data), "data.demo_noise": DEMO_NOISE}
    changes |= {"train.online_steps": steps, "train.actors": ACTORS, "num_envs": ACTORS}
    changes["train.guard"] = "off"
    return dataclasses.replace(override(preset_config("expo", "stable", TASK), changes), seed=seed)


def demonstrations(folder: Path) -> Path:
    """The demo's demonstrations, collected once."""
    path = folder / "demonstrations.npz"
    if not path.is_file():
        task, data = make_task(TASK), preset_config("expo", "stable", TASK).data
        assert task.collect is not None
        folder.mkdir(parents=True, exist_ok=True)
        save_npz(path, task.collect(data.collected, DEMO_NOISE, data.demo_seed))
    return path


def run_one(folder: Path, seed: int, steps: int) -> Path:
    """A finished run of a seed."""
    run = folder / f"seed-{seed}"
    if not (run / SUMMARY).is_file():
        config = configuration(demonstrations(folder), seed, steps)
        if status := train_one(config, run, resume=(run / CONFIG).is_file()):
            sys.exit(status)
    return run


def seed_result(run: Path, config: RunConfig[Any]) -> dict[str, Any]:
    """What a finished run says."""
    evals, last = read_lines(run / EVAL), read_lines(run / METRICS)[-1]
    summary = json.loads((run / SUMMARY).read_text())
    due = update_calls_due(config.train, 0, last["env_steps"]) * config.train.utd_ratio
    return {
        "seed": config.seed,
        "env_steps": [line["env_steps"] for line in evals],
        "success": [line["policy"]["success_rate"] for line in evals],
        "base": [line["base"]["success_rate"] for line in evals],
        "last_successes": [bool(success) for success in evals[-1]["policy"]["success"]],
        "minus_base_before": paired_difference(
            evals[-1]["policy"]["success"], evals[0]["base"]["success"]
        ),
        "demo": demo_success(config.seed),
        "updates_made_of_due": last["updates"] / (due * config.train.update_every),
        "restarts": last["actors/restarts"],
        "lost_steps": last["actors/lost_steps"],
        "staleness_updates": last["actors/staleness_updates"],
        "train_s": summary["train_s"],
    }


def demo_success(seed: int) -> float:
    """What the demo reached at its last step, in one process and with its guard."""
    demo = json.loads((RESULTS / "demo.json").read_text())
    return next(each["expo"]["success"][-1] for each in demo["seeds"] if each["seed"] == seed)


def pooled(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Success over the last evaluations of all seeds, with its 95% interval; and the demo's."""
    successes = [success for seed in seeds for success in seed["last_successes"]]
    demo = sum(seed["demo"] for seed in seeds) / len(seeds)
    return {
        "success": sum(successes) / len(successes),
        "interval": wilson(sum(successes), len(successes)),
        "demo_success": demo,
        "demo_interval": wilson(round(demo * len(successes)), len(successes)),
    }


def main() -> None:
    """What is missing, one seed after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--dir", type=Path, default=Path("runs/actors-seeds"))
    options = parser.parse_args()
    keep_compiled_programs(print)
    seeds = []
    for seed in options.seeds:
        run = run_one(options.dir, seed, options.steps)
        config = configuration(options.dir / "demonstrations.npz", seed, options.steps)
        seeds.append(seed_result(run, config))
        print(json.dumps(seeds[-1]), flush=True)
        written = {"actors": ACTORS, "together": pooled(seeds), "seeds": seeds}
        print(write_result("actors_seeds", written), flush=True)


if __name__ == "__main__":
    main()
