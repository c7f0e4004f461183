"""Checkpoints: written new, then renamed; checked on load; no pickle. What grows is written once,
into segments beside them (`files.segments`)."""

import contextlib
import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save as save_tensors

from exporl.files import segments as of_segments
from exporl.files.atomic import refuse_link, sync_folder, write_bytes
from exporl.files.mapped import Zeros
from exporl.files.reading import read_object
from exporl.files.segments import Placed, Segment, load_segments, remove_unlisted
from exporl.files.tensors import CorruptCheckpointError, read_tensors

MANIFEST = "manifest.json"
PREFIX = "checkpoint-"
PART = re.compile(r"[a-z0-9_]+\.safetensors")
"""Names of the files beside a manifest: plain, so that none lies elsewhere."""


def save(
    folder: Path,
    step: int,
    parts: Mapping[str, Mapping[str, np.ndarray]],
    record: dict[str, Any],
    keep: int,
    segments: Mapping[str, Sequence[Segment]] | None = None,
) -> Path:
    """Writes `folder/checkpoint-<step>` and removes all but the newest `keep`, and nothing that is
    not a checkpoint by its own manifest; then the segments that no checkpoint lists any more.

    Every part becomes one safetensors file. All files are written and synced under a temporary
    name, then the directory is renamed: a kill at any moment leaves the previous checkpoint as it
    was.

    Args:
        folder: where the run keeps its checkpoints.
        step: number in the name; larger is newer.
        parts: name -> arrays.
        record: JSON-able values, kept in the manifest next to the SHA-256 of every file.
        keep: checkpoints to keep, at least 1.
        segments: what is written already of the parts that grow, by part.
    """
    refuse_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".tmp-{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        digests = {}
        for name, arrays in parts.items():
            content = save_tensors(
                {key: np.asarray(value, order="C") for key, value in arrays.items()}
            )
            digests[f"{name}.safetensors"] = hashlib.sha256(content).hexdigest()
            write_bytes(temporary / f"{name}.safetensors", content)
        # as `load` will see it
        listed = of_segments.to_json(segments or {})
        manifest = {"step": step, "sha256": digests, "segments": listed, "record": record}
        manifest = json.loads(json.dumps(manifest))
        body = json.dumps(manifest, sort_keys=True)
        write_bytes(temporary / MANIFEST, json.dumps({**manifest, "self": _digest(body)}).encode())
        target = folder / name_of(step)
        if target.exists():
            target.rename(folder / f".old-{uuid.uuid4().hex}")
        temporary.rename(target)
        sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _prune(folder, target, keep)
    return target


def _prune(folder: Path, newest: Path, keep: int) -> None:
    """Removes what came before: checkpoints beyond `keep`, and what a kill has left behind."""
    # later ones may be damaged
    others = [
        path
        for path in sorted(folder.glob(f"{PREFIX}*"))
        if path != newest and _is_checkpoint(path)
    ]
    for old in [
        *others[: max(len(others) + 1 - keep, 0)],
        *folder.glob(".old-*"),
        *folder.glob(".tmp-*"),
    ]:
        _remove(old)
    for path in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # only what is empty: a kill came between two removals
            path.rmdir()
    _remove_segments(folder)


def _remove_segments(folder: Path) -> None:
    """Removes the segments that no checkpoint lists. While a manifest cannot be read nobody knows
    what it lists, and all stay."""
    listed = set()
    for path in folder.glob(f"{PREFIX}*"):
        if path.is_symlink() or not (path / MANIFEST).exists():
            continue
        try:
            found = of_segments.from_json(read_manifest(path)["segments"])
        except CorruptCheckpointError:
            return
        listed |= {segment.name for each in found.values() for segment in each}
    remove_unlisted(folder, listed)


def _is_checkpoint(path: Path) -> bool:
    """Whether a folder's own manifest says that it is this checkpoint, intact or not."""
    try:
        return not path.is_symlink() and name_of(read_manifest(path)["step"]) == path.name
    except CorruptCheckpointError:
        return False


def _remove(folder: Path) -> None:
    """Removes a checkpoint's files, and the folder unless it holds anything else. The manifest goes
    last: what a kill leaves of it is still known as a checkpoint, and removed after the next."""
    if folder.is_symlink() or not folder.is_dir():
        return
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if PART.fullmatch(path.name):
                path.unlink()
        (folder / MANIFEST).unlink(missing_ok=True)
        folder.rmdir()


def name_of(step: int) -> str:
    """The folder's name of a checkpoint."""
    return f"{PREFIX}{step:09d}"


