"""RLPD beside the demo: which of its settings serves it best there?

    .venv/bin/python benchmarks/rlpd_settings.py --seeds 0

Meta-World peg-insert-side, 20 scripted demonstrations with the demo's action noise, 5,000
environment steps, 50 evaluation episodes: success of RLPD's preset `demo` and of that with a
pessimistic start, the bound by realised returns and clipped targets; with these, with more updates
and other chunks. Finished runs are not repeated. Writes benchmarks/results/rlpd_settings.json.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from common import write_result

from exporl.cli.demo import DEMO_NOISE, TASK
from exporl.files.atomic import read_lines
from exporl.files.run_files import CONFIG, EVAL, SUMMARY
from exporl.run.config import override
from exporl.run.loop import train
from exporl.run.presets import preset_config
from exporl.speed.tuning import keep_compiled_programs

FOLDER = Path("runs/rlpd-settings")
BOUNDS = dict.fromkeys(("algo.pessimistic_start", "algo.return_bound", "algo.clip_targets"), "auto")
SETTINGS: dict[str, dict[str, Any]] = {
    "demo": {},
    "bounds": BOUNDS,
    "bounds, chunks of 1": BOUNDS | {"chunk_length": 1},
    "bounds, update-to-data 8": BOUNDS | {"train.utd_ratio": 8},
    "bounds, update-to-data 8, chunks of 6": BOUNDS | {"train.utd_ratio": 8, "chunk_length": 6},
}
GIVEN = {
    "data.demo_noise": DEMO_NOISE,
    "train.online_steps": 5_000,
    "eval.at": (0, 2_500),
    "eval.episodes": 50,
    "log.save_every": 5_000,
}


def measured(setting: str, seed: int) -> dict[str, Any]:
    """One run, made where it is missing."""
    run = FOLDER / f"{setting.replace(', ', '-').replace(' ', '-')}-s{seed}"
    config = override(preset_config("rlpd", "demo", TASK), GIVEN | SETTINGS[setting])
    if not (run / SUMMARY).is_file():
        train(dataclasses.replace(config, seed=seed), run, resume=(run / CONFIG).is_file())
    lines = read_lines(run / EVAL)
    return {
        "setting": setting,
        "seed": seed,
        "env_steps": [line["env_steps"] for line in lines],
        "success": [line["policy"]["success_rate"] for line in lines],
        "train_s": lines[-1]["time/train_s"],
    }


def main() -> None:
    """Every setting, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    seeds = parser.parse_args().seeds
    keep_compiled_programs()
    results = []
    for seed in seeds:
        for setting in SETTINGS:
            results.append(measured(setting, seed))
            print(results[-1], flush=True)
    print(write_result("rlpd_settings", {"results": results}))


if __name__ == "__main__":
    main()
