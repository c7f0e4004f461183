"""Whether two runs are the same to the bit, measured times apart."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from exporl.files import checkpoint
from exporl.files.run_files import (
    CHECKPOINTS,
    CONFIG,
    DEMONSTRATIONS,
    EVAL,
    GLOSSARY,
    LOCK,
    METRICS,
    POLICY,
    REPORT,
    STATISTICS,
    SUMMARY,
    TUNING,
)

TIMES = ("train_s", "first_update_s", "env_steps_per_s")
"""Measured times in summaries and records."""
OF_TIMES = ("files", "lines")
"""What a record says of files that hold times."""


def plain_lines(path: Path) -> list[dict[str, Any]]:
    """Complete lines without measured times."""
    text = path.read_text() if path.is_file() else ""
    lines = [json.loads(line) for line in text.split("\n")[:-1] if line.endswith("}")]
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def plain_object(path: Path) -> dict[str, Any] | None:
    """A file's entries without measured times and without versions, which name the commit."""
    if not path.is_file():
        return None
    left_out = (*TIMES, "versions")
    return {k: v for k, v in json.loads(path.read_text()).items() if k not in left_out}


def newest(run: Path) -> Path | None:
    """Its newest checkpoint."""
    return max((run / CHECKPOINTS).glob("checkpoint-*"), default=None)


def differences_of(run: Path, reference: Path, *, exact: bool = True) -> list[str]:
    """Everything in which a finished run differs from another, measured times apart: a sentence
    each.

    Args:
        run: what is looked at.
        reference: what it is to be.
        exact: to the bit; otherwise numbers may differ as float32 sums of another order do.
    """
    found = [f"{name} is missing" for name in (SUMMARY, REPORT) if not (run / name).is_file()]
    found += [f"{path.name} was left behind" for path in (run / CHECKPOINTS).glob(".*")]
    listed = {
        segment["name"]
        for path in (run / CHECKPOINTS).glob("checkpoint-*")
        for segments in checkpoint.read_manifest(path)["segments"].values()
        for segment in segments
    }
    there = {path.name for path in (run / CHECKPOINTS / "segments").glob("*")}
    found += [f"{name} was left behind" for name in sorted(there - listed)]
    found += [f"{name} was left behind" for name in (LOCK,) if (run / name).exists()]
    for name in (METRICS, EVAL):
        found += _line_differences(name, plain_lines(run / name), plain_lines(reference / name),
                                   exact)  # fmt: skip
    for name in (CONFIG, STATISTICS, POLICY, TUNING, GLOSSARY, SUMMARY):
        mine, theirs = (plain_object(each / name) for each in (run, reference))
        found += [] if _same(mine, theirs, exact) else [f"{name} differs"]
    archives = [each / DEMONSTRATIONS for each in (run, reference)]
    if archives[1].is_file():
        mine, theirs = (dict(np.load(each)) if each.is_file() else {} for each in archives)
        found += array_differences(DEMONSTRATIONS, mine, theirs)
    return found + _checkpoint_differences(run, reference, exact)


def _line_differences(name: str, mine: list[Any], theirs: list[Any], exact: bool) -> list[str]:
    if len(mine) != len(theirs):
        return [f"{name} has {len(mine)} lines instead of {len(theirs)}"]
    for number, (line, other) in enumerate(zip(mine, theirs, strict=True), 1):
        if not _same(line, other, exact):
            names = [key for key in line.keys() | other.keys()
                     if not _same(line.get(key), other.get(key), exact)]  # fmt: skip
            return [f"{name}, line {number}: {sorted(names)} differ"]
    return []


def _same(one: Any, two: Any, exact: bool) -> bool:
    """Whether two plain values are equal; approximately, where sums may have another order."""
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        return all(_same(value, two[key], exact) for key, value in one.items())
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        return all(_same(a, b, exact) for a, b in zip(one, two, strict=True))
    if not exact and isinstance(one, float) and isinstance(two, float):
        return abs(one - two) <= 1e-4 + 1e-3 * abs(two)
    return one == two


def _checkpoint_differences(run: Path, reference: Path, exact: bool) -> list[str]:
    paths = newest(run), newest(reference)
    if paths[0] is None or paths[1] is None or paths[0].name != paths[1].name:
        return [f"its newest checkpoint is {paths[0]} instead of {paths[1] and paths[1].name}"]
    (parts, record), (others, wanted) = (checkpoint.load(path) for path in paths if path)
    found = [f"parts {sorted(parts)} instead of {sorted(others)}"] if set(parts) != set(others) \
        else []  # fmt: skip
    for part in parts.keys() & others.keys():
        found += array_differences(part, parts[part], others[part], exact)
    beside = (*TIMES, *OF_TIMES)
    records = [{k: v for k, v in each.items() if k not in beside} for each in (record, wanted)]
    differing = sorted(
        name for name in records[0].keys() | records[1].keys()
        if not _same(records[0].get(name), records[1].get(name), exact)
    )  # fmt: skip
    return found + ([f"the checkpoint's record: {differing} differ"] if differing else [])


def array_differences(
    part: str, mine: dict[str, Any], theirs: dict[str, Any], exact: bool = True
) -> list[str]:
    """Arrays that differ in name, type, shape or a bit."""
    names = sorted(mine.keys() ^ theirs.keys())
    found = [f"{part}: {names} are not in both"] if names else []
    for name in sorted(mine.keys() & theirs.keys()):
        one, two = np.asarray(mine[name]), np.asarray(theirs[name])
        same = one.dtype == two.dtype and one.shape == two.shape
        if same and (exact or one.dtype.kind != "f"):
            same = digest(one) == digest(two)
        elif same:
            same = np.allclose(one, two, rtol=1e-3, atol=1e-4)
        found += [] if same else [f"{part}: {name} differs"]
    return found


def digest(array: np.ndarray) -> str:
    """Of all its bits."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
