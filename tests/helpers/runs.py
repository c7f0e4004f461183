"""Tiny runs, what they leave behind, and how to stop them."""

import dataclasses
import os
import signal
import time
from pathlib import Path

from exporl.algos import ALGORITHMS
from exporl.files.atomic import read_lines
from exporl.files.run_files import CHECKPOINTS
from exporl.run.config import override
from exporl.run.presets import preset_config
from exporl.run.progress import Silent

TINY = {
    "base.width": 16,
    "base.num_blocks": 1,
    "base.time_dim": 8,
    "base.num_steps": 2,
    "algo.hidden": (16, 16),
    "algo.num_base_samples": 2,
    "algo.num_edit_samples": 2,
    "algo.num_qs": 3,
    "algo.policy_hidden": (16,),
    "algo.num_actions": 2,
    "train.batch_size": 8,
    "train.utd_ratio": 2,
    "train.offline_steps": 20,
    "train.online_steps": 24,
    "train.update_after": 4,
    "train.critic_warmup_steps": 6,
    "train.guard": "off",
    "eval.every": 12,
    "eval.episodes": 4,
    "eval.num_envs": 2,
    "log.every": 6,
    "log.save_every": 12,
    "data.demos": 6,
    "data.demo_noise": 0.05,
}


def tiny_options(algorithm):
    """What of `TINY` an algorithm knows."""
    of_algorithm = {
        f"algo.{field.name}" for field in dataclasses.fields(ALGORITHMS[algorithm].config)
    }
    options = {k: v for k, v in TINY.items() if k in of_algorithm or not k.startswith("algo.")}
    if algorithm in ("rlpd", "calql"):
        options = {k: v for k, v in options.items() if not k.startswith("base.")}
        options |= {
            "train.offline_steps": 0,
            "train.critic_warmup_steps": 0,
            "train.critic_pretrain_steps": 8 if algorithm == "calql" else 0,
            "train.random_steps": 6,
        }
    return options


def tiny(algorithm="expo", task="probe/delay", seed=0, **changes):
    options = tiny_options(algorithm) | changes
    config = override(preset_config(algorithm, "tiny", task), options)
    return dataclasses.replace(config, seed=seed)


def run_all(trainer) -> None:
    """Every phase of a run, as `train` makes them."""
    with trainer:
        trainer.pretrain()
        trainer.pretrain_critic()
        trainer.online()


def newest(run: Path) -> Path:
    return max((run / CHECKPOINTS).glob("checkpoint-*"))


def evaluations(run: Path) -> list[dict]:
    return [
        {k: v for k, v in line.items() if not k.startswith("time/")}
        for line in read_lines(run / "eval.jsonl")
    ]


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file in a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Heard(Silent):
    """Keeps what was said."""

    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)


class StopAt(Silent):
    """SIGINT at an advance."""

    def __init__(self, advances):
        self.left = advances

    def advance(self, steps, note):
        self.left -= steps > 0
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


SMALL_BC = [
    "--base.width",
    "16",
    "--base.num-blocks",
    "1",
    "--base.time-dim",
    "8",
    "--base.num-steps",
    "2",
    "--train.batch-size",
    "8",
    "--train.utd-ratio",
    "1",
    "--train.offline-steps",
    "10",
    "--train.online-steps",
    "10",
    "--train.update-after",
    "2",
    "--train.critic-warmup-steps",
    "4",
    "--eval.every",
    "5",
    "--eval.episodes",
    "3",
    "--log.every",
    "5",
    "--log.save-every",
    "5",
    "--data.demos",
    "4",
]
"""A tiny run of `bc`, whose programs are compiled soonest: for what is the same for all of them."""
SMALL = [*SMALL_BC, "--algo.hidden", "16", "16", "--algo.num-qs", "3"]
"""A tiny run of an algorithm with critics."""


def wait_for(path: Path, text: str, timeout_s: float = 120) -> None:
    end = time.monotonic() + timeout_s
    while not (path.is_file() and text in path.read_text()):
        assert time.monotonic() < end, f"{path} never said {text}"
        time.sleep(0.1)
