"""Actors on Ray with a slow simulator: environment steps per second of 1 and of 4.

    .venv/bin/python benchmarks/actors.py

Needs Ray (pip install 'exporl[ray]'). The simulator is the probe task `delay` that sleeps in every
step of an actor; networks are tiny, so that the simulator decides. Runs with 1 and with 4 actors
alternate. Writes benchmarks/results/actors.json after every run; what is there is not repeated.
`actors_faults.py` uses the same runs.
"""

import argparse
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
from common import RESULTS, write_result

from exporl.data import sealing
from exporl.distributed import ray_actors
from exporl.envs.registry import make_task
from exporl.envs.task import Task
from exporl.files.atomic import read_lines
from exporl.files.run_files import CONFIG, METRICS
from exporl.run.config import RunConfig, override, to_json
from exporl.run.loop import train
from exporl.run.phases import update_calls_due
from exporl.run.presets import preset_config
from exporl.run.stopping import Interrupted
from exporl.speed.tuning import keep_compiled_programs

STEP_MS = "EXPORL_BENCHMARK_STEP_MS"
"""Environment variable: milliseconds of one step of the simulator."""
FAULTS = "EXPORL_BENCHMARK_FAULTS"
"""Environment variable: a folder; the environment that finds a fault's name there removes it and
suffers the fault."""
LEARNER = "EXPORL_BENCHMARK_LEARNER"
"""Environment variable: the process that learns and evaluates; its simulator takes no time."""
RAISES, CRASHES, EVALUATION_CRASHES = "raises", "crashes", "evaluation-crashes"
DEADLINE_S, START_S = 20.0, 240.0
"""How long an actor may not answer; and at its start."""
TASK = "actors:slow"
TINY: dict[str, Any] = {
    "base.width": 16, "base.num_blocks": 1, "base.time_dim": 8, "base.num_steps": 2,
    "algo.hidden": (16,), "algo.num_qs": 2, "algo.num_base_samples": 2,
    "algo.num_edit_samples": 2, "train.batch_size": 16, "train.utd_ratio": 1,
    "train.offline_steps": 20, "train.update_after": 20, "train.critic_warmup_steps": 20,
    "train.random_steps": 0, "data.demos": 4, "eval.episodes": 3,
}  # fmt: skip


