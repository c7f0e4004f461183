"""Units of actions from file to training, custom environments and their recordings in odd forms,
and what inspect, validate and check say about them."""

import dataclasses

import gymnasium
import numpy as np
import pytest

import exporl
from exporl.cli.main import main
from exporl.data.convert import clip_actions, given_range, scale_actions
from exporl.data.episodes import Episode
from exporl.data.formats import FORMATS, load_episodes, save_npz
from exporl.data.from_arrays import from_arrays
from exporl.envs.check import check_task
from exporl.envs.custom_data import clipping
from helpers.recordings import flat, leading_on, marks, refusal, steps, write_npz

Box, Dict = gymnasium.spaces.Box, gymnasium.spaces.Dict
LOW, HIGH = np.array([-2.0, 0.0]), np.array([2.0, 8.0])


class Arm(gymnasium.Env):
    """Two motors in [-2, 2] and [0, 8]; solved when the first joint passes 1."""

    def __init__(self, space=None, own_limit=None, pays=float, ends=bool, info=None):
        self.observation_space = space or Box(-99, 999, (2,), np.float32)
        self.action_space = Box(LOW.astype(np.float32), HIGH.astype(np.float32))
        self.own_limit, self.pays, self.ends, self.info = own_limit, pays, ends, info

    def look(self):
        return self.x.copy()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-1, 0, 2).astype(np.float32), 0
        return self.look(), {}

    def step(self, action):
        self.x = (self.x + 0.01 * np.asarray(action)).astype(np.float32)
        self.t += 1
        solved = bool(self.x[0] > 1)
        over = solved or (self.own_limit is not None and self.t >= self.own_limit)
        info = {"success": solved} if self.info is None else self.info
        return self.look(), self.pays(solved), self.ends(over), False, info


def collect(count, noise, seed):
    """A script that plays in an environment of the task, in [-1, 1]."""
    env, rng, made = task().make_env(), np.random.default_rng(seed), []
    for index in range(count):
        seen, actions, over = [env.reset(seed=index)[0]["state"]], [], False
        while not over:
            actions.append(rng.uniform(-1, 1, 2).astype(np.float32))
            observation, _, terminated, truncated, _ = env.step(actions[-1])
            seen.append(observation["state"])
            over = terminated or truncated
        no = np.zeros(len(actions), bool)
        made.append(
            Episode({"state": np.stack(seen)}, np.stack(actions), no.astype(np.float32), no, False)
        )
    return made


def task(**options):
    return exporl.custom_task(
        Arm, **({"max_episode_steps": 5, "name": "arm", "collect": collect} | options)
    )


