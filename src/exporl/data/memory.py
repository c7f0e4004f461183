"""How much memory the replays of a run will take, known before the run starts."""

import dataclasses
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from exporl.data.columns import Column
from exporl.files.mapped import lies_in_a_file
from exporl.spec import Spec

_FLAGS = 5
"""One byte each per row: step or not, can start a chunk, terminated, truncated, success."""
_HOLDER = 4
"""Which file of a checkpoint holds the row, an int32."""


def row_bytes(spec: Spec, columns: Mapping[str, Column] | None = None) -> int:
    """Bytes of one replay row: all observation entries, an action, the reward, flags, columns,
    and where it is saved."""
    entries = [(shape, dtype) for _, shape, dtype in spec.observation]
    entries += [(column.shape, column.dtype) for column in (columns or {}).values()]
    kept = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in entries)
    return kept + 4 * spec.action_dim + 4 + _FLAGS + _HOLDER


def mapped_bytes(spec: Spec) -> int:
    """Those of them that lie in files where the replay is on disk: of large observation entries."""
    entries = [(shape, dtype) for _, shape, dtype in spec.observation]
    return sum(
        math.prod(shape) * np.dtype(dtype).itemsize
        for shape, dtype in entries
        if lies_in_a_file(shape, dtype)
    )


@dataclasses.dataclass(frozen=True)
class ReplayPlan:
    """Rows (steps plus one per episode) and bytes of the prior and the online replay."""

    row_bytes: int
    prior_rows: int
    online_rows: int
    """Per stream."""
    num_streams: int = 1
    mapped_row_bytes: int = 0
    """Of an online row, those that lie in files instead of memory."""

    @property
    def mapped_bytes(self) -> int:
        """In files, when full."""
        return self.online_rows * self.num_streams * self.mapped_row_bytes

    @property
    def memory_bytes(self) -> int:
        """In memory, when full."""
        return self.total_bytes - self.mapped_bytes

    @property
    def total_bytes(self) -> int:
        """Both replays when full."""
        return (self.prior_rows + self.online_rows * self.num_streams) * self.row_bytes

    def __str__(self) -> str:
        """One line for the terminal."""
        online = self.online_rows * self.num_streams
        rows = self.prior_rows + online
        parts = [("prior", self.prior_rows), ("online, when full,", online)]
        shares = ", ".join(
            f"{name} {count:,} rows {size(count * self.row_bytes)}"
            for name, count in parts
            if count
        )
        mapped = f"; {size(self.mapped_bytes)} of it in files" if self.mapped_bytes else ""
        total = size(self.total_bytes)
        return f"replay: {rows:,} rows x {self.row_bytes:,} B = {total} ({shares}){mapped}"

    def check(self, available: int | None) -> None:
        """Refuses a plan that does not fit.

        Args:
            available: bytes that can be had, see `available_bytes`; None when unknown.

        Raises:
            ValueError: the plan needs more; names both numbers and the capacity that would fit.
        """
        if available is None or self.memory_bytes <= available:
            return
        in_memory = self.row_bytes - self.mapped_row_bytes
        left = available - self.prior_rows * self.row_bytes
        fit = left // in_memory // self.num_streams
        advice = (
            f"Set data.capacity to at most {fit}, or train.online_steps lower."
            if fit > 0
            else "Read less of the file with data.demos (how many episodes)."
        )
        raise ValueError(f"{self}, but only {size(available)} of memory are available. {advice}")

    def check_disk(self, folder: Path, run_dir: Path) -> None:
        """Refuses a plan for which a disk has too little space: for the files, and for the segments
        of checkpoints, which will hold as much. A resumption needs the latter for loading.

        Args:
            folder: where the files lie.
            run_dir: where checkpoints lie.

        Raises:
            ValueError: it has less; names both numbers and the folder.
        """
        if not self.mapped_bytes:
            return
        same = folder.stat().st_dev == run_dir.stat().st_dev
        for place, copies in ((folder, 2 if same else 1), (run_dir, 1)):
            needed, free = copies * self.mapped_bytes, shutil.disk_usage(place).free
            if needed > free:
                raise ValueError(
                    f"{self}, and as much in segments of checkpoints: {place} needs "
                    f"{size(needed)}, and {size(free)} are free. Set data.capacity or "
                    "train.online_steps lower, or data.scratch to a folder on another disk."
                )


def size(count: int | float) -> str:
    """Bytes in words: 12 B, 3.4 kB, 120 MB, 2.1 GB (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            break
        count, unit = count / 1000, "TB"
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def available_bytes() -> int | None:
    """Memory that this process can still get without swapping, control groups included.

    None where nobody tells.
    """
    found = [_meminfo(), *_groups()]
    if not any(value is not None for value in found):
        found = [_physical()]
    return min((value for value in found if value is not None), default=None)


def _meminfo(path: Path = Path("/proc/meminfo")) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _groups(root: Path = Path("/sys/fs/cgroup")) -> list[int | None]:
    """What the container's limit leaves, for both generations of control groups."""
    pairs = [("memory.max", "memory.current")]
    pairs += [("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")]
    left = []
    for limit, used in pairs:
        try:
            left.append(max(int((root / limit).read_text()) - int((root / used).read_text()), 0))
        except (OSError, ValueError):  # no such file, or "max": no limit
            left.append(None)
    return left


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