class Slow(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A simulator that takes its time, and fails once where a file says so."""

    def step(self, action: Any) -> Any:
        """One step, late."""
        if os.environ[LEARNER] == str(os.getpid()):
            if _suffers(EVALUATION_CRASHES):
                os.kill(os.getpid(), signal.SIGSEGV)
            return self.env.step(action)
        time.sleep(float(os.environ[STEP_MS]) / 1000)
        if _suffers(RAISES):
            raise RuntimeError("the simulator broke")
        if _suffers(CRASHES):
            os.kill(os.getpid(), signal.SIGSEGV)
        return self.env.step(action)


def _suffers(fault: str) -> bool:
    """Whether a fault is this environment's; no other one has it, too."""
    try:
        (Path(os.environ[FAULTS]) / fault).unlink()
    except FileNotFoundError:
        return False
    return True


def slow() -> Task:
    """The probe task `delay` in slow motion."""
    task = make_task("probe/delay")
    return dataclasses.replace(task, name=TASK, make_env=lambda: Slow(task.make_env()))


def configuration(actors: int, steps: int, seed: int, *, often: bool) -> RunConfig[Any]:
    """One environment per actor; evaluation and checkpoints often, or at the ends alone."""
    options = TINY | {
        "num_envs": actors, "train.actors": actors, "train.online_steps": steps, "log.every": 20,
        "eval.every": steps // 4 if often else steps, "log.save_every": 40 if often else steps,
    }  # fmt: skip
    return dataclasses.replace(override(preset_config("expo", "tiny", TASK), options), seed=seed)


def run_here(run: Path, config: RunConfig[Any]) -> None:
    """What the process of a run does: begins it, or goes on with it."""
    sealing.LEAST_BYTES = 1024  # so that runs this small have segments
    ray_actors.START_S = START_S
    os.environ[LEARNER] = str(os.getpid())

    def say(message: str) -> None:
        print(message, flush=True)

    keep_compiled_programs(say)
    make_actors = ray_actors.ray_actors(say, deadline_s=DEADLINE_S)
    try:
        train(config, run, resume=(run / CONFIG).is_file(), actors=make_actors)
    except Interrupted as stopped:
        print(stopped, flush=True)


def begin(run: Path, config: RunConfig[Any], step_ms: float) -> subprocess.Popen[bytes]:
    """A process of its own for a run; its environments look for faults in RUN.faults."""
    here = Path(__file__)
    code = "import actors, pathlib; from exporl.run.config import from_json; "
    code += f"actors.run_here(pathlib.Path({str(run)!r}), from_json({to_json(config)!r}))"
    paths = [str(here.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment |= {FAULTS: str(faults_of(run)), STEP_MS: str(step_ms)}
    faults_of(run).mkdir(parents=True, exist_ok=True)
    with run.with_suffix(".out").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-c", code], stdout=out, stderr=out, env=environment
        )


def faults_of(run: Path) -> Path:
    """Where the environments of a run look for faults."""
    return run.with_suffix(".faults")


def ratio(line: dict[str, Any], steps: int) -> float:
    """Updates made by those that were due after so many steps: 1 where the ratio was held."""
    train_options = configuration(1, steps, 0, often=False).train
    due = update_calls_due(train_options, 0, steps) * train_options.utd_ratio
    return line["updates"] / (due * train_options.update_every)


def measured(folder: Path, actors: int, steps: int, seed: int, step_ms: float) -> dict[str, Any]:
    """Environment steps per second of one run, in its second half: in the first one actors start
    and compile."""
    run, total = folder / f"{actors}-{seed}", steps * actors
    if begin(run, configuration(actors, total, seed, often=False), step_ms).wait():
        sys.exit(run.with_suffix(".out").read_text())
    lines = [line for line in read_lines(run / METRICS) if line["env_steps"]]
    first = next(line for line in lines if line["env_steps"] >= total // 2)
    spent = lines[-1]["time/train_s"] - first["time/train_s"]
    return {
        "actors": actors,
        "round": seed,
        "env_steps": total,
        "env_steps_per_s": (lines[-1]["env_steps"] - first["env_steps"]) / spent,
        "updates_made_of_due": ratio(lines[-1], total),
        "staleness_updates": lines[-1]["actors/staleness_updates"],
        "restarts": lines[-1]["actors/restarts"],
        "load": os.getloadavg()[0],
    }


def together(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over rounds, and how many times one actor's steps four make: of every round."""
    rates = {
        count: [run["env_steps_per_s"] for run in runs if run["actors"] == count]
        for count in (1, 4)
    }
    return {
        "env_steps_per_s": {str(n): statistics.median(of) for n, of in rates.items() if of},
        "times": [four / one for one, four in zip(rates[1], rates[4], strict=False)],
        "runs": runs,
    }


def main() -> None:
    """Rounds that are missing, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000, help="of each actor")
    parser.add_argument("--step-ms", type=int, default=20, help="of the simulator")
    given = parser.parse_args()
    path = RESULTS / "actors.json"
    known = json.loads(path.read_text())["simulators"] if path.is_file() else {}
    runs = known.get(str(given.step_ms), {"runs": []})["runs"]
    with tempfile.TemporaryDirectory() as folder:
        for index in range(given.rounds):
            for actors in (1, 4):
                if any((run["round"], run["actors"]) == (index, actors) for run in runs):
                    continue
                runs.append(measured(Path(folder), actors, given.steps, index, given.step_ms))
                print(runs[-1], flush=True)
                known[str(given.step_ms)] = together(runs)
                write_result("actors", {"simulators": known})


if __name__ == "__main__":
    main()
