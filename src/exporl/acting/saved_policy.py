"""What a policy is made of, from the files of a run or a bundle."""

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from exporl.acting.interface import Interface
from exporl.algos import Algorithm, Measurements, find_algorithm, make_algorithm
from exporl.data.episodes import Normalizer
from exporl.files import checkpoint
from exporl.files.beside import difference, missing_checkpoints
from exporl.files.reading import read_object
from exporl.files.run_files import CHECKPOINTS, CONFIG, STATISTICS
from exporl.plain import from_plain
from exporl.policies import BaseConfig, make_base
from exporl.spec import Spec, state_spec
from exporl.types import Precision

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
    return checkpoint.Found(*checkpoint.load(folder / name, (LEARNER,)), [], name, {})


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


class ActingOptions(NamedTuple):
    """Those options of a run that shape acting."""

    name: str
    algo: Any
    base: BaseConfig
    precision: Precision

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str) -> "ActingOptions":
        """As a configuration of plain values has them.

        Raises:
            ValueError: one is missing or of no use; names it and where it was read.
        """

        def option(kind: Any, name: str) -> Any:
            if name not in config:
                raise ValueError(f"{where} lacks {name!r}: it is not the configuration of a run.")
            try:
                return from_plain(kind, config[name], name)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error

        name = option(str, "algorithm")
        algo, base = option(find_algorithm(name).config, "algo"), option(BaseConfig, "base")
        return cls(name, algo, base, option(Precision, "precision"))

    def algorithm(self, spec: Spec) -> Algorithm:
        """The algorithm that they describe."""
        # What is decided by measurement makes updates faster, and leaves acting as it is.
        decided = find_algorithm(self.name).resolve(self.algo, Measurements(lambda samples: False))
        spec = state_spec(spec)
        base = make_base(self.base, spec, self.precision)
        return make_algorithm(self.name, decided, spec, base, self.precision)

    def plain(self) -> dict[str, Any]:
        """Plain values."""
        nested = {"algo": dataclasses.asdict(self.algo), "base": dataclasses.asdict(self.base)}
        return {"algorithm": self.name, **nested, "precision": self.precision}


def check_unchanged(options: ActingOptions, found: checkpoint.Found) -> None:
    """Whether a checkpoint was made with these options.

    Raises:
        ValueError: it was not; names the first that differs, with both values.
    """
    then = found.record.get("config")
    if not isinstance(then, dict):
        raise ValueError(f"{found.name} is not a checkpoint of a run: it has no configuration.")
    if then.get("algorithm") == options.name:  # else a name that nobody trusts would be loaded
        then = ActingOptions.of(then, found.name).plain()
    changed = difference(then, options.plain())
    if changed is not None:
        raise ValueError(
            f"{CONFIG} was changed since {found.name} was written: {changed}. Restore it, or copy "
            "the run again."
        )
