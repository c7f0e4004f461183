"""AntMaze: the three kinds of task, determinism, endings, recorded files, the walking expert."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from exporl.data.episodes import Episode, faults, fingerprint, validate_episodes
from exporl.data.formats import load_episodes
from exporl.envs import antmaze, make_task
from exporl.envs.experts import ant_action, load_policy
from exporl.envs.mazes import D4RL_GOALS, MazeEnv, next_cell, until_success

DATA = (
    Path(__file__).parents[2] / "shared" / "data" / "ogbench" / "antmaze-medium-navigate-60ep.npz"
)
VARIED = ("d4rl-large", "ogbench-medium", "ogbench-giant-task4", "umaze", "medium-diverse-gr")


@pytest.fixture(scope="module")
def simulator():
    pytest.importorskip("gymnasium_robotics", reason="the extra exporl[antmaze] is not installed")
    return pytest.importorskip("ogbench", reason="the extra exporl[antmaze] is not installed")


def episode(states: np.ndarray, rewards=None, **fields) -> Episode:
    steps = len(states) - 1
    rewards = np.zeros(steps, np.float32) if rewards is None else np.asarray(rewards, np.float32)
    record = Episode(
        {"state": states}, np.zeros((steps, 8), np.float32), rewards, np.zeros(steps, bool), False
    )
    return dataclasses.replace(record, **fields)


def test_the_names():
    assert len(antmaze.NAMES) == len(set(antmaze.NAMES)) == 2 + 18 + 7
    assert {"d4rl-medium", "d4rl-large", "ogbench-giant-task5", "large-diverse-gr"} <= set(
        antmaze.NAMES
    )
    assert antmaze.make("umaze", "-1/0").max_episode_steps == 700
    assert [antmaze.make("ogbench-medium", kind).reward(0.0) for kind in ("-1/0", "0/1")] == [
        -1.0,
        0.0,
    ]


def test_a_shortest_way_through_a_maze():
    walls = np.array([[0, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1]], bool)
    way = [(0, 0)]
    while way[-1] != (0, 3):
        way.append(next_cell(walls, way[-1], (0, 3)))
    assert way == [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2), (0, 3)]
    walls[2, 1] = True
    assert next_cell(walls, (0, 0), (0, 3)) == (0, 0), "no way: stay"


def test_an_episode_ends_at_its_first_success():
    record = episode(
        np.arange(6.0)[:, None], infos={"qpos": np.arange(6), "per_step": np.arange(5)}
    )
    successes = np.array([False, False, True, False, True])
    cut = until_success(record, successes, successes.astype(np.float32))
    assert cut.terminated
    assert cut.observations["state"][:, 0].tolist() == [0, 1, 2, 3]
    assert cut.rewards.tolist() == [0, 0, 1]
    assert cut.successes.tolist() == [False, False, True]
    assert (len(cut.infos["qpos"]), len(cut.infos["per_step"]), len(cut)) == (4, 3, 3)
    whole = until_success(
        dataclasses.replace(record, terminated=True), np.zeros(5, bool), np.zeros(5)
    )
    assert len(whole) == 5
    assert not whole.terminated, "only the goal ends the task"
    first = until_success(record, np.array([True] + [False] * 4), np.ones(5))
    assert len(first) == 1


def test_d4rl_files_keep_their_rewards_up_to_the_first_success():
    states = np.zeros((6, 29))
    adapted = antmaze.adapt_d4rl("d4rl-medium", episode(states, [0, 0, 0, 1, 1]))
    assert (len(adapted), adapted.terminated, adapted.rewards.tolist()) == (4, True, [0, 0, 0, 1])
    assert list(faults(adapted, antmaze.make("d4rl-medium", "-1/0").spec)) == []
    assert fingerprint([antmaze.adapt_d4rl("d4rl-medium", adapted)]) == fingerprint([adapted])
    with pytest.raises(
        ValueError,
        match=r"rewards row 1 is -1; success .* D4RL's rewards of 0 and 1.*without reward",
    ):
        antmaze.adapt_d4rl("d4rl-medium", episode(states, [0, -1, 0, 0, 0]))
    with pytest.raises(
        ValueError, match=r"antmaze/d4rl-large needs .*rows of 29.*found {'state': \(31,\)}"
    ):
        antmaze.adapt_d4rl("d4rl-large", episode(np.zeros((6, 31))))


def minari(steps: int = 4, width: int = 27) -> Episode:
    """An episode whose ant arrives with the third step."""
    achieved = np.stack([np.linspace(3.0, 0.0, steps + 1), np.zeros(steps + 1)], axis=1)
    seen = {
        "achieved_goal": achieved,
        "desired_goal": np.tile([0.8, 0.0], (steps + 1, 1)),
        "observation": np.arange(float(width)) + np.zeros((steps + 1, 1)),
    }
    return episode(np.zeros((steps + 1, 1)), observations=seen)


@pytest.mark.parametrize("width", [27, 105, 111])
def test_minari_files_are_joined_and_success_is_computed(width):
    adapted = antmaze.adapt_goal_maze("medium", minari(width=width))
    assert adapted.observations["state"].shape == (4, 31)
    assert adapted.observations["state"].dtype == np.float32
    np.testing.assert_allclose(
        adapted.observations["state"][1], [2.25, 0, *range(27), 0.8, 0], rtol=1e-6
    )
    assert adapted.rewards.tolist() == [0, 0, 1], "within 0.45 m after the third step"
    assert adapted.terminated
    assert list(faults(adapted, antmaze.make("medium", "-1/0").spec)) == []
    assert fingerprint([antmaze.adapt_goal_maze("medium", adapted)]) == fingerprint([adapted])


def test_files_without_a_goal_are_refused():
    with pytest.raises(
        ValueError, match=r"desired_goal missing among .* Rows of 29 are D4RL's or OGBench's ant"
    ):
        seen = minari().observations
        antmaze.adapt_goal_maze(
            "large", episode(np.zeros((5, 1)), observations={k: seen[k] for k in list(seen)[::2]})
        )
    with pytest.raises(
        ValueError, match=r"\['observation'\] has rows of 13 numbers; antmaze/large needs 27"
    ):
        antmaze.adapt_goal_maze("large", minari(width=13))


def test_a_missing_package_names_the_command_that_installs_it(monkeypatch):
    task = antmaze.make("umaze", "-1/0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs the package 'gymnasium_robotics'.*exporl\[antmaze\]"
    ):
        task.make_env()


def test_ogbench_files_are_relabelled_as_ogbench_does(simulator):
    if not DATA.exists():
        pytest.skip("the demonstration files are not on this machine")
    import gymnasium
    from ogbench.relabel_utils import relabel_dataset

    with np.load(DATA) as data:
        arrays = {name: data[name] for name in ("observations", "actions", "terminals", "qpos")}
    ends = np.flatnonzero(arrays["terminals"]) + 1
    np.testing.assert_array_equal(arrays["observations"][:, :15], arrays["qpos"])
    solved = 0
    for number in (1, 3):
        task = make_task(f"antmaze/ogbench-medium-task{number}")
        theirs = gymnasium.make(
            f"antmaze-medium-singletask-task{number}-v0", disable_env_checker=True
        )
        for start, end in zip([0, *ends[:11]], ends[:12], strict=True):
            rows = slice(start, end - 1)
            expected = {"qpos": arrays["qpos"][rows]}
            relabel_dataset("antmaze-medium-singletask-v0", theirs, expected)
            record = episode(arrays["observations"][start:end], actions=arrays["actions"][rows])
            assert task.adapt is not None
            adapted = task.adapt(record)
            assert list(faults(adapted, task.spec)) == []
            np.testing.assert_array_equal(adapted.rewards, 1 + expected["rewards"][: len(adapted)])
            first = np.flatnonzero(expected["masks"] == 0)
            assert adapted.terminated == adapted.success == bool(len(first))
            assert len(adapted) == (first[0] + 1 if len(first) else end - 1 - start)
            assert fingerprint([task.adapt(adapted)]) == fingerprint([adapted])
            solved += adapted.success
        theirs.close()
    assert solved > 3


def test_the_file_here_is_prior_data(simulator):
    if not DATA.exists():
        pytest.skip("the demonstration files are not on this machine")
    task = make_task("antmaze/ogbench-medium")
    episodes = load_episodes(DATA, adapt=task.adapt)
    validate_episodes(episodes, task.spec)
    assert len(episodes) == 60
    assert 0 < sum(e.success for e in episodes) < 60
    assert {len(e) for e in episodes if not e.success} == {1000}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIED)
def test_a_seed_fixes_the_episode_in_fresh_and_used_environments(simulator, name):
    task, rng = make_task(f"antmaze/{name}"), np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (25, 8)).astype(np.float32)

    def play(env, seed):
        states = [env.reset(seed=seed)[0]["state"]]
        return np.stack(states + [env.step(action)[0]["state"] for action in actions])

    used, fresh = task.make_env(), task.make_env()
    for other in (7, 8):
        play(used, other)
    expected = play(fresh, 5)
    np.testing.assert_array_equal(play(used, 5), expected)
    np.testing.assert_array_equal(play(used, 5), expected)
    assert np.abs(play(used, 6)[0] - expected[0]).max() > 1e-3
    assert task.spec.observation == (("state", expected[0].shape, "float32"),)
    used.close()
    fresh.close()


@pytest.mark.parametrize("name", ["d4rl-medium", "ogbench-medium", "medium"])
def test_where_an_episode_starts_and_which_step_ends_it(simulator, name):
    """The ant is put beside the goal: D4RL and gymnasium-robotics reward the step that is there,
    OGBench the next."""
    env = make_task(f"antmaze/{name}").make_env()
    maze = env.unwrapped.maze
    goals, starts = [], []
    for seed in range(6):
        observation, info = env.reset(seed=seed)
        assert info == {"success": False}
        assert observation in env.observation_space
        starts.append(observation["state"][:2])
        goals.append(observation["state"][-2:] if name == "medium" else np.array(maze.cur_goal_xy))
    goal_range, start_range = np.ptp(goals, axis=0), np.ptp(starts, axis=0)
    if name == "ogbench-medium":
        np.testing.assert_array_equal(goals, np.full((6, 2), 20.0))
        assert np.abs(starts).max() < 1.0 < start_range.max()
    elif name == "d4rl-medium":
        assert np.abs(starts).max() < 0.11
        assert 20.0 < np.min(goals) < np.max(goals) < 21.5
        assert goal_range.min() > 0.2
    else:
        assert goal_range.min() > 2.0
    inner = maze.ant_env if name == "medium" else maze
    qpos, qvel = inner.data.qpos.copy(), inner.data.qvel.copy()
    qpos[:2] = goals[-1] + 0.1
    inner.set_state(qpos, qvel)
    seen = [env.step(np.zeros(8, np.float32))]
    assert seen[0][1:] == (1.0, True, False, {"success": True})
    if name == "ogbench-medium":
        env.reset(seed=5)
        qpos[:2] = goals[-1] + [0.52, 0.0]
        qvel[:] = 0.0
        qvel[0] = -2.0
        inner.set_state(qpos, qvel)
        _, reward, terminated, _, info = env.step(np.zeros(8, np.float32))
        assert np.linalg.norm(maze.get_xy() - goals[-1]) < 0.5
        assert (reward, terminated, info) == (0.0, False, {"success": False})
        assert env.step(np.zeros(8, np.float32))[1:] == (1.0, True, False, {"success": True})
    env.close()


def test_time_runs_out(simulator):
    task = make_task("antmaze/umaze")
    env = task.make_env()
    env.reset(seed=0)
    ends = [env.step(np.zeros(8, np.float32))[2:4] for _ in range(task.max_episode_steps)]
    assert set(ends[:-1]) == {(False, False)}
    assert ends[-1] == (False, True)
    env.close()


def test_d4rl_goals_are_free_cells(simulator):
    for maze, cell in D4RL_GOALS.items():
        env = MazeEnv("ant", maze, "d4rl")
        assert env.maze.maze_map[cell] == env.maze.maze_map[1, 1] == 0
        env.close()


def test_the_walking_direction_is_what_matters():
    policy, body = load_policy("ant_directional"), np.zeros(27, np.float32)
    np.testing.assert_allclose(
        ant_action(policy, body, np.array([0.0, 3.0])),
        ant_action(policy, body, np.array([0.0, 7.0])),
        atol=1e-5,
    )
    assert np.abs(ant_action(policy, body, np.array([0.0, -1.0]))).max() <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ogbench-medium-task3", "umaze"])
def test_the_ant_walks_to_the_goal(simulator, name):
    task = make_task(f"antmaze/{name}")
    assert task.collect is not None
    both = task.collect(2, 0.1, 0)
    assert any(e.success for e in both)
    for e in both:
        assert list(faults(e, task.spec)) == []
        assert e.terminated == e.success
        assert len(e) < task.max_episode_steps or not e.success
        np.testing.assert_array_equal(e.rewards, e.successes)
    assert fingerprint(task.collect(1, 0.1, 0)) == fingerprint(both[:1])
