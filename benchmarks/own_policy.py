"""A policy that somebody else trained, on a robot that it was not trained on: what does fine-tuning
it bring?

    .venv/bin/python benchmarks/own_policy.py --robots cheetah_gears --rows expo --seeds 0

Policies: Stable-Baselines3 archives of github.com/DLR-RM/rl-trained-agents, commit cd35bde, in the
folder `--policies`; robots: changed_robots.py. Every row has the same prior data, five episodes of
the policy on the changed robot, of actions drawn from its Gaussian, and the same options but for
its algorithm's own (`ROWS`), chosen by short runs (own_policy_settings.py). Evaluated on ten
starts, the same for all; the base alone plays its mean action. One run after the other; finished
runs are not repeated, one that was stopped goes on, and `--collect` reports what there is. Writes
benchmarks/results/own_policy.json.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import changed_robots
import numpy as np
from common import write_result

from exporl.data.episodes import Episode
from exporl.data.formats import save_npz
from exporl.envs.task import Task
from exporl.external import OutsidePolicy, find_policy
from exporl.files.atomic import read_lines
from exporl.report.returns import interval, number
from exporl.run.config import RunConfig, override
from exporl.run.loop import train
from exporl.run.presets import preset_config
from exporl.speed.tuning import keep_compiled_programs
from exporl.stats.over_seeds import over_seeds

FOLDER = Path("runs/own_policy")
CHEETAH, WALKER = "sac-HalfCheetah-v3.zip", "sac-Walker2d-v3.zip"
ARCHIVES = {
    "cheetah_gears": CHEETAH,
    "cheetah_heavy": CHEETAH,
    "walker_gears": WALKER,
    "walker_heavy": WALKER,
}
"""Robot, a function of changed_robots.py -> the policy."""
PRIOR_EPISODES = 5
LEARNING: dict[str, Any] = {
    "reward": "env",
    "chunk_length": 1,
    "train.batch_size": 128,
    "train.utd_ratio": 8,
    "train.discount": 0.98,
    "train.update_after": 200,
    "data.prior_ratio": 0.25,
    "algo.hidden": (128, 128),
    "algo.num_qs": 2,
    "algo.tau": 0.02,
    "algo.critic_learning_rate": 1e-3,
    "eval.episodes": 10,
    "log.every": 1_000,
    "log.save_every": 5_000,
}
"""Of all rows; with CALM what own_policy_settings.py calls 'quick, calm, 8 updates'."""
AROUND: dict[str, Any] = {"train.offline_steps": 0, "train.critic_warmup_steps": 500}
"""Of those around the policy: it is trained, and acts alone at first."""
CALM: dict[str, Any] = {"algo.initial_temperature": 0.02, "algo.target_entropy": -6.0}
"""Little noise from the start: -d nats, as soft actor-critic has it."""
EDITS: dict[str, Any] = {
    **CALM,
    "algo.num_base_samples": 1,
    "algo.num_edit_samples": 1,
    "algo.edit_scale": 1.0,
    "algo.edit_learning_rate": 1e-3,
    "algo.decay_steps": 0,
}
FIRST: dict[str, Any] = {
    "train.utd_ratio": 4,
    "train.discount": 0.99,
    "data.prior_ratio": 0.5,
    "algo.hidden": (256, 256),
    "algo.num_qs": 4,
    "algo.tau": 0.005,
    "algo.critic_learning_rate": 3e-4,
    "algo.initial_temperature": 0.1,
    "algo.target_entropy": "attainable",
    "algo.num_base_samples": 2,
    "algo.num_edit_samples": 2,
    "algo.edit_scale": 0.5,
    "algo.edit_learning_rate": 3e-4,
}
"""The settings before that: the paper's, with fewer critics and updates."""
SCRATCH: dict[str, Any] = {
    **CALM,
    "train.random_steps": 0,
    "algo.policy_learning_rate": 1e-3,
}
"""Of RLPD."""
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "expo": ("expo", AROUND | EDITS),
    "expo-edits-.5": ("expo", AROUND | EDITS | {"algo.edit_scale": 0.5}),
    "expo-edits-2": ("expo", AROUND | EDITS | {"algo.edit_scale": 2.0}),
    "expo-first": ("expo", AROUND | EDITS | FIRST),
    "best-of-n": ("best_of_n", AROUND | {"algo.num_base_samples": 4}),
    "rlpd": ("rlpd", SCRATCH),
}
"""Row -> algorithm and its options."""
COMPARED = ("expo", "best-of-n", "rlpd")


def run_folder(robot: str, row: str, seed: int) -> Path:
    """Where one run lives."""
    return FOLDER / f"{robot}-{row}-s{seed}"


