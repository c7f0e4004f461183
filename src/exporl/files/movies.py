"""MP4 files of pictures, written one by one, and what shows such a file at a glance."""

import contextlib
import importlib.util
import io
import uuid
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from exporl.files.atomic import replace_bytes
from exporl.files.naming import make_folder_of

PACKAGES = {"av": "av", "PIL": "pillow"}
"""Modules that films need -> packages that have them."""
STRIP_PICTURES = 8
"""Pictures of a strip, at most."""
STRIP_WIDTH = 1060
"""Pixels of a strip from left to right, at most, where that is room for two pictures."""
STRIP_HEIGHT = 96
"""Pixels of a strip from top to bottom."""
_GAP = 2
_JPEG_QUALITY = 70


def require_packages() -> None:
    """Whether films can be written here.

    Raises:
        ModuleNotFoundError: a package is missing; names the command that installs it.
    """
    missing = [name for module, name in PACKAGES.items() if not importlib.util.find_spec(module)]
    if missing:
        raise ModuleNotFoundError(
            f"videos need the packages {' and '.join(PACKAGES.values())}; {' and '.join(missing)} "
            "cannot be found. Install them with: pip install 'exporl[video]'"
        )


class FilmNotWritten(OSError):
    """A film cannot be written on; says where, why, and what to do."""


@contextlib.contextmanager
def _writing_into(folder: Path) -> Iterator[None]:
    """While it lasts, an error of writing is one of the film."""
    try:
        yield
    except OSError as error:
        raise FilmNotWritten(
            f"a film cannot be written into {folder}: {error.strerror or error}. Make room there, "
            "or choose another folder for films."
        ) from error


class MovieWriter:
    """An MP4 file (H.264) that pictures are appended to.

    It has its name only once `close` has given it one: what was cut off leaves no file behind.
    """

    def __init__(self, folder: Path, fps: float):
        """Begins a file.

        Args:
            folder: where it will lie; made with its first picture.
            fps: pictures per second.
        """
        self._path = folder / f".{uuid.uuid4().hex}.mp4"
        self._fps = Fraction(fps).limit_denominator(1000)
        self._container: Any = None
        self._stream: Any = None
        self._shape: tuple[int, ...] = ()

    def add(self, picture: np.ndarray) -> None:
        """Appends a picture, uint8 [height, width, 3]; an odd last row or column is left out.

        Raises:
            ValueError: another size than the picture before.
            FilmNotWritten: a disk that is full, for example.
        """
        import av

        if not self._shape:
            with _writing_into(self._path.parent):
                self._begin(picture.shape)
        if picture.shape != self._shape:
            raise ValueError(
                f"a picture of shape {picture.shape} after pictures of shape {self._shape}: a film"
                " has one size. Let render() return pictures of the same size."
            )
        even = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        with _writing_into(self._path.parent):
            self._container.mux(self._stream.encode(frame))

    def close(self, path: Path) -> None:
        """Ends the file, which is `path` from now on and replaces what was there.

        Raises:
            FilmNotWritten: a disk that is full, for example.
        """
        with _writing_into(path.parent):
            self._end()
            self._path.replace(path)

    def discard(self) -> None:
        """Removes what was written, where it was not closed."""
        if self._shape:
            with contextlib.suppress(OSError):  # the disk may be full
                self._end()
            self._path.unlink(missing_ok=True)

    def _begin(self, shape: tuple[int, ...]) -> None:
        import av

        make_folder_of(self._path)
        self._shape = shape
        self._container = av.open(str(self._path), "w", container_options={"movflags": "faststart"})
        self._stream = self._container.add_stream("h264", rate=self._fps)
        self._stream.height, self._stream.width = shape[0] // 2 * 2, shape[1] // 2 * 2
        self._stream.pix_fmt = "yuv420p"

    def _end(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            try:
                container.mux(self._stream.encode(None))
            finally:
                container.close()


def read_movie(path: Path) -> np.ndarray:
    """All pictures of a video, uint8 [n, height, width, 3]."""
    import av

    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames)


def write_strip(movie: Path, path: Path) -> None:
    """Writes a JPEG of some pictures of a video side by side: the first, the last, and others
    evenly spaced between."""
    from PIL import Image

    pictures = read_movie(movie)
    width = max(1, round(pictures.shape[2] * STRIP_HEIGHT / pictures.shape[1]))
    room = max(2, STRIP_WIDTH // (width + _GAP))
    count = min(STRIP_PICTURES, room, len(pictures))
    chosen = pictures[np.linspace(0, len(pictures) - 1, count).round().astype(int)]
    strip = Image.new("RGB", (count * (width + _GAP) - _GAP, STRIP_HEIGHT), "white")
    for place, picture in enumerate(chosen):
        small = Image.fromarray(picture).resize((width, STRIP_HEIGHT), Image.Resampling.LANCZOS)
        strip.paste(small, (place * (width + _GAP), 0))
    content = io.BytesIO()
    strip.save(content, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    replace_bytes(path, content.getvalue())
