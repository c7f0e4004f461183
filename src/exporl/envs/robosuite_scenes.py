"""robosuite 1.4.1 (arXiv 2009.12293) as robomimic and MimicGen use it, and the observation layouts
of its versions.

Panda arms, OSC_POSE displacements at 20 Hz, 0/1 success reward, the episode ends at success. The
object entry of an observation changed its order and some signs between robosuite 1.4 (robomimic's
`low_dim_v141` files, MimicGen) and 1.5 (`low_dim_v15`); `adapt` recognises which one a file has and
converts it to what the 1.4.1 environment shows.
"""

import dataclasses
import importlib
import importlib.util
import logging
import warnings
from typing import Any

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.envs.cameras import METADATA, MujocoCamera
from exporl.envs.global_random import seeded_global_random
from exporl.spec import Spec

CONTROL_HZ = 20.0
_WIDTHS = {"bins": 6, "flags": 2, "hinge": 1, "peg": 3}
_TOLERANCE = 0.05
"""Metres between recorded and recomputed relative positions that still count as the right layout:
robosuite 1.5 computes some of them from the object's position one step ago."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """One robosuite environment."""

    env: str
    """Its name in robosuite's registry."""
    horizon: int
    """Steps per episode."""
    layouts: tuple[str, ...]
    """What the object entry consists of, in robosuite 1.4 first, then in other versions: "a" pose
    of object a (position, quaternion x y z w), "a-b" position of a minus that of b, "a@eef" pose of
    a seen from the gripper; "eef" and "eef1" are the grippers."""
    arms: int = 1
    hard_reset: bool = False
    """Whether every reset builds the model anew, for scenes whose shapes are drawn at random; about
    0.5 s each."""
    package: str | None = None
    """What else must be installed to build it."""
    spread: float | None = None
    """Objects start within so many metres of the table's centre in x and y, where it is not
    robosuite's own range."""

    @property
    def proprioception(self) -> tuple[tuple[str, int], ...]:
        """(name, width) of the entries after the object entry."""
        parts = (("eef_pos", 3), ("eef_quat", 4), ("gripper_qpos", 2))
        return tuple(
            (f"robot{arm}_{name}", width) for arm in range(self.arms) for name, width in parts
        )

    @property
    def spec(self) -> Spec:
        """Observation "state": object, then position, quaternion and finger joints of every
        gripper; 7 actions per arm."""
        width = sum(map(_width, self.layouts[0].split())) + sum(w for _, w in self.proprioception)
        return Spec((("state", (width,), "float32"),), action_dim=7 * self.arms)


LIFT = Scene("Lift", 400, ("cube eef-cube", "cube cube-eef"))
CAN = Scene("PickPlaceCan", 400, ("can can@eef", "can@eef can"))
SQUARE = Scene("NutAssemblySquare", 400, ("nut nut@eef", "nut@eef nut"))
TOOL_HANG = Scene(
    "ToolHang",
    700,
    (
        "base base@eef frame frame@eef tool tool@eef flags",
        "base@eef base frame@eef frame tool@eef tool flags",
    ),
)
TRANSPORT = Scene(
    "TwoArmTransport",
    700,
    (
        "payload trash lid bins payload-eef lid-eef payload-eef1 trash-eef1 flags",
        "payload trash lid bins flags payload-eef lid-eef payload-eef1 trash-eef1",
    ),
    arms=2,
    hard_reset=True,
)
STACK = Scene("Stack", 200, ("a b a-eef b-eef b-a", "a b b-a a-eef b-eef"))


