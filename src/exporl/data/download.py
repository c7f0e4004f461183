"""Published data sets, fetched on request: mirrors in order, SHA-256, resumption, a record of what
was received.

Nothing else in the library uses the network. No publisher of these files states a SHA-256, so the
first download records it in a lock file beside the data, and every later one must agree with it.
"""

import dataclasses
import hashlib
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from exporl.suggest import closest

LOCK = "downloads.lock.json"
TIMEOUT_S = 30.0
_BLOCK = 1 << 20
_D4RL = "https://rail.eecs.berkeley.edu/datasets/offline_rl"
_ANT = _D4RL + "/ant_maze_v2/Ant_maze_{}_noisy_multistart_{}_sparse_fixed.hdf5"
_OGBENCH = "https://rail.eecs.berkeley.edu/datasets/ogbench"
_STANFORD = "http://downloads.cs.stanford.edu/downloads/rt_benchmark"
_ROBOMIMIC = "https://huggingface.co/datasets/robomimic/robomimic_datasets/resolve/main/v1.5"
_MINARI = "https://huggingface.co/datasets/farama-minari/D4RL/resolve/main"


@dataclasses.dataclass(frozen=True)
class Source:
    """One file of a published data set."""

    path: str
    """Where it goes below the data folder, and where a mirror has it."""
    urls: tuple[str, ...]
    """Where it is published, tried in order."""
    sha256: str | None = None
    """Known digest; None where nobody states one."""


def _table() -> dict[str, tuple[Source, ...]]:
    table: dict[str, tuple[Source, ...]] = {}
    for kind, tasks in (
        ("ph", ("lift", "can", "square", "tool_hang", "transport")),
        ("mh", ("lift", "can", "square")),
    ):
        for task in tasks:
            for version, root in (("v141", _STANFORD), ("v15", _ROBOMIMIC)):
                path = f"{task}/{kind}/low_dim_{version}.hdf5"
                table[f"robomimic/{task}-{kind}-{version}"] = (
                    Source(f"robomimic/{path}", (f"{root}/{path}",)),
                )
    for task in ("pen", "door", "hammer", "relocate"):
        for kind in ("human", "cloned", "expert"):
            file = f"{task}-{kind}-v1.hdf5"
            table[f"d4rl/{task}-{kind}-v1"] = (
                Source(f"d4rl/{file}", (f"{_D4RL}/hand_dapg_v1/{file}",)),
            )
            folder = f"{task}/{kind}-v2/data"
            table[f"minari/D4RL/{task}/{kind}-v2"] = tuple(
                Source(f"minari/D4RL/{folder}/{name}", (f"{_MINARI}/{folder}/{name}",))
                for name in ("metadata.json", "main_data.hdf5")
            )
    for maze, name in (("umaze", "u-maze"), ("medium", "big-maze"), ("large", "hardest-maze")):
        for kind, goals in (("play", "True_multigoal_False"), ("diverse", "True_multigoal_True")):
            goals = "False_multigoal_False" if (maze, kind) == ("umaze", "play") else goals
            full = (
                "antmaze-umaze-v2"
                if (maze, kind) == ("umaze", "play")
                else f"antmaze-{maze}-{kind}-v2"
            )
            table[f"d4rl/{full}"] = (Source(f"d4rl/{full}.hdf5", (_ANT.format(name, goals),)),)
    names = [
        f"{kind}maze-{size}-navigate-v0"
        for kind in ("point", "ant")
        for size in ("medium", "large", "giant")
    ]
    names += [
        f"{task}-play-v0"
        for task in ("cube-single", "cube-double", "scene", "puzzle-3x3", "puzzle-4x4")
    ]
    for name in names:
        table[f"ogbench/{name}"] = tuple(
            Source(f"ogbench/{file}", (f"{_OGBENCH}/{file}",))
            for file in (f"{name}.npz", f"{name}-val.npz")
        )
    return table


DATASETS = _table()
"""Name -> files. Names of d4rl, ogbench and minari sets are those of their publishers."""


class DownloadError(OSError):
    """No mirror gave the file; says what each answered and where to put the file by hand."""


def find_dataset(name: str) -> tuple[Source, ...]:
    """The files of a data set.

    Raises:
        ValueError: unknown name; names the closest.
    """
    if name not in DATASETS:
        rest = f"`exporl data download --list` shows all {len(DATASETS)}."
        raise ValueError(f"unknown data set {name!r}. {closest(name, DATASETS, rest)}")
    return DATASETS[name]


