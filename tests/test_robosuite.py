"""robomimic and MimicGen tasks: observation layouts of the robosuite versions, files, determinism,
endings, scripts."""

import dataclasses
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

from exporl.data.episodes import Episode, faults
from exporl.data.formats import FORMATS, load_episodes
from exporl.envs import make_task, mimicgen, robomimic, robosuite_scenes
from exporl.envs.global_random import seeded_global_random
from exporl.envs.robosuite_experts import (
    CLOSED,
    OPEN,
    SCRIPTS,
    Hand,
    _turns,
    make_expert,
    wrap,
    yaw,
)
from exporl.envs.robosuite_scenes import (
    CAN,
    LIFT,
    STACK,
    TRANSPORT,
    RobosuiteEnv,
    Scene,
    adapt,
    relative_pose,
)

DATA = Path(__file__).parents[2] / "shared" / "data" / "robosuite"
SIMULATED = {**robomimic.SCENES, "stack": STACK}


def poses(rng: np.random.Generator, count: int) -> np.ndarray:
    quaternions = rng.normal(size=(count, 4))
    return np.concatenate(
        [
            rng.normal(size=(count, 3)),
            quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True),
        ],
        axis=1,
    )


def matrix(pose: np.ndarray) -> np.ndarray:
    """4 x 4 matrix of a pose (position, quaternion x y z w)."""
    x, y, z, w = pose[3:]
    result = np.eye(4)
    result[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    result[:3, 3] = pose[:3]
    return result


def states(scene: Scene, version: int, steps: int = 4) -> np.ndarray:
    """Random states as the given robosuite version orders them: 0 is 1.4, 1 is 1.5."""
    rng = np.random.default_rng(0)
    parts: dict[str, np.ndarray] = {
        "bins": rng.normal(size=(steps + 1, 6)),
        "flags": np.zeros((steps + 1, 2)),
    }
    for name in (
        "cube",
        "can",
        "nut",
        "base",
        "frame",
        "tool",
        "payload",
        "trash",
        "lid",
        "a",
        "b",
        "eef",
        "eef1",
    ):
        parts[name] = poses(rng, steps + 1)
    columns = []
    for name in scene.layouts[version].split():
        if "-" in name:
            a, b = name.split("-")
            columns.append(parts[a][:, :3] - parts[b][:, :3])
        elif "@" in name:
            columns.append(relative_pose(parts[name.split("@")[0]], parts["eef"]))
        else:
            columns.append(parts[name])
    for arm in ("eef", "eef1")[: scene.arms]:
        columns += [parts[arm], np.full((steps + 1, 2), 0.02)]
    return np.concatenate(columns, axis=1).astype(np.float32)


def episode(state: np.ndarray, success: int | None = None, entries: dict | None = None) -> Episode:
    """An episode of these states whose given step, and all later ones, succeed."""
    steps = len(state) - 1
    successes = np.arange(steps) >= (steps if success is None else success)
    return Episode(
        entries or {"state": state},
        np.zeros((steps, 7), np.float32),
        successes.astype(np.float32),
        successes,
        bool(successes[-1]),
    )


def test_relative_poses_are_products_of_matrices():
    a, b = poses(np.random.default_rng(1), 20), poses(np.random.default_rng(2), 20)
    found = relative_pose(a, b)
    for x, y, z in zip(a, b, found, strict=True):
        np.testing.assert_allclose(matrix(z), np.linalg.inv(matrix(y)) @ matrix(x), atol=1e-9)
    assert (found[:, 6] >= 0).all()


@pytest.mark.parametrize("scene", SIMULATED.values(), ids=SIMULATED)
def test_states_of_robosuite_15_are_put_into_the_order_of_14(scene):
    right, other = states(scene, 0), states(scene, 1)
    assert right.shape[1:] == scene.spec.observation[0][1]
    assert np.abs(right - other).max() > 0.1
    np.testing.assert_allclose(adapt(scene, episode(other)).observations["state"], right, atol=1e-5)


def test_zeros_after_a_reset_of_robosuite_15_are_filled_in():
    other = states(CAN, 1)
    other[0, :7] = 0
    np.testing.assert_allclose(
        adapt(CAN, episode(other)).observations["state"], states(CAN, 0), atol=1e-5
    )


def test_an_episode_that_fits_stays_as_it_is():
    for e in (episode(states(LIFT, 0)), episode(states(LIFT, 0), success=3)):
        assert adapt(LIFT, e) is e


def test_files_of_robomimic_are_put_together_in_order_and_end_at_the_first_success():
    state = states(TRANSPORT, 0, steps=6)
    cuts = np.cumsum([41, 3, 4, 2, 3, 4])
    names = ["object", *(name for name, _ in TRANSPORT.proprioception)]
    entries = dict(zip(names, np.split(state, cuts, axis=1), strict=True))
    assert [entries[name].shape[1] for name in names] == [41, 3, 4, 2, 3, 4, 2]
    recorded = episode(state, success=2, entries={"robot0_joint_pos": np.zeros((7, 7)), **entries})
    recorded = dataclasses.replace(recorded, infos={"states": np.arange(7), "other": np.arange(6)})
    found = adapt(TRANSPORT, recorded)
    np.testing.assert_array_equal(found.observations["state"], state[:4])
    assert found.rewards.tolist() == [0, 0, 1]
    assert found.successes.tolist() == [False, False, True]
    assert found.terminated
    assert (len(found.actions), len(found.infos["states"]), len(found.infos["other"])) == (3, 4, 3)


def test_a_recording_that_stopped_without_success_is_no_true_end():
    recorded = dataclasses.replace(episode(states(LIFT, 0)), terminated=True)
    assert not adapt(LIFT, recorded).terminated


def test_episodes_that_do_not_fit():
    state = states(LIFT, 0)
    with pytest.raises(
        ValueError, match=r"observations lack robot0_eef_pos, robot0_eef_quat.*found \['object'\]"
    ):
        adapt(LIFT, episode(state, entries={"object": state[:, :10]}))
    with pytest.raises(
        ValueError, match=r"shape \(5, 19\); PickPlaceCan needs 23 .*another task's file"
    ):
        adapt(CAN, episode(state))
    with pytest.raises(
        ValueError, match=r"no known layout of Lift \(relative positions are off by .* at best\)"
    ):
        adapt(LIFT, episode(np.random.default_rng(0).normal(size=state.shape).astype(np.float32)))


def test_mimicgen_files_without_rewards_succeed_with_their_last_step():
    state = states(STACK, 0)
    entries = dict(
        zip(
            ("object", *(n for n, _ in STACK.proprioception)),
            np.split(state, [23, 26, 30], axis=1),
            strict=True,
        )
    )
    found = mimicgen.adapt(STACK, episode(state, entries=entries))
    assert found.successes.tolist() == [False, False, False, True]
    assert found.rewards.tolist() == [0, 0, 0, 1]
    assert found.terminated
    assert not mimicgen.adapt(STACK, episode(state)).success, (
        "our own failed demonstrations stay failures"
    )


@pytest.mark.skipif(
    not DATA.is_dir(), reason="the shared demonstrations of robosuite are not beside the repository"
)
@pytest.mark.parametrize(
    ("task", "file"), [("lift", "Lift"), ("can", "PickPlaceCan"), ("square", "NutAssemblySquare")]
)
def test_shared_demonstrations_load_as_prior_data(task, file):
    record = robomimic.make(task, "-1/0")
    path = DATA / f"{file}-mixed.npz"
    raw, found = load_episodes(path), load_episodes(path, adapt=record.adapt)
    assert len(found) == 100
    assert [e.success for e in found] == [e.success for e in raw]
    for before, after in zip(raw, found, strict=True):
        assert list(faults(after, record.spec)) == []
        np.testing.assert_array_equal(
            before.observations["state"][:, -9:], after.observations["state"][:, -9:]
        )
        state = after.observations["state"]
        if task == "lift":
            expected = state[:, 10:13] - state[:, :3]
        else:
            expected = relative_pose(state[:, :7], state[:, 14:21])[:, :3]
            assert np.linalg.norm(state[:, 7:10], axis=1).min() > 0
        np.testing.assert_allclose(state[:, 7:10], expected, atol=1e-6)


def test_the_global_generator_is_lent_and_given_back():
    rng = np.random.mtrand._rand  # type: ignore[attr-defined]
    before = rng.get_state()[1].copy()
    draws = []
    for seed in (3, 3, 4, 2**32 + 3):
        with seeded_global_random(seed):
            draws.append(rng.uniform())
    with pytest.raises(KeyError), seeded_global_random(1):
        rng.uniform()
        raise KeyError
    assert draws[0] == draws[1] == draws[3] != draws[2]
    np.testing.assert_array_equal(rng.get_state()[1], before)


def test_tasks_and_their_horizons():
    horizons = {
        name: robomimic.make(name, "-1/0").max_episode_steps for name in robomimic.FAMILY.names
    }
    assert horizons == {"lift": 400, "can": 400, "square": 400, "tool_hang": 700, "transport": 700}
    sizes = {name: make.spec.observation[0][1][0] for name, make in robomimic.SCENES.items()}
    assert sizes == {"lift": 19, "can": 23, "square": 23, "tool_hang": 53, "transport": 59}
    assert robomimic.make("transport", "-1/0").spec.action_dim == 14
    widths = {name: scene.spec.observation[0][1][0] - 9 for name, scene in mimicgen.SCENES.items()}
    assert widths == {
        "stack_d0": 23,
        "stack_d1": 23,
        "square_d0": 14,
        "square_d1": 17,
        "stack_three_d0": 39,
        "stack_three_d1": 39,
        "threading_d0": 28,
        "threading_d1": 28,
        "coffee_d0": 57,
        "coffee_d1": 57,
        "three_piece_assembly_d0": 42,
        "three_piece_assembly_d1": 42,
        "hammer_cleanup_d0": 28,
        "hammer_cleanup_d1": 28,
        "nut_assembly_d0": 28,
        "pick_place_d0": 56,
    }
    for family, names in (
        ("robomimic", {"lift", "can", "square"}),
        ("mimicgen", {"stack_d0", "stack_d1", "square_d0"}),
    ):
        module = {"robomimic": robomimic, "mimicgen": mimicgen}[family]
        tasks = [module.make(name, "0/1") for name in module.FAMILY.names]
        assert {t.name for t in tasks if t.collect is not None} == {
            f"{family}/{name}" for name in names
        }
        assert all("scripted, not" in t.source for t in tasks if t.collect is not None)


def test_an_environment_of_mimicgen_says_how_to_get_it():
    if importlib.util.find_spec("mimicgen") is not None:
        pytest.skip("mimicgen is installed")
    task = mimicgen.make("threading_d0", "-1/0")
    with pytest.raises(
        ModuleNotFoundError, match=r"Threading_D0 needs the package 'mimicgen'.*NVlabs/mimicgen"
    ):
        robosuite_scenes._make(mimicgen.SCENES["threading_d0"])
    assert task.collect is None


def test_angles():
    assert wrap(0.9 * math.pi, math.pi / 2) == pytest.approx(-0.1 * math.pi)
    assert wrap(-0.1, 2 * math.pi) == pytest.approx(-0.1)
    assert yaw(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])) == pytest.approx(math.pi / 2)
    final, fingers = _turns(math.pi, math.pi / 2)
    assert (final, abs(fingers)) == (math.pi, math.pi / 2)


