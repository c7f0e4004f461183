"""A bundle: one folder of plain files with a manifest of their SHA-256, written whole or not at
all, and compared with its manifest before anything in it is used."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from exporl.files.atomic import refuse_link, write_bytes
from exporl.files.reading import parsed
from exporl.files.run_files import CONFIG, POLICY, STATISTICS

MANIFEST = "manifest.json"
MODEL = "model.safetensors"
"""The parameters that act."""
ONNX = "policy.onnx"
"""The same policy for onnxruntime."""
CARD = "README.md"
"""The model card."""
TRAINING = "train_config.json"
"""The configuration of the run, for people."""
WEIGHTS = "weights.safetensors"
"""What a base policy from outside learnt, by its own names."""
PROGRAMS = ("policy.pt", "policy.pt2")
"""The file that such a policy came from, with these weights."""
FILES = (CONFIG, POLICY, STATISTICS, MODEL, ONNX, CARD, TRAINING)
"""All that a bundle may hold beside its manifest."""
BASE_FILES = (CONFIG, POLICY, WEIGHTS, *PROGRAMS, CARD, TRAINING)
"""The same of one with a base policy for its own framework."""
KNOWN = {*FILES, *BASE_FILES}
KIND, VERSION = "exporl-bundle", 1
BASE_KIND = "exporl-base"
"""Kind of a bundle with a base policy from outside, which its own framework loads."""
ENTRIES = ("kind", "version", "files")
"""Of a manifest, beside the digest of itself."""
LARGEST_MANIFEST = 2**16
"""Bytes; those that are written have less than 2,000."""
NEEDED = {KIND: (CONFIG, POLICY, MODEL), BASE_KIND: (CONFIG, POLICY, WEIGHTS)}
"""Kind -> the files without which a bundle is none."""
OF_HUBS = (".git", ".gitattributes", ".cache")
"""What downloading adds beside the files; nothing in it is read."""
CHUNK = 2**20


class DamagedBundleError(ValueError):
    """A bundle whose files are not those of its manifest."""


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle, intact or not, rather than a run directory."""
    folder = Path(folder)
    names = (MANIFEST, MODEL)
    return any((folder / name).is_file() or (folder / name).is_symlink() for name in names)


def write_bundle(
    folder: Path, contents: Mapping[str, bytes], *, replace: bool = False, kind: str = KIND
) -> None:
    """Writes a bundle: whenever the writing process is killed, the folder is whole or not there.

    A bundle that is replaced steps aside first. Killed between the two renames, it is lost under
    its name, and lies whole beside it under a hidden one, which ends in ".before".

    Args:
        folder: where; its parent folder is made.
        contents: name of a file -> content; names are of `FILES`, or of `BASE_FILES`.
        replace: whether a bundle that is there already is replaced. Nothing else ever is.
        kind: `KIND` or `BASE_KIND`.

    Raises:
        ValueError: there is something already.
        OSError: it cannot be written; names the file.
    """
    folder = Path(folder).absolute()
    check_target(folder, replace=replace)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = f".{folder.name}-{uuid.uuid4().hex}"
    temporary, before = folder.with_name(beside), folder.with_name(f"{beside}.before")
    try:
        temporary.mkdir()
        for name, content in contents.items():
            write_bytes(temporary / name, content)
        write_bytes(temporary / MANIFEST, _manifest(contents, kind))
        _sync(temporary)
        if folder.exists():
            folder.rename(before)
        try:
            temporary.rename(folder)
        except OSError:
            if before.exists():
                before.rename(folder)
            raise
        _sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if folder.exists():  # else it is all that there is
            shutil.rmtree(before, ignore_errors=True)


