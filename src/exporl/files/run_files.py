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
GLOSSARY = "glossary.json"
"""What each metric of it is, in a few words."""
EVAL = "eval.jsonl"
"""One line per evaluation during training."""
EVALUATIONS = "evaluations.jsonl"
"""One line per evaluation asked for afterwards."""
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
    return {int(path.name[1:]): path for path in sorted(names) if path.name[1:].isdecimal()}
