"""The files of a run directory: their names, and its configuration as plain JSON."""

import json
from pathlib import Path
from typing import Any

CONFIG = "config.json"
"""Everything that defines the run."""
DEMONSTRATIONS = "demonstrations.npz"
"""Episodes collected for it."""
STATISTICS = "statistics.json"
"""Means and standard deviations that its observations are normalised with."""
POLICY = "policy.json"
"""What its policy takes and gives: shapes, units, execute length; acting needs no task for it."""
TUNING = "tuning.json"
"""What was decided for it by measurement."""
METRICS = "metrics.jsonl"
"""One line of metrics per interval."""
EVAL = "eval.jsonl"
"""One line per evaluation during training."""
EVALUATIONS = "eval_afterwards.jsonl"
"""One line per evaluation asked for afterwards, by `exporl eval`."""
CHECKPOINTS = "checkpoints"
"""Folder of checkpoints."""
SUMMARY = "summary.json"
"""First and last evaluation, written at the end."""
REPORT = "report.html"
"""The page about it."""
OUTPUT = "output.txt"
"""Whatever a process that trained it, or its simulator, printed."""


def read_config(run_dir: Path) -> dict[str, Any]:
    """The configuration of a run as plain values; `run.directory.load_config` makes a checked
    `RunConfig` of it.

    Raises:
        ValueError: not a run directory, or its config.json is not a JSON object.
    """
    path = Path(run_dir) / CONFIG
    if not path.is_file():
        raise ValueError(f"{run_dir} is not a run directory: it has no {CONFIG}.")
    return read_object(path)


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        ValueError: it holds something else; names the file.
    """
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(data).__name__}.")
    return data


def seed_runs(folder: Path) -> dict[int, Path]:
    """Seed -> run directory, for the runs `s<seed>` inside a folder."""
    names = [path.parent for path in Path(folder).glob(f"s*/{CONFIG}")]
    found = {int(path.name[1:]): path for path in names if path.name[1:].isdecimal()}
    return dict(sorted(found.items()))


def runs_in(folder: Path) -> list[Path]:
    """The runs that a folder stands for: itself, or those in it, or those in the folders of seeds
    in it; seeds in their order. Itself where there is none."""
    folder = Path(folder)
    if (folder / CONFIG).is_file():
        return [folder]
    found: list[Path] = []
    for inner in sorted(path for path in folder.glob("*") if path.is_dir()):
        if (inner / CONFIG).is_file():
            found.append(inner)
        else:
            found += seed_runs(inner).values()
    seeds = list(seed_runs(folder).values())
    return seeds + [run for run in found if run not in seeds] or [folder]
