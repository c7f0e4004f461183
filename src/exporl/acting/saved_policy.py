"""What a policy is made of, from the files of a run or a bundle."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporl.acting.interface import Interface
from exporl.data.episodes import Normalizer
from exporl.files import checkpoint
from exporl.files.beside import missing_checkpoints
from exporl.files.reading import read_object
from exporl.files.run_files import CHECKPOINTS, STATISTICS
from exporl.plain import from_plain

LEARNER = "learner"
"""The part of a checkpoint that acting needs."""


def found_checkpoint(run_dir: Path, name: str | None) -> checkpoint.Found | None:
    """The newest intact checkpoint of a run, or the one of a name; None where there never was one.

    Raises:
        ValueError: no such checkpoint, or it is damaged.
    """
    folder = run_dir / CHECKPOINTS
    if name is None:
        return checkpoint.find_newest(folder, only=(LEARNER,))
    known = sorted(path.name for path in folder.glob(f"{checkpoint.PREFIX}*"))
    if name not in known:
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f"{run_dir} has no checkpoint {name!r}: {there}.")
    return checkpoint.Found(*checkpoint.load(folder / name, (LEARNER,)), [], name)


def warn_of_newer(run_dir: Path, config: Mapping[str, Any], found: checkpoint.Found) -> None:
    """Says so where there are, or were, checkpoints newer than the one that acts."""
    if found.problems:
        warnings.warn(
            f"a damaged checkpoint of {run_dir} was skipped: {' '.join(found.problems)} Acting "
            f"with the older {found.name} instead.",
            stacklevel=3,
        )
        return
    save_every = from_plain(int, config.get("log", {}).get("save_every"), "log.save_every")
    num_envs = from_plain(int, config.get("num_envs"), "num_envs")
    steps = from_plain(int, found.record.get("rollout", {}).get("env_steps"), "env_steps")
    lost = missing_checkpoints(run_dir, steps, max(save_every, 1), num_envs)
    if lost is not None:
        warnings.warn(f"{lost} Acting with {found.name}.", stacklevel=3)


def normalizer_of(run_dir: Path, interface: Interface) -> Normalizer | None:
    """The statistics of the entries that a policy reads; None where it reads them as they are.

    Raises:
        ValueError: they are missing or damaged; names the file.
    """
    if not interface.normalized:
        return None
    path = run_dir / STATISTICS
    if not path.is_file():
        raise ValueError(
            f"{path} is missing, and this policy was trained on normalised observations: copy it "
            "from the run, or start the run anew."
        )
    data, reads = read_object(path), {name: shape for name, shape, _ in interface.spec.observation}
    try:
        stored = Normalizer.from_json(data)
        mean = {name: stored.mean[name].reshape(shape) for name, shape in reads.items()}
        std = {name: stored.std[name].reshape(shape) for name, shape in reads.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} does not hold the statistics of {', '.join(reads)} "
            f"({type(error).__name__}: {error}). Copy it from the run again."
        ) from error
    return Normalizer(mean, std, stored.clip)
