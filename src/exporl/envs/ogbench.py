"""OGBench's single-task environments (arXiv 2410.20092): pointmaze, cube, scene, puzzle, with
states as observations.

ogbench/<environment>-task<1 to 5> are the five tasks of an environment; without a number it is
OGBench's default task (2 for cube and scene, 1 for pointmaze, its own for each puzzle). Goals are
fixed and not part of the observation. A state meets a number of conditions (every cube, button,
drawer and window in its place; the point at the goal). The environment pays minus the number of
unmet ones, and 0 when all are met, where the episode ends. Reward "-1/0" pays -1 until then, "0/1"
1 then and 0 before; "env" is OGBench's own. As OGBench does for single tasks, reward and success of
a step are those of the state before it, so the step after the last condition is met is the rewarded
one.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.envs.cameras import METADATA, MujocoCamera
from exporl.envs.collect import Expert, collect_episodes
from exporl.envs.mazes import GOAL_RADIUS, HORIZON, MazeEnv, goal_of, until_success
from exporl.envs.ogbench_experts import manipulation_expert
from exporl.envs.task import Family, Reward, Task, sparse_reward
from exporl.spec import Spec


class Scenery(NamedTuple):
    """What stands on the table of a manipulation environment, and how long an episode lasts."""

    cubes: int
    buttons: int
    sliders: int
    """2: a drawer and a window; or none."""
    horizon: int

    @property
    def size(self) -> int:
        """Numbers in an observation: 19 of the arm, 9 per cube, 4 per button, 2 per slider."""
        return 19 + 9 * self.cubes + 4 * self.buttons + 2 * self.sliders

    @property
    def conditions(self) -> int:
        """What must be in its place for success."""
        return self.cubes + self.buttons + self.sliders


SCENERIES = {
    "cube-single": Scenery(1, 0, 0, 200),
    "cube-double": Scenery(2, 0, 0, 500),
    "cube-triple": Scenery(3, 0, 0, 1000),
    "cube-quadruple": Scenery(4, 0, 0, 1000),
    "scene": Scenery(1, 2, 2, 750),
    "puzzle-3x3": Scenery(0, 9, 0, 500),
    "puzzle-4x4": Scenery(0, 16, 0, 500),
    "puzzle-4x5": Scenery(0, 20, 0, 1000),
    "puzzle-4x6": Scenery(0, 24, 0, 1000),
}
MAZES = ("medium", "large", "giant")
NAMES = tuple(
    f"{environment}{suffix}"
    for environment in (*(f"pointmaze-{maze}" for maze in MAZES), *SCENERIES)
    for suffix in ("", "-task1", "-task2", "-task3", "-task4", "-task5")
)
_CENTRE, _SCALE, _DRAWER_SCALE, _WINDOW_SCALE = np.array([0.425, 0.0, 0.0]), 10.0, 18.0, 15.0
"""Of positions, drawer and window in observations."""
_CLOSE = 0.04
"""Metres within which cubes, drawer and window are in their place."""


def split_name(name: str) -> tuple[str, int]:
    """(environment, number of the task, 0 for OGBench's default)."""
    environment, _, number = name.partition("-task")
    return environment, int(number or 0)


class Goal(NamedTuple):
    """Where everything has to be."""

    cubes: np.ndarray
    """[cubes, 3] metres."""
    buttons: np.ndarray
    """[buttons], 0 or 1."""
    sliders: np.ndarray
    """[0] or [2]: drawer and window, metres."""


def conditions(environment: str, goal: Goal, state: np.ndarray) -> np.ndarray:
    """Which conditions states [t, o] meet, [t, cubes + buttons + sliders] bool."""
    scenery, at = SCENERIES[environment], 19
    cubes = state[:, at : at + 9 * scenery.cubes].reshape(len(state), scenery.cubes, 9)[..., :3]
    at += 9 * scenery.cubes
    buttons = state[:, at : at + 4 * scenery.buttons].reshape(len(state), scenery.buttons, 4)[
        ..., 1
    ]
    at += 4 * scenery.buttons
    sliders = (
        state[:, at::2][:, : scenery.sliders] / [_DRAWER_SCALE, _WINDOW_SCALE][: scenery.sliders]
    )
    placed = np.linalg.norm(cubes / _SCALE + _CENTRE - goal.cubes, axis=-1) <= _CLOSE
    return np.concatenate(
        [placed, buttons == goal.buttons, np.abs(sliders - goal.sliders) <= _CLOSE], axis=1
    )


class ManipulationEnv(gymnasium.Env[Any, np.ndarray]):
    """A UR5e arm at a table with cubes, buttons, a drawer and a window; pays minus the number of
    unmet conditions.

    Observation {"state": [o]}, see `make`. Action [5]: displacement of the gripper (0.05 m), its
    yaw (0.3 rad) and its opening, relative to where it is, in [-1, 1].
    """

    metadata: dict[str, Any] = METADATA
    render_mode = "rgb_array"

    def __init__(self, environment: str, task: int):
        self.environment = environment
        self.table: Any = _table(environment, task)
        """OGBench's environment."""
        self._camera = MujocoCamera("front")
        size = SCENERIES[environment].size
        self.observation_space = gymnasium.spaces.Dict(
            {"state": gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)}
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (5,), np.float32)
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode; the seed fixes the arm and small displacements of the objects."""
        super().reset(seed=seed)
        self._steps = 0
        seed = int(self.np_random.integers(2**31)) if seed is None else seed
        # OGBench takes a few random steps to see what its goal looks like
        self.table.action_space.seed(seed)
        state, _ = self.table.reset(seed=seed)
        return {"state": state.astype(np.float32)}, {"success": False}

    def step(self, action: np.ndarray):
        """One step of 0.05 s; ends after success (terminated) or at the horizon (truncated)."""
        state, reward, terminated, _, info = self.table.step(np.clip(action, -1.0, 1.0))
        self._steps += 1
        truncated = not terminated and self._steps >= SCENERIES[self.environment].horizon
        success = {"success": bool(info["success"])}
        return (
            {"state": state.astype(np.float32)},
            float(reward),
            bool(terminated),
            truncated,
            success,
        )

    def render(self) -> np.ndarray:
        """What a camera sees, uint8 [240, 320, 3]."""
        return self._camera.picture(self.table._model, self.table._data)

    def close(self):
        """Frees the simulator."""
        self._camera.close()
        self.table.close()


def _table_class(kind: str) -> Any:
    with warnings.catch_warnings():
        # without a display, the package's renderer complains as it is imported
        warnings.simplefilter("ignore")
        from ogbench.manipspace.envs.cube_env import CubeEnv
        from ogbench.manipspace.envs.puzzle_env import PuzzleEnv
        from ogbench.manipspace.envs.scene_env import SceneEnv

    base = {"cube": CubeEnv, "scene": SceneEnv, "puzzle": PuzzleEnv}[kind]
    # OGBench makes a new, unseeded action space at every look, and samples from it during a reset.
    return type(
        base.__name__, (base,), {"action_space": gymnasium.spaces.Box(-1.0, 1.0, (5,), np.float32)}
    )


def _table(environment: str, task: int) -> Any:
    kind, _, variant = environment.partition("-")
    more = {} if kind == "puzzle" else {"permute_blocks": False}
    return _table_class(kind)(
        env_type=variant or kind,
        success_timing="pre",
        reward_task_id=task,
        visualize_info=False,
        **more,
    )


@functools.cache
def goal_state(environment: str, task: int) -> Goal:
    """The goal of a task, from OGBench's list of tasks (0: its default task)."""
    kind, _, variant = environment.partition("-")
    # The list depends on these attributes alone; a whole simulator takes seconds to build.
    table = object.__new__(_table_class(kind))
    table._env_type, table._reward_task_id = variant, task
    if kind == "puzzle":
        table._num_rows, table._num_cols = map(int, variant.split("x"))
    table.set_tasks()
    info = table.task_infos[table._reward_task_id - 1]
    if environment == "scene":
        goal = info["goal"]
        return Goal(
            goal["block_xyzs"],
            goal["button_states"],
            np.array([goal["drawer_pos"], goal["window_pos"]]),
        )
    return Goal(
        info.get("goal_xyzs", np.zeros((0, 3))),
        info.get("goal_button_states", np.zeros(0)),
        np.zeros(0),
    )


