"""A user's own environments and data: what becomes of them, and what a mistake answers."""

import runpy
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from exporl.cli.main import main
from exporl.data.episodes import Episode
from exporl.data.formats import load_episodes, save_npz
from exporl.data.from_arrays import from_arrays
from exporl.envs import make_task
from exporl.envs.check import check_task
from exporl.envs.custom import custom_task
from exporl.run.loop import train
from helpers.examples import learnt_and_acted
from helpers.runs import tiny

ROOT = Path(__file__).parent.parent
Box = gymnasium.spaces.Box


class Cart(gymnasium.Env):
    """Drives to x = 3 with a velocity in [-2, 1] x [0, 4]; writes into one observation array, as
    many do."""

    def __init__(self, key="success", observation_space=None, action_space=None):
        self.key = key
        self.observation_space = observation_space or Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = action_space or Box(
            np.array([-2.0, 0.0]), np.array([1.0, 4.0]), dtype=np.float64
        )
        self.state = np.zeros(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state[:] = self.np_random.uniform(-1, 1), 0
        return self.state, {}

    def step(self, action):
        assert action in self.action_space
        self.state += action
        there = bool(self.state[0] >= 3)
        return (
            self.state,
            -float(np.abs(action).sum()),
            there,
            False,
            {self.key: there} if self.key else {},
        )


class Camera(Cart):
    def __init__(self):
        image = Box(0, 255, (4, 4, 3), np.uint8)
        super().__init__(
            observation_space=gymnasium.spaces.Dict({"pose": Box(-9, 9, (2, 1)), "camera": image})
        )

    def look(self):
        return {"pose": self.state.reshape(2, 1), "camera": np.full((4, 4, 3), 7, np.uint8)}

    def reset(self, **kwargs):
        super().reset(**kwargs)
        return self.look(), {}

    def step(self, action):
        return self.look(), *super().step(action)[1:]


def play(task, actions, seed=0):
    env = task.make_env()
    steps = [env.reset(seed=seed)]
    steps += [env.step(np.asarray(a, np.float32)) for a in actions]
    return steps


def test_the_canonical_environment():
    task = custom_task(Cart, max_episode_steps=3)
    assert task.spec.observation == (("state", (2,), "float32"),) and task.spec.action_dim == 2
    (start, info), one, two, three = play(task, [[1, -1], [-1, -1], [0, 1]])
    assert info["success"] is False
    assert start["state"].dtype == np.float32
    np.testing.assert_allclose(one[0]["state"] - start["state"], [1, 0], atol=1e-6)
    np.testing.assert_allclose(two[0]["state"] - one[0]["state"], [-2, 0], atol=1e-6)
    np.testing.assert_allclose(three[0]["state"] - two[0]["state"], [-0.5, 4], atol=1e-6)
    assert [s[1:4] for s in (one, two, three)] == [
        (0, False, False),
        (0, False, False),
        (0, False, True),
    ]
    assert one[4] == {"success": False}
    assert (task.reward(0.0), task.reward(1.0)) == (-1.0, 0.0)


@pytest.mark.parametrize(
    ("reward", "paid", "learnt"),
    [("-1/0", 0.0, -1.0), ("0/1", 0.0, 0.0), ("env", -1.0, -1.0), (lambda r: r / 10, -1.0, -0.1)],
    ids=["-1/0", "0/1", "env", "function"],
)
def test_rewards_of_a_custom_task(reward, paid, learnt):
    task = custom_task(Cart, max_episode_steps=3, reward=reward)
    _, one = play(task, [[1, -1]])
    assert one[1] == paid
    assert task.reward(one[1]) == pytest.approx(learnt)


@pytest.mark.parametrize("key", ["success", "is_success", "docked", "function"])
def test_success_of_a_custom_task(key):
    success = {
        "docked": "docked",
        "function": lambda reward, terminated, info: terminated and reward < 0,
    }.get(key)
    task = custom_task(
        lambda: Cart(None if key == "function" else key), max_episode_steps=9, success=success
    )
    steps = play(task, [[1, -1]] * 4)
    ends = [s[2] for s in steps[1:]]
    assert [s[4]["success"] for s in steps[1:]] == ends and any(ends)
    assert [s[1] for s in steps[1:]] == [float(e) for e in ends]


def test_a_true_end_at_the_time_limit_is_terminated_alone():
    steps = play(
        custom_task(
            lambda: gymnasium.make("MountainCarContinuous-v0", max_episode_steps=2),
            success=lambda r, terminated, info: terminated,
        ),
        [[0], [0]],
    )
    assert steps[-1][2:4] == (False, True)
    task = custom_task(lambda: Cart(), max_episode_steps=4)
    for seed in range(20):
        for step in play(task, [[1, -1]] * 4, seed)[1:]:
            assert not (step[2] and step[3])


def test_every_promise_is_kept_by_the_wrapper():
    for task in (
        custom_task(Cart, max_episode_steps=20),
        custom_task(Camera, max_episode_steps=20, reward="env"),
    ):
        assert {f.status for f in check_task(task)} == {"pass", "skip"}
    found = {f.name: f.detail for f in check_task(custom_task(Camera, max_episode_steps=20))}
    assert "pose float32[2]" in found["spaces"] and "camera uint8[4, 4, 3]" in found["spaces"]


class Old(Cart):
    def reset(self):
        return self.state

    def step(self, action):
        return self.state, 0.0, False, {}


class OldStep(Cart):
    step = Old.step


class Alone(Cart):
    def reset(self, *, seed=None, options=None):
        return self.state


class Larger(Cart):
    def reset(self, **kwargs):
        return np.zeros(5), {}


@pytest.mark.parametrize(
    ("env", "text"),
    [
        (lambda: 3, "make_env() returned int, not a gymnasium.Env"),
        (lambda: Cart(action_space=gymnasium.spaces.Discrete(3)), "actions must be continuous"),
        (
            lambda: Cart(action_space=Box(-np.inf, np.inf, (2,))),
            "action bounds are [-inf, inf]; they must be finite",
        ),
        (
            lambda: Cart(observation_space=gymnasium.spaces.Discrete(3)),
            "the observation is Discrete(3); it must be a Box",
        ),
        (
            lambda: Cart(
                observation_space=gymnasium.spaces.Dict(
                    a=gymnasium.spaces.Dict(b=gymnasium.spaces.Discrete(3))
                )
            ),
            "observation 'a/b' is Discrete(3); it must be a Box, or Dicts of Boxes",
        ),
        (Old, "Give reset the signature of gymnasium"),
        (OldStep, "step() must return (observation, reward, terminated, truncated, info)"),
        (Alone, "reset() must return (observation, info)"),
        (Larger, "observation 'state' has shape (5,), its space says (2,)"),
        (
            lambda: Cart("docked"),
            "no 'success' or 'is_success' (it has ['docked']). Set info['success'], or return",
        ),
    ],
    ids=lambda x: x[:30] if isinstance(x, str) else "",
)
def test_a_promise_not_kept_is_named(env, text):
    with pytest.raises(ValueError) as error:
        play(custom_task(env, name="mine", max_episode_steps=5), [[0, 0]])
    assert str(error.value).startswith("mine: ") and text in str(error.value)


def test_what_is_paid_for_needs_no_success():
    task = custom_task(lambda: Cart(key=None), reward="env", max_episode_steps=5)
    env = task.make_env()
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.array([1.0, -1.0], np.float32))
    assert reward == -1.0 and info == {"success": False}
    named = custom_task(lambda: Cart(key=None), reward="env", success="at", max_episode_steps=5)
    with pytest.raises(ValueError, match=r"no 'at' \(it has \[\]\)"):
        play(named, [[0, 0]])


