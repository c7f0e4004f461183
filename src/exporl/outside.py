"""Names `module:attribute`: tasks, algorithms and base policies that do not come with the library.

Loading one runs its module's code. Whoever types a name asks for that. A run directory may come
from anybody: the names in its configuration are loaded only where they are trusted, and no module
is ever taken from inside a run directory that this process has opened.
"""

import difflib
import importlib
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NewType

Trust = bool | Collection[str]
"""Whether the code that a run directory names may be loaded: all of it, none, or these names."""
OutsideName = NewType("OutsideName", str)
"""`module:attribute`: an algorithm or a base policy that does not come with the library."""

_OPENED: set[Path] = set()
"""Run directories that this process has opened."""


def is_outside(name: str) -> bool:
    """Whether a name has the form `module:attribute`."""
    module, colon, attribute = name.partition(":")
    return bool(module and colon and attribute)


def outside_names(config: Mapping[str, Any], *, task: bool = True) -> dict[str, str]:
    """Dotted option -> name, for everything in a run's configuration that could be loaded.

    Args:
        config: as plain values.
        task: whether the task is going to be loaded as well.
    """
    loaded = ("task", "algorithm", "base", "algo") if task else ("algorithm", "base", "algo")
    named = {option: config[option] for option in loaded if option in config}
    return {option: name for option, name in _strings(named, "") if ":" in name}


def _strings(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _strings(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner, where)


def check_trust(
    run_dir: Path, config: Mapping[str, Any], trust: Trust, *, task: bool = True
) -> None:
    """Whether everything that a run directory names may be loaded. From now on nothing is loaded
    from inside it.

    Args:
        run_dir: the run directory.
        config: its configuration, as plain values.
        trust: what the user trusts.
        task: whether the task is going to be loaded as well.

    Raises:
        ValueError: a name is not trusted; lists them, and says how to trust them.
    """
    _OPENED.add(Path(run_dir).resolve())
    named = outside_names(config, task=task)
    if isinstance(trust, bool):
        untrusted = {} if trust else named
    else:
        untrusted = {option: name for option, name in named.items() if name not in trust}
    if untrusted:
        names = ", ".join(f"{option} {name!r}" for option, name in untrusted.items())
        raise ValueError(
            f"{run_dir} names code that does not come with exporl: {names}. Opening the run would "
            "run that code. Where you know what it does, add --trust (in Python: trust=True)."
        )


def load_module(name: str, what: str) -> ModuleType:
    """The module of `module:attribute`, looked for in the current directory first.

    Args:
        name: the whole name.
        what: what it is to be, for error messages: "task", "algorithm", "base policy".

    Raises:
        ValueError: it cannot be imported, or lies inside a run directory; says why.
    """
    module = name.partition(":")[0]
    here = Path.cwd().resolve()
    _refuse_inside_runs(module, name, what, here)
    searched = not any(here.is_relative_to(run) for run in _OPENED)
    if searched:
        sys.path.insert(0, str(here))
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        raise ValueError(
            f"cannot import {module!r} of {what} {name!r}: {type(error).__name__}: {error}. "
            f"Modules are looked for in the current directory, {here}, and among the installed "
            "packages."
        ) from error
    finally:
        if searched:
            sys.path.remove(str(here))


def _refuse_inside_runs(module: str, name: str, what: str, here: Path) -> None:
    """Refuses a module that an import would find inside a run directory, as a file or a folder on
    its way."""
    parts = module.split(".")
    for folder in {here, *(Path(entry or here) for entry in sys.path)}:
        for end in range(1, len(parts) + 1):
            place = folder.joinpath(*parts[:end])
            for path in _named(place):
                run = next((r for r in _OPENED if path.resolve().is_relative_to(r)), None)
                if run is not None:
                    raise ValueError(
                        f"{what} {name!r} would be imported from {path}, inside the run directory "
                        f"{run}: code is never taken from there. If it is yours, move the module "
                        "to where your code lies, and start from there."
                    )


def _named(place: Path) -> list[Path]:
    """A folder, or files with any ending, that an import of this place would find."""
    try:
        return [path for path in place.parent.iterdir() if path.name.split(".")[0] == place.name]
    except OSError:  # no folder, or one that may not be read
        return []


def load_outside(name: str, what: str) -> Any:
    """The attribute that `module:attribute` names.

    Args:
        name: what to load.
        what: what it is to be, for error messages: "algorithm", "base policy".

    Raises:
        ValueError: the module cannot be imported or has no such attribute; says why, and names the
            closest.
    """
    module_name, _, attribute = name.partition(":")
    module = load_module(name, what)
    if not hasattr(module, attribute):
        known = [key for key in vars(module) if not key.startswith("_")]
        match = difflib.get_close_matches(attribute, known, n=1)
        hint = f" Did you mean {match[0]!r}?" if match else ""
        raise ValueError(f"{what} {name!r}: {module_name} has no {attribute!r}.{hint}")
    return getattr(module, attribute)
