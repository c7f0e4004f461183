"""Scripted experts for robosuite scenes: phases in order, each a few lines, back to the start when
an object slips.

They read the simulator's state, so they know more than the observation shows. They are scripts, not
humans: wherever their demonstrations are used, say so.
"""

import functools
import math
from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from exporl.data.episodes import Episode
from exporl.envs.collect import Expert, collect_episodes
from exporl.envs.robosuite_scenes import RobosuiteEnv, Scene

Phase = Generator[np.ndarray, None, None]
OPEN, CLOSED = -1.0, 1.0
STEP = 0.05
"""Metres that the controller moves at action 1."""


class Hand:
    """The first arm of a robosuite environment, with how fast and how precisely this episode's
    expert moves it."""

    def __init__(self, simulator: Any, rng: np.random.Generator):
        self.simulator = simulator
        self.speed = rng.uniform(0.5, 1.0)
        self.hover = 0.08 + rng.uniform(-0.03, 0.03)
        self.offset = rng.uniform(-0.006, 0.006, 2)

    @property
    def position(self) -> np.ndarray:
        """[3] of the point between the fingers."""
        return self.simulator.sim.data.site_xpos[self.simulator.robots[0].eef_site_id].copy()

    @property
    def rotation(self) -> np.ndarray:
        """[3, 3]; the third column is where the fingers point."""
        return (
            self.simulator.sim.data.site_xmat[self.simulator.robots[0].eef_site_id]
            .reshape(3, 3)
            .copy()
        )

    def body(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Position [3] and rotation [3, 3] of a body."""
        data = self.simulator.sim.data
        return data.body_xpos[index].copy(), data.body_xmat[index].reshape(3, 3).copy()

    def toward(self, target: np.ndarray, turn: float, grip: float, slow: float = 1.0) -> np.ndarray:
        """The action [7] that moves towards a point, turns about the vertical and keeps the fingers
        pointing down."""
        move = (target - self.position) / STEP
        move *= min(1.0, self.speed * slow / max(np.abs(move).max(), 1e-9))
        tilt = np.cross(self.rotation[:, 2], [0.0, 0.0, -1.0])
        return np.array([*move, *np.clip((tilt + _up(turn)) / 0.5, -0.5, 0.5), grip])

    def stay(self, grip: float, steps: int) -> Phase:
        """Opens or closes the fingers on the spot."""
        for _ in range(steps):
            yield self.toward(self.position, 0.0, grip)

    def release(self, steps: int) -> Phase:
        """Opens the fingers, then rises."""
        for step in range(steps):
            yield self.toward(self.position + _up(0.06 * (step > 3)), 0.0, OPEN)

    def grasp(
        self,
        target: Callable[[], np.ndarray],
        turn: Callable[[], float],
        near: float,
        angle: float,
        steps: int,
    ) -> Phase:
        """Goes above a point, down to it within `near` metres, and closes the fingers."""
        distance, left = math.inf, math.inf
        while distance >= 0.02 or left >= angle:
            above, left = target() + _up(self.hover), abs(turn())
            distance = float(np.linalg.norm(above - self.position))
            yield self.toward(above, turn(), OPEN)
        distance = math.inf
        while distance >= near:
            distance = float(np.linalg.norm(target() - self.position))
            yield self.toward(target(), turn(), OPEN, 0.7)
        yield from self.stay(CLOSED, steps)


def yaw(rotation: np.ndarray) -> float:
    """Angle of a frame's first axis about the vertical, radians."""
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def wrap(angle: float, period: float) -> float:
    """The angle of least size that is equal to this one up to multiples of the period."""
    return (angle + period / 2) % period - period / 2


def _up(value: float) -> np.ndarray:
    return np.array([0.0, 0.0, value])


def lift(hand: Hand, rng: np.random.Generator) -> Phase:
    """Grasps the cube and lifts it."""
    cube = functools.partial(hand.body, hand.simulator.cube_body_id)
    floor = cube()[0][2]
    while True:
        yield from _grasp_body(hand, cube, -0.005, math.pi / 2)
        x, y, _ = hand.position
        while not _slipped(hand, cube()[0], floor):
            yield hand.toward(np.array([x, y, floor + 0.1]), 0.0, CLOSED)


def can(hand: Hand, rng: np.random.Generator) -> Phase:
    """Grasps the can, carries it over its bin and lets go."""
    simulator = hand.simulator
    body = functools.partial(hand.body, simulator.obj_body_id["Can"])
    floor, scatter = body()[0][2], rng.uniform(-0.027, 0.027, 2)
    goal = simulator.target_bin_placements[simulator.object_id]
    spot = goal[:2] - [0.045, 0.065] + scatter  # the corner of the bin's quarter that is nearest
    while True:
        yield from _grasp_body(hand, body, 0.01, math.inf)
        x, y, _ = hand.position
        while not _slipped(hand, body()[0], floor) and hand.position[2] <= floor + 0.17:
            yield hand.toward(np.array([x, y, floor + 0.2]), 0.0, CLOSED)
        held, distance = True, math.inf
        while held and distance >= 0.025:
            shift = (body()[0] - hand.position)[:2]
            target = np.array([*(spot - shift), floor + 0.2])
            held, distance = (
                body()[0][2] >= hand.position[2] - 0.1,
                np.linalg.norm((target - hand.position)[:2]),
            )
            yield hand.toward(target, 0.0, CLOSED)
        while held and abs(goal[2] + 0.1 - hand.position[2]) >= 0.02:
            yield hand.toward(np.array([*hand.position[:2], goal[2] + 0.1]), 0.0, CLOSED, 0.8)
        if held:
            yield from hand.release(30)


def stack(hand: Hand, rng: np.random.Generator) -> Phase:
    """Grasps the small cube, turns it as the large one lies, and puts it on top."""
    small = functools.partial(hand.body, hand.simulator.cubeA_body_id)
    large = functools.partial(hand.body, hand.simulator.cubeB_body_id)

    def turn() -> float:
        return wrap(yaw(large()[1]) - yaw(small()[1]), math.pi / 2)

    floor = small()[0][2]
    while True:
        yield from _grasp_body(hand, small, -0.005, math.pi / 2)
        x, y, _ = hand.position
        while not _slipped(hand, small()[0], floor) and hand.position[2] <= floor + 0.08:
            yield hand.toward(
                np.array([x, y, floor + 0.1 + 0.3 * (hand.hover - 0.05)]), 0.0, CLOSED
            )
        held, distance, left = True, math.inf, math.inf
        while held and (distance >= 0.008 or left >= 0.2):
            shift, goal = small()[0] - hand.position, large()[0]
            distance, left = np.linalg.norm((small()[0] - goal)[:2]), abs(turn())
            held = small()[0][2] >= hand.position[2] - 0.05
            yield hand.toward(np.array([*(goal - shift)[:2], floor + 0.11]), turn(), CLOSED)
        while held and small()[0][2] >= large()[0][2] + 0.052:
            shift, goal = small()[0] - hand.position, large()[0]
            yield hand.toward(goal - shift + _up(0.05), turn(), CLOSED, 0.6)
            held = small()[0][2] >= hand.position[2] - 0.05
        yield from hand.release(25 if held else 0)


def square(hand: Hand, rng: np.random.Generator) -> Phase:
    """Grasps the nut at its handle, turns it straight, centres it over the peg and pushes it
    down."""
    simulator = hand.simulator
    nut = functools.partial(hand.body, simulator.obj_body_id["SquareNut"])

    def peg() -> np.ndarray:
        return hand.body(simulator.peg1_body_id)[0]

    def grip() -> np.ndarray:
        along = nut()[1][:, 0] * (0.013 + hand.offset[0] / 2)
        return simulator.sim.data.site_xpos[site] + along - _up(0.003)

    def turn(fingers: float) -> float:
        return wrap(yaw(nut()[1]) + fingers - yaw(hand.rotation), 2 * math.pi)

    def straighten(final: float) -> float:
        return wrap(final - yaw(nut()[1]), 2 * math.pi)

    handle = next(n for n in simulator.sim.model.site_names if "SquareNut" in n and "handle" in n)
    site = simulator.sim.model.site_name2id(handle)
    floor, start = nut()[0][2], yaw(hand.rotation)
    while True:
        final, fingers = _turns(yaw(nut()[1]), start)
        straight = functools.partial(straighten, final)
        yield from hand.grasp(grip, functools.partial(turn, fingers), 0.01, 0.1, 7)
        x, y, _ = hand.position
        held = True
        while held and hand.position[2] <= floor + 0.13:
            yield hand.toward(np.array([x, y, floor + 0.16]), straight(), CLOSED)
            held = nut()[0][2] >= floor + 0.02 or hand.position[2] <= floor + 0.1
        while held:
            drift = np.zeros(2)  # the integral of the error: the controller alone leaves some
            held = yield from _centre(hand, nut, peg, straight, floor, drift)
            if held and (
                yield from _push(hand, nut, peg, straight, simulator.table_offset[2] + 0.08, drift)
            ):
                yield from hand.release(30)
                held = False


def _turns(lying: float, start: float) -> tuple[float, float]:
    """The nut's final angle and the fingers' angle to it that turn the wrist least on the way.

    The handle may not point away from the robot at the end, where the hand would have to reach over
    the peg.
    """
    best, choice = math.inf, (math.pi, 0.0)
    for final in (math.pi, math.pi / 2, -math.pi / 2):
        for fingers in (math.pi / 2, -math.pi / 2):
            first = wrap(lying + fingers - start, 2 * math.pi)
            cost = max(abs(first), abs(first + wrap(final - lying, 2 * math.pi))) + 0.3 * (
                final != math.pi
            )
            if cost < best:
                best, choice = cost, (final, fingers)
    return choice


def _centre(hand, nut, peg, straight, floor, drift) -> Generator[np.ndarray, None, bool]:
    """Holds the nut over the peg until it is centred and straight; whether it is still held
    then."""
    error, left = np.array([math.inf, math.inf]), math.inf
    while np.linalg.norm(error) >= 0.003 or left >= 0.04:
        error, left = (peg() - nut()[0])[:2], abs(straight())
        if np.linalg.norm(error) < 0.02:
            drift[:] = np.clip(drift + 0.15 * error, -0.02, 0.02)
        rise = floor + 0.15 - hand.position[2]
        yield hand.toward(
            hand.position + np.array([*(error + drift), rise]), straight(), CLOSED, 0.9
        )
        if nut()[0][2] < max(hand.position[2] - 0.09, floor + 0.03):
            return False
    return True


def _push(hand, nut, peg, straight, low, drift) -> Generator[np.ndarray, None, bool]:
    """Pushes the nut down over the peg; whether it got there, False when it is stuck for 20
    steps."""
    best, stuck = nut()[0][2], 0
    while stuck <= 20:
        error = (peg() - nut()[0])[:2]
        drift[:] = np.clip(drift + 0.15 * error, -0.02, 0.02)
        yield hand.toward(
            hand.position + np.array([*(error + drift), -0.03]), straight(), CLOSED, 0.6
        )
        height = nut()[0][2]
        if height < low:
            return True
        best, stuck = (height, 0) if height < best - 0.003 else (best, stuck + 1)
    return False


def _grasp_body(
    hand: Hand, body: Callable[[], tuple[np.ndarray, np.ndarray]], height: float, period: float
) -> Phase:
    """Grasps a body; `period` is the angle after which it looks the same, infinity where any will
    do."""

    def turn() -> float:
        return 0.0 if math.isinf(period) else wrap(yaw(body()[1]) - yaw(hand.rotation), period)

    return hand.grasp(lambda: body()[0] + [*hand.offset, height], turn, 0.012, 0.15, 6)


def _slipped(hand: Hand, position: np.ndarray, floor: float) -> bool:
    return bool(position[2] < floor + 0.01 and hand.position[2] > floor + 0.07)


SCRIPTS: dict[str, Callable[[Hand, np.random.Generator], Phase]] = {
    "Lift": lift,
    "PickPlaceCan": can,
    "NutAssemblySquare": square,
    "Stack": stack,
}
"""robosuite environment -> its script."""


def make_expert(env: Any) -> Expert:
    """The script of a `RobosuiteEnv` for the episode that has just been reset; speed and aim vary
    with its seed."""
    rng = env.unwrapped.np_random
    phases = SCRIPTS[env.unwrapped.scene.env](Hand(env.unwrapped.simulator, rng), rng)
    return lambda observation, info: next(phases)


def collect(scene: Scene, episodes: int, noise: float, seed: int) -> list[Episode]:
    """Demonstrations by a script.

    Args:
        scene: one that has a script.
        episodes: how many, failures included.
        noise: standard deviation of Gaussian noise added to every action before clipping to [-1,
            1].
        seed: fixes starts, noise and the script's speed and aim.
    """
    env = RobosuiteEnv(scene)
    result = collect_episodes(env, make_expert, episodes, noise, seed)
    env.close()
    return result