def _need(name: str, episode: Episode, size: int) -> np.ndarray:
    state = episode.observations.get("state")
    if state is None or state.shape[1:] != (size,):
        shapes = {key: value.shape[1:] for key, value in episode.observations.items()}
        raise ValueError(
            f"rewards of ogbench/{name} are computed from observations['state'] with rows of {size}"
            f" numbers; found {shapes}. Is this the right file for the task?"
        )
    return state.astype(np.float32)


def adapt(name: str, episode: Episode) -> Episode:
    """An episode of an OGBench file, which has no rewards, with this task's rewards and successes.

    They are computed from the observations before each step, by OGBench's own rules. The episode is
    cut at its first success, where the task ends; what happened afterwards is left out.

    Raises:
        ValueError: the observations are not those of this environment.
    """
    environment, number = split_name(name)
    if environment in SCENERIES:
        state = _need(name, episode, SCENERIES[environment].size)
        met = conditions(environment, goal_state(environment, number), state[:-1])
    else:
        state = _need(name, episode, 2)
        goal = _point_goal(environment.removeprefix("pointmaze-"), number)
        met = np.linalg.norm(state[:-1] - goal, axis=1, keepdims=True) <= GOAL_RADIUS["point"]
    episode = dataclasses.replace(episode, observations={"state": state})
    unmet = met.shape[1] - met.sum(axis=1)
    return until_success(episode, unmet == 0, 0.0 - unmet)


