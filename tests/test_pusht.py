"""PushT: the format of its demonstrations, coverage, endings, determinism."""

from pathlib import Path

import numpy as np
import pytest

from exporl.data.episodes import Episode, faults
from exporl.data.formats import find_format, load_episodes, read_records
from exporl.data.formats.record import ReadOptions
from exporl.envs import make_task, pusht

FILE = Path(__file__).parents[2] / "shared" / "data" / "pusht" / "pusht_human_lowdim.npz"
shared = pytest.mark.skipif(
    not FILE.is_file(), reason="the shared PushT demonstrations are not beside the repository"
)


def save(folder: Path, **changes) -> Path:
    """A file with episodes of 3 and 4 rows; None leaves an array out."""
    arrays = {
        "action": np.linspace(0, 512, 14, dtype=np.float32).reshape(7, 2),
        "state": np.arange(35, dtype=np.float32).reshape(7, 5),
        "keypoint": np.zeros((7, 9, 2), np.float32),
        "episode_ends": np.array([3, 7]),
    } | changes
    np.savez(folder / "pusht.npz", **{k: v for k, v in arrays.items() if v is not None})
    return folder / "pusht.npz"


def test_demonstrations_are_recognised_and_scaled(tmp_path):
    path = save(tmp_path)
    assert find_format(path).name == "pusht"
    first, second = load_episodes(path)
    assert (len(first), len(second)) == (2, 3)
    assert first.observations["pose"].shape == (3, 5)
    np.testing.assert_array_equal(second.observations["pose"][0], np.arange(15, 20))
    np.testing.assert_allclose(first.actions[0], [-1, -1 + 2 / 13], atol=1e-6)
    np.testing.assert_allclose(second.infos["action"][-1], [-1 + 24 / 13, 1], atol=1e-6)
    np.testing.assert_array_equal(first.infos["action"][:-1], first.actions)
    assert not first.successes.any()
    assert "keypoint" not in first.observations
    (again, _) = read_records(path, options=ReadOptions(keys=("keypoint",)))
    assert again.read().observations["keypoint"].shape == (3, 18)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"action": np.zeros((7, 3), np.float32)},
            r"action has shape \(7, 3\).*\(7, 2\) are needed",
        ),
        ({"state": np.zeros((6, 5), np.float32)}, r"state has shape \(6, 5\).*\(7, 5\) are needed"),
        ({"state": np.zeros((7, 5), "U3")}, r"state has shape .* type <U3"),
        (
            {"episode_ends": np.array([3, 6])},
            "episode_ends must rise from above 0 to the number of steps, 7",
        ),
        ({"episode_ends": np.array(["a", "b"])}, "episode_ends must rise"),
        ({"episode_ends": np.array([3, np.nan])}, "episode_ends must rise"),
        ({"action": np.float32(1)}, r"action has shape \(\)"),
    ],
)
def test_files_that_are_not_what_they_say(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"pusht\.npz.*{message}"):
        load_episodes(save(tmp_path, **changes))


def test_missing_arrays_missing_files_and_broken_archives(tmp_path):
    with pytest.raises(ValueError, match="lacks state; it has action"):
        load_episodes(save(tmp_path, state=None), format_name="pusht")
    with pytest.raises(ValueError, match="has no keypoint with 7 rows"):
        list(read_records(save(tmp_path, keypoint=None), options=ReadOptions(keys=("keypoint",))))
    with pytest.raises(FileNotFoundError, match=r"no data .*nothing\.npz"):
        load_episodes(tmp_path / "nothing.npz", format_name="pusht")
    (tmp_path / "broken.npz").write_bytes(save(tmp_path).read_bytes()[:200])
    with pytest.raises(ValueError, match=r"broken\.npz is not a readable .npz archive"):
        load_episodes(tmp_path / "broken.npz", format_name="pusht")


def test_an_episode_of_one_row_is_refused_or_skipped(tmp_path):
    path = save(tmp_path, episode_ends=np.array([1, 3, 7]))
    with pytest.raises(ValueError, match=r"episode 0: action has a single row"):
        load_episodes(path)
    assert [len(e) for e in load_episodes(path, skip_bad=True)] == [1, 3]


@pytest.fixture(scope="module")
def simulator():
    return pytest.importorskip("gym_pusht", reason="the extra exporl[pusht] is not installed")


def test_coverage_is_the_simulators(simulator):
    env, rng = pusht.PushTEnv(0.95), np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(10):
        env.simulator.block.angle = float(rng.uniform(-3, 3))
        env.simulator.block.position = rng.uniform(200, 300, 2).tolist()
        pose = np.array([[*env.simulator.block.position, env.simulator.block.angle]])
        assert pusht.coverage(pose)[0] == pytest.approx(env.simulator._get_coverage(), abs=1e-9)
    np.testing.assert_allclose(pusht.coverage(np.array([[256.0, 256, np.pi / 4]])), 1.0)


@pytest.mark.slow
@shared
def test_the_human_demonstrations_succeed_as_often_as_is_known(simulator):
    for name, expected in (("state-90", 97), ("state-95", 7)):
        task = make_task(f"pusht/{name}")
        found = load_episodes(FILE, adapt=task.adapt)
        assert len(found) == 206
        assert sum(e.success for e in found) == expected
        assert sum(map(len, found)) <= 25_650
        for e in found:
            assert list(faults(e, task.spec)) == []
            assert e.terminated == e.success
            assert e.successes.sum() == e.success
            np.testing.assert_array_equal(e.rewards, e.successes)
        assert task.collect is None


