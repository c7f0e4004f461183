"""What a folder of seeds was started for. It is written before any seed begins, so that a
resumption knows of those that had to wait, or were being built, when everything was killed."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exporl.files.atomic import refuse_link, write_text
from exporl.files.reading import read_object
from exporl.files.run_files import SEEDS, seed_runs
from exporl.files.undo import clear_refused
from exporl.outside import Trust, check_trust
from exporl.run.config import RunConfig, from_json, to_json


def ordered_seeds(folder: Path) -> range:
    """The seeds that a folder was started for; none where it does not say.

    Raises:
        ValueError: what it says is damaged.
    """
    path = Path(folder) / SEEDS
    if not path.exists():
        return range(0)
    first, number = (_read(path).get(name) for name in ("first", "number"))
    if type(first) is not int or type(number) is not int or first < 0 or number < 1:
        raise _damaged(path)
    return range(first, first + number)


def ordered_config(folder: Path, *, trust: Trust = False) -> RunConfig[Any]:
    """The configuration of the first seed that a folder was started for.

    Args:
        folder: the folder of seeds, with its order.
        trust: see `run.directory.load_config`.

    Raises:
        ValueError: it is damaged, or names code that is not trusted.
    """
    path = Path(folder) / SEEDS
    config = _read(path).get("config")
    if not isinstance(config, dict):
        raise _damaged(path)
    check_trust(folder, config, trust)
    return from_json(config)


@contextlib.contextmanager
def ordered(folder: Path, config: RunConfig[Any], num_seeds: int) -> Iterator[None]:
    """While its seeds are trained, and afterwards, a folder says what it was started for. Where
    none of them began, nothing is left of it.

    Args:
        folder: the folder of seeds.
        config: the configuration of the first.
        num_seeds: how many, from `config.seed` on; those of an earlier order stay in it.

    Raises:
        ValueError: the folder cannot be written.
    """
    made = [each for each in (folder, *folder.parents) if not each.is_dir()]
    wanted = range(config.seed, config.seed + num_seeds)
    seeds = sorted({*wanted, *ordered_seeds(folder)})
    first, number = seeds[0], seeds[-1] + 1 - seeds[0]
    config = dataclasses.replace(config, seed=first)
    order = {"first": first, "number": number, "config": to_json(config)}
    refuse_link(folder / SEEDS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / SEEDS, json.dumps(order, indent=1))
    except OSError as error:
        raise ValueError(
            f"cannot write to run directory {folder}: {error.strerror}. Choose another --run-dir."
        ) from error
    try:
        yield
    finally:
        if not seed_runs(folder):
            for seed in wanted:
                clear_refused(folder / f"s{seed}")
            (folder / SEEDS).unlink(missing_ok=True)
            for each in made:
                with contextlib.suppress(OSError):  # something else is in it
                    each.rmdir()


def _read(path: Path) -> dict[str, Any]:
    refuse_link(path)
    return read_object(path)


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"{path} does not say which seeds the folder was started for. Remove it, and say how many "
        "there are with --seeds."
    )
