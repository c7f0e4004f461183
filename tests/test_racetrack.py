"""The racetrack: where the car is on the road, an obstacle that can be passed on either side,
crashes, determinism, and demonstrations with two ways."""

import math
from collections import Counter

import numpy as np
import pytest

from exporl.data.episodes import faults, fingerprint
from exporl.envs import make_task, racetrack
from exporl.envs.racetrack import HORIZON, RacetrackEnv, make_expert, on_road, side_of


def test_a_place_on_the_road_is_known_by_its_distance_along_it_and_from_its_middle():
    assert on_road(np.array([52.0, 4.5])) == (10.0, 2.0, 0.0)
    begins = on_road(np.array([100.0 + 1e-9, 2.5]))
    np.testing.assert_allclose(begins, (58.0, 0.0, 0.0), atol=1e-6)
    half = math.pi / 4
    inside = np.array([100.0, -20.0]) + 20.0 * np.array([math.sin(half), math.cos(half)])
    np.testing.assert_allclose(on_road(inside), (58.0 + 22.5 * half, -2.5, -half))


@pytest.fixture(scope="module")
def simulator():
    return pytest.importorskip("highway_env", reason="the extra exporl[driving] is not installed")


@pytest.mark.slow
def test_the_road_is_the_packages_own(simulator):
    """Also along the turn: its lanes are 2.5 m from the middle on either side."""
    env = RacetrackEnv()
    env.reset(seed=0)
    network = env.simulator.road.network
    for section in ("ab", "bc"):
        for number, offset in enumerate((-2.5, 2.5)):
            lane = network.get_lane((*section, number))
            for share in (0.01, 0.4, 0.8):
                along, found, direction = on_road(lane.position(share * lane.length, 0.0))
                assert found == pytest.approx(offset, abs=1e-6)
                at = lane.heading_at(share * lane.length)
                assert math.remainder(at - direction, 2 * math.pi) == pytest.approx(0, abs=1e-6)
                assert section == "bc" or along == pytest.approx(share * lane.length)
    car = env.simulator.vehicle
    for offset, is_off in ((4.9, False), (5.1, True)):
        car.position = np.array([60.0, 2.5 + offset])
        car.on_state_update()
        assert car.on_road is not is_off


def drive(env, seed, driver):
    """State, whether it ended, and info, step by step."""
    observation, info = env.reset(seed=seed)
    assert info == {"success": False}
    seen = [(observation["state"], False, False)]
    act = driver(env)
    while not (seen[-1][1] or seen[-1][2]):
        observation, reward, terminated, truncated, info = env.step(act(observation, info))
        assert info["success"] is terminated and reward == float(terminated)
        seen.append((observation["state"], terminated, truncated))
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("side", racetrack.SIDES)
def test_every_driver_passes_on_its_side(simulator, side):
    env = RacetrackEnv()
    for seed in range(5):
        seen = drive(env, seed, make_expert(side))
        states = np.stack([state for state, _, _ in seen])
        assert seen[-1][1] and len(seen) <= HORIZON and states[-1, 0] >= 0.85
        assert states[:, 7].max() == 0 and np.abs(5 * states[:, 1]).max() < 4
        beside = states[np.argmax(states[:, 5] <= 0)]
        assert (beside[6] < 0) == (side == "right") and 5 * abs(beside[6]) > 2


@pytest.mark.slow
def test_the_mean_of_both_drivers_hits_the_obstacle(simulator):
    def mean_of_both(env):
        drivers = [make_expert(side)(env) for side in racetrack.SIDES]
        return lambda observation, info: np.mean(
            [np.clip(drive(observation, info), -1, 1) for drive in drivers], axis=0
        )

    env = RacetrackEnv()
    for seed in range(5):
        states = np.stack([state for state, _, _ in drive(env, seed, mean_of_both)])
        crash = states[np.argmax(states[:, 7] == 1)]
        assert crash[7] == 1 and 0 < 100 * crash[5] < 6 and 5 * abs(crash[6]) < 2


@pytest.mark.slow
def test_until_the_obstacle_is_near_nothing_shows_on_which_side_a_driver_will_pass(simulator):
    left, right = (drive(RacetrackEnv(), 3, make_expert(side)) for side in racetrack.SIDES)
    near = int(np.argmax([state[5] < 0.12 for state, _, _ in left]))
    assert near > 3
    for (a, _, _), (b, _, _) in zip(left[: near + 1], right[: near + 1], strict=True):
        assert a.tobytes() == b.tobytes()
    assert left[near + 2][0][1] < right[near + 2][0][1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steering", "ends"), [(0.0, "at the obstacle"), (0.35, "beside the road")]
)
def test_a_crash_is_no_end_and_no_success(simulator, steering, ends):
    env = RacetrackEnv()
    straight = drive(env, 2, lambda env: lambda observation, info: np.array([0.0, steering]))
    assert len(straight) == HORIZON + 1 and straight[-1][1:] == (False, True)
    last = straight[-1][0]
    assert last[7] == 1 and abs(last[4]) < 1e-3
    assert (abs(5 * last[1]) < 3) == (ends == "at the obstacle")
    observation, _ = env.reset(seed=2)
    assert observation["state"].tobytes() == straight[0][0].tobytes()


@pytest.mark.slow
def test_a_seed_fixes_the_episode(simulator):
    actions = np.random.default_rng(0).uniform(-0.2, 0.2, (15, 2))

    def play(env, seed: int) -> np.ndarray:
        observation, _ = env.reset(seed=seed)
        states = [observation["state"], *(env.step(action)[0]["state"] for action in actions)]
        return np.stack(states)

    used, fresh = RacetrackEnv(), RacetrackEnv()
    other, expected = play(used, 1), play(fresh, 7)
    np.testing.assert_array_equal(play(used, 7), expected)
    np.testing.assert_array_equal(play(fresh, 7), expected)
    assert (other[0] != expected[0]).sum() >= 4


@pytest.mark.slow
def test_demonstrations_go_past_both_sides(simulator):
    task = make_task("driving/racetrack")
    assert task.collect is not None
    found = task.collect(10, 0.1, 0)
    assert [each.success for each in found] == [True] * 10
    assert Counter(map(side_of, found)) == {"left": 5, "right": 5}
    for each in found:
        assert list(faults(each, task.spec)) == []
        assert each.rewards.tolist() == [0.0] * (len(each) - 1) + [1.0]
    assert fingerprint(task.collect(2, 0.1, 0)) == fingerprint(found[:2])
    assert fingerprint(task.collect(1, 0.1, 1)) != fingerprint(found[:1])