def read_manifest(path: Path) -> dict[str, Any]:
    """What a checkpoint's manifest says: "step", "sha256" by file name, "segments" by part,
    "record".

    Raises:
        CorruptCheckpointError: it is missing, altered, or that of something else.
    """
    try:
        _refuse_elsewhere(path, MANIFEST)
        manifest = read_object(path / MANIFEST)
        claimed = manifest.pop("self")
        digest = _digest(json.dumps(manifest, sort_keys=True))
    except CorruptCheckpointError:
        raise
    except (ValueError, KeyError, RecursionError) as error:
        raise CorruptCheckpointError(
            f"{path.name}: the manifest cannot be read ({error})."
        ) from error
    if digest != claimed:
        raise CorruptCheckpointError(f"{path.name}: {MANIFEST} was altered (its SHA-256 differs).")
    step, digests = manifest.get("step"), manifest.get("sha256")
    has_record = isinstance(manifest.get("record"), dict)
    if not (isinstance(step, int) and isinstance(digests, dict) and has_record):
        raise CorruptCheckpointError(f"{path.name}: {MANIFEST} is not that of a checkpoint.")
    manifest.setdefault("segments", {})  # earlier versions had none
    try:
        of_segments.from_json(manifest["segments"])
    except ValueError as error:
        raise CorruptCheckpointError(f"{path.name}: {MANIFEST}: {error}.") from error
    for name in digests:
        if not PART.fullmatch(name):
            raise CorruptCheckpointError(
                f"{path.name}: {MANIFEST} names {name!r}, which is no file of a checkpoint."
            )
    if path.name.startswith(PREFIX) and path.name != name_of(step):
        raise CorruptCheckpointError(
            f"{path.name}: {MANIFEST} is that of {name_of(step)}: it was renamed or exchanged."
        )
    return manifest


def _refuse_elsewhere(path: Path, name: str) -> None:
    """Refuses a checkpoint, or a file of it, that lies somewhere else."""
    for link in (path, path / name):
        if link.is_symlink():
            raise CorruptCheckpointError(f"{path.name}: {link.name} is a symbolic link.")


def load(
    path: Path, only: Collection[str] | None = None
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """(parts, record) of one checkpoint.

    Args:
        path: its folder.
        only: the parts to read; the files of others may be missing or damaged. By default all.

    Raises:
        CorruptCheckpointError: a file is missing or its SHA-256 differs; names the file.
    """
    parts, record, _ = _load(path, only)
    return parts, record


def _load(
    path: Path, only: Collection[str] | None, zeros: Zeros = np.zeros
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any], dict[str, Placed]]:
    """As `load`, and where the rows of the parts that grow come from."""
    manifest = read_manifest(path)
    for part in only or ():
        if f"{part}.safetensors" not in manifest["sha256"]:
            raise CorruptCheckpointError(f"{path.name}: it has no {part}.safetensors.")
    parts, placed = {}, {}
    segments = of_segments.from_json(manifest["segments"])
    for name, digest in manifest["sha256"].items():
        part = name.removesuffix(".safetensors")
        if only is not None and part not in only:
            continue
        _refuse_elsewhere(path, name)
        parts[part] = read_tensors(path / name, digest, f"{path.name}: {name}")
        if part in segments:
            parts[part], placed[part] = load_segments(parts[part], segments[part], path, zeros)
    return parts, manifest["record"], placed


class Found(NamedTuple):
    """A checkpoint of a run."""

    parts: dict[str, dict[str, np.ndarray]]
    record: dict[str, Any]
    problems: list[str]
    """What was wrong with newer checkpoints, one sentence each."""
    name: str
    placed: Mapping[str, Placed]
    """Where the rows of the parts that grow come from."""


def find_newest(
    folder: Path, only: Collection[str] | None = None, zeros: Zeros = np.zeros
) -> Found | None:
    """The newest intact checkpoint, or None if there never was one.

    Args:
        folder: where the run keeps its checkpoints.
        only: the parts to read, see `load`.
        zeros: makes the arrays of parts that grow.

    Raises:
        CorruptCheckpointError: there are checkpoints, and none is intact.
    """
    problems = []
    # left by a kill while a checkpoint of the same step was being replaced
    replaced = folder.glob(".old-*")
    for path in [*sorted(folder.glob(f"{PREFIX}*"), reverse=True), *replaced]:
        try:
            parts, record, placed = _load(path, only, zeros)
        except CorruptCheckpointError as error:
            problems.append(str(error))
        else:
            return Found(parts, record, problems, path.name, placed)
    if problems:
        raise CorruptCheckpointError("no intact checkpoint is left: " + " ".join(problems))
    return None


def load_newest(
    folder: Path,
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any], list[str]] | None:
    """(parts, record, problems) of the newest intact checkpoint, see `find_newest`.

    Raises:
        CorruptCheckpointError: there are checkpoints, and none is intact.
    """
    found = find_newest(folder)
    return None if found is None else (found.parts, found.record, found.problems)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