@pytest.fixture(scope="module")
def simulator():
    return pytest.importorskip("robosuite", reason="the extra exporl[robomimic] is not installed")


@pytest.fixture(scope="module")
def lifts(simulator):
    envs = [RobosuiteEnv(LIFT), RobosuiteEnv(LIFT)]
    yield envs
    for env in envs:
        env.close()


def play(env: RobosuiteEnv, seed: int, actions) -> np.ndarray:
    """States and outcomes from the reset on."""
    observation, info = env.reset(seed=seed)
    assert info["success"] is False
    seen = [np.r_[observation["state"], 0.0]]
    for action in actions:
        observation, reward, *_ = env.step(np.asarray(action, np.float32))
        seen.append(np.r_[observation["state"], reward])
    return np.stack(seen)


@pytest.mark.slow
def test_a_seed_fixes_the_episode_in_fresh_and_used_environments(lifts):
    used, fresh = lifts
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 7))
    global_state = np.random.mtrand._rand.get_state()[1].copy()  # type: ignore[attr-defined]
    expected = play(used, 5, actions)
    other = play(used, 6, actions[::-1])
    np.testing.assert_array_equal(play(fresh, 5, actions), expected)
    np.testing.assert_array_equal(play(used, 5, actions), expected)
    assert np.abs(other[0] - expected[0])[:2].max() > 1e-3, "the cube starts elsewhere"
    np.testing.assert_array_equal(np.random.mtrand._rand.get_state()[1], global_state)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_spaces_clipping_and_the_time_limit(lifts, monkeypatch):
    env, other = lifts
    assert env.action_space.shape == (7,)
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    beyond = np.array([3.0, -2, 1.5, 7, 0, 0, 2])
    np.testing.assert_array_equal(
        play(env, 1, [beyond] * 2), play(other, 1, [np.clip(beyond, -1, 1)] * 2)
    )
    monkeypatch.setattr(env, "scene", dataclasses.replace(LIFT, horizon=2))
    env.reset(seed=0)
    assert env.step(np.zeros(7))[2:4] == (False, False)
    assert env.step(np.zeros(7))[2:4] == (False, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lift", "can", "square", "tool_hang", "stack"])
def test_the_simulator_shows_the_layout_that_is_written_down(simulator, name):
    scene = SIMULATED[name]
    env = RobosuiteEnv(scene)
    state = play(env, 0, np.random.default_rng(0).uniform(-1, 1, (2, 7)))[:, :-1]
    env.close()
    e = episode(state.astype(np.float32))
    assert adapt(scene, e) is e
    again = robosuite_scenes._rebuild(scene, state, scene.layouts[0], scene.layouts[0])
    np.testing.assert_allclose(again, state, atol=1e-5)


@pytest.mark.slow
def test_the_wide_start_of_stack_d1(simulator):
    env = RobosuiteEnv(mimicgen.SCENES["stack_d1"])
    starts = np.abs([env.reset(seed=seed)[0]["state"][[0, 1, 7, 8]] for seed in range(20)])
    env.close()
    assert 0.12 < starts.max() <= 0.2


@pytest.mark.slow
def test_the_script_lifts_the_cube(simulator):
    task = make_task("robomimic/lift")
    assert task.collect is not None
    (found,) = task.collect(1, 0.0, 1)
    assert list(faults(found, task.spec)) == []
    assert found.success
    assert found.terminated
    assert found.successes.tolist() == [False] * (len(found) - 1) + [True]
    assert found.rewards.sum() == 1
    assert task.adapt is not None
    assert task.adapt(found) is found


@pytest.mark.slow
@pytest.mark.parametrize(
    "scene",
    [s for s in SIMULATED.values() if s.env in SCRIPTS and s is not LIFT],
    ids=lambda s: s.env,
)
def test_scripts_approach_their_object_the_same_way_every_time(simulator, scene):
    env = RobosuiteEnv(scene)
    runs = []
    for _ in range(2):
        observation, info = env.reset(seed=3)
        expert, path = make_expert(env), [observation["state"]]
        for _ in range(10):
            observation, *_, info = env.step(expert(observation, info))
            path.append(observation["state"])
        runs.append(np.stack(path))
    env.close()
    np.testing.assert_array_equal(runs[0], runs[1])
    distances = np.linalg.norm(runs[0][:, -9:-7] - runs[0][:, :2], axis=1)
    assert distances[-1] < distances[0] - 0.02


@pytest.mark.parametrize("name", ["lift", "transport"])
def test_robomimic_files_on_disk_become_episodes_of_the_task(tmp_path, name):
    pytest.importorskip("h5py", reason="the extra exporl[formats] is not installed")
    scene = robomimic.SCENES[name]
    state = states(scene, 1, steps=5)
    widths = [
        scene.spec.observation[0][1][0] - 9 * scene.arms,
        *(width for _, width in scene.proprioception),
    ]
    names = ["object", *(entry for entry, _ in scene.proprioception)]
    entries = dict(zip(names, np.split(state, np.cumsum(widths)[:-1], axis=1), strict=True))
    recorded = episode(state, success=3, entries=entries)
    recorded = dataclasses.replace(
        recorded, actions=np.zeros((5, scene.spec.action_dim), np.float32)
    )
    write = FORMATS["robomimic"].write
    assert write is not None
    write(tmp_path / "demo.hdf5", [recorded, recorded])
    task = robomimic.make(name, "-1/0")
    found = load_episodes(tmp_path / "demo.hdf5", adapt=task.adapt)
    assert len(found) == 2
    for e in found:
        assert list(faults(e, task.spec)) == []
        np.testing.assert_allclose(
            e.observations["state"], states(scene, 0, steps=5)[:5], atol=1e-5
        )
        assert (e.successes.tolist(), e.terminated) == ([False, False, False, True], True)
    with pytest.raises(
        ValueError, match=r"demo\.hdf5, demo_0: the state has shape .* NutAssemblySquare needs 23"
    ):
        load_episodes(tmp_path / "demo.hdf5", adapt=robomimic.make("square", "-1/0").adapt)


@pytest.mark.slow
def test_the_hand_moves_straight_slowly_and_level(lifts):
    env, _ = lifts
    env.reset(seed=0)
    hand = Hand(env.simulator, np.random.default_rng(0))
    assert 0.5 <= hand.speed <= 1.0
    far = hand.toward(hand.position + np.array([1.0, -0.5, 0]), 0.0, OPEN)
    np.testing.assert_allclose(far[:3], hand.speed * np.array([1, -0.5, 0]), atol=1e-9)
    assert far[6] == OPEN
    near = hand.toward(hand.position + np.array([0.005, 0, 0]), 0.1, CLOSED, slow=0.6)
    np.testing.assert_allclose(near[:3], [0.1, 0, 0], atol=1e-9)
    assert near[5] == pytest.approx(0.2, abs=0.05)
    assert np.abs(hand.toward(hand.position, 9.0, OPEN)[3:6]).max() == 0.5
    actions = list(hand.release(6))
    assert [a[6] for a in actions] == [OPEN] * 6
    assert [a[2] > 0 for a in actions] == [False] * 4 + [True] * 2
    assert [a[6] for a in hand.stay(CLOSED, 3)] == [CLOSED] * 3


@pytest.mark.slow
def test_a_cube_that_slips_is_grasped_again(lifts):
    env, _ = lifts
    observation, info = env.reset(seed=2)
    expert, dropped, success = make_expert(env), False, False
    for _ in range(200):
        action = expert(observation, info)
        holding = observation["state"][2] > 0.835 and action[6] == CLOSED
        if holding and not dropped:
            dropped = True
            for _ in range(6):  # somebody opens the fingers
                observation, *_, info = env.step(np.array([0, 0, 1, 0, 0, 0, OPEN], np.float32))
            continue
        observation, *_, info = env.step(action)
        success = info["success"]
        if success:
            break
    assert dropped
    assert success


@pytest.mark.slow
def test_the_shapes_of_transport_are_drawn_anew_and_by_the_seed(simulator):
    used, fresh = RobosuiteEnv(TRANSPORT), RobosuiteEnv(TRANSPORT)

    def hammer(env: RobosuiteEnv) -> float:
        return float(env.simulator.transport.objects["payload"].head_halfsize)

    action = np.random.default_rng(0).uniform(-1, 1, (1, 14))
    first, size = play(used, 3, action), hammer(used)
    play(used, 4, action)
    assert hammer(used) != size
    np.testing.assert_array_equal(play(fresh, 3, action), first)
    assert hammer(fresh) == size
    assert adapt(TRANSPORT, episode(first[:, :-1].astype(np.float32))).observations[
        "state"
    ].shape == (2, 59)
    for env in (used, fresh):
        env.close()
