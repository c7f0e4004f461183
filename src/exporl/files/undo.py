"""Taking back what a run that could not begin has written."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from exporl.files.run_files import (
    CONFIG,
    DEMONSTRATIONS,
    EVAL,
    GLOSSARY,
    METRICS,
    OUTPUT,
    POLICY,
    STATISTICS,
    TUNING,
)

WRITTEN = (CONFIG, DEMONSTRATIONS, STATISTICS, POLICY, TUNING, GLOSSARY, METRICS, EVAL)
"""Files that a run writes before its first checkpoint."""


@contextlib.contextmanager
def nothing_left_on_error(run_dir: Path) -> Iterator[None]:
    """Removes the files of a run that an error inside leaves behind, and the folders made for it;
    what was there before stays."""
    before = {name for name in WRITTEN if (run_dir / name).exists()}
    made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        _remove(run_dir, [name for name in WRITTEN if name not in before], made)
        raise


def clear_refused(run_dir: Path) -> None:
    """Removes what was laid out for a run that then was refused, and never began."""
    if not (run_dir / CONFIG).exists():
        _remove(run_dir, [DEMONSTRATIONS, OUTPUT], [run_dir])


def _remove(run_dir: Path, names: Sequence[str], folders: Sequence[Path]) -> None:
    for name in names:
        (run_dir / name).unlink(missing_ok=True)
    for folder in folders:
        with contextlib.suppress(OSError):  # something else is in it
            folder.rmdir()
