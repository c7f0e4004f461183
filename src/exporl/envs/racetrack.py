"""A stretch of highway-env's racetrack with an obstacle in its middle, which can be passed on
either side, and drivers who pass it on one side as often as on the other.

What the demonstrations share is wrong: between the ways around the obstacle is the obstacle.
"""

import math
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.envs.cameras import METADATA
from exporl.envs.collect import Expert, collect_episodes
from exporl.spec import Spec

HORIZON = 80
"""Steps of 0.2 s per episode; at the drivers' speed the stretch takes about 50."""
SPEC = Spec((("state", (8,), "float32"),), action_dim=2)
Side = Literal["left", "right"]
SIDES: dict[Side, float] = {"left": -1.0, "right": 1.0}
"""Sign of the offset from the middle of the road, as a driver sees it."""
FINISH = 85.0
"""Metres from the beginning of the road to the end of the stretch, in the first turn."""
_STRAIGHT = (42.0, 100.0)
"""x where the straight part of the road begins and ends, metres."""
_MIDDLE = 2.5
"""y of the middle of the straight part, metres."""
_CENTRE = np.array([100.0, -20.0])
"""Of the turn that follows, which goes to the left, metres."""
_RADIUS = 22.5
"""Of its middle, metres."""
_HALF_ROAD = 5.0
"""From the middle of the road to its edge, metres."""
_STARTS = (2.0, 10.0)
"""Where episodes start, metres from the beginning of the road."""
_OBSTACLES = (30.0, 40.0)
"""Where the middle of the obstacle is, metres from the beginning of the road; it is 2 m wide and
long."""
_SPEED = 8.0
"""At the start, and of the drivers, metres per second."""
_STEERING = math.pi / 4
"""Steering angle at action 1, radians."""
_THROTTLE = 5.0
"""Acceleration at action 1, m/s^2."""
_HALF_LENGTH = 2.5
"""Of the car, metres: the lever of its steering. It is 2 m wide."""
_SWERVE = 12.0
"""Metres before the obstacle at which a driver leaves the middle of the road."""
_OFFSET = 3.0
"""Metres from the middle of the road at which a driver passes the obstacle."""
_AHEAD = 6.0
"""Metres from a driver to the point of the road that is steered for."""

_PURPLE = (200, 0, 150)
"""Colour of the obstacle in pictures; cars are yellow, and red after a crash."""