def episode(task: Task, policy: OutsidePolicy, number: int) -> Episode:
    """One episode of the policy's second sample, drawn from its Gaussian (the first is the
    mean)."""
    env = task.make_env()
    seen, _ = env.reset(seed=number)
    observations, actions, rewards, terminated, over = [seen], [], [], False, False
    while not over:
        rows = {name: value[None] for name, value in seen.items()}
        draw = 100_000 * number + len(actions)
        actions.append(policy.sample(rows, 2, draw)[0, 1, 0])
        seen, reward, terminated, truncated, _ = env.step(actions[-1])
        observations.append(seen)
        rewards.append(float(reward))
        over = terminated or truncated
    env.close()
    return Episode(
        {name: np.stack([each[name] for each in observations]) for name in seen},
        np.stack(actions),
        np.array(rewards, np.float32),
        np.zeros(len(actions), bool),
        terminated,
        unit_actions=True,
    )


def prior_file(robot: str) -> Path:
    """Where the policy's episodes on a robot are."""
    return FOLDER / f"prior-{robot}.npz"


def record_prior(robot: str, policies: Path) -> None:
    """Plays the policy's episodes on a robot, unless they are there."""
    path = prior_file(robot)
    if not path.is_file():
        task: Task = getattr(changed_robots, robot)()
        policy = find_policy(f"sb3:{policies / ARCHIVES[robot]}", task.spec)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_npz(path, [episode(task, policy, number) for number in range(PRIOR_EPISODES)])


def configured(robot: str, row: str, seed: int, steps: int, policies: Path) -> RunConfig[Any]:
    """What one run is."""
    algorithm, own = ROWS[row]
    options = LEARNING | own
    options |= {"data.path": str(prior_file(robot)), "train.online_steps": steps}
    options["eval.every"] = max(steps // 6, 1)
    if algorithm != "rlpd":
        options["base.policy"] = f"sb3:{policies / ARCHIVES[robot]}"
    config = override(preset_config(algorithm, "small", f"changed_robots:{robot}"), options)
    return dataclasses.replace(config, seed=seed)


def one(robot: str, row: str, seed: int, steps: int, policies: Path) -> None:
    """Trains one run, or goes on with it."""
    record_prior(robot, policies)
    run = run_folder(robot, row, seed)
    config = configured(robot, row, seed, steps, policies)
    train(config, run, resume=(run / "config.json").is_file())


def collected(robot: str, row: str, seed: int) -> dict[str, Any] | None:
    """The evaluations of one run, as far as it went; None where there are none."""
    lines = read_lines(run_folder(robot, row, seed) / "eval.jsonl")
    if not lines:
        return None
    result: dict[str, Any] = {"robot": robot, "row": row, "seed": seed}
    result["env_steps"] = [line["env_steps"] for line in lines]
    for who in ("policy", "base"):
        if all(who in line for line in lines):
            result[who] = [line[who]["returns"] for line in lines]
    result["train_s"] = lines[-1]["time/train_s"]
    return result


def table(results: Sequence[dict[str, Any]]) -> str:
    """Mean returns over seeds at the last evaluation that all seeds of a row have, and the
    difference to the base alone on the same starts."""
    text = ["| robot | who | seeds | env steps | return | - base [95%] | times the base |"]
    text.append("|---|---|---|---|---|---|---|")
    for robot in dict.fromkeys(result["robot"] for result in results):
        bases = [r["base"][0] for r in results if r["robot"] == robot and "base" in r]
        if not bases:
            continue
        base = np.array(bases[0])
        text.append(f"| {robot} | base alone | - | - | {number(base.mean())} | - | - |")
        for row in ROWS:
            group = [r for r in results if (r["robot"], r["row"]) == (robot, row)]
            if not group:
                continue
            step = max(set.intersection(*(set(r["env_steps"]) for r in group)))
            last = [np.array(r["policy"][r["env_steps"].index(step)]) for r in group]
            gain = over_seeds([(returns - base).tolist() for returns in last])
            mean = float(np.mean([returns.mean() for returns in last]))
            text.append(
                f"| {robot} | {row} | {len(group)} | {step:,} | {number(mean)} | "
                f"{interval(gain, '+')} | {mean / base.mean():.2f} |"
            )
    return "\n".join(text)


def main() -> None:
    """Trains what is missing, then reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--robots", nargs="+", default=list(ARCHIVES), choices=list(ARCHIVES))
    parser.add_argument("--rows", nargs="+", default=list(COMPARED), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=30_000, help="environment steps per run")
    parser.add_argument("--policies", type=Path, default=Path("../shared/policies"))
    parser.add_argument(
        "--collect", action="store_true", help="train nothing, report what there is"
    )
    options = parser.parse_args()
    if not options.collect:
        keep_compiled_programs()
        for robot, seed, row in product(options.robots, options.seeds, options.rows):
            if not (run_folder(robot, row, seed) / "summary.json").is_file():
                one(robot, row, seed, options.steps, options.policies)
    every = [collected(*job) for job in product(ARCHIVES, ROWS, range(20))]
    results = [result for result in every if result is not None]
    print(table(results))
    record = {
        "command": "benchmarks/own_policy.py",
        "options": LEARNING,
        "rows": {row: {"algorithm": algorithm, **own} for row, (algorithm, own) in ROWS.items()},
        "results": results,
    }
    print(write_result("own_policy", record))


if __name__ == "__main__":
    main()
