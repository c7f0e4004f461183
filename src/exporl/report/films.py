"""Films of a run's evaluation: strips of pictures with how their episodes went."""

import base64
import dataclasses
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from exporl.files.reading import read_object
from exporl.files.run_files import FILMS, VIDEOS
from exporl.report.markup import text

MOST_SHOWN = 1_400_000
"""Characters of a page that are strips, of all its runs together."""
LARGEST_STRIP = 200_000
"""Bytes: those that this library writes have a tenth of it."""
JPEG = b"\xff\xd8\xff"
"""How a JPEG file begins."""
FIELDS: dict[str, tuple[type, ...]] = {
    "who": (str,),
    "episode": (int,),
    "success": (bool,),
    "return": (int, float),
    "steps": (int,),
    "file": (str,),
    "strip": (str,),
}
"""What is known of a film."""


@dataclasses.dataclass(frozen=True)
class Strip:
    """Pictures of an episode, and how it went."""

    who: str
    episode: int
    success: bool
    total: float
    """Undiscounted sum of the learning reward."""
    steps: int
    file: str
    """The film, as seen from the folder of films."""
    picture: str
    """A JPEG in base64."""


@dataclasses.dataclass(frozen=True)
class Films:
    """The films of the last evaluation of a run that was filmed."""

    strips: tuple[Strip, ...] = ()
    checkpoint: str = ""
    """Which parameters played."""


def read_films(run_dir: Path) -> tuple[Films, list[str]]:
    """The films of a run, and what is wrong with them: a sentence each. Runs that were not filmed
    have none."""
    folder = run_dir / VIDEOS
    path = folder / FILMS
    if not path.is_file():
        return Films(), []
    try:
        _refuse_links(folder, PurePosixPath(FILMS))
        record = read_object(path)
    except ValueError as error:
        return Films(), [str(error)]
    found, strips, problems = record.get("films"), [], []
    for number, film in enumerate(found if isinstance(found, list) else ()):
        try:
            strips.append(_strip(folder, film))
        except ValueError as error:
            problems.append(f"{path}, film {number}: {error} It is left out.")
    order = sorted(strips, key=lambda strip: (strip.episode, strip.who == "base"))
    return Films(tuple(order), str(record.get("checkpoint", ""))), problems


def _strip(folder: Path, film: Any) -> Strip:
    """One film of those that a file lists.

    Raises:
        ValueError: it is damaged, or its pictures are not in the folder.
    """
    for name, kinds in FIELDS.items():
        value = film.get(name) if isinstance(film, dict) else None
        if type(value) not in kinds:
            raise ValueError(f"{name} is {value!r}, not a {kinds[-1].__name__}.")
    place = PurePosixPath(film["strip"])
    if place.is_absolute() or ".." in place.parts:
        raise ValueError(f"its strip {film['strip']!r} lies outside {folder}.")
    _refuse_links(folder, place)
    path = folder / place
    try:
        is_small = path.is_file() and path.stat().st_size <= LARGEST_STRIP
        content = path.read_bytes() if is_small else b""
    except (OSError, ValueError) as error:
        raise ValueError(f"its strip {film['strip']!r} cannot be read.") from error
    if not content.startswith(JPEG):
        raise ValueError(f"its strip {path} is no JPEG of at most {LARGEST_STRIP} bytes.")
    picture = base64.b64encode(content).decode()
    how = film["who"], film["episode"], film["success"], float(film["return"]), film["steps"]
    return Strip(*how, film["file"], picture)


def _refuse_links(folder: Path, place: PurePosixPath) -> None:
    """Whether a file lies in a folder itself.

    Raises:
        ValueError: it, or a folder on the way to it, is a link.
    """
    for inner in (folder, *(folder / each for each in (place, *place.parents))):
        if inner.is_symlink():
            raise ValueError(f"{inner} is a symbolic link, which is not followed.")


def how_many_fit(films: Sequence[Films]) -> list[int]:
    """How many strips of each run a page has room for: one of every run, then a second one, ..."""
    counts, room = [0] * len(films), MOST_SHOWN
    for turn in range(max((len(each.strips) for each in films), default=0)):
        for number, each in enumerate(films):
            if counts[number] == turn < len(each.strips):
                size = len(each.strips[turn].picture)
                counts[number] += size <= room
                room -= size if size <= room else 0
    return counts


def films_section(runs: Sequence[tuple[str, Films, int]]) -> str:
    """Strips of the films of runs, as HTML; nothing where none was filmed.

    Args:
        runs: names of runs, their films, and how many of these are shown.
    """
    parts = [_of_run(*run) for run in runs if run[1].strips]
    if not parts:
        return ""
    return (
        "<h2>Films</h2><p class='muted'>Pictures of evaluation episodes, evenly spaced from the "
        f"first to the last. The films themselves are in the folder {VIDEOS} of the run.</p>"
        + "".join(parts)
    )


def _of_run(name: str, films: Films, count: int) -> str:
    shown = "".join(_figure(strip) for strip in films.strips[:count])
    left = len(films.strips) - count
    rest = f"<p class='muted'>{left} more in its folder.</p>" if left else ""
    return f"<h3>{text(name)}, {text(films.checkpoint)}</h3>{shown}{rest}"


def _figure(strip: Strip) -> str:
    how = f"success after {strip.steps}" if strip.success else f"no success in {strip.steps}"
    words = f"episode {strip.episode}, {how} steps, return {strip.total:.2f}"
    return (
        f"<figure class='film'><figcaption><b>{text(strip.who)}</b>, {words} "
        f"<span class='muted'>{text(strip.file)}</span></figcaption><div class='wide'>"
        f"<img alt='Pictures of {text(strip.who)}, {words}' "
        f"src='data:image/jpeg;base64,{strip.picture}'></div></figure>"
    )
