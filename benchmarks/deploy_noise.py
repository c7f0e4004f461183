"""How much of the base policy's noise should be decoded where nothing is to be explored?

    .venv/bin/python benchmarks/deploy_noise.py --tasks assembly push --seeds 0 --steps 12 1010

Preset `stable`, trained for a few steps (12: little more than imitation; 1,010: its warm-up) or as
long as `benchmarks/stable.py` did, whose finished runs are evaluated where `--steps 4000` or 6000
asks for them. Success of the base policy alone and of the policy without edits on 100 starts, with
the noise of all base samples scaled by `algo.deploy_noise_scale`. What has been measured is not
measured again. Writes benchmarks/results/deploy_noise.json.
"""

import argparse
import dataclasses
import json
from itertools import product
from pathlib import Path
from typing import Any

from common import RESULTS, write_result
from stable import EPISODES, TASKS, run_folder

from exporl.algos.expo_entry import expo
from exporl.policies import make_base
from exporl.run.config import override
from exporl.run.loop import train
from exporl.run.presets import preset_config
from exporl.run.session import load_run
from exporl.speed.tuning import keep_compiled_programs
from exporl.types import Mode

FOLDER = Path("runs/deploy-noise")
SCALES = (1.0, 0.5, 0.25, 0.0)
BEGINNING = 1_010
"""Up to so many steps a run is trained here."""


def beginning(task: str, seed: int, steps: int) -> Path:
    """The run of so few steps, trained unless it is there."""
    run = FOLDER / f"{task.replace('/', '-')}-{steps}-s{seed}"
    options: dict[str, Any] = {
        "data.demo_noise": TASKS[task],
        "train.online_steps": steps,
        "eval.episodes": 1,
        "eval.base": False,
        "eval.at": (0,),
    }
    if steps < BEGINNING:
        options |= {"train.critic_warmup_steps": steps // 2, "train.update_after": steps // 2}
    name = task if "/" in task else f"metaworld/{task}-v3"
    config = override(preset_config("expo", "stable", name), options)
    if not (run / "summary.json").is_file():
        train(dataclasses.replace(config, seed=seed), run, resume=(run / "config.json").is_file())
    return run


def measured(run: Path, episodes: int) -> dict[Mode, list[float]]:
    """Success at every scale, of the base policy alone and of the policy without edits."""
    rates: dict[Mode, list[float]] = {"base": [], "unedited": []}
    session = load_run(run)
    config, spec = session.config, session.parts.network_spec
    base = make_base(config.base, spec, config.precision)
    for scale in SCALES:
        options = dataclasses.replace(config.algo, deploy_noise_scale=scale)
        parts = dataclasses.replace(
            session.parts, algorithm=expo(options, spec, base, config.precision)
        )
        scaled = dataclasses.replace(session, parts=parts)
        for mode, found in rates.items():
            found.append(scaled.evaluate(mode=mode, episodes=episodes).success_rate)
    return rates


def main() -> None:
    """Measures what is missing, and writes the result after every run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=list(TASKS)[:4], choices=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[12, BEGINNING])
    parser.add_argument("--row", default="deploy-full-noise", help="of stable.py, for longer runs")
    options = parser.parse_args()
    keep_compiled_programs()
    path = RESULTS / "deploy_noise.json"
    results = json.loads(path.read_text())["results"] if path.is_file() else []
    known = {(r["task"], r["seed"], r["steps"], r["row"]) for r in results}
    for seed, task, steps in product(options.seeds, options.tasks, options.steps):
        row = "" if steps <= BEGINNING else options.row
        if (task, seed, steps, row) in known:
            continue
        run = run_folder(task, row, seed) if row else beginning(task, seed, steps)
        rates = measured(run, EPISODES.get(task, 100))
        results.append({"task": task, "seed": seed, "steps": steps, "row": row, **rates})
        print(task, seed, steps, row, rates, flush=True)
        write_result(
            "deploy_noise",
            {"command": "benchmarks/deploy_noise.py", "scales": SCALES, "results": results},
        )


if __name__ == "__main__":
    main()
