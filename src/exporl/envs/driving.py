"""Autonomous driving on highway-env, with throttle and steering: parking a car nose first, and the
racetrack of `racetrack.py`."""

import functools
import math
import os
import warnings
from typing import Any

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.envs import racetrack
from exporl.envs.cameras import METADATA
from exporl.envs.collect import Expert, collect_episodes
from exporl.envs.task import Family, Reward, Task, sparse_reward
from exporl.spec import Spec

HORIZON = 100
"""Steps of 0.2 s per episode; the package allows 500, of which parking takes about 50."""
SPEC = Spec((("state", (11,), "float32"),), action_dim=2)
_STEERING = math.pi / 4
"""Steering angle at action 1, radians."""
_THROTTLE = 5.0
"""Acceleration at action 1, m/s^2."""
_HALF_LENGTH = 2.5
"""Of the car, metres: the lever of its steering."""
_RADIUS = 6.5
"""Of the planned turns, metres; the car can do 5.6."""
_ROOM = (31.0, 17.5)
"""How far from the middle the car's centre may be in x and y without touching a wall, metres."""
_SPEED = 4.0
"""Metres per second."""
_STRAIGHT = 4.0
"""Metres driven straight into the bay."""
_AHEAD = 8
"""Points of the route, 0.25 m apart, from the nearest one to the one steered for."""
_STRAY = 1.5
"""Metres off the route at which a new one is planned."""


