"""Actors on Ray: what they bring with a slow simulator, and whether runs survive random faults.

    .venv/bin/python benchmarks/actors.py speed    # 1 and 4 actors, 20 ms per environment step
    .venv/bin/python benchmarks/actors.py faults   # 30 faults at random moments

Needs Ray (pip install 'exporl[ray]'). The simulator is the probe task `delay` that sleeps in every
step. `speed` alternates both numbers of actors. In `faults` every run suffers a few, at random
moments: an actor killed with SIGKILL; an environment that raises; an actor stopped for longer than
its deadline; the learner killed with SIGKILL and the run resumed (evaluation happens in its
process); the head of Ray killed and the run resumed. A run is right if it makes all of its steps,
if its update-to-data ratio is the configured one, and if every step of the checkpoint that was
there at each kill of the learner is, to the bit, in the last one. Writes
benchmarks/results/actors.json; what is there of the other parts is kept.
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
import numpy as np
import psutil
from common import RESULTS, write_result

from exporl.data import sealing
from exporl.distributed.ray_actors import ray_actors
from exporl.envs.registry import make_task
from exporl.envs.task import Task
from exporl.files import checkpoint
from exporl.files.atomic import read_lines
from exporl.files.run_files import CHECKPOINTS, METRICS, SUMMARY
from exporl.run.config import RunConfig, override
from exporl.run.loop import train
from exporl.run.phases import update_calls_due
from exporl.run.presets import preset_config
from exporl.run.stopping import Interrupted

STEP_S = 0.02
"""Seconds of one step of the simulator."""
BROKEN = "EXPORL_BENCHMARK_BROKEN"
"""Environment variable: a file; the environment that finds it there removes it and raises."""
TASK = "actors:slow"
TINY: dict[str, Any] = {
    "base.width": 16, "base.num_blocks": 1, "base.time_dim": 8, "base.num_steps": 2,
    "algo.hidden": (16,), "algo.num_qs": 2, "algo.num_base_samples": 2,
    "algo.num_edit_samples": 2, "train.batch_size": 16, "train.utd_ratio": 1,
    "train.offline_steps": 20, "train.update_after": 20, "train.critic_warmup_steps": 20,
    "train.random_steps": 0, "data.demos": 4, "eval.episodes": 3,
}  # fmt: skip
KINDS = ("actor killed", "environment raises", "actor stopped", "learner killed", "head killed")
SHARES = (0.35, 0.15, 0.15, 0.25, 0.1)
DEADLINE_S = 15.0
"""Of the runs with faults: how long an actor may not answer."""


class Slow(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A simulator that takes its time, and breaks once where a file says so."""

    def step(self, action: Any) -> Any:
        """One step, `STEP_S` later."""
        time.sleep(STEP_S)
        broken = os.environ.get(BROKEN)
        if broken and Path(broken).exists():
            Path(broken).unlink(missing_ok=True)
            raise RuntimeError("the simulator broke")
        return self.env.step(action)


def slow() -> Task:
    """The probe task `delay` in slow motion."""
    task = make_task("probe/delay")
    return dataclasses.replace(task, name=TASK, make_env=lambda: Slow(task.make_env()))