def test_a_time_limit_is_needed_and_found():
    with pytest.raises(
        ValueError,
        match=r"no time limit \(got None\)\. Give custom_task\(\.\.\., max_episode_steps=N\)",
    ):
        custom_task(Cart)
    assert custom_task(lambda: gymnasium.make("Pendulum-v1")).max_episode_steps == 200


def test_recorded_data_in_the_environments_own_units(tmp_path):
    task = custom_task(Cart, max_episode_steps=5)
    assert task.adapt is not None
    actions = np.array([[-2, 0], [1, 4], [-0.5, 2]], np.float32)
    recorded = Episode(
        {"state": np.zeros((4, 2))}, actions, -np.ones(3), np.array([False, False, True]), True
    )
    episode = task.adapt(recorded)
    np.testing.assert_allclose(episode.actions, [[-1, -1], [1, 1], [0, 0]], atol=1e-6)
    assert (
        episode.rewards.tolist() == [0, 0, 1] and episode.observations["state"].dtype == np.float32
    )
    save_npz(tmp_path / "own.npz", [recorded])
    np.testing.assert_allclose(
        load_episodes(tmp_path / "own.npz", adapt=task.adapt)[0].actions, episode.actions
    )
    unit = custom_task(Cart, max_episode_steps=5, recorded_actions="unit", reward="env")
    assert unit.adapt is not None
    assert unit.adapt(recorded).actions is actions and unit.adapt(recorded).rewards.tolist() == [
        -1,
        -1,
        -1,
    ]
    with pytest.raises(
        ValueError,
        match=r"actions row 0 has 9 in entry 0, outside the environment's bounds \[-2, 1\]",
    ):
        task.adapt(
            Episode(
                {"state": np.zeros((4, 2))},
                np.add(actions, [[11, 0]]),
                -np.ones(3),
                np.ones(3, bool),
                True,
            )
        )
    with pytest.raises(ValueError, match=r"actions have shape \(3, 1\), the task needs \(3, 2\)"):
        task.adapt(
            Episode(
                {"state": np.zeros((4, 2))}, actions[:, :1], -np.ones(3), np.ones(3, bool), True
            )
        )
    with pytest.raises(ValueError, match=r"observation 'state' is missing; found \['pose'\]"):
        task.adapt(
            Episode({"pose": np.zeros((4, 2))}, actions, -np.ones(3), np.ones(3, bool), True)
        )