_point_goal = functools.cache(functools.partial(goal_of, "point"))


def _point_expert(env: Any) -> Expert:
    """Straight to the next cell of OGBench's oracle."""
    maze = env.unwrapped.maze

    def act(observation: dict[str, np.ndarray], info: dict[str, Any]) -> np.ndarray:
        xy, goal = maze.get_xy(), np.asarray(maze.cur_goal_xy)
        same = maze.xy_to_ij(xy) == maze.xy_to_ij(goal)
        ahead = (goal if same else maze.get_oracle_subgoal(xy, goal)[0]) - xy
        return ahead / max(np.abs(ahead).max(), 0.2)

    return act


def _make_env(name: str) -> gymnasium.Env:
    environment, number = split_name(name)
    if environment in SCENERIES:
        return ManipulationEnv(environment, number)
    return MazeEnv("point", environment.removeprefix("pointmaze-"), number, reward_offset=-1.0)


def expert_of(name: str) -> Callable[[Any], Expert]:
    """What makes an expert for one episode in an environment of a task."""
    return manipulation_expert if split_name(name)[0] in SCENERIES else _point_expert


def collect(name: str, episodes: int, noise: float, seed: int) -> list[Episode]:
    """Demonstrations by OGBench's scripted oracles, one object after the other.

    Args:
        name: a task of this family.
        episodes: how many, failures included.
        noise: standard deviation of Gaussian noise added to every action before clipping to [-1,
            1].
        seed: fixes starts and noise.
    """
    env = _make_env(name)
    result = collect_episodes(env, expert_of(name), episodes, noise, seed)
    env.close()
    return result


def _reward(kind: Reward) -> Callable[[float], float]:
    transform = sparse_reward(kind)  # raises for an unknown one
    return float if kind == "env" else lambda reward: transform(float(reward == 0.0))


def make(name: str, reward: Reward) -> Task:
    """The task `ogbench/<name>`."""
    environment, _ = split_name(name)
    scenery = SCENERIES.get(environment)
    note = (
        "arm: 6 joints, 6 velocities, gripper position, cosine and sine of its yaw, opening, "
        "contact"
    )
    if scenery is None:
        note = "x, y"
    elif scenery.cubes:
        note += "; per cube: position, quaternion, cosine and sine of its yaw"
    if scenery is not None and scenery.buttons:
        note += "; per button: state (2), depth, velocity"
    if scenery is not None and scenery.sliders:
        note += "; drawer and window: position, velocity"
    return Task(
        name=f"ogbench/{name}",
        make_env=functools.partial(_make_env, name),
        spec=Spec(
            (("state", (scenery.size if scenery else 2,), "float32"),),
            action_dim=5 if scenery else 2,
        ),
        reward=_reward(reward),
        max_episode_steps=scenery.horizon if scenery else HORIZON,
        collect=functools.partial(collect, name),
        normalize=True,
        source="scripted oracles with action noise, OGBench files",
        adapt=functools.partial(adapt, name),
        observation_note=note,
        reward_note="minus the number of unmet conditions; ends at 0",
        reward_range=(-float(scenery.conditions if scenery else 1), 0.0),
        control_hz=20.0 if scenery else 10.0,
    )


FAMILY = Family(
    names=NAMES,
    make=make,
    module="ogbench",
    extra="ogbench",
    summary=(
        "state 2-115, action 2 or 5, 200-1000 steps, minus the unmet conditions; scripted oracles"
    ),
    details=(
        "pointmaze, cube, scene, puzzle, each `-task1..5`. Pays minus the number of unmet "
        "conditions, success and end when all are met. Data: OGBench files (rewards recomputed); "
        "its oracles: **scripted**"
    ),
)