class ParkingEnv(gymnasium.Env[Any, np.ndarray]):
    """An empty car park with walls: reward 1 when the car stands in its bay, where the episode
    ends, else 0.

    Observation {"state": [11]}: x, y (100 m), velocity x, y (5 m/s), cosine and sine of the
    heading; the bay's x, y, cosine and sine; 1 after a crash. Action [2] in [-1, 1]: throttle (5
    m/s^2 at 1) and steering (45 degrees at 1). A crashed car stands still until the time limit, so
    that crashing never ends the cost of not having parked.
    """

    metadata: dict[str, Any] = METADATA
    render_mode = "rgb_array"

    def __init__(self):
        # it greets on standard output otherwise
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from highway_env.envs.parking_env import ParkingEnv as Simulator

        self.observation_space = gymnasium.spaces.Dict(
            {"state": gymnasium.spaces.Box(-np.inf, np.inf, (11,), np.float32)}
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.simulator: Any = Simulator(render_mode="rgb_array")
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode in the middle of the car park; the seed fixes the car's heading and its
        bay."""
        super().reset(seed=seed)
        self._steps = 0
        self.simulator.reset(seed=int(self.np_random.integers(2**31)) if seed is None else seed)
        return {"state": self._state()}, {"success": False}

    def step(self, action: np.ndarray):
        """One step of 0.2 s; ends when parked (terminated) or after 100 steps (truncated)."""
        # The package's own step builds the same small observation eight times over as a table: 10
        # times slower.
        self.simulator._simulate(np.clip(np.asarray(action, np.float64), -1.0, 1.0))
        self._steps += 1
        state = self._state()
        car, bay = state[:6], np.array([*state[6:8], 0.0, 0.0, *state[8:10]])
        success = bool(self.simulator._is_success(car, bay)) and not self.simulator.vehicle.crashed
        truncated = not success and self._steps >= HORIZON
        return {"state": state}, float(success), success, truncated, {"success": success}

    def render(self) -> np.ndarray:
        """The car park from above, uint8 [300, 600, 3]."""
        picture = self.simulator.render()
        self.simulator.enable_auto_render = False  # steps would draw, too
        return np.asarray(picture)

    def close(self):
        """Frees the simulator."""
        self.simulator.close()

    def _state(self) -> np.ndarray:
        car, bay = self.simulator.vehicle, self.simulator.vehicle.goal
        (x, y), (vx, vy) = car.position / 100, car.velocity / 5
        heading = [math.cos(car.heading), math.sin(car.heading)]
        goal = [*(bay.position / 100), math.cos(bay.heading), math.sin(bay.heading)]
        return np.array([x, y, vx, vy, *heading, *goal, car.crashed], np.float32)


def _arc(pose: np.ndarray, curvature: float, length: float) -> np.ndarray:
    """Where x, y, heading get to along an arc."""
    x, y, heading = pose
    if curvature == 0:
        return np.array([x + length * math.cos(heading), y + length * math.sin(heading), heading])
    end = heading + curvature * length
    x += (math.sin(end) - math.sin(heading)) / curvature
    return np.array([x, y + (math.cos(heading) - math.cos(end)) / curvature, end])


def plan(start: np.ndarray, goal: np.ndarray) -> list[tuple[float, float]]:
    """The shortest turn-straight-turn path between two poses (x, y, heading) that stays clear of
    the walls.

    Returns:
        (curvature in 1/m, length in m) of its three pieces; the shortest of all paths when none is
        clear.
    """
    paths = [p for a in (1, -1) for b in (1, -1) if (p := _path(start, goal, a, b)) is not None]
    return min(paths, key=lambda p: (_leaves(start, p), sum(length for _, length in p)))


def _circle(pose: np.ndarray, side: int) -> np.ndarray:
    """The centre of the circle that turning left (1) or right (-1) from a pose drives on."""
    return pose[:2] + side * _RADIUS * np.array([-math.sin(pose[2]), math.cos(pose[2])])


def _path(
    start: np.ndarray, goal: np.ndarray, first: int, last: int
) -> list[tuple[float, float]] | None:
    """Turning left (1) or right (-1) at the start and at the goal; None if the two circles are too
    close."""
    between = _circle(goal, last) - _circle(start, first)
    distance = float(np.hypot(*between))
    heading = math.atan2(between[1], between[0])
    straight = distance
    if first != last:
        if distance < 2 * _RADIUS:
            return None
        straight = math.sqrt(distance**2 - (2 * _RADIUS) ** 2)
        heading += first * math.asin(2 * _RADIUS / distance)
    turns = [
        (first * (heading - start[2])) % (2 * math.pi),
        (last * (goal[2] - heading)) % (2 * math.pi),
    ]
    turns = [0.0 if turn > 2 * math.pi - 1e-3 else turn for turn in turns]  # a full circle is none
    return [
        (first / _RADIUS, turns[0] * _RADIUS),
        (0.0, straight),
        (last / _RADIUS, turns[1] * _RADIUS),
    ]


def _leaves(start: np.ndarray, path: list[tuple[float, float]]) -> bool:
    pose = start
    for curvature, length in path:
        for share in np.linspace(0.1, 1.0, 10):
            x, y, _ = _arc(pose, curvature, share * length)
            if abs(x) > _ROOM[0] or abs(y) > _ROOM[1]:
                return True
        pose = _arc(pose, curvature, length)
    return False


def route(start: np.ndarray, bay: np.ndarray) -> np.ndarray:
    """[n, 2] points 0.25 m apart from a pose to the middle of a bay, the last metres straight
    in."""
    entrance = bay - [_STRAIGHT * math.cos(bay[2]), _STRAIGHT * math.sin(bay[2]), 0.0]
    points, pose = [start[:2]], start
    for curvature, length in [*plan(start, entrance), (0.0, _STRAIGHT)]:
        points += [_arc(pose, curvature, done)[:2] for done in np.arange(0.25, length, 0.25)]
        pose = _arc(pose, curvature, length)
    return np.stack([*points, bay[:2]])


def make_expert(env: gymnasium.Env) -> Expert:
    """A driver who plans a route, steers for a point a little ahead on it, and plans anew when far
    off it."""
    path, done = np.zeros((0, 2)), 0

    def act(observation: dict[str, np.ndarray], info: dict[str, Any]) -> np.ndarray:
        nonlocal path, done
        x, y, vx, vy, cos, sin, bay_x, bay_y, bay_cos, bay_sin, _ = observation["state"].astype(
            float
        )
        car = np.array([100 * x, 100 * y, math.atan2(sin, cos)])
        speed = 5 * (vx * cos + vy * sin)
        near = np.linalg.norm(path[done : done + 20] - car[:2], axis=1)
        if len(near) == 0 or near.min() > _STRAY:
            path, done = (
                route(car, np.array([100 * bay_x, 100 * bay_y, math.atan2(bay_sin, bay_cos)])),
                0,
            )
        else:
            done += int(near.argmin())
        ahead = path[min(done + _AHEAD, len(path) - 1)] - car[:2]
        bearing = math.atan2(ahead[1], ahead[0]) - car[2]
        curvature = 2 * math.sin(bearing) / max(float(np.hypot(*ahead)), 1.0)
        slip = math.asin(np.clip(curvature * _HALF_LENGTH, -0.44, 0.44))
        wanted = _SPEED if done < len(path) - 1 else 0.0
        return np.array(
            [(wanted - speed) / 0.4 / _THROTTLE, math.atan(2 * math.tan(slip)) / _STEERING]
        )

    return act


def collect(name: str, episodes: int, noise: float, seed: int) -> list[Episode]:
    """Demonstrations by the planner, or by the drivers of the racetrack.

    Args:
        name: "parking" or "racetrack".
        episodes: how many, failures included.
        noise: standard deviation of Gaussian noise added to every action before clipping to [-1,
            1].
        seed: fixes starts, goals and noise.
    """
    if name == "racetrack":
        return racetrack.collect(episodes, noise, seed)
    return collect_episodes(ParkingEnv(), make_expert, episodes, noise, seed)


def make(name: str, reward: Reward) -> Task:
    """The task `driving/<name>`."""
    is_track = name == "racetrack"
    return Task(
        name=f"driving/{name}",
        make_env=racetrack.RacetrackEnv if is_track else ParkingEnv,
        spec=racetrack.SPEC if is_track else SPEC,
        reward=sparse_reward(reward),
        max_episode_steps=racetrack.HORIZON if is_track else HORIZON,
        collect=functools.partial(collect, name),
        normalize=True,
        source="drivers to both sides, action noise" if is_track else "planner with action noise",
        observation_note=_NOTES[name],
        control_hz=5.0,
    )


_NOTES = {
    "parking": (
        "position, velocity and heading of the car, position and heading of the bay, whether "
        "crashed"
    ),
    "racetrack": (
        "metres along the road and from its middle, heading against it, speed, where the obstacle "
        "is, whether crashed"
    ),
}
FAMILY = Family(
    names=tuple(_NOTES),
    make=make,
    module="highway_env",
    extra="driving",
    summary="state 8-11, action 2, 80-100 steps, ends at success; planner, drivers to both sides",
    details=(
        "highway-env. parking: 1 when parked, not crashed. racetrack: 1 past the obstacle and at "
        "the end of the stretch, not crashed. Data: a **planner**; **scripted** drivers who pass "
        "the obstacle on either side"
    ),
)
