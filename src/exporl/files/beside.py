"""What a checkpoint remembers of the files beside it, so that files that were changed, shortened or
removed since are noticed."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporl.files.atomic import beginning, readable_lines, size_of, write_text
from exporl.files.reading import read_object
from exporl.files.run_files import (
    CONFIG,
    EVAL,
    GLOSSARY,
    METRICS,
    POLICY,
    RESUMABLE,
    STATISTICS,
    SUMMARY,
    TUNING,
)

OBJECTS = (STATISTICS, POLICY, TUNING)
"""Files that decide what is learnt and how it acts, beside the configuration."""
LINES = (METRICS, EVAL)
"""Files that grow."""
TEXTS = (GLOSSARY,)
"""Files that are only read by people; another version may write them anew when it resumes."""


def remember_objects(run_dir: Path) -> dict[str, Any]:
    """The files that do not change, as they are now."""
    paths = [run_dir / name for name in OBJECTS]
    return {path.name: read_object(path) for path in paths if path.is_file()}


def remember_lines(run_dir: Path) -> dict[str, dict[str, Any]]:
    """The files that grow, as far as they have grown, and those for people: entries of a
    checkpoint's record."""
    sizes = {name: size_of(run_dir / name) for name in LINES}
    digests = {name: beginning(run_dir / name, size) for name, size in sizes.items()}
    texts = {name: _digest(run_dir / name) for name in TEXTS if (run_dir / name).is_file()}
    return {"files": sizes, "lines": digests, "texts": texts}


def _digest(path: Path) -> str:
    return beginning(path, size_of(path))


def check_objects(run_dir: Path, record: Mapping[str, Any], checkpoint: str) -> None:
    """Whether the files that do not change are what a checkpoint remembers. Those that are missing
    are not looked at, and checkpoints of earlier versions remember none.

    Raises:
        ValueError: one differs; names file, entry and both values.
    """
    for name, then in _remembered(record, "beside").items():
        path = run_dir / name
        if name not in OBJECTS or not path.is_file():
            continue
        found = difference(then, read_object(path))
        if found is not None:
            raise ValueError(
                f"{path} was changed since {checkpoint} was written: {found}. Restore it, or start "
                "a new run."
            )


def changed_options(
    run_dir: Path, record: Mapping[str, Any], config: Mapping[str, Any]
) -> list[str]:
    """Options of a configuration that differ from a checkpoint's though they may not change: a
    sentence each. Those that only one of them has were added by another version."""
    then, now = _flat(_remembered(record, "config")), _flat(config)
    return [
        f"{run_dir / CONFIG} was changed: {name} was {_short(then[name])}, is now "
        f"{_short(now[name])}."
        for name in then
        if name in now and then[name] != now[name] and not name.startswith(RESUMABLE)
    ]


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value."""
    result: dict[str, Any] = {}
    for name, value in data.items():
        nested = _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else None
        result |= {prefix + name: value} if nested is None else nested
    return result


def restore_missing(run_dir: Path, record: Mapping[str, Any]) -> list[str]:
    """Writes files that are missing as a checkpoint remembers them; their names."""
    remembered = _remembered(record, "beside")
    missing = [n for n in OBJECTS if n in remembered and not (run_dir / n).is_file()]
    for name in missing:
        write_text(run_dir / name, json.dumps(remembered[name], indent=1))
    return missing


def changed_lines(run_dir: Path, record: Mapping[str, Any]) -> list[str]:
    """What happened to the files that grow since a checkpoint, other than growing, and to those
    for people: a sentence each."""
    problems = []
    for name, digest in _remembered(record, "texts").items():
        path = run_dir / name
        if name not in TEXTS:
            continue
        if not path.is_file():
            problems.append(f"{path} is gone.")
        elif _digest(path) != digest:
            problems.append(f"{path} was changed since the newest checkpoint was written.")
    sizes, digests = _remembered(record, "files"), _remembered(record, "lines")
    for name in LINES:
        then, path = sizes.get(name), run_dir / name
        if not isinstance(then, int):
            continue
        now = size_of(path)
        if now < then:
            problems.append(f"{path} was shortened: it had {then} bytes, it has {now}.")
        elif name in digests and beginning(path, then) != digests[name]:
            problems.append(f"{path} was changed: its first {then} bytes are others.")
    return problems


def missing_checkpoints(run_dir: Path, steps: int, save_every: int, num_envs: int) -> str | None:
    """A sentence where a run's files tell of steps that were saved, and no checkpoint of them is
    there.

    Args:
        run_dir: the run directory.
        steps: environment steps of its newest checkpoint; 0 where there is none.
        save_every: environment steps between checkpoints.
        num_envs: environments that step together.
    """
    told = max(
        (_steps(line) for name in LINES for line in readable_lines(run_dir / name)[0]), default=0
    )
    # the last line may have been written just before the checkpoint that it was due with
    saved = max(told - num_envs, 0) // save_every * save_every
    saved = max(saved, _summarized_steps(run_dir))
    if saved <= steps:
        return None
    return (
        f"{run_dir} tells of {max(told, saved)} environment steps, and its newest checkpoint is of "
        f"{steps}: newer ones were removed, or not copied."
    )


def _summarized_steps(run_dir: Path) -> int:
    """Environment steps at the end of a run, where a checkpoint is written in any case; 0 where
    there is no summary, or a damaged one."""
    with contextlib.suppress(ValueError):
        after = read_object(run_dir / SUMMARY).get("after")
        return _steps(after) if isinstance(after, dict) else 0
    return 0


def _steps(line: Mapping[str, Any]) -> int:
    steps = line.get("env_steps")
    return steps if type(steps) is int else 0


def difference(then: Any, now: Any, where: str = "") -> str | None:
    """The first entry in which two plain values differ, with both; None where they are the same."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in [*then, *(key for key in now if key not in then)]:
            inner = f"{where}.{key}" if where else str(key)
            if key not in now:
                return f"{inner} is gone"
            if key not in then:
                return f"{inner} was added"
            found = difference(then[key], now[key], inner)
            if found is not None:
                return found
        return None
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        found = (
            difference(a, b, f"{where}[{i}]")
            for i, (a, b) in enumerate(zip(then, now, strict=True))
        )
        return next((each for each in found if each is not None), None)
    return None if then == now else f"{where} was {_short(then)}, is now {_short(now)}"


def _remembered(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = record.get(name, {})
    return found if isinstance(found, Mapping) else {}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
