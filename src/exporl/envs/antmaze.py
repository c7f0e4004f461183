"""AntMaze: an ant finds its way to a goal. Three kinds of task, all of reward 1 at the goal, where
they end, else 0.

antmaze/d4rl-{medium,large}: the paper's tasks, antmaze-{medium,large}-{play,diverse}-v2 of D4RL,
rebuilt on OGBench's
  ant and mazes, which have the same body, actuators, time step, walls and coordinates; the
  observation does not show the goal. Play and diverse differ in their data only.
antmaze/ogbench-{medium,large,giant}[-task1 to -task5]: OGBench's single-task environments; without
a number its
  default, task 1. The goal is a fixed cell and not in the observation.
antmaze/{umaze,medium,large}, antmaze/{medium,large}-diverse-{g,gr}: AntMaze_*-v5 of
gymnasium-robotics. Start and goal
  vary from episode to episode over the whole maze (diverse-g: fixed start, some goals; diverse-gr:
  some cells), so the goal is part of the observation. Another ant: stronger, 20 Hz.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import io
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.envs.cameras import FROM_ABOVE, METADATA, MujocoCamera
from exporl.envs.collect import Expert, collect_episodes
from exporl.envs.experts import ant_action, load_policy
from exporl.envs.mazes import (
    D4RL_GOALS,
    GOAL_RADIUS,
    HORIZON,
    MazeEnv,
    goal_of,
    next_cell,
    until_success,
)
from exporl.envs.task import Family, Reward, Task, sparse_reward
from exporl.spec import Spec

_MAPS = {
    "umaze": "U_MAZE",
    "medium": "MEDIUM_MAZE",
    "large": "LARGE_MAZE",
    **{f"{size}-diverse-{kind}": f"{size.upper()}_MAZE_DIVERSE_{kind.upper()}"
       for size in ("medium", "large") for kind in ("g", "gr")},
}  # fmt: skip
"""gymnasium-robotics: our name -> its map."""
HORIZONS = {name: 700 if name == "umaze" else 1000 for name in _MAPS}
OGBENCH = {
    f"ogbench-{maze}{suffix}": (maze, number)
    for maze in ("medium", "large", "giant")
    for number, suffix in enumerate(("", "-task1", "-task2", "-task3", "-task4", "-task5"))
}
"""Name -> (maze, OGBench's number of the task, 0 for its default)."""
NAMES = (*(f"d4rl-{maze}" for maze in D4RL_GOALS), *OGBENCH, *_MAPS)
_STRENGTH = 0.2
"""The expert learnt on an ant with a fifth of the torque of Gymnasium's."""


class GoalMazeEnv(gymnasium.Env[Any, np.ndarray]):
    """One maze of gymnasium-robotics: reward 1 within 0.45 m of the goal, where the episode ends,
    else 0.

    Observation {"state": [31]}: x, y, then height, orientation (quaternion), 8 joints and 14
    velocities, then the goal's x and y. Action [8]: joint torques in [-1, 1].
    """

    metadata: dict[str, Any] = METADATA
    render_mode = "rgb_array"

    def __init__(self, name: str):
        # the package prints a notice about versions
        with contextlib.redirect_stderr(io.StringIO()):
            from gymnasium_robotics.envs.maze import maps
            from gymnasium_robotics.envs.maze.ant_maze_v5 import AntMazeEnv

        self.name = name
        self.maze: Any = AntMazeEnv(
            maze_map=getattr(maps, _MAPS[name]),
            continuing_task=False,
            include_cfrc_ext_in_observation=False,
        )
        self._camera = MujocoCamera(FROM_ABOVE)
        Path(self.maze.tmp_xml_file_path).unlink(missing_ok=True)
        self.walls = np.array([[cell == 1 for cell in row] for row in self.maze.maze.maze_map])
        self.observation_space = gymnasium.spaces.Dict(
            {"state": gymnasium.spaces.Box(-np.inf, np.inf, (31,), np.float32)}
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (8,), np.float32)
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode; the seed fixes start and goal."""
        super().reset(seed=seed)
        self._steps = 0
        seen, info = self.maze.reset(
            seed=int(self.np_random.integers(2**31)) if seed is None else seed
        )
        return _state(seen), {"success": bool(info["success"])}

    def step(self, action: np.ndarray):
        """One step of 0.05 s; ends at success (terminated) or at the horizon (truncated)."""
        seen, reward, terminated, _, info = self.maze.step(np.clip(action, -1.0, 1.0))
        self._steps += 1
        truncated = not terminated and self._steps >= HORIZONS[self.name]
        return (
            _state(seen),
            float(reward),
            bool(terminated),
            truncated,
            {"success": bool(info["success"])},
        )

    def render(self) -> np.ndarray:
        """What a camera sees, uint8 [240, 320, 3]."""
        ant = self.maze.ant_env.unwrapped
        return self._camera.picture(ant.model, ant.data)

    def close(self):
        """Frees the simulator."""
        self._camera.close()
        self.maze.close()


def _state(seen: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """x, y, body without contact forces, goal."""
    parts = [seen["achieved_goal"], seen["observation"][..., :27], seen["desired_goal"]]
    return {"state": np.concatenate(parts, axis=-1).astype(np.float32)}


def adapt_goal_maze(name: str, episode: Episode) -> Episode:
    """An episode of a Minari antmaze file in this task's terms: its three entries joined, success
    from the distance.

    The episode is cut at its first success, where the task ends.

    Raises:
        ValueError: an entry is missing or of another size.
    """
    seen = episode.observations
    if "state" in seen and seen["state"].shape[1:] == (31,):
        state = seen["state"].astype(np.float32)
    else:
        missing = [
            key for key in ("observation", "achieved_goal", "desired_goal") if key not in seen
        ]
        if missing:
            shapes = {key: value.shape[1:] for key, value in seen.items()}
            raise ValueError(
                f"antmaze/{name} needs the observations observation, achieved_goal and desired_goal"
                f" (Minari's antmaze files); {', '.join(missing)} missing among {shapes}. Rows of "
                "29 are D4RL's or OGBench's ant: see the tasks antmaze/d4rl-* and"
                " antmaze/ogbench-*."
            )
        width = seen["observation"].shape[1]
        if width < 27:
            raise ValueError(
                f"observations['observation'] has rows of {width} numbers; antmaze/{name} needs 27 "
                "or more."
            )
        state = _state(seen)["state"]
    distance = np.linalg.norm(state[1:, :2] - state[1:, -2:], axis=1)
    episode = dataclasses.replace(episode, observations={"state": state})
    return until_success(episode, distance <= 0.45, distance <= 0.45)


def adapt_ogbench(name: str, episode: Episode) -> Episode:
    """An episode of an OGBench antmaze file (or any other of the same ant and maze) with this
    task's reward.

    As in OGBench's own relabelling, a step succeeds when the state before it lies within 0.5 m of
    the goal. The episode is cut at its first success, where the task ends; what the ant did
    afterwards is left out.

    Raises:
        ValueError: the observations are not those of this ant.
    """
    maze, number = OGBENCH[name]
    state = _ant_state(name, episode)
    there = np.linalg.norm(state[:-1, :2] - _goal(maze, number), axis=1) <= GOAL_RADIUS["ant"]
    return until_success(dataclasses.replace(episode, observations={"state": state}), there, there)


_goal = functools.cache(functools.partial(goal_of, "ant"))


def adapt_d4rl(name: str, episode: Episode) -> Episode:
    """An episode of a D4RL antmaze file, cut at its first success, where the task ends.

    The rewards of those files are 1 at the goal and 0 elsewhere; they define success.

    Raises:
        ValueError: the observations are not those of this ant, or rewards are neither 0 nor 1.
    """
    state = _ant_state(name, episode)
    strange = ~np.isin(episode.rewards, (0.0, 1.0))
    if strange.any():
        row = int(strange.argmax())
        raise ValueError(
            f"rewards row {row} is {episode.rewards[row]:g}; success in antmaze/{name} is read off "
            "D4RL's rewards of 0 and 1, and the goal is not in the observation. Take a D4RL"
            " antmaze-*-v2 file without reward shifts."
        )
    episode = dataclasses.replace(episode, observations={"state": state})
    return until_success(episode, episode.rewards > 0, episode.rewards)


def _ant_state(name: str, episode: Episode) -> np.ndarray:
    state = episode.observations.get("state")
    if state is None or state.shape[1:] != (29,):
        shapes = {key: value.shape[1:] for key, value in episode.observations.items()}
        raise ValueError(
            f"antmaze/{name} needs observations['state'] with rows of 29 numbers (positions with x "
            f"and y, velocities); found {shapes}. Is this the right file for the task?"
        )
    return state.astype(np.float32)


def _ogbench_expert(env: Any) -> Expert:
    """The directional ant, sent from cell to cell by OGBench's oracle."""
    policy, maze = load_policy("ant_directional"), env.unwrapped.maze

    def act(observation: dict[str, np.ndarray], info: dict[str, Any]) -> np.ndarray:
        xy, goal = maze.get_xy(), maze.cur_goal_xy
        same = maze.xy_to_ij(xy) == maze.xy_to_ij(goal)
        ahead = np.asarray(goal) if same else maze.get_oracle_subgoal(xy, goal)[0]
        return ant_action(policy, observation["state"][2:], ahead - xy)

    return act


def _goal_maze_expert(env: Any) -> Expert:
    """The directional ant, sent from cell to cell on a shortest way, with its torques scaled to
    this ant's."""
    policy, walls, maze = (
        load_policy("ant_directional"),
        env.unwrapped.walls,
        env.unwrapped.maze.maze,
    )

    def act(observation: dict[str, np.ndarray], info: dict[str, Any]) -> np.ndarray:
        state = observation["state"].astype(np.float64)
        xy, goal = state[:2], state[-2:]
        (row, column), (goal_row, goal_column) = (
            maze.cell_xy_to_rowcol(xy),
            maze.cell_xy_to_rowcol(goal),
        )
        here, there = (int(row), int(column)), (int(goal_row), int(goal_column))
        ahead = goal if here == there else maze.cell_rowcol_to_xy(next_cell(walls, here, there))
        return _STRENGTH * ant_action(
            policy, observation["state"][2:29], (ahead - xy).astype(np.float32)
        )

    return act


def _make_env(name: str) -> gymnasium.Env:
    if name in _MAPS:
        if importlib.util.find_spec("gymnasium_robotics") is None:
            raise ModuleNotFoundError(
                f"task 'antmaze/{name}' needs the package 'gymnasium_robotics'. Install it with: "
                "pip install 'exporl[antmaze]'"
            )
        return GoalMazeEnv(name)
    maze, task = (name.removeprefix("d4rl-"), "d4rl") if name.startswith("d4rl-") else OGBENCH[name]
    return MazeEnv("ant", maze, task)


def collect(name: str, episodes: int, noise: float, seed: int) -> list[Episode]:
    """Demonstrations by the directional ant that ships with the package, following a shortest way.

    Args:
        name: a task of this family.
        episodes: how many, failures included.
        noise: standard deviation of Gaussian noise added to every action before clipping to [-1,
            1].
        seed: fixes starts, goals and noise.
    """
    env = _make_env(name)
    expert = _goal_maze_expert if name in _MAPS else _ogbench_expert
    result = collect_episodes(env, expert, episodes, noise, seed)
    env.close()
    return result


def make(name: str, reward: Reward) -> Task:
    """The task `antmaze/<name>`."""
    body = "x, y, height, quaternion, 8 joints, 14 velocities"
    if name in _MAPS:
        adapt, size, note, files = adapt_goal_maze, 31, f"{body}, goal x and y", "Minari"
    else:
        d4rl = name.startswith("d4rl-")
        adapt, size, files = (adapt_d4rl, 29, "D4RL") if d4rl else (adapt_ogbench, 29, "OGBench")
        note = f"{body}; the goal is not shown"
    return Task(
        name=f"antmaze/{name}",
        make_env=functools.partial(_make_env, name),
        spec=Spec((("state", (size,), "float32"),), action_dim=8),
        reward=sparse_reward(reward),
        max_episode_steps=HORIZONS.get(name, HORIZON),
        collect=functools.partial(collect, name),
        normalize=True,
        source=f"directional ant with action noise, {files} files",
        adapt=functools.partial(adapt, name),
        observation_note=note,
        reward_note="1 at the goal, where the episode ends, else 0",
        control_hz=20.0 if name in _MAPS else 10.0,
    )


FAMILY = Family(
    names=NAMES,
    make=make,
    module="ogbench",
    extra="antmaze",
    summary=(
        "state 29 or 31, action 8, 700-1000 steps, ends at the goal; a walking ant records "
        "demonstrations"
    ),
    details=(
        "`d4rl-{medium,large}`; `ogbench-{medium,large,giant}[-task1..5]`; gymnasium-robotics "
        "`umaze`, `medium`, `large`, `{medium,large}-diverse-{g,gr}`. 1 at the goal, 31 numbers "
        "with the goal. Data: D4RL, OGBench and Minari files; a walking policy led through the "
        "maze: **scripted route**"
    ),
)