class Nested(Cart):
    """A Dict within a Dict, and a camera beside it."""

    def __init__(self):
        spaces = gymnasium.spaces.Dict
        robot = spaces({"pose": Box(-99, 99, (1,)), "speed": Box(-9, 9, (1,))})
        image = Box(0, 255, (4, 4, 3), np.uint8)
        super().__init__(observation_space=spaces({"robot": robot, "camera": image}))

    def look(self):
        robot = {"pose": self.state[:1].copy(), "speed": self.state[1:].copy()}
        return {"robot": robot, "camera": np.full((4, 4, 3), 7, np.uint8)}

    def reset(self, **kwargs):
        super().reset(**kwargs)
        return self.look(), {}

    def step(self, action):
        paid = super().step(action)[1:]
        return self.look(), *paid


@pytest.mark.slow
def test_a_dict_within_a_dict_and_data_without_the_camera_are_trained_on(tmp_path):
    """No network reads images: demonstrations need none. Names within a Dict are joined."""
    task = custom_task(Nested, max_episode_steps=6)
    names = [name for name, _, _ in task.spec.observation]
    assert names == ["camera", "robot/pose", "robot/speed"]
    steps = play(task, [[1, 1]] * 2)
    seen = {name: np.stack([step[0][name] for step in steps]) for name in names}
    assert seen["robot/speed"].ravel().tolist() == [0, 4, 8]
    arrays = {
        "observations": {name: seen[name] for name in ("robot/pose", "robot/speed")},
        "actions": np.ones((2, 2), np.float32),
        "unit_actions": True,
        "rewards": np.array([0.0, 1.0]),
        "terminals": np.array([False, True]),
        "episode_ends": np.array([2]),
    }
    save_npz(tmp_path / "states.npz", from_arrays(arrays))
    config = tiny("bc", task="mine", **{"data.path": str(tmp_path / "states.npz")})
    assert train(config, tmp_path / "run", task=task)["after"]["env_steps"] == 24
    del arrays["observations"]["robot/speed"]
    save_npz(tmp_path / "poses.npz", from_arrays(arrays))
    config = tiny("bc", task="mine", **{"data.path": str(tmp_path / "poses.npz")})
    with pytest.raises(ValueError, match="observation 'robot/speed' is missing"):
        train(config, tmp_path / "none", task=task)


MODULE = """
import gymnasium
from exporl.envs.custom import custom_task
make = lambda: gymnasium.make("MountainCarContinuous-v0", max_episode_steps=20)
def task():
    return custom_task(make, reward="env", success=lambda reward, terminated, info: terminated)
def breaks():
    raise RuntimeError("no cable")
def wrong():
    return 3
number = 3
"""


