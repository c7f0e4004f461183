"""`exporl check`: tasks that keep every promise pass, and each broken promise is named with what to
do about it."""

import dataclasses
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from exporl.cli.main import main
from exporl.data.episodes import Episode
from exporl.data.formats import load_episodes, save_npz
from exporl.envs import list_tasks, make_task
from exporl.envs.check import check_task
from exporl.envs.task import Task
from exporl.spec import state_spec
from exporl.types import Spec

SHARED = Path(__file__).parents[2] / "shared"


class Walk(gymnasium.Env):
    """A point that walks on a line for 10 steps; pays 1 and is solved beyond 0.5. Subclasses break
    one promise each."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Dict(
            {"state": gymnasium.spaces.Box(-9, 9, (2,), np.float32)}
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.steps = float(self.np_random.uniform(-1, 0)), 0
        return self.observe(), {"success": False}

    def observe(self):
        return {"state": np.array([self.x, 0.1 * self.steps], np.float32)}

    def step(self, action):
        self.steps += 1
        self.x += 0.05 * float(action[0])
        success = self.x > 0.5
        return (
            self.observe(),
            float(success),
            success,
            not success and self.steps >= 10,
            {"success": success},
        )


class Altered(Walk):
    def reset(self, **kwargs):
        self.kept = {"state": np.zeros(2, np.float32)}
        return super().reset(**kwargs)

    def observe(self):
        self.kept["state"][:] = [self.x, 0.1 * self.steps]
        return dict(self.kept)


class Forgetful(Walk):
    """Its seed says nothing."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=None)


class Sticky(Walk):
    """Something of the episode before stays."""

    total = 0

    def step(self, action):
        self.total += 1
        result = super().step(action)
        self.x += 1e-6 * self.total
        return result


class Wide(Walk):
    def __init__(self):
        super().__init__()
        self.action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)


class Doubled(Walk):
    def observe(self):
        return {"state": super().observe()["state"].astype(np.float64)}


class Blind(Walk):
    def observe(self):
        return {"state": np.array([np.nan if self.steps > 3 else 0, 0], np.float32)}


class Changes(Walk):
    """Changes what a step answers: (observation, reward, terminated, truncated, info) -> the
    same."""

    change = staticmethod(lambda result, steps: result)

    def step(self, action):
        return self.change(super().step(action), self.steps)


def changing(change):
    return type("Changing", (Changes,), {"change": staticmethod(change)})


class Bare(Walk):
    def reset(self, **kwargs):
        return super().reset(**kwargs)[0], {}


class Breaks(Walk):
    def step(self, action):
        raise RuntimeError("the cable is loose")


class Nowhere(Walk):
    def __init__(self):
        raise OSError("no such port")


def walk_task(env=Walk, **changes):
    spec = Spec((("state", (2,), "float32"),), action_dim=1)
    return dataclasses.replace(Task("walk", env, spec, lambda r: r - 1.0, 10), **changes)


def statuses(task, episodes=None):
    return {name: (status, detail) for name, status, detail in check_task(task, episodes)}


def walk_episodes(reward=0.0, shift=0.0, n=4):
    rng = np.random.default_rng(0)
    states = [
        np.c_[rng.uniform(-1, 0, 11), np.arange(11) * 0.1].astype(np.float32) + np.float32(shift)
        for _ in range(n)
    ]
    actions = rng.uniform(-1, 1, (10, 1)).astype(np.float32)
    no = np.zeros(10, bool)
    return [
        Episode({"state": s}, actions, np.full(10, reward, np.float32), no, False) for s in states
    ]


@pytest.mark.parametrize(
    "name", ["probe/bandit", "probe/delay", "probe/terminal", "probe/timeout", "probe/image"]
)
def test_the_probes_keep_their_promises(name):
    found = statuses(make_task(name))
    assert {status for status, _ in found.values()} <= {"pass", "skip"}
    assert found["demonstrations"][0] == found["rewards"][0] == found["determinism"][0] == "pass"
    assert found["endings"][0] == ("pass" if name == "probe/timeout" else "skip")


def test_a_good_task_passes_everything():
    found = statuses(walk_task(), walk_episodes())
    assert {status for status, _ in found.values()} == {"pass"}
    assert (
        found["rewards"][1] == "0 -> -1; data and environment agree (random actions met no success)"
    )
    assert found["endings"][1] == "truncated after 10"
    assert "also in a new environment; another seed has another start" in found["determinism"][1]
    assert "steps/s" in statuses(walk_task(control_hz=20.0))["speed"][1]
    assert "times the task's 20 Hz" in statuses(walk_task(control_hz=20.0))["speed"][1]


