"""What running in parallel gains: two seeds in two processes, and learning beside acting.

    .venv/bin/python benchmarks/parallel.py             # about a quarter of an hour on two cores

Preset "tiny" on Meta-World. "seeds": `--seeds 2` against the same two runs one after the other,
each with all cores to itself. "async": one run with and without `--async`, on the simulator as it
is and on one that also waits 15 ms per step, as a robot or a slow simulator does. Both sides
alternate; wall-clock is that of the whole command, medians are reported. Writes
benchmarks/results/parallel.json.
"""

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
from common import write_result

WAIT_S = 0.015
TASK = "metaworld/peg-insert-side-v3"
OPTIONS = {
    "preset": "tiny", "data.demos": 20, "train.offline-steps": 200, "train.critic-warmup-steps": 0,
    "train.update-after": 100, "eval.every": 1_000_000, "eval.episodes": 1, "eval.num-envs": 1,
    "log.save-every": 1_000_000,
}  # fmt: skip

SLOW = "parallel:waiting"
SIDES: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "seeds, one after the other": [(TASK, ("--seed", "0")), (TASK, ("--seed", "1"))],
    "seeds, two processes": [(TASK, ("--seeds", "2"))],
    f"{TASK}, in step": [(TASK, ())],
    f"{TASK}, --async": [(TASK, ("--async",))],
    f"{SLOW}, in step": [(SLOW, ())],
    f"{SLOW}, --async": [(SLOW, ("--async",))],
}
"""What is timed, each side as commands one after the other; every second side is compared with the
one before it."""


class Waiting(gymnasium.Wrapper):
    """An environment whose steps also take `WAIT_S` of doing nothing."""

    def step(self, action: Any) -> Any:
        """The step, then the wait."""
        result = self.env.step(action)
        time.sleep(WAIT_S)
        return result


def waiting() -> Any:
    """The task with waiting environments, for `--task parallel:waiting`."""
    from exporl.envs import make_task

    task = make_task(TASK)
    return dataclasses.replace(task, name="waiting", make_env=lambda: Waiting(task.make_env()))


def seconds(task: str, steps: int, folder: Path, *more: str) -> float:
    """Wall-clock of one training command."""
    options = OPTIONS | {"task": task, "train.online-steps": steps, "run-dir": folder}
    command = [sys.executable, "-c", "from exporl.cli.main import main; main()", "train", "expo"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    began = time.perf_counter()
    subprocess.run(
        [*command, *more], check=True, capture_output=True, env=os.environ | {"PYTHONPATH": path}
    )
    return time.perf_counter() - began


def main() -> None:
    """Measures, prints, writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2_000, help="environment steps of every run")
    options = parser.parse_args()
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        seconds(TASK, 200, Path(folder) / "warm", "--seeds", "2")  # programs are compiled and kept
        seconds(TASK, 200, Path(folder) / "warm-one")
        for i in range(options.repeats):
            for side, (name, runs) in enumerate(SIDES.items()):
                at = [Path(folder) / f"{i}-{side}-{n}" for n in range(len(runs))]
                took = [
                    seconds(task, options.steps, to, *flags)
                    for to, (task, flags) in zip(at, runs, strict=True)
                ]
                taken.setdefault(name, []).append(sum(took))
                print(f"{name:45s} {taken[name][-1]:7.1f} s", flush=True)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    names = list(medians)
    gains = {b: medians[a] / medians[b] for a, b in zip(names[::2], names[1::2], strict=True)}
    for name, gain in gains.items():
        print(f"{name:45s} {gain:5.2f} times faster")
    result = {
        "command": "benchmarks/parallel.py " + " ".join(sys.argv[1:]),
        "steps": options.steps,
        "wait_s": WAIT_S,
        "seconds": taken,
        "median_s": medians,
        "times_faster": gains,
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }
    print(write_result("parallel", result))


if __name__ == "__main__":
    main()
