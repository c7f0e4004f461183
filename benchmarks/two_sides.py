"""Imitation of drivers who pass an obstacle on either side: what a Gaussian makes of it, and what a
flow makes of it, from the same demonstrations.

    .venv/bin/python benchmarks/two_sides.py --seeds 0 1 2

`driving/racetrack`, 40 demonstrations with action noise 0.05, behaviour cloning, then 50 evaluation
episodes. `gaussian` is the base policy of examples/custom_base_policy.py, and `mean` the middle of
it. What has been measured is not measured again. Writes benchmarks/results/two_sides.json.
"""

import argparse
import dataclasses
import json
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
from common import RESULTS, write_result

from exporl.data.episodes import Episode
from exporl.envs.racetrack import side_of
from exporl.envs.registry import make_task
from exporl.policies import BaseConfig, BasePolicy
from exporl.run.config import override
from exporl.run.loop import train
from exporl.run.presets import preset_config
from exporl.run.session import load_run
from exporl.speed.tuning import keep_compiled_programs
from exporl.types import KeyArray, Precision, Spec

EXAMPLES = Path(__file__).parent.parent / "examples"
FOLDER = Path("runs/two_sides")
TASK = "driving/racetrack"
KINDS = {"flow": "flow", "gaussian": "two_sides:gaussian", "mean": "two_sides:mean"}
"""Name -> base policy."""
EPISODES = 50
OPTIONS: dict[str, Any] = {
    "base.width": 128,
    "base.num_blocks": 2,
    "base.num_steps": 10,
    "base.learning_rate": 1e-3,
    "chunk_length": 1,
    "train.offline_steps": 4_000,
    "train.online_steps": 0,
    "train.batch_size": 256,
    "eval.episodes": 1,
    "data.demos": 40,
    "data.demo_noise": 0.05,
}


def gaussian(config: BaseConfig, spec: Spec, precision: Precision) -> BasePolicy:
    """The Gaussian of the examples."""
    sys.path.insert(0, str(EXAMPLES))
    from custom_base_policy import gaussian as of_the_examples

    return of_the_examples(config, spec, precision)


def mean(config: BaseConfig, spec: Spec, precision: Precision) -> BasePolicy:
    """The same Gaussian, of which always the mean is played."""
    base = gaussian(config, spec, precision)

    def decode(params: Any, observation: Any, noise: KeyArray) -> Any:
        return base.decode(params, observation, jnp.zeros_like(noise))

    return base._replace(decode=decode)


class Sided(gymnasium.Wrapper):
    """Counts on which side episodes pass the obstacle."""

    def __init__(self, env: gymnasium.Env, counts: Counter[str]):
        super().__init__(env)
        self._counts, self._seen = counts, []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._seen = [observation["state"]]
        return observation, info

    def step(self, action: np.ndarray):
        """One step; the last one of an episode counts it."""
        answer = self.env.step(action)
        self._seen.append(answer[0]["state"])
        if answer[2] or answer[3]:
            steps = len(self._seen) - 1
            states = {"state": np.stack(self._seen)}
            nothing = np.zeros(steps, np.float32)
            played = Episode(states, np.zeros((steps, 2), np.float32), nothing, nothing > 0, False)
            self._counts[side_of(played) or "neither"] += 1
        return answer


def measured(kind: str, seed: int) -> dict[str, Any]:
    """Success and sides of one run, trained unless it is there."""
    run = FOLDER / f"{kind}-s{seed}"
    config = override(preset_config("bc", "small", TASK), OPTIONS | {"base.kind": KINDS[kind]})
    if not (run / "summary.json").is_file():
        train(dataclasses.replace(config, seed=seed), run)
    counts, task = Counter[str](), make_task(TASK)

    def make_env() -> gymnasium.Env:
        return Sided(task.make_env(), counts)

    watched = dataclasses.replace(task, make_env=make_env)
    result = load_run(run, task=watched, trust=True).evaluate(episodes=EPISODES, seed=2_000_003)
    return {
        "kind": kind,
        "seed": seed,
        "success_rate": result.success_rate,
        "success": result.success,
        "sides": dict(sorted(counts.items())),
    }


def demonstrations() -> dict[str, Any]:
    """What is imitated."""
    collect = make_task(TASK).collect
    assert collect is not None
    episodes = collect(OPTIONS["data.demos"], OPTIONS["data.demo_noise"], 0)
    sides = Counter(side_of(episode) or "neither" for episode in episodes)
    return {
        "episodes": len(episodes),
        "success_rate": float(np.mean([episode.success for episode in episodes])),
        "sides": dict(sorted(sides.items())),
    }


def measured_before() -> list[dict[str, Any]]:
    """What has been measured."""
    path = RESULTS / "two_sides.json"
    return json.loads(path.read_text())["results"] if path.is_file() else []


def main() -> None:
    """Measures what is missing, and writes the result after every run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    keep_compiled_programs()
    imitated = demonstrations()
    for seed, kind in product(options.seeds, options.kinds):
        if any((each["kind"], each["seed"]) == (kind, seed) for each in measured_before()):
            continue
        found = measured(kind, seed)
        print(kind, seed, found["success_rate"], found["sides"], flush=True)
        # Read again: another process may measure another kind meanwhile.
        results = sorted([*measured_before(), found], key=lambda each: (each["kind"], each["seed"]))
        write_result(
            "two_sides",
            {
                "command": "benchmarks/two_sides.py",
                "options": OPTIONS,
                "demonstrations": imitated,
                "results": results,
            },
        )


if __name__ == "__main__":
    main()