class RacetrackEnv(gymnasium.Env[Any, np.ndarray]):
    """A straight road with an obstacle and a turn behind it: reward 1 at the end of the stretch,
    where the episode ends, else 0.

    Observation {"state": [8]}: metres along the road (100 m) and from its middle (5 m, to the right
    above 0), cosine and sine of the heading against the road, speed (10 m/s), metres to the
    obstacle (100 m) and from the car to it sideways (5 m), 1 after a crash. Action [2] in [-1, 1]:
    throttle (5 m/s^2 at 1) and steering (45 degrees at 1). A car that hits the obstacle or leaves
    the road has crashed: it rolls to a stop and stays until the time limit.
    """

    metadata: dict[str, Any] = METADATA
    render_mode = "rgb_array"

    def __init__(self):
        self.observation_space = gymnasium.spaces.Dict(
            {"state": gymnasium.spaces.Box(-np.inf, np.inf, (8,), np.float32)}
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.simulator: Any = _simulator()
        self._obstacle = np.zeros(2)
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode; the seed fixes the pose of the car and where the obstacle is."""
        super().reset(seed=seed)
        self._steps = 0
        rng = self.np_random
        self._obstacle = np.array([rng.uniform(*_OBSTACLES), rng.uniform(-0.2, 0.2)])
        start = np.array([rng.uniform(*_STARTS), rng.uniform(-1.0, 1.0)])
        self.simulator.start = _place(start), rng.uniform(-0.1, 0.1), _place(self._obstacle)
        self.simulator.reset(seed=0)  # what it draws itself is not used
        return {"state": self._state()}, {"success": False}

    def step(self, action: np.ndarray):
        """One step of 0.2 s; ends at the end of the stretch (terminated) or after 80 steps
        (truncated)."""
        self.simulator._simulate(np.clip(np.asarray(action, np.float64), -1.0, 1.0))
        self._steps += 1
        car = self.simulator.vehicle
        along, offset, _ = on_road(car.position)
        car.crashed = bool(car.crashed) or abs(offset) > _HALF_ROAD
        success = along >= FINISH and not car.crashed
        truncated = not success and self._steps >= HORIZON
        return {"state": self._state()}, float(success), success, truncated, {"success": success}

    def render(self) -> np.ndarray:
        """The road around the car from above, uint8 [240, 320, 3]."""
        picture = self.simulator.render()
        self.simulator.enable_auto_render = False  # steps would draw, too
        return np.asarray(picture)

    def close(self):
        """Frees the simulator."""
        self.simulator.close()

    def _state(self) -> np.ndarray:
        car = self.simulator.vehicle
        along, offset, direction = on_road(car.position)
        error, ahead = car.heading - direction, self._obstacle - [along, offset]
        motion = [math.cos(error), math.sin(error), car.speed / 10]
        place = [along / 100, offset / 5, *motion, ahead[0] / 100, ahead[1] / 5]
        return np.array([*place, car.crashed], np.float32)


def _simulator() -> Any:
    """highway-env's racetrack with a car, an obstacle and nobody else."""
    # it greets on standard output otherwise
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from highway_env.envs.racetrack_env import RacetrackEnv as Simulator
        from highway_env.vehicle import objects

    class Stretch(Simulator):
        """The package's road; who is on it is decided by `start`: place and heading of the car,
        place of the obstacle."""

        start: tuple[np.ndarray, float, np.ndarray] = (np.zeros(2), 0.0, np.zeros(2))

        def _make_vehicles(self) -> None:
            place, heading, obstacle = self.start
            make: Any = self.action_type.vehicle_class
            car = make(self.road, place, heading, _SPEED)
            self.controlled_vehicles = [car]
            self.road.vehicles.append(car)
            make_obstacle: Any = objects.Obstacle
            block = make_obstacle(self.road, obstacle)
            block.color = _PURPLE
            self.road.objects.append(block)

    action = {"type": "ContinuousAction", "longitudinal": True, "lateral": True}
    picture = {"screen_width": 320, "screen_height": 240, "scaling": 5.0}
    seen = {"observation": {"type": "Kinematics", "vehicles_count": 1}}
    return Stretch(config={"action": action, **seen, **picture}, render_mode="rgb_array")


def _place(along_offset: np.ndarray) -> np.ndarray:
    """x and y of a place on the straight part, given along the road and from its middle."""
    return np.array([_STRAIGHT[0] + along_offset[0], _MIDDLE + along_offset[1]])


def on_road(position: np.ndarray) -> tuple[float, float, float]:
    """Where a place is, seen from the road.

    Args:
        position: x, y in metres; y grows to the right of a car that drives along x.

    Returns:
        Metres along the middle of the road, metres from the middle (to the right above 0), and the
        direction of the road there, radians.
    """
    x, y = position
    begin, end = _STRAIGHT
    if x <= end:
        return float(x - begin), float(y - _MIDDLE), 0.0
    from_centre = position - _CENTRE
    turned = math.atan2(from_centre[0], from_centre[1])
    along = end - begin + _RADIUS * turned
    return float(along), float(np.hypot(*from_centre) - _RADIUS), -turned


def make_expert(side: Side) -> Callable[[gymnasium.Env], Expert]:
    """A driver who passes the obstacle on one side.

    It drives in the middle of the road until the obstacle is near: before that, nothing shows on
    which side it will pass.
    """

    def act(observation: dict[str, np.ndarray], info: dict[str, Any]) -> np.ndarray:
        state = observation["state"].astype(float)
        along, offset, speed, ahead = 100 * state[0], 5 * state[1], 10 * state[4], 100 * state[5]
        error = math.atan2(state[3], state[2])
        wanted = SIDES[side] * _OFFSET if ahead < _SWERVE else 0.0
        bearing = math.atan2(wanted - offset, _AHEAD) - error
        curvature = 2 * math.sin(bearing) / math.hypot(wanted - offset, _AHEAD)
        if along > _STRAIGHT[1] - _STRAIGHT[0]:
            curvature -= 1 / (_RADIUS + offset)
        slip = math.asin(np.clip(curvature * _HALF_LENGTH, -0.44, 0.44))
        throttle = (_SPEED - speed) / 0.4 / _THROTTLE
        return np.array([throttle, math.atan(2 * math.tan(slip)) / _STEERING])

    return lambda env: act


def side_of(episode: Episode) -> Side | None:
    """On which side an episode passes the obstacle; None: it does not get past it."""
    state = episode.observations["state"]
    beside = np.flatnonzero(state[:, 5] <= 0)
    if len(beside) == 0 or state[beside[0], 7]:
        return None
    return "right" if state[beside[0], 6] < 0 else "left"


def collect(episodes: int, noise: float, seed: int) -> list[Episode]:
    """Demonstrations, to the left and to the right of the obstacle by turns, whatever the start.

    Args:
        episodes: how many, failures included.
        noise: standard deviation of Gaussian noise added to every action before clipping to [-1,
            1].
        seed: fixes starts, obstacles and noise.
    """

    def sides() -> Iterator[Callable[[gymnasium.Env], Expert]]:
        while True:
            yield from (make_expert(side) for side in SIDES)

    by_turns = sides()
    env = RacetrackEnv()
    made = collect_episodes(env, lambda env: next(by_turns)(env), episodes, noise, seed)
    env.close()
    return made