@pytest.fixture
def module(tmp_path, monkeypatch):
    """`arm_tasks:task` for the command line."""
    (tmp_path / "arm_tasks.py").write_text("from test_strange_units import task\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recorded(actions, **changes) -> Episode:
    steps_ = len(actions)
    made = Episode(
        {"state": np.zeros((steps_ + 1, 2), np.float32)},
        np.asarray(actions, np.float32),
        np.zeros(steps_, np.float32),
        np.arange(steps_) == steps_ - 1,
        True,
    )
    return dataclasses.replace(made, **changes)


PHYSICAL = [[-2, 0], [0, 4], [2, 8], [1, 2]]
UNIT = [[-1, -1], [0, 0], [1, 1], [0.5, -0.5]]


@pytest.mark.parametrize("target", ["b.npz", "b.hdf5", "b-v0"])
def test_what_was_scaled_once_is_not_scaled_again(module, target, capsys):
    save_npz(module / "a.npz", [recorded(PHYSICAL)])
    assert main(["data", "convert", "a.npz", target, "--scale-actions", "-2", "0", "2", "8"]) == 0
    assert "scaled actions from [-2.0, 0.0] to [2.0, 8.0] to [-1, 1]" in capsys.readouterr().out
    for path in ("a.npz", target):
        (episode,) = load_episodes(module / path, adapt=task().adapt)
        np.testing.assert_allclose(episode.actions, UNIT, atol=1e-6)
    assert main(["data", "convert", target, "c.npz", "--scale-actions", "-1", "1"]) == 2
    assert "says that its actions are in [-1, 1] already" in capsys.readouterr().err
    assert main(["data", "convert", target, "c.npz"]) == 0  # the word goes along
    np.testing.assert_allclose(
        load_episodes(module / "c.npz", adapt=task().adapt)[0].actions, UNIT, atol=1e-6
    )


@pytest.mark.parametrize("target", ["b.npz", "b.hdf5", "b-v0"])
def test_what_was_converted_for_a_task_is_in_its_units(module, target):
    save_npz(module / "a.npz", [recorded(PHYSICAL)])
    assert main(["data", "convert", "a.npz", target, "--task", "arm_tasks:task"]) == 0
    (episode,) = load_episodes(module / target, adapt=task().adapt)
    np.testing.assert_allclose(episode.actions, UNIT, atol=1e-6)


@pytest.mark.parametrize("target", ["b.npz", "b.hdf5", "b-v0"])
def test_what_was_collected_is_read_as_it_was(module, target):
    assert main(["data", "collect", "arm_tasks:task", "--episodes", "2", "--output", target]) == 0
    read = load_episodes(module / target, adapt=task().adapt)
    for got, made in zip(read, collect(2, 0.3, 0), strict=True):
        np.testing.assert_array_equal(got.actions, made.actions)


def test_what_a_run_collects_is_read_as_it_was(tmp_path):
    """A run writes its demonstrations with `save_npz`, and such a file may be given to another."""
    save_npz(tmp_path / "demonstrations.npz", task().collect(2, 0.3, 0))
    (first, _) = load_episodes(tmp_path / "demonstrations.npz", adapt=task().adapt)
    np.testing.assert_array_equal(first.actions, collect(1, 0.3, 0)[0].actions)


def test_a_users_own_file_stays_in_the_environments_units(tmp_path):
    arrays = {
        "observations": np.zeros((5, 2)),
        "actions": np.array(PHYSICAL, np.float32),
        "rewards": np.zeros(4),
        "terminals": np.zeros(4),
        "episode_ends": [4],
    }
    save_npz(tmp_path / "own.npz", from_arrays(arrays))
    (episode,) = load_episodes(tmp_path / "own.npz", adapt=task().adapt)
    np.testing.assert_allclose(episode.actions, UNIT, atol=1e-6)
    save_npz(
        tmp_path / "unit.npz",
        from_arrays(arrays | {"actions": np.array(UNIT, np.float32), "unit_actions": True}),
    )
    (episode,) = load_episodes(tmp_path / "unit.npz", adapt=task().adapt)
    np.testing.assert_allclose(episode.actions, UNIT, atol=1e-6)


def test_a_file_that_looks_scaled_already_is_named():
    both = exporl.custom_task(lambda: Wide(), max_episode_steps=5)
    (note,) = both.adapt(recorded([[-1.0], [1.0], [0.5]])).notes
    assert "actions lie within [-1, 1] and reach its ends" in note and "[-2, 2]" in note
    assert (
        not both.adapt(recorded([[-1.0], [1.5]])).notes
        and not both.adapt(recorded([[0.3], [-0.2]])).notes
    )
    assert not task(recorded_actions="unit").adapt(recorded(UNIT)).notes


class Wide(Arm):
    def __init__(self):
        super().__init__()
        self.action_space = Box(-2, 2, (1,), np.float32)


def test_clipping_knows_the_bounds_of_the_environment(module, capsys):
    save_npz(module / "a.npz", [recorded([[-2.3, 0], [0, 9], [2, 8], [1, 2]]), recorded(PHYSICAL)])
    assert main(["data", "validate", "a.npz", "--task", "arm_tasks:task"]) == 2
    assert "--task T --clip-actions` clips to these bounds" in capsys.readouterr().out
    assert (
        main(["data", "convert", "a.npz", "b.npz", "--task", "arm_tasks:task", "--clip-actions"])
        == 0
    )
    out = capsys.readouterr().out
    assert "clipped actions of 1 episodes to the bounds of the environment's actions" in out
    read = load_episodes(module / "b.npz", adapt=task().adapt)
    np.testing.assert_allclose(read[0].actions, [[-1, -1], [0, 1], [1, 1], [0.5, -0.5]], atol=1e-6)
    np.testing.assert_allclose(read[1].actions, UNIT, atol=1e-6)
    clip = clipping(task())
    same = recorded(PHYSICAL)
    assert clip(same) is same and clipping(None) is clip_actions
    over = recorded(np.multiply(UNIT, 1.2), unit_actions=True)
    assert np.abs(clip(over).actions).max() == 1


@pytest.mark.parametrize(
    ("numbers", "low", "high"),
    [
        ([0, 512], 0, 512),
        ([-1, 0, 1, 2], [-1, 0], [1, 2]),
        ([0, 0, 0, 1, 2, 3], [0, 0, 0], [1, 2, 3]),
    ],
)
def test_ranges_of_every_dimension(numbers, low, high):
    got = given_range([float(number) for number in numbers])
    np.testing.assert_array_equal(got[0], low)
    np.testing.assert_array_equal(got[1], high)


@pytest.mark.parametrize("numbers", [[], [1], [1, 2, 3], [2, 1], [0, 5, 1, 5], [0, 1, 2, 1]])
def test_ranges_that_are_none(numbers):
    assert "LOW and HIGH with LOW < HIGH" in refusal(given_range, list(map(float, numbers)))


def test_a_range_of_other_dimensions():
    said = refusal(scale_actions, recorded(PHYSICAL), np.zeros(3), np.ones(3))
    assert "--scale-actions has a range for 3 dimensions, actions have 2" in said


# Physical units without a task.


def test_physical_units_are_recognised_and_counted(tmp_path, capsys):
    rng = np.random.default_rng(0)
    save_npz(tmp_path / "a.npz", [recorded(rng.uniform(LOW, HIGH, (9, 2))) for _ in range(30)])
    assert main(["data", "validate", str(tmp_path / "a.npz")]) == 2
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 3 and "30 x, first in episode 0: actions row" in out
    assert "look like the environment's own units. --task T scales them" in out
    assert main(["data", "inspect", str(tmp_path / "a.npz")]) == 0
    out = capsys.readouterr().out
    assert "clipping would destroy them" in out and out.count("own units") == 2


# Environments in odd forms.


class Nested(Arm):
    def __init__(self):
        arm = Dict(
            joints=Box(-9, 999, (2, 1), np.float32), pair=gymnasium.spaces.Tuple((Box(0, 1, ()),))
        )
        super().__init__(Dict(arm=arm, camera=Box(0, 255, (4, 4, 3), np.uint8)))

    def look(self):
        return {
            "arm": {"joints": self.x.reshape(2, 1).copy(), "pair": (np.float32(0.5),)},
            "camera": np.full((4, 4, 3), 7, np.uint8),
        }


def nested(**options):
    return exporl.custom_task(Nested, **({"max_episode_steps": 5, "name": "nested"} | options))


def test_nested_observations_are_joined():
    assert nested().spec.observation == (
        ("arm/joints", (2,), "float32"),
        ("arm/pair/0", (1,), "float32"),
        ("camera", (4, 4, 3), "uint8"),
    )
    env = nested().make_env()
    observation, _ = env.reset(seed=0)
    assert observation["arm/joints"].shape == (2,) and observation["arm/pair/0"].tolist() == [0.5]
    assert {f.status for f in check_task(nested())} <= {"pass", "skip"}


@pytest.mark.parametrize("name", ["arrays", "robomimic", "minari"])
def test_nested_observations_go_through_every_written_format(tmp_path, name):
    entries = {
        "arm/joints": np.ones((5, 2), np.float32),
        "arm/pair/0": np.zeros((5, 1), np.float32),
    }
    path = tmp_path / {"arrays": "a.npz", "robomimic": "a.hdf5", "minari": "a-v0"}[name]
    FORMATS[name].write(path, [recorded(PHYSICAL, observations=entries)])
    (episode,) = load_episodes(path, adapt=nested().adapt)
    assert set(episode.observations) == {"arm/joints", "arm/pair/0", "camera"}


def test_a_camera_that_no_network_reads_need_not_be_recorded():
    entries = {
        "arm/joints": np.ones((5, 2), np.float32),
        "arm/pair/0": np.zeros((5, 1), np.float32),
    }
    episode = nested().adapt(recorded(PHYSICAL, observations=entries))
    assert (
        episode.observations["camera"].shape == (5, 4, 4, 3)
        and not episode.observations["camera"].any()
    )
    assert "observation 'camera' is not recorded" in episode.notes[0]
    del entries["arm/pair/0"]
    assert "observation 'arm/pair/0' is missing" in refusal(
        nested().adapt, recorded(PHYSICAL, observations=entries)
    )


class Limited(Arm):
    max_episode_steps = 7


class Private(Arm):
    _max_episode_steps = 9


LIMITS = {
    "a wrapper": (lambda: gymnasium.wrappers.TimeLimit(Arm(), 50), 50),
    "two wrappers": (
        lambda: gymnasium.wrappers.TimeLimit(gymnasium.wrappers.TimeLimit(Arm(), 20), 50),
        20,
    ),
    "a wrapper within": (
        lambda: gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.wrappers.TimeLimit(Arm(), 30)),
        30,
    ),
    "made": (lambda: gymnasium.make("Pendulum-v1", max_episode_steps=40), 40),
    "made and wrapped": (
        lambda: gymnasium.wrappers.TimeLimit(gymnasium.make("Pendulum-v1"), 60),
        60,
    ),
    "an attribute": (Limited, 7),
    "a private one": (Private, 9),
}


