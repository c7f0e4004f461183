"""OGBench's mazes with a point or an ant (arXiv 2410.20092), and the way through a maze, for
several families."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.envs.cameras import FROM_ABOVE, METADATA, MujocoCamera

HORIZON = 1000
"""Steps per episode, as registered by OGBench and D4RL."""
GOAL_RADIUS = {"point": 1.0, "ant": 0.5}
"""Metres from the goal within which OGBench's tasks are solved."""
D4RL_GOALS = {"medium": (6, 6), "large": (7, 9)}
"""Row and column of the goal in D4RL's antmaze-{medium,large}-{play,diverse}-v2; the start is (1,
1)."""


class MazeEnv(gymnasium.Env[Any, np.ndarray]):
    """One maze with one start and one goal: reward 1 at the goal, where the episode ends, else 0
    (plus an offset).

    task 0 to 5: OGBench's single-task rules (0 is its default task, task 1): the start varies
    within a cell, the goal is the centre of a cell, and success is looked up before a step is
    taken, so the step after arrival is the rewarded one. task "d4rl": D4RL's rules for
    antmaze-*-v2: the start hardly varies, the goal lies up to 1.5 m beyond the centre of its cell
    in both directions, and the step that arrives is rewarded.

    Observation {"state": [o]}: the ant's positions with x and y first and velocities (15 + 14), or
    the point's x and y. Action: joint torques [8] or displacement [2], in [-1, 1].
    """

    metadata: dict[str, Any] = METADATA
    render_mode = "rgb_array"

    def __init__(
        self, body: Literal["ant", "point"], maze: str, task: int | str, reward_offset: float = 0.0
    ):
        with warnings.catch_warnings():
            # without a display, the package's renderer complains as it is imported
            warnings.simplefilter("ignore")
            from ogbench.locomaze.maze import make_maze_env

        self._d4rl = task == "d4rl"
        number = 1 if isinstance(task, str) else task
        self._env: Any = make_maze_env(
            body, "maze", maze_type=maze, reward_task_id=number, add_noise_to_goal=False,
            success_timing="post" if self._d4rl else "pre",
        )  # fmt: skip
        # the model is loaded; nobody removes its file otherwise
        Path(self._env.fullpath).unlink(missing_ok=True)
        if self._d4rl:
            goal = D4RL_GOALS[maze]
            self._env.task_infos[0] |= {
                "init_ij": (1, 1), "init_xy": self._env.ij_to_xy((1, 1)),
                "goal_ij": goal, "goal_xy": self._env.ij_to_xy(goal),
            }  # fmt: skip
        self._camera = MujocoCamera(FROM_ABOVE)
        self.maze = self._env
        """OGBench's environment, with `get_oracle_subgoal(xy, goal_xy)`, `get_xy()` and
        `cur_goal_xy`."""
        size, actions = self._env.observation_space.shape[0], self._env.action_space.shape[0]
        self.observation_space = gymnasium.spaces.Dict(
            {"state": gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)}
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (actions,), np.float32)
        self._steps, self._offset = 0, reward_offset

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode; the seed fixes start, and goal where it varies."""
        super().reset(seed=seed)
        self._steps = 0
        rng = np.random.default_rng(self.np_random.integers(2**31) if seed is None else seed)
        # OGBench draws the start from NumPy's global generator and a few warm-up actions from its
        # action space.
        spread = 0.0 if self._d4rl else 1.0

        def add_noise(place: Any) -> np.ndarray:
            return np.asarray(place) + spread * rng.uniform(-1.0, 1.0, 2)

        self._env.add_noise = add_noise
        self._env.action_space.seed(int(rng.integers(2**31)))
        state, _ = self._env.reset(seed=int(rng.integers(2**31)))
        if self._d4rl:
            goal = np.asarray(self._env.task_infos[0]["goal_xy"])
            self._env.set_goal(goal_xy=goal + rng.uniform(0.0, 1.0, 2) + rng.uniform(0.0, 0.5, 2))
        return {"state": state.astype(np.float32)}, {"success": False}

    def step(self, action: np.ndarray):
        """One step of 0.1 s; ends at success (terminated) or after 1,000 steps (truncated)."""
        state, _, terminated, _, info = self._env.step(np.clip(action, -1.0, 1.0))
        self._steps += 1
        success = bool(info["success"])
        truncated = not terminated and self._steps >= HORIZON
        reward = success + self._offset
        return (
            {"state": state.astype(np.float32)},
            reward,
            bool(terminated),
            truncated,
            {"success": success},
        )

    def render(self) -> np.ndarray:
        """What a camera sees, uint8 [240, 320, 3]."""
        return self._camera.picture(self._env.unwrapped.model, self._env.unwrapped.data)

    def close(self):
        """Frees the simulator."""
        self._camera.close()
        self._env.close()


def goal_of(body: Literal["ant", "point"], maze: str, task: int) -> np.ndarray:
    """Where the goal of one of OGBench's tasks is, [2] in metres."""
    env = MazeEnv(body, maze, task)
    goal = np.asarray(env.maze.task_infos[max(task, 1) - 1]["goal_xy"], np.float64)
    env.close()
    return goal


def until_success(episode: Episode, successes: np.ndarray, rewards: np.ndarray) -> Episode:
    """The episode with these successes [t] and rewards [t], ended at the first success where there
    is one."""
    steps = int(successes.argmax()) + 1 if successes.any() else len(successes)

    def cut(values: np.ndarray) -> np.ndarray:
        return values[: steps + (len(values) > len(successes))]

    return dataclasses.replace(
        episode,
        observations={name: values[: steps + 1] for name, values in episode.observations.items()},
        actions=np.clip(episode.actions[:steps], -1.0, 1.0).astype(np.float32),
        rewards=rewards[:steps].astype(np.float32),
        successes=successes[:steps],
        terminated=bool(successes.any()),
        infos={name: cut(values) for name, values in episode.infos.items()},
    )


def next_cell(walls: np.ndarray, start: tuple[int, int], goal: tuple[int, int]) -> tuple[int, int]:
    """The cell after `start` on a shortest way to `goal` through a map [rows, columns] of walls;
    `start` if none."""
    ahead, seen = [goal], {goal}
    for row, column in ahead:
        for cell in ((row - 1, column), (row, column - 1), (row + 1, column), (row, column + 1)):
            if cell == start:
                return row, column
            inside = 0 <= cell[0] < walls.shape[0] and 0 <= cell[1] < walls.shape[1]
            if inside and not walls[cell] and cell not in seen:
                seen.add(cell)
                ahead.append(cell)
    return start