BROKEN = [
    (
        Nowhere,
        "builds",
        "make_env() raised OSError: no such port. Mend the environment's constructor",
    ),
    (Breaks, "plays", "raised RuntimeError: the cable is loose"),
    (Wide, "spaces", "action bounds are [-2, 2], they must be [-1, 1]. Rescale"),
    (Doubled, "observations", "'state' is (2,) float64 after reset, Task.spec says (2,) float32"),
    (Blind, "observations", "'state' holds NaN or infinity after step 4"),
    (Altered, "observations", "'state' changed after it was returned. Return a copy"),
    (Bare, "success", "the info of reset has no 'success'"),
    (
        changing(lambda r, t: (*r[:4], {"success": 1.0})),
        "success",
        "info['success'] of step 1 is float 1.0, not bool",
    ),
    (
        changing(lambda r, t: (*r[:2], t >= 10, t >= 10, r[4])),
        "endings",
        "step 10 is terminated and truncated",
    ),
    (
        changing(lambda r, t: (*r[:2], t >= 10, False, r[4])),
        "endings",
        "limit of 10 steps shows as terminated",
    ),
    (
        changing(lambda r, t: (*r[:2], False, False, r[4])),
        "endings",
        "no end after 11 steps, max_episode_steps is 10",
    ),
    (
        changing(lambda r, t: (*r[:2], False, t >= 5, r[4])),
        "endings",
        "truncated after 5 steps, max_episode_steps is 10",
    ),
    (changing(lambda r, t: (*r[:2], 0, t >= 10, r[4])), "endings", "terminated is int 0, not bool"),
    (Forgetful, "determinism", "step 0 of the same seed and actions again, after another episode"),
    (Sticky, "determinism", "seed every generator and forget everything of the episode before"),
    (changing(lambda r, t: (r[0], np.nan, *r[2:])), "rewards", "must be one finite number"),
    (changing(lambda r, t: (r[0], np.ones(2), *r[2:])), "rewards", "must be one finite number"),
]


@pytest.mark.parametrize(
    ("env", "name", "text"), BROKEN, ids=[f"{name}-{text[:24]}" for _, name, text in BROKEN]
)
def test_a_broken_promise_is_named(env, name, text):
    status, detail = statuses(walk_task(env))[name]
    assert status == "fail"
    assert text in detail


