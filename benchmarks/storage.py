"""What a replay in files costs against one in memory: steps per second of adding and drawing.

    .venv/bin/python benchmarks/storage.py          # a minute or two, 2 GB of memory and of disk

A step adds one environment step and draws the rows of one update call. "memory" and "files" take
turns; both are full of episodes, and the files lie in the system's cache, as they do while memory
lasts. Afterwards "files, not cached" drops every page before each of its few steps: the worst that
a replay much larger than memory can come to on this disk. Writes benchmarks/results/storage.json.
"""

import argparse
import mmap
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from checkpoint_cost import IMAGES, STATE, add, episodes, steps_of
from common import write_result

from exporl.data.memory import row_bytes, size
from exporl.data.replay import Replay
from exporl.files import mapped
from exporl.types import Spec


class Case(NamedTuple):
    """A replay, and what is drawn of it."""

    spec: Spec
    rows: int
    sampled: tuple[str, ...]
    drawn: int
    """Rows per draw."""
    least: int = mapped.LEAST_BYTES
    """Of the rows of an array in a file."""


CASES = {
    "images kept, 20 x 256 rows of state": Case(IMAGES, 40_000, ("state",), 20 * 256),
    "images drawn, 256 rows": Case(IMAGES, 40_000, ("state", "image"), 256),
    "states in files too, 20 x 256 rows": Case(STATE, 1_000_000, ("state",), 20 * 256, 1),
}
"""Of Meta-World's states, with a camera of 84x84x3 that is stored, and one that is read; and what
it would cost to have states in files, which stay in memory."""
WAYS = ("memory", "files", "files, not cached")


class Files:
    """Makes arrays in files, and drops them from the system's cache."""

    def __init__(self, folder: Path, least: int):
        self.folder, self.least, self.made = folder, least, []

    def __call__(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """As `files.mapped.mapped_zeros`, but the file is kept open."""
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if count < self.least * shape[0] * shape[1]:
            return np.zeros(shape, dtype)
        file, name = tempfile.mkstemp(dir=self.folder)
        os.unlink(name)
        mapped.reserve(file, count)
        content = mmap.mmap(file, count)
        self.made.append((file, content))
        return np.frombuffer(content, dtype).reshape(shape)

    def drop(self) -> None:
        """No page of them is in memory afterwards."""
        for file, content in self.made:
            content.flush()
            content.madvise(mmap.MADV_DONTNEED)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    """Measures, prints, writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="of the files; by default a temporary one")
    parser.add_argument("--steps", type=int, default=50, help="of one measurement")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="exporl-storage-") as folder:
        for name, case in CASES.items():
            results.append(measured(name, case, Path(folder), options))
            print({k: v for k, v in results[-1].items() if k != "all"}, flush=True)
    command = "benchmarks/storage.py " + " ".join(sys.argv[1:])
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    print(write_result("storage", {"command": command, "load_average": load, "results": results}))


def one_step(replay: Replay, case: Case, steps: list[Any], rng: np.random.Generator) -> float:
    """Seconds of adding a step and drawing the rows of an update call."""
    step = steps[int(rng.integers(len(steps)))]
    began = time.perf_counter()
    replay.add(step)
    replay.sample(rng, case.drawn, discount=0.99)
    return time.perf_counter() - began


def measured(name: str, case: Case, folder: Path, options: Any) -> dict[str, Any]:
    """One case, the ways in turn."""
    files, rng = Files(folder, case.least), np.random.default_rng(0)
    made = {
        way: Replay(case.spec, case.rows, zeros=zeros)
        for way, zeros in (("memory", np.zeros), ("files", files))
    }
    for replay in made.values():
        replay.sampled = case.sampled
        add(replay, case.rows, np.random.default_rng(0), None)
    steps = steps_of(episodes(case.spec, 100, rng)[0])
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(options.repeats):
        for way in ("memory", "files"):
            rng = np.random.default_rng(repeat)
            took = [one_step(made[way], case, steps, rng) for _ in range(options.steps)]
            taken[way].append(options.steps / sum(took))
    for repeat in range(options.repeats):
        files.drop()
        rng = np.random.default_rng(repeat)
        taken["files, not cached"].append(1 / one_step(made["files"], case, steps, rng))
    return {
        "case": name,
        "bytes": case.rows * row_bytes(case.spec),
        "size": size(case.rows * row_bytes(case.spec)),
        "steps_per_s": {way: statistics.median(values) for way, values in taken.items()},
        "all": taken,
    }


if __name__ == "__main__":
    main()
