"""What a base policy from outside costs: the share of a training step that is spent in it.

    .venv/bin/python benchmarks/outside_cost.py
    .venv/bin/python benchmarks/outside_cost.py --kinds lerobot      # where LeRobot is installed

EXPO, preset `small`, on the changed cheetah of changed_robots.py, 8 samples per observation, around
a frozen policy of every kind whose package is installed (outside_policies.py), with fresh and with
cached backups. On one core, so that nothing overlaps; of `ws` the server is a process on the same
core. Milliseconds per environment step without the start, and the share of them in `sample`.
Policies that take seconds are measured over fewer steps. Writes
benchmarks/results/outside_cost.json; kinds that are not measured keep what is there.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, write_result
from outside_policies import KINDS, TASK, TASKS
from tables import outside

from exporl.external import OutsidePolicy
from exporl.run.callbacks import Callback
from exporl.run.config import override
from exporl.run.loop import train
from exporl.run.presets import around_a_policy, preset_config
from exporl.spec import Spec
from exporl.types import Step

SKIPPED = 200
"""Environment steps before the measurement: start, compilation, and the first updates."""
DEAR = {("lerobot", "fresh"): 100, ("lerobot", "cached"): 20, ("ws", "fresh"): 10}
"""Kind and backup -> how many times fewer steps are measured, and left out before."""


class Timed:
    """A policy that says how long it was asked."""

    def __init__(self, policy: OutsidePolicy):
        self.policy, self.seconds = policy, 0.0
        self.spec: Spec | None = getattr(policy, "spec", None)

    def sample(self, observations: dict[str, np.ndarray], num: int, seed: int) -> np.ndarray:
        """The policy's, in seconds that are counted."""
        began = time.perf_counter()
        answer = self.policy.sample(observations, num, seed)
        self.seconds += time.perf_counter() - began
        return answer


class Clock(Callback):
    """Measures from one step to another: all seconds, and those in the policy."""

    def __init__(self, policy: Timed, first: int, last: int):
        self._policy, self._first, self._last = policy, first, last
        self._began, self._before = 0.0, 0.0
        self.whole, self.inside = 0.0, 0.0

    def on_step(self, env_steps: int, steps: Sequence[tuple[int, Step]]) -> None:
        """Reads the clocks at the first and the last of them."""
        if env_steps == self._first:
            self._began, self._before = time.perf_counter(), self._policy.seconds
        if env_steps == self._last:
            self.whole = time.perf_counter() - self._began
            self.inside = self._policy.seconds - self._before


def measure(kind: str, backup: str, steps: int) -> dict[str, Any]:
    """Seconds per step of one kind, and its share."""
    fewer = DEAR.get((kind, backup), 1)
    skipped, steps = SKIPPED // fewer, max(steps // fewer, 1)
    last = skipped + steps
    options = {
        "reward": "env",
        "data.demos": 0,
        "data.prior_ratio": 0.0,
        "algo.backup": backup,
        "train.critic_warmup_steps": 0,
        "train.update_after": skipped // 4,
        "train.online_steps": last,
        "eval.at": (last,),
        "eval.episodes": 1,
        "eval.base": False,
        "log.every": 10_000,
        "log.save_every": 10_000,
    }
    config = around_a_policy(preset_config("expo", "small", "changed_robots:cheetah_gears"))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as closing:
        policy = Timed(KINDS[kind][1](Path(folder), closing))
        clock, task = Clock(policy, skipped, last), TASKS[kind]() if kind in TASKS else TASK
        run = Path(folder) / "run"
        train(override(config, options), run, task=task, base=policy, callbacks=[clock])
    return {
        "kind": kind,
        "backup": backup,
        "steps": steps,
        "step_ms": 1_000 * clock.whole / steps,
        "outside_ms": 1_000 * clock.inside / steps,
        "share": clock.inside / clock.whole,
    }


def kept(kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Results of other kinds that are there already."""
    path = RESULTS / "outside_cost.json"
    if not path.is_file():
        return []
    return [each for each in json.loads(path.read_text())["results"] if each["kind"] not in kinds]


def main() -> None:
    """Every kind in turn, so many rounds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    installed = [kind for kind, (package, _) in KINDS.items() if find_spec(package)]
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=installed)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400, help="environment steps measured")
    options = parser.parse_args()
    results = kept(options.kinds)
    for _ in range(options.rounds):
        for kind in options.kinds:
            for backup in ("fresh", "cached"):
                results.append(measure(kind, backup, options.steps))
                print(results[-1], flush=True)
    results.sort(key=_place)
    command = f"benchmarks/outside_cost.py --rounds {options.rounds} --steps {options.steps}"
    print(write_result("outside_cost", {"command": command, "results": results}))
    print(outside())


def _place(each: dict[str, Any]) -> int:
    return list(KINDS).index(each["kind"])


if __name__ == "__main__":
    main()