@pytest.mark.parametrize(
    ("changes", "name", "text"),
    [
        (
            {"spec": Spec((("state", (3,), "float32"),), 1)},
            "spaces",
            "'state' is (2,) float32, Task.spec says (3,) float32",
        ),
        (
            {"spec": Spec((("pose", (2,), "float32"),), 1)},
            "spaces",
            "Task.spec has the observation 'pose', the space has not",
        ),
        (
            {"spec": Spec((("state", (2,), "float32"),), 2)},
            "spaces",
            "actions have the shape (1,), Task.spec says (2,)",
        ),
        ({"reward": lambda r: np.inf}, "rewards", "Task.reward turns 0.0 into inf"),
        (
            {"collect": lambda n, noise, seed: walk_episodes(1.0)},
            "rewards",
            "pays 0, the data 1. Data must hold what",
        ),
        ({"collect": lambda n, noise, seed: []}, "demonstrations", "there are none"),
        ({"collect": lambda n, noise, seed: 1 / 0}, "demonstrations", "raised ZeroDivisionError"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_broken_record_is_named(changes, name, text):
    status, detail = statuses(walk_task(**changes))[name]
    assert status == "fail"
    assert text in detail


def test_data_that_does_not_fit_is_named():
    long = [dataclasses.replace(e, actions=np.zeros((10, 2), np.float32)) for e in walk_episodes()]
    status, detail = statuses(walk_task(), long)["demonstrations"]
    assert status == "fail"
    assert (
        "episode 0: actions has shape (10, 2), the task needs (10, 1)" in detail
        and "(and 1 more)" in detail
    )
    status, detail = statuses(walk_task(max_episode_steps=5), walk_episodes())["demonstrations"]
    assert status == "pass" and "an episode has 10 steps, max_episode_steps is 5" in detail
    own = walk_task(max_episode_steps=5, collect=lambda n, noise, seed: walk_episodes())
    status, detail = statuses(own)["demonstrations"]
    assert (
        status == "fail"
        and "an episode has 10 steps, max_episode_steps is 5. Which is right?" in detail
    )
    status, detail = statuses(walk_task(), walk_episodes(shift=100.0))["statistics"]
    assert status == "fail"
    assert (
        "100% of the observation values at the environment's starts" in detail
        and "entries [0, 1]" in detail
    )


def test_dense_rewards_are_compared_as_ranges():
    dense = changing(lambda r, t: (r[0], -float(r[0]["state"][1]), *r[2:]))
    assert statuses(walk_task(dense), walk_episodes(-0.3))["rewards"][0] == "pass"
    status, detail = statuses(walk_task(dense), walk_episodes(3.0))["rewards"]
    assert status == "fail" and "pays -1..-0.1, the data 3..3" in detail


def test_sparse_rewards_agree_when_the_same_is_learnt_from_them():
    """An expert meets more of the conditions that a task counts than random actions do."""
    counts, episodes = changing(lambda r, t: (r[0], -3.0, *r[2:])), walk_episodes(-1.0)
    at_goal = lambda reward: 0.0 if reward == 0 else -1.0  # noqa: E731
    assert statuses(walk_task(counts, reward=at_goal), episodes)["rewards"][0] == "pass"
    status, detail = statuses(walk_task(counts), episodes)["rewards"]
    assert status == "fail" and "pays -3, the data -1" in detail


def test_the_command_prints_a_table_and_fails_where_something_is_broken(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["check", "probe/delay", "--demos", "5"]) == 0
    out = capsys.readouterr().out
    assert "keeps its promises" in out and "5 episodes collected" in out
    save_npz(tmp_path / "walk.npz", walk_episodes(-0.4, shift=100.0))
    assert main(["check", "probe/bandit", "--data", str(tmp_path / "walk.npz")]) == 2
    out = capsys.readouterr().out
    assert (
        "fail" in out
        and "standard deviations" in " ".join(out.split())
        and "1 promises broken" in out
    )
    assert main(["check", "probe/bandits"]) == 2
    assert "Did you mean 'probe/bandit'" in capsys.readouterr().err
    assert main(["check", "probe/bandit", "--demos", "-1"]) == 2
    assert "--demos: must be in [0, 1000000], got -1" in capsys.readouterr().err


@pytest.mark.slow
def test_a_simulated_task_with_its_data():
    pytest.importorskip("metaworld", reason="the extra exporl[metaworld] is not installed")
    data = SHARED / "data" / "metaworld" / "push-v3-mixed.npz"
    episodes = load_episodes(data, 5) if data.is_file() else None
    found = statuses(make_task("metaworld/push-v3"), episodes)
    assert {status for status, _ in found.values()} == {"pass"}
    assert found["demonstrations"][1].startswith(
        "5 episodes read" if episodes else "3 episodes collected"
    )


def test_the_list_of_tasks(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["tasks"]) == 0
    out = capsys.readouterr().out
    for family, _ in {name.split("/")[0]: record for name, record in list_tasks()}.items():
        assert family in out
    assert "pip install 'exporl[metaworld]'" in out
    assert main(["tasks", "probe"]) == 0
    out = capsys.readouterr().out
    assert (
        "probe/image" in out
        and "image 8x8x3, state 2: step, first action" in out
        and "two-mode script" in out
    )
    assert main(["tasks", "probes"]) == 2
    assert (
        "unknown family 'probes'. Did you mean 'probe'? There are adroit" in capsys.readouterr().err
    )


def test_tasks_are_listed_without_their_simulators(capsys, monkeypatch):
    """Every record is made of constants, so the list needs no extra."""
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for family in dict.fromkeys(name.split("/")[0] for name, _ in list_tasks()):
        assert main(["tasks", family]) == 0
        assert "(not installed)" in capsys.readouterr().out or family == "probe"


@pytest.mark.parametrize("name", [name for name, _ in list_tasks()])
def test_records_are_complete(name):
    record = dict(list_tasks())[name]
    task = record.make(name.split("/", 1)[1], "env")
    assert task.name == name
    assert state_spec(task.spec).action_dim > 0 and task.max_episode_steps > 0
    assert task.reward_note and (task.source or task.collect is None)
