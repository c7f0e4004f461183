"""`exporl eval --video`: films of evaluation episodes."""

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gymnasium

from exporl.acting.filming import Film, Filmed, check_can_film
from exporl.cli.numbers import number
from exporl.cli.parsing import Parser
from exporl.cli.status import say
from exporl.envs.cameras import draw_without_screen
from exporl.files.atomic import refuse_link, write_text
from exporl.files.movies import require_packages
from exporl.files.run_files import FILMS
from exporl.options import MOST_EPISODES

USUAL = 4
"""Episodes that are filmed where nobody says how many."""


def add_film_options(parser: Parser) -> None:
    """`--video` and `--video-dir`."""
    parser.add_argument(
        "--video",
        type=number(1, MOST_EPISODES),
        nargs="?",
        const=USUAL,
        metavar="N",
        help=f"film the first N episodes (default {USUAL}) of the policy and of its base policy: "
        "an MP4 each, named after how the episode went",
    )
    parser.add_argument(
        "--video-dir",
        type=Path,
        metavar="DIR",
        help="where the films go (default: RUN/videos, whose films the report shows)",
    )


@dataclasses.dataclass
class Filming:
    """The films of one evaluation."""

    folder: Path
    """Where they go."""
    name: str
    """The folder in it for this evaluation."""
    episodes: int
    fps: float | None
    films: list[Filmed] = dataclasses.field(default_factory=list)

    @contextmanager
    def of(self, who: str) -> Iterator[Film]:
        """What films who plays; afterwards its films are among `films`."""
        for path in (self.folder, self.folder / self.name):
            refuse_link(path)
        with Film(self.folder / self.name, who, self.episodes, self.fps) as film:
            yield film
            self.films += film.films

    def finish(self, record: Mapping[str, Any]) -> None:
        """Writes down what there is, and says it.

        Args:
            record: what was evaluated.
        """
        films = [film.to_json(self.folder) for film in self.films]
        content = {**record, "films": films}
        write_text(self.folder / FILMS, json.dumps(content, indent=1, allow_nan=False) + "\n")
        count = len(films)
        say(f"{count} film{'s' if count > 1 else ''} in {self.folder / self.name}:")
        for film in self.films:
            say(f"  {film.file.name}")


def can_film(options: Any) -> None:
    """Whether films are asked for as they can be, before anything is loaded.

    Raises:
        ValueError: a folder for films, and none are asked for.
        ModuleNotFoundError: a package for videos is missing.
    """
    if options.video is None:
        if options.video_dir is not None:
            raise ValueError(
                f"--video-dir {options.video_dir} says where films go, and none are made: add "
                "--video."
            )
        return
    require_packages()
    draw_without_screen()


def filming(
    folder: Path,
    name: str,
    episodes: int | None,
    fps: float | None,
    make_env: Callable[[], gymnasium.Env],
) -> Filming | None:
    """The films of an evaluation that begins; None where none are asked for.

    Args:
        folder: where films go.
        name: the folder in it for this evaluation.
        episodes: how many are filmed; None: none.
        fps: pictures per second, one per step; None: as the environment says.
        make_env: makes an environment.

    Raises:
        ValueError: nothing can be written there, or environments show no pictures here; says what
            to do.
    """
    if episodes is None:
        return None
    _check_place(folder, name)
    check_can_film(make_env)
    return Filming(folder, name, episodes, fps)


def _check_place(folder: Path, name: str) -> None:
    """Whether films can be written into a folder; nothing is left there.

    Raises:
        ValueError: they cannot; says why.
    """
    place = folder / name
    for path in (folder, place):
        refuse_link(path)
    made = [each for each in (place, *place.parents) if not each.is_dir()]
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ValueError(
            f"cannot write films into {folder}: {error.strerror}. Choose another --video-dir."
        ) from error
    finally:
        for each in made:
            with suppress(OSError):  # it could not be made
                each.rmdir()


def folder_of(run: Path, asked: Path, video_dir: Path | None, usual: Path) -> Path:
    """Where the films of a run go.

    Args:
        run: its directory.
        asked: the folder that was asked for: the run itself, or one with several runs in it.
        video_dir: what `--video-dir` says.
        usual: where they go without it.
    """
    if video_dir is None:
        return usual
    return video_dir if run == asked else video_dir / run.relative_to(asked)
