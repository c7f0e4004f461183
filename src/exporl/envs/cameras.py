"""Pictures of MuJoCo simulations, on machines without a screen too."""

import ctypes.util
import dataclasses
import os
import sys
import warnings
from typing import Any

import numpy as np

HEIGHT, WIDTH = 240, 320
"""Of a picture, pixels."""
METADATA = {"render_modes": ["rgb_array"]}
"""What gymnasium wants to know of an environment that shows pictures."""
VARIABLE = "MUJOCO_GL"
"""The environment variable by which MuJoCo and all that is built on it choose what draws."""
LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
"""What draws without a screen -> the library that it needs, best first."""


class CannotDraw(ValueError):
    """Nothing here draws; says what to do."""


def draw_without_screen() -> None:
    """Lets MuJoCo and pygame draw without a screen where there is none and nobody has chosen
    otherwise.

    It has an effect on MuJoCo only before it is imported: it looks at its variable once.
    """
    has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if has_screen or not sys.platform.startswith("linux"):
        return
    os.environ.setdefault("SDL_VIDEODRIVER", "offscreen")
    if VARIABLE in os.environ:
        return
    for name, library in LIBRARIES.items():
        if ctypes.util.find_library(library) is not None:
            os.environ[VARIABLE] = name
            return


@dataclasses.dataclass(frozen=True)
class View:
    """Where a camera stands, by what it looks at."""

    azimuth: float
    """Direction in which it looks, degrees; 90 is along y."""
    elevation: float
    """Degrees; -90 is straight down."""
    distance: float
    """From what it looks at, metres; for the model's centre, in the model's extents."""
    lookat: tuple[float, float, float] | None = None
    """What it looks at, metres; None: the model's centre."""


FROM_ABOVE = View(azimuth=90.0, elevation=-90.0, distance=1.0)
"""For mazes."""


class MujocoCamera:
    """Looks at a MuJoCo simulation, without shadows, which take most of the time on a CPU.

    Nothing that the simulation computes with is changed. What draws is made with the first picture.
    """

    def __init__(self, view: str | View):
        """Nothing is made yet.

        Args:
            view: where it stands, or the name of a camera of the model.
        """
        self._view = view
        self._renderer: Any = None
        self._placed: Any = None

    def picture(self, model: Any, data: Any) -> np.ndarray:
        """A picture, uint8 [240, 320, 3].

        Args:
            model: a `mujoco.MjModel`; where it is another one than before, what draws is made anew.
            data: its `mujoco.MjData`.

        Raises:
            CannotDraw: what draws cannot be made.
        """
        import mujoco as package

        mujoco: Any = package  # its compiled part has no types
        if self._renderer is None or self._renderer.model is not model:
            self.close()
            self._renderer = _renderer(mujoco, model)
            view = self._view
            self._placed = view if isinstance(view, str) else _placed(mujoco, model, view)
        self._renderer.update_scene(data, camera=self._placed)
        flags = self._renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        return self._renderer.render()

    def close(self) -> None:
        """Frees what draws; a further picture makes it again."""
        renderer, self._renderer = self._renderer, None
        if renderer is not None:
            renderer.close()


def _renderer(mujoco: Any, model: Any) -> Any:
    """What draws a model.

    Raises:
        CannotDraw: it cannot be made.
    """
    before, sys.unraisablehook = sys.unraisablehook, _ignore
    buffer = model.vis.global_
    size, (buffer.offheight, buffer.offwidth) = (buffer.offheight, buffer.offwidth), (HEIGHT, WIDTH)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no screen is said below
            return mujoco.Renderer(model, HEIGHT, WIDTH)
    # Every backend fails in its own way: GLFWError, EGLError, ImportError, FatalError, ...
    except Exception as error:
        lines = str(error).strip().splitlines()
        said = f"{type(error).__name__}{f': {lines[0]}' if lines else ''}"
        # What is half made complains once more as it is removed, with the error that holds it.
        del error
    finally:
        buffer.offheight, buffer.offwidth = size
        sys.unraisablehook = before
    raise CannotDraw(
        f"MuJoCo cannot draw here ({said}; {_chosen()}). Without a screen set {VARIABLE}=egl "
        f"(Debian: libegl1 libgl1-mesa-dri), or {VARIABLE}=osmesa (libosmesa6), which is slower."
    )


def _placed(mujoco: Any, model: Any, view: View) -> Any:
    """A `mujoco.MjvCamera`."""
    camera = mujoco.MjvCamera()
    camera.azimuth, camera.elevation = view.azimuth, view.elevation
    if view.lookat is None:
        camera.lookat[:], camera.distance = model.stat.center, view.distance * model.stat.extent
    else:
        camera.lookat[:], camera.distance = view.lookat, view.distance
    return camera


def _ignore(unraisable: object) -> None:
    """Says nothing."""


def _chosen() -> str:
    value = os.environ.get(VARIABLE)
    return f"{VARIABLE} is not set" if value is None else f"{VARIABLE} is {value!r}"
