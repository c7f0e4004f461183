"""Environment steps per second of the demo's EXPO training on one core, simulator and replay
included.

    .venv/bin/python benchmarks/demo_speed.py

Pins itself to one core where the system allows it, trains the demo preset for 2,000 steps without
evaluation in between, and takes the median over intervals of 100 steps after compilation. Writes
benchmarks/results/demo_speed.json.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

if hasattr(os, "sched_setaffinity"):  # before JAX starts its threads
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np
from common import write_result

from exporl.files.atomic import read_lines
from exporl.run.config import override
from exporl.run.loop import train
from exporl.run.presets import preset_config


def main() -> None:
    """Trains once and reads the run's own log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2_000)
    steps = parser.parse_args().steps
    options = {
        "train.online_steps": steps,
        "train.offline_steps": 500,
        "eval.every": steps,
        "eval.episodes": 1,
    }
    config = override(
        preset_config("expo", "demo", "metaworld/peg-insert-side-v3"), options | {"log.every": 100}
    )
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        train(config, Path(folder) / "run")
        wall = time.perf_counter() - began
        lines = [
            line
            for line in read_lines(Path(folder) / "run" / "metrics.jsonl")
            if line["phase"] == "online"
        ]
    speeds = [line["time/env_steps_per_s"] for line in lines[4:]]
    low, median, high = (float(q) for q in np.quantile(speeds, [0.1, 0.5, 0.9]))
    print(
        f"env steps per second on one core: median {median:.1f} (10% {low:.1f}, 90% {high:.1f}); "
        f"load {os.getloadavg()}"
    )
    result = {
        "command": "benchmarks/demo_speed.py",
        "median": median,
        "p10": low,
        "p90": high,
        "wall_s": wall,
    }
    print(write_result("demo_speed", result | {"steps": steps, "load_average": os.getloadavg()}))


if __name__ == "__main__":
    main()
