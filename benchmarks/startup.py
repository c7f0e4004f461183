"""Seconds from starting the process to the first update: demo and paper preset, without and with
kept programs.

    .venv/bin/python benchmarks/startup.py

Every measurement is a fresh process; "cold" starts from an empty cache folder, "warm" from one
filled by the cold run before it. "begun": data, environment and networks are there, the update is
compiled and has begun. "finished": it is done, which at the paper preset takes as long as an update
takes. Writes benchmarks/results/startup.json.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import write_result

SCRIPT = """
import sys, time
from pathlib import Path
import jax
from exporl import override, preset_config
from exporl.data.mixture import Mixture
from exporl.run.progress import Silent
from exporl.run.trainer import Trainer
from exporl.speed.tuning import keep_compiled_programs
data, folder, preset, what = sys.argv[1:]
keep_compiled_programs()
steps = 100 if what == "imitation" else 0
options = {"data.path": data, "train.offline_steps": steps, "train.random_steps": 0,
           "train.update_after": 0, "train.prefetch": False}
config = override(preset_config("expo", preset, "metaworld/peg-insert-side-v3"), options)
trainer = Trainer(config, Path(folder), Silent(), False)
trainer.first_update_s = 0.0  # do not wait for the first update where the loop would
if what == "imitation":
    prior = Mixture([(trainer.prior, 1.0)])
    metrics = trainer.learning_from(prior, 100, "pretrain").owe(1)
else:
    for _ in range(8):
        for stream, step in trainer.actors.step(trainer.learner.acting(), "base"):
            trainer.online_replay.add(step, stream)
    metrics = trainer.in_step.owe(1)
begun = time.time()
jax.block_until_ready(metrics)
print(begun, time.time())
"""
CASES = [("demo", "imitation"), ("demo", "online"), ("paper", "online")]


def main() -> None:
    """Measures all cases, alternating."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    from exporl.data.formats import save_npz
    from exporl.envs import make_task

    seconds: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        collect = make_task("metaworld/peg-insert-side-v3").collect
        assert collect is not None
        save_npz(Path(folder) / "demos.npz", collect(20, 0.4, 0))
        for i in range(repeats):
            for preset, what in CASES:
                for cache in ("cold", "warm"):
                    run = Path(folder) / f"{preset}-{what}-{cache}-{i}"
                    run.mkdir()
                    environment = os.environ | {
                        "XDG_CACHE_HOME": f"{folder}/cache-{preset}-{what}-{i}"
                    }
                    began = time.time()
                    command = [
                        sys.executable,
                        "-c",
                        SCRIPT,
                        f"{folder}/demos.npz",
                        str(run),
                        preset,
                        what,
                    ]
                    out = subprocess.run(
                        command, check=True, capture_output=True, text=True, env=environment
                    ).stdout
                    begun, finished = (float(x) - began for x in out.split()[-2:])
                    record = seconds.setdefault(
                        f"{preset} {what} {cache}", {"begun": [], "finished": []}
                    )
                    record["begun"].append(begun)
                    record["finished"].append(finished)
    medians = {
        name: {k: statistics.median(v) for k, v in record.items()}
        for name, record in seconds.items()
    }
    for name, record in medians.items():
        print(
            f"{name:22s} update begun after {record['begun']:5.1f} s, finished after "
            f"{record['finished']:5.1f} s"
        )
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    result = {
        "command": "benchmarks/startup.py",
        "seconds": seconds,
        "median_s": medians,
        "load_average": load,
    }
    print(write_result("startup", result))


if __name__ == "__main__":
    main()
