"""OGBench: reward rule against OGBench's relabelling, determinism, endings, recorded files, plans
of the experts."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from exporl.data.episodes import Episode, faults, fingerprint, validate_episodes
from exporl.data.formats import load_episodes
from exporl.envs import make_task, ogbench
from exporl.envs.collect import collect_episodes
from exporl.envs.ogbench_experts import next_cube, presses

DATA = Path(__file__).parents[2] / "shared" / "data" / "ogbench" / "cube-single-play-20ep.npz"
REGISTERED = {
    "pointmaze-medium": 1000,
    "cube-single": 200,
    "cube-quadruple": 1000,
    "scene": 750,
    "puzzle-4x6": 1000,
}


@pytest.fixture(scope="module")
def simulator():
    return pytest.importorskip("ogbench", reason="the extra exporl[ogbench] is not installed")


@pytest.fixture(scope="module")
def tables(simulator):
    """Environments by name, made once: building one takes seconds."""
    made = {}

    def table(name: str):
        if name not in made:
            made[name] = make_task(f"ogbench/{name}").make_env()
        return made[name]

    yield table
    for env in made.values():
        env.close()


def episode(states: np.ndarray, actions: int = 5) -> Episode:
    steps = len(states) - 1
    return Episode(
        {"state": states}, np.zeros((steps, actions), np.float32), np.zeros(steps, np.float32),
        np.zeros(steps, bool), False,
    )  # fmt: skip


def test_the_names_and_the_sizes():
    assert len(ogbench.NAMES) == len(set(ogbench.NAMES)) == 12 * 6
    assert ogbench.split_name("puzzle-3x3-task4") == ("puzzle-3x3", 4)
    assert ogbench.split_name("scene") == ("scene", 0)
    sizes = {
        name: ogbench.make(name, "-1/0").spec
        for name in ("cube-single", "scene", "puzzle-4x4", "pointmaze-large")
    }
    assert {name: spec.observation[0][1][0] for name, spec in sizes.items()} == {
        "cube-single": 28, "scene": 40, "puzzle-4x4": 83, "pointmaze-large": 2,
    }  # fmt: skip
    assert sizes["pointmaze-large"].action_dim == 2
    for name, horizon in REGISTERED.items():
        assert ogbench.make(name, "env").max_episode_steps == horizon


@pytest.mark.parametrize(
    ("kind", "unmet", "met"), [("-1/0", -1.0, 0.0), ("0/1", 0.0, 1.0), ("env", -3.0, 0.0)]
)
def test_reward_conventions(kind, unmet, met):
    transform = ogbench.make("cube-triple", kind).reward
    assert (transform(-3.0), transform(0.0)) == (unmet, met)


def test_conditions_of_a_hand_made_state():
    goal = ogbench.Goal(np.array([[0.4, 0.1, 0.02]]), np.array([1, 0]), np.array([-0.16, 0.2]))
    state = np.zeros((2, 40))
    state[:, 19:22] = (np.array([[0.4, 0.1, 0.02], [0.4, 0.15, 0.02]]) - [0.425, 0, 0]) * 10
    state[0, 28:36] = [0, 1, 0, 0, 1, 0, 0, 0]
    state[1, 28:36] = [0, 1, 0, 0, 0, 1, 0, 0]
    state[:, 36] = np.array([-0.13, -0.11]) * 18
    state[:, 38] = np.array([0.17, 0.17]) * 15
    met = ogbench.conditions("scene", goal, state)
    assert met.tolist() == [[True, True, True, True, True], [False, True, False, False, True]]


def test_files_of_other_environments_are_refused(simulator):
    with pytest.raises(
        ValueError,
        match=r"ogbench/scene are computed .* rows of 40 numbers; found {'state': \(28,\)}",
    ):
        ogbench.adapt("scene", episode(np.zeros((3, 28))))
    with pytest.raises(ValueError, match=r"rows of 2 numbers; found {'pixels': \(8,\)}"):
        other = dataclasses.replace(
            episode(np.zeros((3, 2))), observations={"pixels": np.zeros((3, 8))}
        )
        ogbench.adapt("pointmaze-large-task2", other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"), [("cube-single", 1), ("cube-single", 2), ("cube-single", 5)]
)
def test_the_files_here_are_relabelled_as_ogbench_does(tables, name, number):
    if not DATA.exists():
        pytest.skip("the demonstration files are not on this machine")
    from ogbench.relabel_utils import relabel_dataset

    with np.load(DATA) as data:
        arrays = {key: data[key] for key in ("observations", "actions", "terminals", "qpos")}
    task = make_task(f"ogbench/{name}-task{number}")
    theirs = tables(name).table
    theirs._reward_task_id = number
    ends = np.flatnonzero(arrays["terminals"]) + 1
    assert task.adapt is not None
    solved = 0
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        rows = slice(start, end - 1)
        expected = {"qpos": arrays["qpos"][rows]}
        relabel_dataset(f"{name}-singletask-v0", theirs, expected)
        record = dataclasses.replace(
            episode(arrays["observations"][start:end]), actions=arrays["actions"][rows]
        )
        adapted = task.adapt(record)
        np.testing.assert_array_equal(adapted.rewards, expected["rewards"][: len(adapted)])
        first = np.flatnonzero(expected["masks"] == 0)
        assert adapted.terminated == adapted.success == bool(len(first))
        assert len(adapted) == (first[0] + 1 if len(first) else end - 1 - start)
        assert list(faults(adapted, task.spec)) == []
        solved += adapted.success
    assert solved >= 1
    theirs._reward_task_id = 2


def test_the_file_here_is_prior_data(simulator):
    if not DATA.exists():
        pytest.skip("the demonstration files are not on this machine")
    task = make_task("ogbench/cube-single")
    episodes = load_episodes(DATA, adapt=task.adapt)
    validate_episodes(episodes, task.spec)
    assert len(episodes) == 20
    assert 0 < sum(e.success for e in episodes) < 20
    assert {len(e) for e in episodes if not e.success} == {1000}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["pointmaze-giant-task3", "cube-single", "scene-task1", "puzzle-3x3-task2"]
)
def test_a_seed_fixes_the_episode_in_fresh_and_used_environments(tables, name):
    task, rng = make_task(f"ogbench/{name}"), np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (20, task.spec.action_dim)).astype(np.float32)

    def play(env, seed):
        states, rewards = [env.reset(seed=seed)[0]["state"]], []
        for action in actions:
            observation, reward, terminated, truncated, info = env.step(action)
            states.append(observation["state"])
            rewards.append(reward)
            assert (terminated, truncated, info) == (False, False, {"success": False})
        return np.stack(states), rewards

    used = tables(name)
    play(used, 7)
    fresh = task.make_env() if name in ("cube-single", "pointmaze-giant-task3") else used
    states, rewards = play(fresh, 5)
    play(used, 8)
    for _ in range(2):
        again, rewards_again = play(used, 5)
        np.testing.assert_array_equal(again, states)
        assert rewards_again == rewards
    assert np.abs(play(used, 6)[0][0] - states[0]).max() > 1e-3
    assert states[0] in used.observation_space["state"]
    assert task.spec.observation == (("state", states[0].shape, "float32"),)
    assert task.adapt is not None
    adapted = task.adapt(dataclasses.replace(episode(states), actions=actions))
    np.testing.assert_array_equal(adapted.rewards, rewards)
    if fresh is not used:
        fresh.close()


def test_default_tasks_are_those_of_ogbench(simulator):
    for environment, number in (("cube-single", 2), ("scene", 2)):
        default, named = ogbench.goal_state(environment, 0), ogbench.goal_state(environment, number)
        assert all(np.array_equal(a, b) for a, b in zip(default, named, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["cube-single", "puzzle-3x3-task2", "scene-task1", "pointmaze-giant-task3"]
)
def test_demonstrations_end_with_the_step_after_the_goal(tables, name):
    task = make_task(f"ogbench/{name}", "0/1")
    (record,) = collect_episodes(tables(name), ogbench.expert_of(name), 1, 0.1, 0)
    assert record.success
    assert record.terminated
    assert record.successes.tolist() == [False] * (len(record) - 1) + [True]
    assert record.rewards[-1] == 0.0
    assert record.rewards[:-1].max() < 0.0
    assert [task.reward(r) for r in record.rewards] == record.successes.astype(float).tolist()
    assert list(faults(record, task.spec)) == []
    assert task.adapt is not None
    adapted = task.adapt(dataclasses.replace(record, rewards=np.zeros_like(record.rewards)))
    assert fingerprint([adapted]) == fingerprint([record])


@pytest.mark.slow
def test_demonstrations_are_seeded(tables):
    task = make_task("ogbench/cube-single")
    assert task.collect is not None
    (first,) = task.collect(1, 0.2, 3)
    both = collect_episodes(tables("cube-single"), ogbench.expert_of("cube-single"), 2, 0.2, 3)
    assert fingerprint([first]) == fingerprint(both[:1])
    assert fingerprint(both[1:]) != fingerprint(both[:1])


def test_time_runs_out(tables):
    env = tables("cube-single")
    env.reset(seed=0)
    ends = [env.step(np.zeros(5, np.float32))[2:4] for _ in range(200)]
    assert set(ends[:-1]) == {(False, False)}
    assert ends[-1] == (False, True)


def flip(press: np.ndarray) -> np.ndarray:
    """What pressing does, by the definition."""
    result = np.zeros_like(press)
    for i, j in itertools.product(*map(range, press.shape)):
        result[i, j] = sum(
            press[x, y]
            for x, y in itertools.product(*map(range, press.shape))
            if abs(x - i) + abs(y - j) <= 1
        )
    return result % 2


@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (4, 5), (4, 6)])
def test_the_fewest_presses_that_solve_a_puzzle(shape):
    rng = np.random.default_rng(0)
    for _ in range(5):
        press = (rng.random(shape) < 0.4).astype(int)
        found = presses(flip(press))
        np.testing.assert_array_equal(flip(found), flip(press))
        assert found.sum() <= press.sum()
    assert presses(np.zeros(shape, int)).sum() == 0


def test_an_unsolvable_puzzle_asks_for_no_presses():
    impossible = np.zeros((4, 4), int)
    impossible[0, 0] = 1
    assert presses(impossible).sum() == 0


def test_the_order_in_which_cubes_move():
    table, upper = np.array([0.4, 0.1, 0.02]), np.array([0.4, 0.1, 0.06])
    a, b = np.array([0.5, -0.2, 0.02]), np.array([0.35, -0.1, 0.02])
    index, target = next_cube(np.stack([a, b]), np.stack([upper, table])) or (None, None)
    assert index == 1, "the lower cube of a stack goes first"
    np.testing.assert_array_equal(target, table)
    index, target = next_cube(np.stack([a, table]), np.stack([upper, table])) or (None, None)
    assert index == 0
    np.testing.assert_array_equal(target, upper)
    assert next_cube(np.stack([upper, table]), np.stack([upper, table])) is None
    index, target = next_cube(np.stack([a, b]), np.stack([b, a])) or (None, None)
    assert min(np.linalg.norm(target[:2] - place[:2]) for place in (a, b)) > 0.1, (
        "an exchange needs a third place"
    )
    index, _ = next_cube(np.stack([table, upper]), np.stack([b, a])) or (None, None)
    assert index == 1, "what lies on top moves first"


@pytest.mark.parametrize("name", ogbench.NAMES)
def test_the_range_of_rewards_counts_the_conditions(name):
    environment, _ = ogbench.split_name(name)
    scenery = ogbench.SCENERIES.get(environment)
    conditions = scenery.cubes + scenery.buttons + scenery.sliders if scenery else 1
    task = ogbench.make(name, "-1/0")
    assert task.reward_range == (-conditions, 0)
    assert sorted(map(task.reward, task.reward_range)) == [-1, 0]