def configuration(actors: int, steps: int, seed: int) -> RunConfig[Any]:
    """One environment per actor."""
    options = TINY | {
        "num_envs": actors, "train.actors": actors, "train.online_steps": steps,
        "eval.every": max(steps // 4, 1), "log.every": 20, "log.save_every": max(steps // 20, 1),
    }  # fmt: skip
    return dataclasses.replace(override(preset_config("expo", "tiny", TASK), options), seed=seed)


def run_here(run: Path, actors: int, steps: int, seed: int) -> None:
    """What the process of a run does: begins it, or goes on with it."""
    sealing.LEAST_BYTES = 1024  # so that runs this small have segments

    def say(message: str) -> None:
        print(message, flush=True)

    config = configuration(actors, steps, seed)
    make_actors = ray_actors(say, deadline_s=DEADLINE_S)
    resume = (run / "config.json").is_file()
    try:
        train(config, run, resume=resume, actors=make_actors)
    except Interrupted as stopped:
        print(stopped, flush=True)


def begin(run: Path, actors: int, steps: int, seed: int) -> subprocess.Popen[bytes]:
    """A process of its own for a run; its environments look for `run`.broken."""
    here = Path(__file__)
    code = f"import actors; from pathlib import Path; actors.run_here(Path({str(run)!r}), "
    code += f"{actors}, {steps}, {seed})"
    paths = [str(here.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment[BROKEN] = str(run.with_suffix(".broken"))
    run.parent.mkdir(parents=True, exist_ok=True)
    with run.with_suffix(".out").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-c", code], stdout=out, stderr=out, env=environment
        )


# Speed.


def speed(rounds: int, steps: int) -> dict[str, Any]:
    """Environment steps per second with 1 and with 4 actors, alternately."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(rounds):
            for actors in (1, 4):
                run = Path(folder) / f"{actors}-{index}"
                total = steps * actors
                if begin(run, actors, total, index).wait():
                    sys.exit(run.with_suffix(".out").read_text())
                lines = [line for line in read_lines(run / METRICS) if line["env_steps"]]
                # the first lines are of actors that start and compile
                half = [line for line in lines if line["env_steps"] > total // 2]
                rates = [line["time/env_steps_per_s"] for line in half]
                results.append(
                    {
                        "actors": actors,
                        "round": index,
                        "env_steps_per_s": statistics.median(rates),
                        "updates_made_of_due": ratio(lines[-1], total),
                        "staleness_updates": lines[-1]["actors/staleness_updates"],
                    }
                )
                print(results[-1], flush=True)
    medians = {
        actors: statistics.median(r["env_steps_per_s"] for r in results if r["actors"] == actors)
        for actors in (1, 4)
    }
    return {
        "step_ms": 1000 * STEP_S,
        "env_steps_per_s": {str(actors): rate for actors, rate in medians.items()},
        "times": medians[4] / medians[1],
        "runs": results,
    }


def ratio(line: dict[str, Any], steps: int) -> float:
    """Updates made by those that were due after so many steps: 1 where the ratio was held."""
    train_options = configuration(1, steps, 0).train
    due = update_calls_due(train_options, 0, steps) * train_options.utd_ratio
    return line["updates"] / (due * train_options.update_every)


# Faults.


def saved_rows(run: Path) -> dict[str, np.ndarray]:
    """The rows of the replay in the newest checkpoint; none before the first."""
    found = checkpoint.find_newest(run / CHECKPOINTS, only=("replay",))
    return {} if found is None else found.parts["replay"]


def lost_rows(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> int:
    """Rows of an earlier checkpoint that are not, to the bit, in a later one."""
    if not before:
        return 0
    lost = 0
    for stream, size in enumerate(before["size"]):
        same = np.ones(int(size), bool)
        for name in ("actions", "rewards"):
            old, new = before[name][stream, :size], after[name][stream, :size]
            same &= np.all((old == new).reshape(int(size), -1), axis=1)
        lost += int(np.sum(~same))
    return lost


def processes_named(process: psutil.Process, name: str) -> list[psutil.Process]:
    """Those below a process whose command begins with a name or holds it."""
    found = []
    for each in process.children(recursive=True):
        try:
            if name in " ".join(each.cmdline()[:1]):
                found.append(each)
        except psutil.NoSuchProcess:
            continue
    return found


def strike(
    kind: str, run: Path, process: subprocess.Popen[bytes], rng: np.random.Generator
) -> dict[str, np.ndarray] | None:
    """Makes one fault happen; for the learner the saved rows that must not be lost by it."""
    tree = psutil.Process(process.pid)
    if kind == "learner killed":
        kept = saved_rows(run)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return kept
    if kind == "head killed":
        for head in processes_named(tree, "gcs_server"):
            head.kill()
        return None
    if kind == "environment raises":
        run.with_suffix(".broken").touch()
        return None
    victims = processes_named(tree, "RemoteActor")
    if victims:
        victim = victims[int(rng.integers(len(victims)))]
        victim.send_signal(signal.SIGKILL if kind == "actor killed" else signal.SIGSTOP)
    return None


def suffer(run: Path, kinds: list[str], steps: int, seed: int) -> dict[str, Any]:
    """One run with faults of these kinds, one after the other; whether it came out right."""
    rng = np.random.default_rng(seed)
    process, kept, resumed = begin(run, 2, steps, seed), [], 0
    began, happened = time.monotonic(), []
    for kind in kinds:
        lines = len(read_lines(run / METRICS))
        while process.poll() is None and len(read_lines(run / METRICS)) < lines + 2:
            time.sleep(0.1)  # it is running again
        time.sleep(rng.uniform(0, 5))
        if process.poll() is not None:
            break
        result = strike(kind, run, process, rng)
        happened.append(kind)
        if result is not None:
            kept.append(result)
        if kind == "head killed":
            process.wait()
        if process.poll() is not None:
            process, resumed = begin(run, 2, steps, seed), resumed + 1
    while process.wait():
        if resumed > 3 * len(kinds):
            break
        process, resumed = begin(run, 2, steps, seed), resumed + 1
    last = read_lines(run / METRICS)[-1]
    after = saved_rows(run)
    return {
        "seed": seed,
        "faults": happened,
        "resumed": resumed,
        "finished": (run / SUMMARY).is_file() and last["env_steps"] == steps,
        "updates_made_of_due": ratio(last, steps),
        "saved_steps_lost": sum(lost_rows(before, after) for before in kept),
        "restarts": last["actors/restarts"],
        "lost_steps": last["actors/lost_steps"],
        "seconds": time.monotonic() - began,
    }


def faults(count: int, each: int, steps: int, folder: Path) -> dict[str, Any]:
    """So many faults, a few in every run."""
    rng, results = np.random.default_rng(0), []
    while (done := sum(len(r["faults"]) for r in results)) < count:
        seed = len(results)
        kinds = list(rng.choice(KINDS, size=min(each, count - done), p=SHARES))
        results.append(suffer(folder / f"run-{seed}", [str(k) for k in kinds], steps, seed))
        print(json.dumps(results[-1]), flush=True)
    struck = [kind for r in results for kind in r["faults"]]
    return {
        "faults": {kind: struck.count(kind) for kind in KINDS},
        "runs": results,
        "finished": sum(r["finished"] for r in results),
        "saved_steps_lost": sum(r["saved_steps_lost"] for r in results),
    }


def main() -> None:
    """One part; the other's results stay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("speed", "faults"))
    parser.add_argument("--rounds", type=int, default=3, help="of speed")
    parser.add_argument("--steps", type=int, default=600, help="of each actor, or of each run")
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--each", type=int, default=5, help="faults of one run")
    options = parser.parse_args()
    path = RESULTS / "actors.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    known.pop("machine", None)
    if options.part == "speed":
        known["speed"] = speed(options.rounds, options.steps)
    else:
        with tempfile.TemporaryDirectory() as folder:
            known["faults"] = faults(options.faults, options.each, options.steps, Path(folder))
    print(write_result("actors", known))


if __name__ == "__main__":
    main()
