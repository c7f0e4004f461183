"""Temporary files of processes that were killed while they wrote: tidied at the next start."""

import re
import shutil
import time
from pathlib import Path

from exporl.files import run_files

OLD_S = 60.0
"""Younger ones may belong to somebody who is writing."""
_TEMPORARY = re.compile(r"\.(?P<name>.+)-[0-9a-f]{32}")
"""What `write_text` and the writers of data files call them."""
_NAMES = {value for name, value in vars(run_files).items() if name.isupper()}


def tidy(run_dir: Path) -> list[Path]:
    """Removes what killed processes left of the files of a run directory; returns what it removed.
    Links, and files that are no run's, stay."""
    removed = []
    for path in sorted(run_dir.glob(".*")):
        found = _TEMPORARY.fullmatch(path.name)
        if found is None or found["name"] not in _NAMES or path.is_symlink():
            continue
        if time.time() - path.stat().st_mtime < OLD_S:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed.append(path)
    return removed
