"""How long a run will take: as long as the last one of its kind took on this machine."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from exporl.files.atomic import readable_lines
from exporl.files.run_files import EVAL, METRICS
from exporl.run.config import RunConfig, to_json
from exporl.speed.tuning import keep_measurements, machine, measurements, programs_folder

PACES = "paces.json"
"""Paces of finished runs, beside the compiled programs."""
LENGTHS = ("online_steps", "update_after", "random_steps", "critic_warmup_steps", "divergence")
"""Options of training that are not part of a kind: they change how much is done, not how fast."""


class Pace(NamedTuple):
    """What the parts of a run take, in seconds."""

    before: float
    """Until the first environment step: data, compilation, imitation, critic pretraining."""
    step: float
    """Per environment step, learning included."""
    episode: float
    """Per episode of an evaluation, for all policies that are evaluated together."""


def kind(config: RunConfig[Any]) -> str:
    """A name for the machine and everything of a configuration that the pace depends on."""
    what = to_json(config)
    for name in ("seed", "preset", "log", "eval"):
        del what[name]
    for name in LENGTHS:
        del what["train"][name]
    what["eval"] = [config.eval.num_envs, config.eval.base, config.eval.unedited]
    text = json.dumps([machine(), what], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def measured_pace(run_dir: Path, episodes: int) -> Pace | None:
    """The pace of a run, from what can be read of its files; None where that is too little to tell.

    Args:
        run_dir: its directory.
        episodes: per evaluation.
    """
    lines = _numbers(run_dir / METRICS, "env_steps", "time/train_s", "time/env_steps_per_s")
    evaluations = [seconds for (seconds,) in _numbers(run_dir / EVAL, "time/eval_s")]
    if not lines or not evaluations:
        return None
    (first_step, first_s, first_speed), (last_step, last_s, _) = lines[0], lines[-1]
    if last_step <= first_step or first_speed <= 0:
        return None
    per_step = (last_s - first_s) / (last_step - first_step)
    before = first_s - first_step / first_speed
    return Pace(before, per_step, sum(evaluations) / (len(evaluations) * episodes))


def _numbers(path: Path, *names: str) -> list[list[float]]:
    """What the lines of a file say under some names, of those lines that have them all."""
    found = [[line.get(name) for name in names] for line in readable_lines(path)[0]]
    return [
        [float(value) for value in values if isinstance(value, int | float)]
        for values in found
        if all(isinstance(value, int | float) for value in values)
    ]


def remember_pace(config: RunConfig[Any], run_dir: Path) -> None:
    """Keeps the pace of a finished run for the plans of later ones, where compiled programs are
    kept."""
    folder, pace = programs_folder(), measured_pace(run_dir, config.eval.episodes)
    if folder is None or pace is None:
        return
    known, name = measurements(folder / PACES), kind(config)
    known |= {f"{name} {part}": float(seconds) for part, seconds in pace._asdict().items()}
    keep_measurements(folder / PACES, known)


def expected_seconds(config: RunConfig[Any]) -> float | None:
    """How long a run will take, evaluations included; None where none of its kind has finished on
    this machine."""
    folder = programs_folder()
    known, name = measurements(folder / PACES) if folder else {}, kind(config)
    parts = [known.get(f"{name} {part}") for part in Pace._fields]
    if any(part is None for part in parts):
        return None
    pace = Pace(*(part for part in parts if part is not None))
    episodes = evaluations(config) * config.eval.episodes
    return pace.before + pace.step * config.train.online_steps + pace.episode * episodes


def evaluations(config: RunConfig[Any]) -> int:
    """How many evaluations a run makes, the ones before its first and after its last step
    included."""
    total, options = config.train.online_steps, config.eval
    if options.at:
        between = len({at for at in options.at if 0 < at < total})
    else:
        between = max(-(-total // options.every) - 1, 0)
    return between + (2 if total else 1)
