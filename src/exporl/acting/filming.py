"""Films of evaluation episodes. Whoever plays does not notice: pictures are taken after each call
of an environment, and nothing that it gives is changed."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from exporl.envs.cameras import VARIABLE
from exporl.files.movies import MovieWriter, require_packages, write_strip
from exporl.randomness import env_seed

SLOWEST, FASTEST = 1.0, 120.0
"""Pictures per second."""
USUAL_FPS = 20.0
"""Pictures per second of environments that do not say how fast they are."""


@dataclasses.dataclass(frozen=True)
class Filmed:
    """A film and how its episode went."""

    who: str
    episode: int
    success: bool
    total: float
    """Undiscounted sum of the learning reward."""
    steps: int
    file: Path
    """The video."""
    strip: Path
    """A JPEG with some of its pictures side by side."""

    def to_json(self, folder: Path) -> dict[str, Any]:
        """As plain values; files as seen from a folder."""
        record = dataclasses.asdict(self) | {"return": self.total}
        del record["total"]
        return record | {
            "file": self.file.relative_to(folder).as_posix(),
            "strip": self.strip.relative_to(folder).as_posix(),
        }


class Film:
    """Films the first episodes of an evaluation: a video each, named after how the episode went,
    and a strip of pictures.

    As a context it removes what was not finished.
    """

    def __init__(self, folder: Path, who: str, episodes: int, fps: float | None = None):
        """Nothing is filmed yet.

        Args:
            folder: where the films will lie; made if need be.
            who: who plays; the beginning of the files' names.
            episodes: how many, from the first one.
            fps: pictures per second, one per step; by default as the environment says.

        Raises:
            ModuleNotFoundError: a package for videos is missing.
        """
        require_packages()
        self._folder, self._who, self._episodes, self._fps = Path(folder), who, episodes, fps
        self._movies: dict[int, MovieWriter] = {}
        self.films: list[Filmed] = []
        """Those that are finished, by episode."""

    def __enter__(self) -> "Film":
        """Nothing to begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """Removes what was not finished."""
        movies, self._movies = self._movies, {}
        for movie in movies.values():
            movie.discard()

    def around(self, envs: Sequence[gymnasium.Env], seed: int) -> list[gymnasium.Env]:
        """Environments that are filmed whenever they play one of the episodes; `finish` is called
        when all have been played.

        Args:
            envs: the environments of an evaluation.
            seed: that of its starts.
        """
        wanted = {env_seed(seed, episode): episode for episode in range(self._episodes)}
        return [_FilmedEnv(env, wanted, self._take) for env in envs]

    def _take(self, env: gymnasium.Env, episode: int) -> None:
        """A picture of an episode."""
        picture = take_picture(env)
        if episode not in self._movies:
            fps = self._fps or float(env.metadata.get("render_fps") or USUAL_FPS)
            fps = min(max(fps, SLOWEST), FASTEST)
            self._movies[episode] = MovieWriter(self._folder, fps)
        self._movies[episode].add(picture)

    def finish(self, success: list[bool], returns: list[float], lengths: list[int]) -> None:
        """Gives the films their names.

        Args:
            success: of all episodes of the evaluation.
            returns: of all episodes.
            lengths: of all episodes, steps.
        """
        for episode in sorted(self._movies):
            how = "success" if success[episode] else "failure"
            name = f"{self._who}-{episode:02d}_{how}_return{returns[episode]:+.2f}"
            file, strip = self._folder / f"{name}.mp4", self._folder / f"{name}.jpg"
            self._movies[episode].close(file)
            write_strip(file, strip)
            outcome = success[episode], returns[episode], lengths[episode]
            self.films.append(Filmed(self._who, episode, *outcome, file, strip))
        self._movies = {}


class _FilmedEnv(gymnasium.Wrapper):
    """An environment whose pictures are taken while it plays an episode that is filmed."""

    def __init__(
        self,
        env: gymnasium.Env,
        wanted: dict[int, int],
        take: Callable[[gymnasium.Env, int], None],
    ):
        super().__init__(env)
        self._wanted, self._take = wanted, take
        self._episode: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode."""
        answer = self.env.reset(seed=seed, options=options)
        self._episode = None if seed is None else self._wanted.get(seed)
        self._look()
        return answer

    def step(self, action: np.ndarray):
        """One step."""
        answer = self.env.step(action)
        self._look()
        return answer

    def _look(self) -> None:
        if self._episode is not None:
            self._take(self.env, self._episode)


def take_picture(env: gymnasium.Env) -> np.ndarray:
    """What an environment shows, uint8 [height, width, 3].

    Raises:
        ValueError: it shows no pictures, or something that is none; says what to do.
    """
    if env.render_mode != "rgb_array":
        raise ValueError(
            f"{_name(env)} shows no pictures: its render_mode is {env.render_mode!r}. An "
            "environment that is filmed is made with render_mode='rgb_array', and its render() "
            "returns a picture, uint8 [height, width, 3]. Without --video it is evaluated as ever."
        )
    picture: Any = env.render()
    is_picture = isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.shape[2] == 3
    if not is_picture or picture.dtype != np.uint8 or min(picture.shape[:2]) < 2:
        found = (
            f"{picture.dtype} of shape {picture.shape}"
            if isinstance(picture, np.ndarray)
            else type(picture).__name__
        )
        raise ValueError(
            f"render() of {_name(env)} gave {found}, which is no picture. Return uint8 "
            "[height, width, 3]."
        )
    return picture


def check_can_film(make_env: Callable[[], gymnasium.Env]) -> None:
    """Whether environments can be filmed here: one is made, started and looked at, and closed.

    Raises:
        ValueError: they cannot; says what to do.
        ModuleNotFoundError: a package for videos is missing.
    """
    require_packages()
    try:
        env = make_env()
    except Exception as error:
        if VARIABLE in os.environ:  # where it names what is missing, MuJoCo cannot be imported
            error.add_note(
                f"{VARIABLE} is {os.environ[VARIABLE]!r}: is what it names installed? egl needs "
                "libegl1 libgl1-mesa-dri (Debian), osmesa needs libosmesa6."
            )
        raise
    try:
        env.reset(seed=0)
        take_picture(env)
    finally:
        env.close()


def _name(env: gymnasium.Env) -> str:
    return type(env.unwrapped).__name__