@shared
def test_replayed_demonstrations_stay_on_the_recorded_path(simulator):
    task = make_task("pusht/state-90")
    (demo,) = load_episodes(FILE, 1, adapt=task.adapt)
    (raw,) = load_episodes(FILE, 1)
    env = task.make_env()
    env.reset(seed=0)
    simulator = env.unwrapped.simulator
    x, y, block_x, block_y, angle = map(float, raw.observations["pose"][0])
    simulator.agent.position, simulator.block.angle, simulator.block.position = (
        (x, y),
        angle,
        (block_x, block_y),
    )
    for action, expected in zip(demo.actions, demo.observations["state"][1:], strict=True):
        observation, _, terminated, _, info = env.step(action)
        np.testing.assert_allclose(observation["state"][2:4], expected[2:4], atol=0.05)
    assert (terminated, info["success"]) == (demo.terminated, demo.success)


def test_dense_rewards_are_the_same_for_data_and_environment(simulator):
    pose = np.zeros((3, 5), np.float32)
    pose[:, 2:] = [[256, 256, 0], [256, 256, np.pi / 4 + 0.3], [256, 256, np.pi / 4]]
    recorded = Episode(
        {"pose": pose},
        np.zeros((2, 2), np.float32),
        np.zeros(2, np.float32),
        np.zeros(2, bool),
        False,
    )
    dense = pusht.make("state-90", "env")
    sparse = pusht.make("state-90", "-1/0")
    assert dense.adapt is not None
    assert sparse.adapt is not None
    found = dense.adapt(recorded)
    assert 0 < found.rewards[0] < found.rewards[1] == 1.0
    assert sparse.adapt(recorded).rewards.tolist() == [0, 1]
    env = dense.make_env()
    env.reset(seed=0)
    _, reward, *_, info = env.step(np.zeros(2, np.float32))
    assert reward == pytest.approx(min(info["coverage"] / 0.9, 1.0))
    done = Episode(
        {"state": np.zeros((2, 6))},
        recorded.actions[:1],
        recorded.rewards[:1],
        recorded.successes[:1],
        False,
    )
    assert dense.adapt(done) is done
    with pytest.raises(ValueError, match=r"neither 'pose' .* nor 'state'; found \['other'\]"):
        dense.adapt(
            Episode({"other": pose}, recorded.actions, recorded.rewards, recorded.successes, False)
        )


def test_a_seed_fixes_the_episode_while_pushing(simulator):
    actions = np.clip(
        np.cumsum(np.random.default_rng(1).uniform(-0.4, 0.4, (60, 2)), axis=0), -1, 1
    )

    def play(env, seed: int, towards: bool) -> np.ndarray:
        observation, info = env.reset(seed=seed)
        assert info == {"success": False}
        seen = [observation["state"]]
        for action in actions:
            aim = seen[-1][2:4] / 256 - 1 + 0.1 * action if towards else action
            observation, *_ = env.step(aim)
            assert observation in env.observation_space
            seen.append(observation["state"])
        return np.stack(seen)

    used, fresh = pusht.PushTEnv(0.95), pusht.PushTEnv(0.95)
    expected = play(fresh, 5, True)
    assert np.abs(expected[-1] - expected[0])[2:4].max() > 5, "the block is pushed"
    play(used, 1, False)
    np.testing.assert_array_equal(play(used, 5, True), expected)
    np.testing.assert_array_equal(play(fresh, 5, True), expected)


def test_endings(simulator):
    env = pusht.PushTEnv(0.90)
    env.reset(seed=0)
    for step in range(pusht.HORIZON):
        *_, terminated, truncated, info = env.step(np.ones(2))
        assert (terminated, truncated, info["success"]) == (False, step == pusht.HORIZON - 1, False)
    env.reset(seed=0)
    env.simulator.block.angle, env.simulator.block.position = np.pi / 4, (256.0, 256.0)
    assert env.step(np.array([2.0, -3.0]))[1:4] == (1.0, True, False)


def test_damaged_files_end_in_a_clean_error_or_a_valid_read(tmp_path):
    good, path, rng = (
        save(tmp_path).read_bytes(),
        tmp_path / "damaged.npz",
        np.random.default_rng(0),
    )
    refused = 0
    for _ in range(60):
        data = bytearray(good)
        for position in rng.integers(len(data), size=int(rng.integers(1, 6))):
            data[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(data[: int(rng.integers(1, len(data)))] if rng.random() < 0.3 else data)
        try:
            found = load_episodes(path, format_name="pusht")
        except ValueError as error:
            assert "damaged.npz" in str(error)
            refused += 1
        else:
            assert all(not list(faults(e)) for e in found)
    assert refused > 10


def test_a_demonstration_without_its_last_action_ends_with_its_last_pose():
    pytest.importorskip("shapely", reason="the extra exporl[pusht] is not installed")
    pose = np.tile(np.array([100, 100, 300, 300, 0.5], np.float32), (4, 1))
    recorded = Episode(
        {"pose": pose},
        np.zeros((3, 2), np.float32),
        np.zeros(3, np.float32),
        np.zeros(3, bool),
        False,
    )
    found = pusht.adapt(0.9, False, recorded)
    assert (len(found), found.terminated, found.success) == (3, False, False)
    np.testing.assert_array_equal(found.observations["state"], pusht.state(pose))
    np.testing.assert_allclose(
        found.observations["state"][0, 4:], [np.cos(0.5), np.sin(0.5)], rtol=1e-6
    )
