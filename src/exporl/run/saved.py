"""The checkpoint that a run is evaluated with or goes on from, and whether the files beside it are
still those that it was made with. Nothing is written before everything is checked."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporl.files import checkpoint
from exporl.files.beside import (
    changed_lines,
    check_objects,
    missing_checkpoints,
    restore_missing,
)
from exporl.files.checkpoint import CorruptCheckpointError, Found
from exporl.files.run_files import CHECKPOINTS, CONFIG, RESUMABLE, read_config
from exporl.run.config import RunConfig, differences, from_json
from exporl.run.memory import replay_zeros

RECORD: dict[str, type | tuple[type, ...]] = {
    "config": dict,
    "updates": int,
    "offline_steps": int,
    "critic_steps": int,
    "last_eval": int,
    "train_s": (int, float),
    "first_update_s": (int, float, type(None)),
    "rollout": dict,
    "data": str,
    "metrics": list,
    "files": dict,
}
"""What a checkpoint's record holds, at least."""
PARTS = ("learner", "replay", "rollout")


def find_saved(
    config: RunConfig[Any], run_dir: Path, only: Collection[str] | None = None
) -> Found | None:
    """The newest intact checkpoint of a run, with everything that is wrong with newer ones; None
    where there was none yet.

    Args:
        config: what the run is by its config.json, but for what may change.
        run_dir: the run directory.
        only: the parts to read.

    Raises:
        CorruptCheckpointError: none is intact.
        ValueError: newer ones than any that is there are missing and nothing is left, or
            configuration or files are not those that the checkpoint was made with; names what
            differs.
    """
    zeros = replay_zeros(config, run_dir) if only is None else np.zeros
    found = checkpoint.find_newest(run_dir / CHECKPOINTS, only, zeros)
    if found is None:
        lost = _missing(config, run_dir, 0)
        if lost is not None:
            raise ValueError(f"{lost} Copy the folder {CHECKPOINTS}, or start a new run.")
        return None
    _check_record(found)
    _check_configuration(config, run_dir, found)
    check_objects(run_dir, found.record, found.name)
    problems = [
        f"skipped a damaged checkpoint: {problem} This is the older {found.name}."
        for problem in found.problems
    ]
    if not problems:
        lost = _missing(config, run_dir, found.record["rollout"]["env_steps"])
        problems += [] if lost is None else [f"{lost} This is {found.name}."]
    return found._replace(problems=problems)


def find_resumable(
    config: RunConfig[Any], run_dir: Path, say: Callable[[str], None]
) -> Found | None:
    """The checkpoint that a run goes on from; None: it begins anew.

    Files that are missing are written again as the checkpoint remembers them.

    Args:
        config: what the run is to be.
        run_dir: the run directory.
        say: told of everything that is not as it was left.

    Raises:
        ValueError: as `find_saved`, or the run is beyond what the configuration asks for.
    """
    found = find_saved(config, run_dir)
    if found is None:
        return None
    _check_parts(config, found)
    steps, wanted = found.record["rollout"]["env_steps"], config.train.online_steps
    if steps >= wanted + config.num_envs:  # all environments make the last step together
        raise ValueError(
            f"the run is at step {steps} already: train.online_steps={wanted} is less. Ask for "
            f"more than {steps}, or leave it out."
        )
    for problem in (*found.problems, *changed_lines(run_dir, found.record)):
        say(problem)
    for name in restore_missing(run_dir, found.record):
        say(f"{name} was missing: written again as {found.name} remembers it")
    return found


def _missing(config: RunConfig[Any], run_dir: Path, steps: int) -> str | None:
    """As `missing_checkpoints`. What was written since the newest checkpoint, the process has
    written whose options are in config.json: those that are asked for now may be others."""
    log = read_config(run_dir).get("log")
    every = log.get("save_every") if isinstance(log, dict) else None
    if type(every) is not int or every < 1:
        every = config.log.save_every
    return missing_checkpoints(run_dir, steps, every, config.num_envs)


def _check_record(found: Found) -> None:
    for name, kinds in RECORD.items():
        if not isinstance(found.record.get(name), kinds):
            raise _foreign(found, f"its record has no proper {name!r}")
    if type(found.record["rollout"].get("env_steps")) is not int:
        raise _foreign(found, "its record counts no environment steps")


def _check_parts(config: RunConfig[Any], found: Found) -> None:
    """Whether all is there that going on needs; shapes are compared where they are known."""
    for part in PARTS:
        if part not in found.parts:
            raise _foreign(found, f"it has no {part}.safetensors")
    arrays, rollout = found.parts["rollout"], found.record["rollout"]
    wanted = {"episodes": 1, "returns": 1, "succeeded": 1}
    for env in range(config.num_envs):
        wanted |= {f"actions/{env}": 2, f"queue/{env}": 2}
    for name, axes in wanted.items():
        if name not in arrays or np.ndim(arrays[name]) != axes:
            raise _foreign(found, f"rollout.safetensors has no proper {name!r}")
        if axes == 1 and len(arrays[name]) != config.num_envs:
            raise _foreign(found, f"{name!r} is of {len(arrays[name])} environments")
    outcomes = rollout.get("outcomes")
    fits = isinstance(outcomes, list) and all(isinstance(each, list) for each in outcomes)
    if not fits or not all(isinstance(each, Mapping) for each in found.record["metrics"]):
        raise _foreign(found, "its record has no proper episodes or metrics")


def _foreign(found: Found, reason: str) -> CorruptCheckpointError:
    return CorruptCheckpointError(f"{found.name} is not a checkpoint of this run: {reason}.")


def _check_configuration(config: RunConfig[Any], run_dir: Path, found: Found) -> None:
    """Whether a checkpoint was made with a configuration, but for what may change.

    Raises:
        ValueError: it was not; names the first option that differs, with both values.
    """
    then = found.record["config"]
    if then.get("algorithm") != config.algorithm:  # before anything is loaded by its name
        changed = {"algorithm": (then.get("algorithm"), config.algorithm)}
    else:
        try:
            changed = differences(from_json(then), config)
        except ValueError as error:
            raise _foreign(found, f"in {run_dir}, its record of the options: {error}") from error
    for name, (before, now) in changed.items():
        if not name.startswith(RESUMABLE):
            raise ValueError(
                f"{run_dir / CONFIG} was changed since {found.name} was written: {name} was "
                f"{before!r}, is now {now!r}. Restore it, or start a new run."
            )
