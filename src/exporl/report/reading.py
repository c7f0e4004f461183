"""The files of a run as a report needs them: what is damaged is left out, and said."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from exporl.files.atomic import readable_lines
from exporl.files.beside import changed_lines, changed_options
from exporl.files.checkpoint import PREFIX, CorruptCheckpointError, read_manifest
from exporl.files.reading import read_object
from exporl.files.run_files import (
    CHECKPOINTS,
    CONFIG,
    EVAL,
    GLOSSARY,
    METRICS,
    SUMMARY,
    read_config,
)

Lines = tuple[list[dict[str, Any]], list[str]]
"""Lines that are of use, and what is wrong with the others: a sentence each."""
ALSO = ("base", "unguarded", "unedited")
"""Who may have been evaluated beside the policy."""
KINDS: dict[str, type] = {"algorithm": str, "task": str, "seed": int}


def read_configuration(run_dir: Path) -> dict[str, Any]:
    """A run's configuration as plain values.

    Raises:
        ValueError: not a run directory, or its config.json is damaged.
    """
    config = read_config(run_dir)
    for name, kind in KINDS.items():
        if name not in config:
            raise ValueError(
                f"{run_dir / CONFIG} lacks {name!r}: it is not the configuration of a run."
            )
        if type(config[name]) is not kind:
            raise ValueError(
                f"{run_dir / CONFIG}: {name} is {config[name]!r}, not a {kind.__name__}. Copy it "
                "from the run again."
            )
    return config


def read_evaluations(run_dir: Path) -> Lines:
    """The lines of eval.jsonl."""
    return _lines(run_dir / EVAL, _evaluation_fault)


def read_metrics(run_dir: Path) -> Lines:
    """The lines of metrics.jsonl."""
    return _lines(run_dir / METRICS, _metrics_fault)


def is_finished(run_dir: Path) -> bool:
    """Whether a run has made all the environment steps of its configuration, by its summary."""
    try:
        wanted = read_object(run_dir / CONFIG)["train"]["online_steps"]
        after = read_object(run_dir / SUMMARY).get("after", {})
        return after.get("env_steps", -1) >= wanted
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def read_glossary(run_dir: Path) -> tuple[dict[str, str], list[str]]:
    """What each metric is, by its name, and what is wrong with the file; runs of earlier versions
    have none."""
    path = run_dir / GLOSSARY
    if not path.is_file():
        return {}, []
    try:
        found = read_object(path)
    except ValueError as error:
        return {}, [str(error)]
    known = {name: what for name, what in found.items() if isinstance(what, str)}
    return known, [
        f"{path}: {name} is {what!r}, not a text."
        for name, what in found.items()
        if name not in known
    ]


def changes(run_dir: Path, config: Mapping[str, Any]) -> list[str]:
    """What was changed since the newest checkpoint that can be read was written: a sentence
    each."""
    for path in sorted((run_dir / CHECKPOINTS).glob(f"{PREFIX}*"), reverse=True):
        try:
            record = read_manifest(path)["record"]
        except CorruptCheckpointError:
            continue
        return changed_lines(run_dir, record) + changed_options(run_dir, record, config)
    return []


def _lines(path: Path, fault: Callable[[Mapping[str, Any]], str | None]) -> Lines:
    good, (found, problems) = [], readable_lines(path)
    for line in found:
        wrong = fault(line)
        if wrong is None:
            good.append(line)
        else:
            problems.append(f"{path}, the line of step {line.get('env_steps')!r}: {wrong}")
    return good, [f"{problem} It is left out." for problem in problems]


def _evaluation_fault(line: Mapping[str, Any]) -> str | None:
    """What keeps a line from being an evaluation."""
    for name in ("env_steps", "time/train_s"):
        if not _is_number(line.get(name)):
            return f"{name} is {line.get(name)!r}, not a number."
    for who in ("policy", *(who for who in ALSO if who in line)):
        result = line.get(who)
        if not isinstance(result, Mapping):
            return f"it has no result of the {who}."
        success, rate = result.get("success"), result.get("success_rate")
        if not (isinstance(success, list) and success):
            return f"it has no episodes of the {who}."
        if not all(isinstance(each, bool) for each in success):
            return f"the successes of the {who} are not all true or false."
        if (
            rate is None
            or not _is_number(rate)
            or not math.isclose(rate, sum(success) / len(success))
        ):
            return f"the success rate of the {who}, {rate!r}, is not that of its episodes."
    return None


def _metrics_fault(line: Mapping[str, Any]) -> str | None:
    """What keeps a line from being drawn."""
    for name, value in line.items():
        if (name == "env_steps" or "/" in name) and not _is_number(value):
            return f"{name} is {value!r}, not a finite number."
    return None if "env_steps" in line else "it has no env_steps."


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)
