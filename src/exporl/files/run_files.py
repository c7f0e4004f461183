"""The files of a run directory: their names, what they may be, and its configuration as plain
JSON."""

import os
import stat
from pathlib import Path
from typing import Any

from exporl.files.reading import read_object

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
EVALUATIONS = "eval_afterwards.jsonl"
"""One line per evaluation asked for afterwards, by `exporl eval`."""
CHECKPOINTS = "checkpoints"
"""Folder of checkpoints."""
VIDEOS = "videos"
"""Folder of films, by `exporl eval --video`."""
FILMS = "films.json"
"""In it: the films of the last evaluation that was filmed, and how their episodes went."""
SUMMARY = "summary.json"
"""First and last evaluation, written at the end."""
REPORT = "report.html"
"""The page about it."""
OUTPUT = "output.txt"
"""Whatever a process that trained it, or its simulator, printed."""
SEEDS = "seeds.json"
"""Which seeds a folder of seeds was started for, and with what; it lies beside their runs."""
LOCK = ".lock"
"""Held by the process that trains it."""
RESUMABLE = (
    "train.online_steps", "train.devices", "data.storage", "data.scratch", "eval.", "log.",
)  # fmt: skip
"""Options that may differ between a run and its resumption: none changes what was learnt so far."""
NAMES = (
    CONFIG, DEMONSTRATIONS, STATISTICS, POLICY, TUNING, METRICS, EVAL, EVALUATIONS, CHECKPOINTS,
    VIDEOS, SUMMARY, REPORT, OUTPUT, LOCK,
)  # fmt: skip
"""All that this library reads or writes in a run directory."""


def refuse_links(run_dir: Path) -> None:
    """Whether everything in a run directory that this library would touch is there itself: a link
    would lead reading and writing elsewhere, and a pipe would never end.

    Raises:
        ValueError: a file is a symbolic link, or neither a file nor a folder; names it.
    """
    checkpoints = Path(run_dir) / CHECKPOINTS
    paths = [Path(run_dir) / name for name in NAMES]
    if checkpoints.is_dir() and not checkpoints.is_symlink():
        paths += [path for folder in checkpoints.iterdir() for path in (folder, *_inside(folder))]
    for path in paths:
        try:
            mode = path.lstat().st_mode
        except OSError:  # not there, or removed meanwhile
            continue
        if stat.S_ISLNK(mode):
            raise ValueError(
                f"{path} is a symbolic link to {os.readlink(path)}: a run directory is read and "
                "written only where its files lie in it themselves. Copy them there."
            )
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ValueError(f"{path} is neither a file nor a folder. Remove it.")


def _inside(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def read_config(run_dir: Path) -> dict[str, Any]:
    """The configuration of a run as plain values; `run.directory.load_config` makes a checked
    `RunConfig` of it.

    Raises:
        ValueError: not a run directory, its files are links, or its config.json is not a JSON
            object.
    """
    path = Path(run_dir) / CONFIG
    refuse_links(run_dir)
    if not path.is_file():
        raise ValueError(f"{run_dir} is not a run directory: it has no {CONFIG}.")
    return read_object(path)


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
