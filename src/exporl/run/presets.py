"""Presets: option values per algorithm and domain, each with where it comes from.

The sizes of the paper's domains, and two that train on a CPU. `exporl presets` prints them. They
are written beside each algorithm.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporl.algos import ALGORITHMS, Preset, find_algorithm
from exporl.algos.presets import RUNS
from exporl.run.config import RunConfig, check_names, from_json, override, to_json
from exporl.run.preset_file import is_preset_file, read_preset_file
from exporl.suggest import closest

PRESETS: dict[tuple[str, str], Preset] = {
    (algorithm, name): preset
    for algorithm, entry in ALGORITHMS.items()
    for name, preset in entry.presets.items()
}
"""(algorithm, name) -> preset, for the algorithms that come with the library."""


def check_algorithm(algorithm: str) -> None:
    """Whether there are presets for an algorithm.

    Raises:
        ValueError: there are none; names the closest.
    """
    known = {name for name, _ in PRESETS}
    if algorithm not in known:
        raise ValueError(f"unknown algorithm {algorithm!r}. {closest(algorithm, known)}")


def find_preset(algorithm: str, name: str) -> Preset:
    """A preset's options with their sources.

    Raises:
        ValueError: unknown algorithm or preset; names the closest.
    """
    check_algorithm(algorithm)
    names = [preset for algo, preset in PRESETS if algo == algorithm]
    if name not in names:
        raise ValueError(f"unknown preset {name!r} for {algorithm}. {closest(name, names)}")
    return PRESETS[algorithm, name]


def preset_config(algorithm: str, name: str, task: str) -> "RunConfig[Any]":
    """The configuration of a run that a preset describes.

    An algorithm of your own (`module:attribute`) that does not have the preset is run with the run
    options that the presets of this name share: how much, how often. Its own options and the base
    policy keep their defaults.

    Args:
        algorithm: its name.
        name: of the preset, or the path of a preset file, `NAME.toml`. Where the algorithm has a
            preset `NAME-FAMILY` for the family of the task, that one is taken: `stable` on
            adroit/pen is `stable-adroit`.
        task: of the run.

    Raises:
        ValueError: unknown algorithm or preset; names the closest. Or a preset file that cannot be
            read, of another algorithm, or with options that do not exist or values of the wrong
            type.
    """
    if is_preset_file(name):
        return _config_of_file(algorithm, name, task)
    entry = find_algorithm(algorithm)
    known = dict(entry.presets) if algorithm in ALGORITHMS else {**RUNS, **entry.presets}
    if name not in known:
        raise ValueError(f"unknown preset {name!r} for {algorithm}. {closest(name, known)}")
    of_the_family = f"{name}-{task.partition('/')[0]}"
    name = of_the_family if of_the_family in known else name
    config = RunConfig(task=task, algo=entry.config(), algorithm=algorithm, preset=name)
    return override(config, {option: value for option, (value, _) in known[name].items()})


def _config_of_file(algorithm: str, name: str, task: str) -> "RunConfig[Any]":
    found = read_preset_file(Path(name))
    if found.algorithm != algorithm:
        raise ValueError(f"{name} is a preset of {found.algorithm}, not of {algorithm}.")
    config = preset_config(algorithm, found.preset, task)
    try:
        return dataclasses.replace(with_plain(config, found.options), preset=name)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def with_plain(config: "RunConfig[Any]", options: Mapping[str, Any]) -> "RunConfig[Any]":
    """A copy with dotted options replaced by plain values, whose types are checked.

    Raises:
        ValueError: an option does not exist (names the closest), or a value is of another type.
    """
    check_names(config, options)
    values = to_json(config)
    for option, value in options.items():
        *groups, name = option.split(".")
        group = values
        for each in groups:
            group = group[each]
        group[name] = value
    return from_json(json.loads(json.dumps(values)))


def around_a_policy(config: "RunConfig[Any]") -> "RunConfig[Any]":
    """A preset's configuration for a base policy from outside: it has been trained already, so
    there is no imitation first, and its noise is its own."""
    values: dict[str, Any] = {"train.offline_steps": 0}
    scales = ("min_noise_scale", "deploy_noise_scale")
    values |= {f"algo.{name}": 1.0 for name in scales if hasattr(config.algo, name)}
    return override(config, values)
