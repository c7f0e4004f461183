"""Presets: option values per algorithm and domain, each with where it comes from.

The sizes of the paper's domains, and two that train on a CPU. `exporl presets` prints them. They are written beside each
algorithm.
"""

from typing import Any

from exporl.algos import ALGORITHMS, Preset, closest, find_algorithm
from exporl.algos.presets import RUNS
from exporl.config import RunConfig, override

PRESETS: dict[tuple[str, str], Preset] = {
    (algorithm, name): preset for algorithm, entry in ALGORITHMS.items() for name, preset in entry.presets.items()
}
"""(algorithm, name) -> preset, for the algorithms that come with the library."""


def preset_config(algorithm: str, name: str, task: str) -> RunConfig[Any]:
    """The configuration of a run that a preset describes.

    An algorithm of your own (`module:attribute`) that does not have the preset is run with the run options that the
    presets of this name share: how much, how often. Its own options and the base policy keep their defaults.

    Raises:
        ValueError: unknown algorithm or preset; names the closest.
    """
    entry = find_algorithm(algorithm)
    known = dict(entry.presets) if algorithm in ALGORITHMS else {**RUNS, **entry.presets}
    if name not in known:
        raise ValueError(f"unknown preset {name!r} for {algorithm}. {closest(name, known)}")
    config = RunConfig(task=task, algo=entry.config(), algorithm=algorithm, preset=name)
    return override(config, {option: value for option, (value, _) in known[name].items()})
