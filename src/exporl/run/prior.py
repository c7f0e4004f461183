"""The prior data of a run: read from a file or collected, checked, and its statistics."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from exporl.data.episodes import Episode, Normalizer, fingerprint, validate_episodes
from exporl.data.formats import check_reading, load_episodes, save_npz
from exporl.envs.task import Task
from exporl.files.atomic import write_text
from exporl.files.reading import read_object
from exporl.files.run_files import DEMONSTRATIONS, STATISTICS
from exporl.run.config import RunConfig
from exporl.run.phases import FROM_SCRATCH

Say = Callable[[str], None]
"""Receives one line worth reading."""


def prior_episodes(
    config: RunConfig[Any], run_dir: Path, task: Task, say: Say, wanted: str | None = None
) -> list[Episode]:
    """The prior data, read or collected, and checked against the task. What was collected is kept
    in the run directory.

    Args:
        config: what the run is.
        run_dir: where it keeps what is collected.
        task: what it has to fit.
        say: told what takes time.
        wanted: the `fingerprint` that it must have; any by default.

    Raises:
        ValueError: it does not fit the task, is not what is wanted, or there is nobody to collect
            it.
    """
    data, stored = config.data, run_dir / DEMONSTRATIONS
    is_new = False
    if data.path is not None:
        episodes = load_episodes(
            Path(data.path),
            data.demos or None,
            format_name=data.format,
            options=data.reading,
            adapt=task.adapt,
            spec=task.spec,
            paid=task.reward_range,
            skip_bad=data.skip_bad,
            say=say,
        )
        if not data.demos or len(episodes) < data.demos:
            good = "good " if data.skip_bad else ""
            say(f"{data.path}: all its {len(episodes)} {good}episodes are used")
    elif data.demos == 0:
        episodes = []
    elif stored.is_file():
        episodes = load_episodes(stored, spec=task.spec, paid=task.reward_range)
    else:
        episodes, is_new = collected(config, task, say), True
    if wanted is not None and fingerprint(episodes) != wanted:
        raise ValueError(
            f"the prior data is not what this run was started with: {data.path or stored} was "
            "changed or exchanged. Restore the file, or start a new run."
        )
    if is_new:
        save_npz(stored, episodes)
    return episodes


def collects(config: RunConfig[Any], run_dir: Path) -> bool:
    """Whether `prior_episodes` is about to collect demonstrations."""
    data = config.data
    return data.path is None and data.demos != 0 and not (run_dir / DEMONSTRATIONS).is_file()


def collected(config: RunConfig[Any], task: Task, say: Say) -> list[Episode]:
    """Demonstrations of the task's scripted expert.

    Raises:
        ValueError: it has none, or they do not fit the task.
    """
    data = config.data
    if task.collect is None:
        raise ValueError(
            f"task {task.name!r} has no scripted expert: give data.path, a file of episodes, or "
            f"{FROM_SCRATCH}."
        )
    say(f"collecting {data.collected} demonstrations ({task.source}, noise {data.demo_noise:g})")
    episodes = task.collect(data.collected, data.demo_noise, data.demo_seed)
    source = f"the expert of {task.name}"
    validate_episodes(episodes, task.spec, source, task.reward_range)
    return episodes


def check_file(config: RunConfig[Any]) -> None:
    """Checks that the file of prior data is there and can be read as asked, before anything is
    begun; its content is checked when it is read.

    Raises:
        ValueError: an empty name, an option that the format of the file does not have, or no known
            format.
        FileNotFoundError, ModuleNotFoundError: see `data.formats.find_format`.
    """
    data = config.data
    if data.path == "":
        raise ValueError(
            "data.path is empty: give a file or folder of episodes, or leave the option out."
        )
    if data.path is not None:
        check_reading(Path(data.path), data.format, data.reading)


def statistics(run_dir: Path, episodes: Sequence[Episode]) -> Normalizer | None:
    """Means and standard deviations of the observations; kept, so that a run's never change. None
    without episodes."""
    stored = run_dir / STATISTICS
    if stored.is_file():
        data = read_object(stored)
        try:
            return Normalizer.from_json(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{stored} does not hold statistics ({type(error).__name__}: {error}). Copy it "
                "from the run again."
            ) from error
    if not episodes:
        return None
    normalizer = Normalizer.fit(episodes)
    write_text(stored, json.dumps(normalizer.to_json()))
    return normalizer
