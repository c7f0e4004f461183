"""Names `module:attribute`: algorithms and base policies that do not come with the library."""

import difflib
import importlib
import sys
from pathlib import Path
from typing import Any


def is_outside(name: str) -> bool:
    """Whether a name has the form `module:attribute`."""
    module, colon, attribute = name.partition(":")
    return bool(module and colon and attribute)


def load_outside(name: str, what: str) -> Any:
    """The attribute that `module:attribute` names. Modules are looked for in the current directory
    first.

    Args:
        name: what to load.
        what: what it is to be, for error messages: "algorithm", "base policy".

    Raises:
        ValueError: the module cannot be imported or has no such attribute; says why, and names the
            closest.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's module may raise anything
        raise ValueError(
            f"cannot import {module_name!r} of {what} {name!r}: {type(error).__name__}: {error}. "
            f"Modules are looked for in the current directory, {here}, and among the installed "
            "packages."
        ) from error
    finally:
        sys.path.remove(here)
    if not hasattr(module, attribute):
        known = [key for key in vars(module) if not key.startswith("_")]
        match = difflib.get_close_matches(attribute, known, n=1)
        hint = f" Did you mean {match[0]!r}?" if match else ""
        raise ValueError(f"{what} {name!r}: {module_name} has no {attribute!r}.{hint}")
    return getattr(module, attribute)