def check_target(folder: Path, *, replace: bool) -> None:
    """Whether a bundle may be written to a folder.

    Raises:
        ValueError: something is there that is not to be replaced; says what.
    """
    folder = Path(folder)
    refuse_link(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder that does not exist yet.")
    found = sorted(path.name for path in folder.iterdir())
    others = [name for name in found if name not in (*KNOWN, MANIFEST)]
    if found and (others or not _has_manifest(folder)):
        raise ValueError(
            f"{folder} exists and is no bundle (it has {(others or found)[0]!r}): it is left as it "
            "is. Name a folder that does not exist yet."
        )
    if found and not replace:
        raise ValueError(f"{folder} is a bundle already. Name another folder, or add --overwrite.")


def check_bundle(folder: Path, kinds: Collection[str] = (KIND,)) -> dict[str, Any]:
    """Compares every file of a bundle of one of some kinds with its manifest; the manifest.

    Raises:
        ValueError: it is of the other kind.
        DamagedBundleError: a file is damaged, missing, exchanged, of another size or not of the
            bundle, or the manifest is; names each.
    """
    folder = Path(folder)
    if folder.is_symlink():
        raise DamagedBundleError(f"{folder} is a symbolic link: name the folder itself.")
    manifest = _read_manifest(folder)
    if manifest["kind"] not in kinds:
        raise ValueError(
            f"{folder} holds a base policy for its own framework, which exporl does not load by "
            f"itself: {CARD} in it says how to."
        )
    files = manifest["files"]
    present = sorted(path.name for path in folder.iterdir())
    problems = [
        f"{name} is not in its manifest: nothing was written under that name."
        for name in present
        if name not in files and name not in (MANIFEST, *OF_HUBS)
    ]
    for name in sorted({*files, *NEEDED[manifest["kind"]]}):
        found = _fault(folder, name, files)
        problems += [] if found is None else [found]
    if problems:
        raise DamagedBundleError(
            f"{folder} is not as it was written: {' '.join(problems)} Copy or download it again."
        )
    return manifest


def _has_manifest(folder: Path) -> bool:
    try:
        return bool(_read_manifest(folder))
    except DamagedBundleError:
        return False


def load_parameters(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of a bundle that was checked.

    Raises:
        DamagedBundleError: its file is no safetensors file.
    """
    path = Path(folder) / MODEL
    try:
        return load_tensors(path.read_bytes())
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DamagedBundleError(f"{path} is not a safetensors file ({error}).") from error


def _manifest(contents: Mapping[str, bytes], kind: str) -> bytes:
    files = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in contents.items()
    }
    manifest = {"kind": kind, "version": VERSION, "files": files}
    return json.dumps({**manifest, "self": _digest(manifest)}, indent=1).encode()


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        mode, size = path.lstat().st_mode, path.lstat().st_size
        if not stat.S_ISREG(mode):
            raise ValueError("it is not a file itself")
        if size > LARGEST_MANIFEST:
            raise ValueError(f"it has {size} bytes, at most {LARGEST_MANIFEST} are read")
        manifest = parsed(path.read_bytes(), MANIFEST)
        claimed = manifest.pop("self", None)
        if _digest(manifest) != claimed:
            raise ValueError("it was altered: its SHA-256 differs")
        _check_manifest(manifest)
    except FileNotFoundError as error:
        raise DamagedBundleError(
            f"{folder} is a bundle without {MANIFEST}: nothing in it can be checked. Copy or "
            "download it again."
        ) from error
    except (OSError, ValueError) as error:
        said = str(error).rstrip(".")
        raise DamagedBundleError(
            f"{path} is of no use: {said}. Copy or download the bundle again."
        ) from error
    return manifest


def _check_manifest(manifest: Mapping[str, Any]) -> None:
    """Raises ValueError where it is not what this version writes."""
    known = manifest.get("kind") in (KIND, BASE_KIND)
    if not known or manifest.get("version") != VERSION:
        kind, version = manifest.get("kind"), manifest.get("version")
        raise ValueError(f"it is that of {kind!r}, version {version!r}, not {KIND!r}, {VERSION}")
    for name in manifest:
        if name not in ENTRIES:
            raise ValueError(f"it has the entry {name!r}, which no manifest has")
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise ValueError("it names no files")
    for name, entry in files.items():
        sha256 = entry.get("sha256") if isinstance(entry, dict) else None
        size = entry.get("bytes") if isinstance(entry, dict) else None
        digest = isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256)
        if name not in KNOWN or not digest or type(size) is not int:
            raise ValueError(f"it names {name!r}, which is no file of a bundle")
        if len(entry) > 2:
            raise ValueError(f"it says more of {name!r} than its bytes and its SHA-256")


def _fault(folder: Path, name: str, files: Mapping[str, Any]) -> str | None:
    """What is wrong with one file: a sentence, or None."""
    path = folder / name
    if name not in files:
        return f"{name} is missing from its manifest, and no policy acts without it."
    try:
        found = path.lstat()
    except OSError:
        return f"{name} is missing."
    if not stat.S_ISREG(found.st_mode):
        return f"{name} is a link or a folder, not a file itself."
    wanted = files[name]
    if found.st_size != wanted["bytes"]:
        return f"{name} has {found.st_size} bytes, its manifest says {wanted['bytes']}."
    sha256 = _sha256(path)
    if sha256 == wanted["sha256"]:
        return None
    for other, entry in files.items():
        if entry["sha256"] == sha256:
            return f"{name} holds what {other} should hold: they were exchanged."
    return f"{name} was altered: its SHA-256 differs."


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system opens folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
