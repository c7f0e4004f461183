"""Parking: the package's own observation and success, plans, endings, determinism,
demonstrations."""

import math

import numpy as np
import pytest

from exporl.data.episodes import faults, fingerprint
from exporl.envs import driving, make_task
from exporl.envs.driving import _arc, _leaves, plan, route


def test_plans_end_where_they_should_and_turn_no_tighter_than_the_car():
    rng = np.random.default_rng(0)
    for _ in range(50):
        start = np.array([*rng.uniform(-10, 10, 2), rng.uniform(-math.pi, math.pi)])
        goal = np.array([*rng.uniform([-20, 10], [20, 14]), math.pi / 2])
        pose, pieces = start, plan(start, goal)
        assert len(pieces) == 3
        for curvature, length in pieces:
            assert length >= 0
            assert abs(curvature) <= 1 / 5.6
            pose = _arc(pose, curvature, length)
        np.testing.assert_allclose(pose[:2], goal[:2], atol=0.02)
        assert abs(math.remainder(pose[2] - goal[2], 2 * math.pi)) < 2e-3


def test_the_way_around_is_taken_where_the_short_one_leaves_the_car_park():
    start, goal = np.array([0.0, 12.0, 0.0]), np.array([2.0, 6.0, -math.pi / 2])
    assert not _leaves(start, plan(start, goal))
    assert _leaves(start, [(1 / 6.5, 6.5 * math.pi)])
    points = route(np.array([0.0, 0.0, 0.0]), np.array([10.0, 14.0, math.pi / 2]))
    np.testing.assert_allclose(points[-8:, 0], 10.0, atol=1e-2)
    np.testing.assert_allclose(points[-1], [10.0, 14.0])
    assert np.linalg.norm(np.diff(points, axis=0), axis=1).max() < 0.51


@pytest.fixture(scope="module")
def simulator():
    return pytest.importorskip("highway_env", reason="the extra exporl[driving] is not installed")


@pytest.mark.slow
def test_states_and_success_are_the_packages_own(simulator):
    env, reference = driving.ParkingEnv(), driving.ParkingEnv().simulator
    observation, info = env.reset(seed=4)
    expected, _ = reference.reset(seed=4)
    expert, solved = driving.make_expert(env), False
    for _ in range(driving.HORIZON):
        np.testing.assert_allclose(observation["state"][:6], expected["observation"], atol=1e-6)
        np.testing.assert_allclose(
            observation["state"][6:10], expected["desired_goal"][[0, 1, 4, 5]], atol=1e-6
        )
        assert observation in env.observation_space
        action = np.clip(expert(observation, info), -1, 1)
        observation, reward, terminated, _, info = env.step(action)
        expected, *_, theirs = reference.step(action)
        assert info["success"] is terminated is bool(theirs["is_success"])
        assert reward == float(terminated)
        if terminated:
            solved = True
            break
    assert solved


@pytest.mark.slow
def test_a_seed_fixes_the_episode(simulator):
    actions = np.random.default_rng(0).uniform(-1, 1, (15, 2))

    def play(env, seed: int) -> np.ndarray:
        observation, info = env.reset(seed=seed)
        assert info == {"success": False}
        return np.stack(
            [observation["state"], *(env.step(action)[0]["state"] for action in actions)]
        )

    used, fresh = driving.ParkingEnv(), driving.ParkingEnv()
    other = play(used, 1)
    expected = play(fresh, 7)
    np.testing.assert_array_equal(play(used, 7), expected)
    np.testing.assert_array_equal(play(fresh, 7), expected)
    assert np.abs(other[0] - expected[0]).max() > 0.01


@pytest.mark.slow
def test_a_crash_is_no_end_and_no_success(simulator):
    env = driving.ParkingEnv()
    env.reset(seed=0)
    for step in range(driving.HORIZON):
        observation, reward, terminated, truncated, info = env.step(np.array([5.0, 0.0]))
        assert (reward, terminated, truncated) == (0.0, False, step == driving.HORIZON - 1)
        assert info["success"] is False
    assert observation["state"][-1] == 1
    np.testing.assert_allclose(observation["state"][2:4], 0, atol=1e-3)
    observation, _ = env.reset(seed=0)
    assert observation["state"][-1] == 0


@pytest.mark.slow
def test_the_planner_parks(simulator):
    task = make_task("driving/parking")
    assert task.collect is not None
    found = task.collect(4, 0.2, 0)
    assert [e.success for e in found] == [True] * 4
    for e in found:
        assert list(faults(e, task.spec)) == []
        assert e.terminated
        assert e.rewards.tolist() == [0.0] * (len(e) - 1) + [1.0]
    assert fingerprint(task.collect(1, 0.2, 0)) == fingerprint(found[:1])
    assert fingerprint(task.collect(1, 0.2, 1)) != fingerprint(found[:1])


@pytest.mark.slow
def test_a_driver_who_is_pushed_off_the_route_plans_anew(simulator):
    env = driving.ParkingEnv()
    observation, info = env.reset(seed=0)
    expert = driving.make_expert(env)
    for step in range(driving.HORIZON):
        if step == 12:
            env.simulator.vehicle.position = env.simulator.vehicle.position + np.array([-3.0, 2.0])
            observation = {"state": env._state()}
        observation, _, terminated, _, info = env.step(expert(observation, info))
        if terminated:
            break
    assert info["success"]
