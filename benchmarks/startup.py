"""Seconds from starting the process to the first update, of the imitation phase and of EXPO, demo preset.

    .venv/bin/python benchmarks/startup.py

Every measurement is a fresh process without a compilation cache. Writes benchmarks/results/startup.json.
"""

import argparse
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
from exporl import override, preset_config
from exporl.session import Silent
from exporl.train import Trainer
options = {"data.path": sys.argv[1], "train.offline_steps": 100, "train.update_after": 0}
config = override(preset_config("expo", "demo", "metaworld/peg-insert-side-v3"), options)
trainer = Trainer(config, Path(sys.argv[2]), Silent(), False)
if sys.argv[3] == "imitation":
    trainer.pretrain()
else:
    trainer.config = override(config, {"train.online_steps": 2})
    trainer.last_eval = 0
    for stream, step in (x for _ in range(8) for x in trainer.rollout.step(trainer.learner.acting(), "base")):
        trainer.online_replay.add(step, stream)
    trainer._update(trainer.mixture, config.train.utd_ratio * config.train.update_every, "online")
print(time.time())
"""


def main() -> None:
    """Measures both, alternating."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    from exporl.data.formats import save_npz
    from exporl.envs import make_task

    seconds: dict[str, list[float]] = {"imitation": [], "online": []}
    with tempfile.TemporaryDirectory() as folder:
        collect = make_task("metaworld/peg-insert-side-v3").collect
        assert collect is not None
        save_npz(Path(folder) / "demos.npz", collect(20, 0.4, 0))
        for i in range(repeats):
            for what in seconds:
                began = time.time()
                command = [sys.executable, "-c", SCRIPT, f"{folder}/demos.npz", f"{folder}/{what}{i}", what]
                Path(f"{folder}/{what}{i}").mkdir()
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                seconds[what].append(float(out.split()[-1]) - began)
    medians = {what: statistics.median(values) for what, values in seconds.items()}
    print("seconds from process start to the first update, median:", medians)
    print(write_result("startup", {"command": "benchmarks/startup.py", "seconds": seconds, "median_s": medians}))


if __name__ == "__main__":
    main()
