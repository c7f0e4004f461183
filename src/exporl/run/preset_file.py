"""Preset files: the options of an algorithm that differ from one of its presets, in TOML, for any
task and seed:

    algorithm = "expo"
    preset = "small"

    [options]
    algo.edit_scale = 0.2

Nothing here needs JAX; `run.presets` makes a configuration of it.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from exporl.plain import dotted
from exporl.suggest import closest

SUFFIX = ".toml"
"""How the name of a preset file ends: so a preset's name is told from a path."""
KEYS = ("algorithm", "preset", "options")
OF_A_RUN = ("algorithm", "preset", "seed", "task")
"""Options that a preset does not have."""


class PresetFile(NamedTuple):
    """What a preset file says."""

    algorithm: str
    preset: str
    """The preset that it changes."""
    options: Mapping[str, Any]
    """Dotted options, with plain values; lists are tuples."""


def is_preset_file(name: str) -> bool:
    """Whether the name of a preset is the path of a file."""
    return name.endswith(SUFFIX)


def read_preset_file(path: Path) -> PresetFile:
    """Reads a preset file. Names and values of options are not checked.

    Raises:
        ValueError: it cannot be read, or is no preset file; says why.
    """
    try:
        data = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ValueError(f"the preset file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}.") from error
    for key in data:
        if key not in KEYS:
            raise ValueError(f"{path} has the unknown entry {key!r}. {closest(key, KEYS)}")
    algorithm, preset = data.get("algorithm"), data.get("preset", "small")
    if not isinstance(algorithm, str):
        raise ValueError(f'{path} names no algorithm: add algorithm = "expo", or another.')
    if not isinstance(preset, str) or is_preset_file(preset):
        raise ValueError(f"{path} changes the preset {preset!r}: it must be the name of a preset.")
    table = data.get("options", {})
    if not isinstance(table, dict):
        raise ValueError(f"{path} has options = {table!r}: it must be a table.")
    options = dict(dotted(table))
    for name in OF_A_RUN:
        if name in options:
            raise ValueError(f"{path} has options.{name}: a preset is for any task and seed.")
    return PresetFile(algorithm, preset, options)


def preset_text(found: PresetFile, comments: Sequence[str] = ()) -> str:
    """The text of a preset file.

    Args:
        found: what it says.
        comments: lines at its head, about where it is from.
    """
    lines = [f"# {comment}" for comment in comments]
    lines.append(f"algorithm = {_value(found.algorithm)}")
    lines += [f"preset = {_value(found.preset)}", "", "[options]"]
    lines += [f"{name} = {_value(value)}" for name, value in sorted(found.options.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """A value of an option, as TOML has it: finite numbers, texts and lists look as in JSON."""
    return json.dumps(value, allow_nan=False)