def fetch(
    source: Source,
    folder: Path,
    *,
    mirrors: Sequence[str] = (),
    offline: bool = False,
    say: Callable[[str], None] = lambda line: None,
    advance: Callable[[int, int], None] = lambda received, total: None,
) -> Path:
    """One file, complete and checked, in `folder`; at once if it is there already.

    Args:
        source: which file.
        folder: data folder; the lock file is in it.
        mirrors: URLs (http, https, file) or local folders that have the file under `source.path` or
            by its bare name; tried before the published URLs.
        offline: use local folders and file:// URLs only.
        say: receives one line per event.
        advance: called with bytes received and total (0 if unknown) as they come.

    Raises:
        DownloadError: no mirror gave it.
        ValueError: the file that is there does not have the expected SHA-256.
    """
    target = folder / source.path
    expected = source.sha256 or _read_lock(folder / LOCK).get(source.path, {}).get("sha256")
    if target.is_file():
        _keep_what_is_there(source, folder, expected, say)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part, answers = target.with_name(target.name + ".part"), []
    for place in [*_places(source, mirrors), *source.urls]:
        if offline and not place.startswith("file:"):
            answers.append(f"{place}: not tried, --offline")
            continue
        try:
            _receive(place, part, say, advance)
            found = _checked_digest(part, expected)
        except (OSError, http.client.HTTPException) as error:
            answers.append(f"{place}: {error}")
            say(answers[-1])
            continue
        os.replace(part, target)
        _record(folder, source, found, place)
        known = "checked" if expected else f"no published value: recorded in {folder / LOCK}"
        say(f"{target}: {target.stat().st_size:,} bytes, SHA-256 {found} ({known})")
        return target
    lines = "\n  ".join(answers)
    raise DownloadError(
        f"could not get {source.path}:\n  {lines}\nFetch {source.urls[0]} by hand and put it at "
        f"{target}, or name a folder or URL that has it with --mirror."
    )


def _keep_what_is_there(
    source: Source, folder: Path, expected: str | None, say: Callable[[str], None]
) -> None:
    target = folder / source.path
    found = digest(target)
    if expected is None:
        say(f"{target} is there already; its SHA-256 was not known and is recorded now")
        _record(folder, source, found, "found in place")
    elif found == expected:
        say(f"{target} is there already")
    else:
        raise ValueError(
            f"{target} has SHA-256 {found}, expected {expected}. Remove it and download it again."
        )


def _checked_digest(part: Path, expected: str | None) -> str:
    """The SHA-256 of what was received; it is removed if another one was expected."""
    found = digest(part)
    if expected is not None and found != expected:
        part.unlink()
        raise OSError(f"SHA-256 is {found}, expected {expected}")
    return found


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _places(source: Source, mirrors: Sequence[str]) -> list[str]:
    result = []
    for mirror in mirrors:
        root = mirror if "://" in mirror else Path(mirror).resolve().as_uri()
        result += [
            f"{root.rstrip('/')}/{name}" for name in (source.path, source.path.rsplit("/", 1)[1])
        ]
    return result


def _receive(
    place: str, part: Path, say: Callable[[str], None], advance: Callable[[int, int], None]
) -> None:
    """Appends what is missing to `part`; starts again where the server cannot continue."""
    local = place.startswith("file:")
    have = part.stat().st_size if part.is_file() and not local else 0
    request = urllib.request.Request(place, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response: Any = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        # nothing is missing, or the part is of something else: from the beginning
        if error.code == 416 and have:
            part.unlink()
            return _receive(place, part, say, advance)
        raise OSError(f"HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise OSError(str(error.reason)) from error
    with response:
        resumed = have > 0 and response.status == 206
        if resumed:
            say(f"going on after {have:,} bytes")
        length = int(response.headers.get("Content-Length") or 0)
        start = have if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            _copy(
                response, file, lambda done: advance(start + done, start + length if length else 0)
            )
        received = part.stat().st_size - start
    if length and received < length:
        raise OSError(
            f"the connection ended after {start + received:,} of {start + length:,} bytes; run it "
            "again to go on"
        )


def _copy(source: Any, target: Any, advance: Callable[[int], None]) -> None:
    """Copies a stream in blocks, saying after each how many bytes were copied; a dropped connection
    ends it."""
    done = 0
    while True:
        try:
            block = source.read(_BLOCK)
        except http.client.IncompleteRead as error:
            target.write(error.partial)
            return
        if not block:
            return
        target.write(block)
        done += len(block)
        advance(done)


def _read_lock(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}). Remove it; digests are then recorded anew."
        ) from error


def _record(folder: Path, source: Source, sha256: str, place: str) -> None:
    lock = _read_lock(folder / LOCK)
    lock[source.path] = {
        "sha256": sha256,
        "bytes": (folder / source.path).stat().st_size,
        "from": place,
    }
    new = folder / f".{LOCK}.new"
    new.write_text(json.dumps(lock, indent=1, sort_keys=True))
    os.replace(new, folder / LOCK)
