"""Where a suite keeps what its runs were made with, and how it is read. Nothing here needs JAX."""

from pathlib import Path
from typing import Any

from exporl.files.reading import read_object

PRINTS = "fingerprints"
"""Folder in a suite's folder, with one file per run."""
ALLOWED = ("version", "configuration")
"""What of a fingerprint may be allowed to differ."""
CODE = ("versions", "source", "outside")
"""Of a fingerprint: what says which code it was."""
COMMIT = "git"
"""Of the versions: another commit with the same source is no other code."""
KINDS: dict[str, type] = {
    "asked": dict,
    "configuration": dict,
    "versions": dict,
    "source": str,
    "outside": dict,
    "earlier": list,
}


def print_path(suite_folder: Path, run_dir: Path) -> Path:
    """The file of one run's fingerprint."""
    return suite_folder / PRINTS / f"{run_dir.parent.name}-{run_dir.name}.json"


def read_print(suite_folder: Path, run_dir: Path) -> dict[str, Any] | None:
    """What a run was made with; None where nothing is written about it.

    Raises:
        ValueError: the file is damaged; names it.
    """
    path = print_path(suite_folder, run_dir)
    if not path.is_file():
        return None
    found = read_object(path)
    for name, kind in KINDS.items():
        if not isinstance(found.get(name), kind):
            raise ValueError(
                f"{path} has no proper {name!r}: remove it, and go on with --allow version."
            )
    return found