@pytest.mark.parametrize("name", LIMITS)
def test_an_environments_own_limit_is_found(name):
    make_env, limit = LIMITS[name]
    assert exporl.custom_task(make_env).max_episode_steps == limit
    assert exporl.custom_task(make_env, max_episode_steps=3).max_episode_steps == 3


ANSWERS = {
    "an array": (
        {"pays": lambda s: np.array([1.0])},
        "the reward of step() is ndarray of shape (1,), [1.]",
    ),
    "two numbers": (
        {"pays": lambda s: np.zeros(2)},
        "the reward of step() is ndarray of shape (2,)",
    ),
    "a list": ({"pays": lambda s: [0.0]}, "the reward of step() is list of shape (1,)"),
    "nothing": ({"pays": lambda s: None}, "the reward of step() is NoneType, None"),
    "text": ({"pays": lambda s: "high"}, "the reward of step() is str"),
    "a dictionary": ({"pays": lambda s: {"sparse": 1.0}}, "the reward of step() is dict"),
    "an ending": (
        {"ends": lambda s: np.array([False])},
        "terminated of step() is ndarray of shape (1,)",
    ),
    "no ending": ({"ends": lambda s: None}, "terminated of step() is NoneType"),
    "no info": ({"info": 3}, "the info of step() is int, not a dictionary"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_step_returns_is_named(name):
    options, text = ANSWERS[name]
    env = exporl.custom_task(lambda: Arm(**options), max_episode_steps=5, name="arm").make_env()
    env.reset(seed=0)
    said = refusal(env.step, np.zeros(2))
    assert said.startswith("arm: ") and text in said
    found = {
        f.name: f
        for f in check_task(exporl.custom_task(lambda: Arm(**options), max_episode_steps=5))
    }
    assert found["plays"].status == "fail" and text in found["plays"].detail


def test_numbers_of_any_library_will_do():
    for pays in (np.float64, np.float32, int, bool, lambda s: np.array(0.5)):
        env = exporl.custom_task(
            lambda pays=pays: Arm(pays=pays), max_episode_steps=5, reward="env"
        ).make_env()
        env.reset(seed=0)
        assert isinstance(env.step(np.zeros(2))[1], float)


# Success by the task's own rule.


def asking(**infos) -> Episode:
    arrays = flat(
        observations=steps((4,)),
        next_observations=steps((4,)) + 1,
        actions=np.array(PHYSICAL, np.float32),
        rewards=np.array([0.1, 0.2, 0.9, 0.3]),
        terminals=marks(3, of=4),
        episode_ends=[4],
    )
    return dataclasses.replace(from_arrays(arrays)[0], infos=infos)


def test_a_task_answers_by_its_own_rule():
    terminated = task(success=lambda reward, terminated, info: terminated).adapt(asking())
    assert terminated.successes.tolist() == [False] * 3 + [True] and not terminated.question
    assert terminated.rewards.tolist() == [0, 0, 0, 1]
    good = task(success=lambda reward, terminated, info: reward > 0.8).adapt(asking())
    assert good.successes.tolist() == [False, False, True, False]
    by_info = task(success=lambda reward, terminated, info: info["lifted"] > 1).adapt(
        asking(lifted=np.array([9, 0, 0, 2, 0]))
    )
    assert by_info.successes.tolist() == [
        False,
        False,
        True,
        False,
    ]  # row 0 of t + 1 is the reset's
    named = task(success="docked").adapt(asking(docked=np.array([[0], [1], [0], [0]])))
    assert named.successes.tolist() == [False, True, False, False] and not named.question
    assert task().adapt(asking(is_success=np.array([0, 0, 0, 1]))).success


def test_a_task_that_cannot_answer_asks():
    for made, text in (
        (task(), "The file's infos have no 'success' or 'is_success'."),
        (task(success="docked"), "The file's infos have no 'docked'."),
        (
            task(success=lambda r, t, info: info["lifted"]),
            "function raised KeyError: 'lifted' for the recorded step 0",
        ),
    ):
        asked = made.adapt(asking())
        assert "rewards do not tell it" in asked.question and text in asked.question
        found = {f.name: f for f in check_task(made, [asked])}
        assert found["demonstrations"].status == "fail" and text in found["demonstrations"].detail
    own = task(reward="env").adapt(asking())
    assert not own.question and "success is not recorded" in own.notes[-1]


def test_training_asks_too(module, capsys):
    save_npz(module / "a.npz", [asking()])
    arguments = [
        "train",
        "expo",
        "--preset",
        "tiny",
        "--task",
        "arm_tasks:task",
        "--data.path",
        "a.npz",
        "--run-dir",
        "run",
    ]
    assert main(arguments) == 2
    assert "a.npz, episode 0: success is not recorded" in " ".join(capsys.readouterr().err.split())
    assert main(["data", "validate", "a.npz", "--task", "arm_tasks:task"]) == 2
    assert "custom_task(..., success=function" in capsys.readouterr().out


# Ends of demonstrations and of environments.


def findings(made, episodes=None):
    return {f.name: (f.status, f.detail) for f in check_task(made, episodes)}


def test_demonstrations_that_end_as_terminated_at_the_limit(module, capsys):
    late = [
        recorded(UNIT[:1] * 5, successes=np.zeros(5, bool), unit_actions=True) for _ in range(3)
    ]
    status, detail = findings(task(), late)["demonstrations"]
    assert (
        status == "fail"
        and "3 of 3 episodes end as terminated at the time limit of 5 steps" in detail
    )
    early = recorded(UNIT[:1] * 3, successes=np.zeros(3, bool))
    assert (
        findings(task(), [*late, early])["demonstrations"][0] == "pass"
    )  # failures may come late as well
    assert findings(task(), [recorded(UNIT[:1] * 5)] * 3)["demonstrations"][0] == "pass"
    save_npz(module / "late.npz", late)
    main(["data", "validate", "late.npz", "--task", "arm_tasks:task"])
    assert (
        "3 of 3 episodes end as terminated after 5 steps, without success: the task's time limit"
        in capsys.readouterr().out
    )


def test_check_says_where_nothing_succeeds():
    failed = recorded(UNIT, successes=np.zeros(4, bool), terminated=False)
    status, detail = findings(task(), [failed] * 3)["demonstrations"]
    assert status == "pass" and "0 successful; none shows what success is. Record success" in detail


@pytest.mark.parametrize("limit", [5, 8, 19])
def test_a_time_limit_that_shows_as_a_true_end(limit):
    made = exporl.custom_task(lambda: Arm(own_limit=limit), max_episode_steps=20)
    status, detail = findings(made)["endings"]
    assert (
        status == "fail"
        and f"end as terminated after exactly {limit} steps, without success" in detail
    )
    assert "Report it as truncated" in detail


class Falls(Arm):
    """Fails when the first joint is lower than it may be: sooner or later, by the actions."""

    def step(self, action):
        answer = super().step(action)
        return *answer[:2], bool(self.x[0] < -1.02 or self.x[0] > 1), *answer[3:]


def test_real_failures_are_no_time_limit():
    for make_env in (Falls, lambda: Arm(own_limit=3)):
        assert findings(exporl.custom_task(make_env, max_episode_steps=200))["endings"][0] in (
            "pass",
            "skip",
        )


# Messages.


def test_actions_of_one_axis(tmp_path):
    one = flat(
        actions=np.zeros(12, np.float32), next_observations=leading_on(), episode_ends=[4, 8, 12]
    )
    said = refusal(load_episodes, write_npz(tmp_path / "a.npz", one))
    assert (
        "actions has shape (4,), expected [steps, action dimensions]. Store one dimension as"
        " (4, 1)." in said
    )
    assert "expected [steps, action dimensions]" in refusal(from_arrays, one)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, bool])
def test_discrete_actions(tmp_path, kind, capsys):
    actions = (np.arange(12) % 2).astype(kind)[:, None]
    arrays = flat(actions=actions, next_observations=leading_on(), episode_ends=[4, 8, 12])
    said = refusal(load_episodes, write_npz(tmp_path / "a.npz", arrays))
    assert (
        f"actions are {np.dtype(kind)}. Only continuous actions" in said
        and "not discrete ones" in said
    )
    assert "Only continuous actions" in refusal(from_arrays, arrays)
    floats = write_npz(tmp_path / "b.npz", arrays | {"actions": actions.astype(np.float32)})
    assert main(["data", "validate", str(floats)]) == 0
    assert "note: every action is 0 or 1: discrete actions" in capsys.readouterr().out