def test_module_and_function_name_a_task(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_robot.py").write_text(MODULE)
    (tmp_path / "torn.py").write_text("1 / 0")
    (tmp_path / "leaves.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    task = make_task("my_robot:task")
    assert task.name == "my_robot:task" and task.reward(-0.3) == -0.3
    assert make_task("my_robot:make", "0/1").max_episode_steps == 20
    assert sys.path == before
    for name, text in {
        "my_robots:task": "cannot import 'my_robots' of task 'my_robots:task': ModuleNotFoundError",
        "torn:task": (
            "cannot import 'torn' of task 'torn:task': ZeroDivisionError: division by zero"
        ),
        "leaves:task": "cannot import 'leaves' of task 'leaves:task': SystemExit",
        "sys:exit": "sys:exit() raised SystemExit",
        "my_robot:tusk": "my_robot has no function 'tusk'. Did you mean 'task'?",
        "my_robot:number": "my_robot has no function 'number'.",
        "my_robot:breaks": (
            "my_robot:breaks() raised RuntimeError: no cable. It must take no arguments"
        ),
        "my_robot:wrong": (
            "my_robot:wrong() returned int; it must return a gymnasium.Env or a Task."
        ),
    }.items():
        with pytest.raises(ValueError) as error:
            make_task(name)
        assert text in str(error.value)
    assert main(["check", "my_robot:task"]) == 0
    assert main(["check", "my_robot:make"]) == 2
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "no 'success' or 'is_success'" in out and "(--reward env)" in out


@pytest.mark.slow
def test_the_example_runs(tmp_path, monkeypatch, capsys):
    path = ROOT / "examples" / "custom_env.py"
    code = [line for line in path.read_text().split('"""')[2].splitlines() if line.strip()]
    assert len(code) <= 25
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert "'task': 'custom_env:task'" in capsys.readouterr().out
    learnt_and_acted(tmp_path / "runs" / "hill", least_updates=500)
    monkeypatch.syspath_prepend(str(path.parent))
    assert main(["check", "custom_env:task", "--data", "hill.npz"]) == 0


def arrays(**changes):
    full = {
        "observations": np.arange(14.0).reshape(7, 2),
        "actions": np.zeros((5, 1)),
        "rewards": np.arange(5) - 3,
        "terminals": [0, 0, 1, 0, 0],
        "episode_ends": [3, 5],
    }
    return {name: value for name, value in (full | changes).items() if value is not None}


def test_episodes_from_arrays():
    one, two = from_arrays(arrays())
    assert (len(one), one.terminated, len(two), two.terminated) == (3, True, 2, False)
    assert one.observations["state"][:, 0].tolist() == [0, 2, 4, 6] and two.observations["state"][
        :, 0
    ].tolist() == [
        8,
        10,
        12,
    ]
    assert two.successes.tolist() == [False, True] and one.observations["state"].dtype == np.float32
    first, after = np.arange(10).reshape(5, 2), np.arange(10).reshape(5, 2) + 2
    pairs = {"image": np.zeros((5, 4, 4, 3), np.uint8), "state": first}
    both = arrays(
        observations=pairs,
        next_observations={**pairs, "state": after},
        episode_ends=None,
        timeouts=[0, 0, 0, 0, 1],
        successes=[1, 0, 0, 0, 0],
    )
    one, two = from_arrays(both)
    assert (
        one.observations["state"][:, 0].tolist() == [0, 2, 4, 6] and one.success and not two.success
    )
    assert (
        two.observations["image"].shape == (3, 4, 4, 3)
        and two.observations["image"].dtype == np.uint8
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rewards": None}, "'rewards' is missing; there are actions"),
        ({"reward": [1]}, "unknown array 'reward'; known are actions"),
        ({"rewards": np.zeros(4)}, "'rewards' has 4 entries, actions have 5"),
        ({"episode_ends": None}, "give 'episode_ends' or 'timeouts'"),
        ({"episode_ends": [3, 4]}, "must rise from above 0 to the number of steps, 5; got [3 4]"),
        (
            {"episode_ends": None, "timeouts": np.zeros(5)},
            "must rise from above 0 to the number of steps, 5",
        ),
        (
            {"observations": np.zeros((5, 2))},
            "observations 'state' has 5 rows for 5 steps in 2 episodes",
        ),
        ({"next_observations": np.zeros((5, 2))}, "observations 'state' has 7 rows for 5 steps"),
        (
            {"observations": {"a": np.zeros((5, 2))}, "next_observations": {"b": np.zeros((5, 2))}},
            "observations have ['a'], next_observations ['b']",
        ),
    ],
    ids=lambda x: x[:30] if isinstance(x, str) else "",
)
def test_arrays_that_do_not_fit_are_named(changes, text):
    with pytest.raises(ValueError) as error:
        from_arrays(arrays(**changes))
    assert text in str(error.value)