class RobosuiteEnv(gymnasium.Env[Any, np.ndarray]):
    """One robosuite scene: reward 1 at success, where the episode ends, else 0.

    Observation {"state": [o]}, see `Scene.spec`, in metres and quaternions (x, y, z, w). Action [7]
    per arm in [-1, 1]: displacement of the gripper (5 cm at 1), rotation (0.5 rad at 1), closing
    (1) or opening (-1).
    """

    metadata: dict[str, Any] = METADATA
    render_mode = "rgb_array"

    def __init__(self, scene: Scene):
        (_, shape, _), *_ = scene.spec.observation
        self.scene = scene
        self.observation_space = gymnasium.spaces.Dict(
            {"state": gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)}
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (scene.spec.action_dim,), np.float32)
        # sizes that are drawn when a model is built are the same in every environment
        with seeded_global_random(0):
            self.simulator: Any = _make(scene)
        self._camera = MujocoCamera("agentview")
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode; the seed fixes the arm's pose and where the objects lie."""
        super().reset(seed=seed)
        self._steps = 0
        with seeded_global_random(int(self.np_random.integers(2**31)) if seed is None else seed):
            observation = self.simulator.reset()
        return self._state(observation), {"success": False}

    def step(self, action: np.ndarray):
        """One step of 0.05 s; ends at success (terminated) or at the time limit (truncated)."""
        observation, *_ = self.simulator.step(np.clip(np.asarray(action, np.float64), -1.0, 1.0))
        self._steps += 1
        success = bool(self.simulator._check_success())
        truncated = not success and self._steps >= self.scene.horizon
        return self._state(observation), float(success), success, truncated, {"success": success}

    def render(self) -> np.ndarray:
        """What a camera sees, uint8 [240, 320, 3]."""
        simulation = self.simulator.sim
        return self._camera.picture(simulation.model._model, simulation.data._data)

    def close(self):
        """Frees the simulator."""
        self._camera.close()
        self.simulator.close()

    def _state(self, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = ("object-state", *(name for name, _ in self.scene.proprioception))
        return {"state": np.concatenate([observation[name] for name in names]).astype(np.float32)}


def _make(scene: Scene) -> Any:
    if scene.package is not None and importlib.util.find_spec(scene.package) is None:
        raise ModuleNotFoundError(
            f"the environment {scene.env} needs the package {scene.package!r}, which the package "
            f"index does not have in a usable form. Clone NVlabs/{scene.package} from GitHub and"
            f" run: pip install --no-deps -e {scene.package}"
        )
    # it advises to set up a macro file at every import
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import robosuite
        from robosuite.controllers import load_controller_config
        from robosuite.utils.placement_samplers import UniformRandomSampler

        if scene.package is not None:
            importlib.import_module(scene.package)  # adds its environments to robosuite's registry

    options: dict[str, Any] = {"robots": ["Panda"] * scene.arms}
    if scene.arms == 2:
        options["env_configuration"] = "single-arm-opposed"
    if scene.spread is not None:
        reach = (-scene.spread, scene.spread)
        options["placement_initializer"] = UniformRandomSampler(
            "ObjectSampler", x_range=reach, y_range=reach, ensure_object_boundary_in_range=False,
            reference_pos=np.array([0.0, 0.0, 0.8]), z_offset=0.01,
        )  # fmt: skip
    return robosuite.make(
        scene.env,
        **options,
        controller_configs=load_controller_config(default_controller="OSC_POSE"),
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        use_object_obs=True,
        reward_shaping=False,
        control_freq=CONTROL_HZ,
        ignore_done=True,
        hard_reset=scene.hard_reset,
    )


def adapt(scene: Scene, episode: Episode) -> Episode:
    """An episode of robomimic's layout, or one whose "state" is in place already, as the
    environment would record it.

    "state" is built from the entries `object`, `robot0_eef_pos`, ...; the layout of another
    robosuite version is converted; the episode ends at its first success, with reward 1 there and 0
    before. Nothing is changed where all of that holds already.

    Raises:
        ValueError: an entry is missing, the width is another task's, or the object entry fits no
            known layout.
    """
    entries = episode.observations
    if "state" in entries:
        state = entries["state"]
    else:
        names = ("object", *(name for name, _ in scene.proprioception))
        missing = [name for name in names if name not in entries]
        if missing:
            raise ValueError(
                f"observations lack {', '.join(missing)}; found {sorted(entries)}. A low_dim file "
                "has them."
            )
        state = np.concatenate([np.asarray(entries[name], np.float32) for name in names], axis=1)
    (_, (width,), _), *_ = scene.spec.observation
    if state.ndim != 2 or state.shape[1] != width:
        raise ValueError(
            f"the state has shape {state.shape}; {scene.env} needs {width} entries per step: object"
            f" ({scene.layouts[0]}), then position, quaternion and fingers of each gripper. Is this"
            " another task's file?"
        )
    state = _convert(scene, state)
    end = int(np.argmax(episode.successes)) + 1 if episode.success else len(episode)
    rewards = episode.successes[:end].astype(np.float32)
    same = (
        end == len(episode)
        and episode.terminated == episode.success
        and np.array_equal(rewards, episode.rewards)
    )
    if same and state is entries.get("state"):
        return episode
    infos = {
        name: value[: end + (len(value) > len(episode))] for name, value in episode.infos.items()
    }
    return Episode(
        {"state": state[: end + 1]},
        episode.actions[:end],
        rewards,
        episode.successes[:end],
        episode.success,
        infos,
    )


def _convert(scene: Scene, state: np.ndarray) -> np.ndarray:
    """The state in the layout of robosuite 1.4; the very array where it is so already."""
    if len(scene.layouts) == 1:
        return state
    errors = []
    for layout in scene.layouts:
        columns = _relative_positions(layout)
        again = _rebuild(scene, state, layout, layout)
        # The first row is left out: robosuite 1.5 shows zeros for relative poses right after a
        # reset.
        errors.append(float(np.median(np.abs(again - state)[1:, columns].max(axis=1))))
    best = int(np.argmin(errors))
    if not errors[best] <= _TOLERANCE:
        raise ValueError(
            f"the object entry fits no known layout of {scene.env} (relative positions are off by "
            f"{errors[best]:.3g} m at best). Known: {'; '.join(scene.layouts)}, as robosuite 1.4"
            " and 1.5 order it."
        )
    return state if best == 0 else _rebuild(scene, state, scene.layouts[best], scene.layouts[0])


def _rebuild(scene: Scene, state: np.ndarray, source: str, target: str) -> np.ndarray:
    """The state in another layout, everything relative computed anew from the absolute poses."""
    parts: dict[str, np.ndarray] = {}
    start = 0
    for name in source.split():
        parts[name] = state[:, start : start + _width(name)]
        start += _width(name)
    for arm in range(scene.arms):
        parts[f"eef{arm or ''}"] = state[:, start + 9 * arm : start + 9 * arm + 7]
    columns = []
    for name in target.split():
        if "-" in name:
            a, b = name.split("-")
            columns.append(parts[a][:, :3] - parts[b][:, :3])
        elif "@" in name:
            a, b = name.split("@")
            columns.append(relative_pose(parts[a], parts[b]))
        else:
            columns.append(parts[name])
    return np.concatenate([*columns, state[:, start:]], axis=1).astype(np.float32)


def _relative_positions(layout: str) -> list[int]:
    columns, start = [], 0
    for name in layout.split():
        if "-" in name or "@" in name:
            columns += range(start, start + 3)
        start += _width(name)
    return columns


def relative_pose(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[..., 7] pose of a (position, quaternion x y z w) in the frame of b, its quaternion with w >=
    0."""
    inverse = b[..., 3:] * np.array([-1, -1, -1, 1], b.dtype)
    position = a[..., :3] - b[..., :3]
    axis, w = inverse[..., :3], inverse[..., 3:]
    position = position + 2 * np.cross(axis, np.cross(axis, position) + w * position)
    other, v = a[..., 3:6], a[..., 6:]
    quaternion = np.concatenate(
        [
            w * other + v * axis + np.cross(axis, other),
            w * v - (axis * other).sum(-1, keepdims=True),
        ],
        axis=-1,
    )
    quaternion = np.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
    return np.concatenate([position, quaternion], axis=-1)


def _width(name: str) -> int:
    return _WIDTHS.get(name, 3 if "-" in name else 7)
