"""Adroit binary: success rule, endings, determinism, recorded files, experts."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from exporl.data.episodes import Episode, faults, fingerprint
from exporl.data.formats import load_episodes
from exporl.envs import adroit, make_task
from exporl.envs.experts import adroit_action, load_policy
from exporl.randomness import env_seed

DATA = Path(__file__).parents[2] / "shared" / "data" / "adroit"
FILES = (
    "pen-expert",
    "pen-mixed",
    "door-expert",
    "door-mixed",
    "relocate-expert",
    "relocate-mixed",
)


@pytest.fixture(scope="module")
def simulator():
    return pytest.importorskip(
        "gymnasium_robotics", reason="the extra exporl[adroit] is not installed"
    )


def recorded(name: str, states: np.ndarray) -> Episode:
    """An episode as a file has it: dense rewards, an end flag, actions beyond the range."""
    steps = len(states) - 1
    actions = np.full((steps, adroit.SIZES[name][1]), 1.3, np.float32)
    return Episode(
        {"state": states},
        actions,
        np.full(steps, 17.5, np.float32),
        np.ones(steps, bool),
        True,
        {"qpos": states},
    )


@pytest.mark.parametrize(
    ("name", "entries", "expected"),
    [
        ("pen", {33: 1.0, 36: 0.96, 39: 0.07}, True),
        ("pen", {33: 1.0, 36: 0.94, 39: 0.07}, False),
        ("pen", {33: 1.0, 36: 0.96, 39: 0.08}, False),
        ("pen", {34: 0.6, 35: 0.8, 37: 0.6, 38: 0.8, 40: 0.05, 41: -0.05}, True),
        ("door", {28: 1.35}, True),
        ("door", {28: 1.349}, False),
        ("relocate", {36: 0.06, 37: -0.06, 38: 0.05}, True),
        ("relocate", {36: 0.06, 37: -0.06, 38: 0.06}, False),
        ("hammer", {26: 0.0815}, True),
        ("hammer", {26: 0.0805}, False),
        ("hammer", {26: 0.1015}, False),
    ],
)
def test_what_counts_as_solved(name, entries, expected):
    state = np.zeros(adroit.SIZES[name][0])
    for index, value in entries.items():
        state[index] = value
    assert bool(adroit.solved(name, state)) is expected
    neutral = np.zeros_like(state)
    if name == "relocate":
        neutral[36] = 1.0
    assert adroit.solved(name, np.stack([state, neutral])).tolist() == [expected, False]


def test_recorded_episodes_are_put_into_the_terms_of_the_task():
    task = make_task_without_simulator("door")
    assert task.adapt is not None
    states = np.zeros((4, 39), np.float64)
    states[:, 28] = [1.4, 0.0, 1.36, 1.2]
    episode = task.adapt(recorded("door", states))
    assert episode.successes.tolist() == [False, True, False], (
        "success belongs to the state after the step"
    )
    np.testing.assert_array_equal(episode.rewards, [0, 1, 0])
    assert [task.reward(r) for r in episode.rewards] == [-1, 0, -1]
    assert not episode.terminated
    np.testing.assert_array_equal(episode.actions, 1.0)
    assert list(faults(episode, task.spec)) == []
    assert fingerprint([task.adapt(episode)]) == fingerprint([episode])


def make_task_without_simulator(name: str):
    """Specs and files need no simulator."""
    return adroit.make(name, "-1/0")


@pytest.mark.parametrize(
    ("observations", "match"),
    [
        (
            {"state": np.zeros((3, 45))},
            r"rows of 39 numbers; found rows of shape \(45,\)\. Is this the right file",
        ),
        (
            {"images": np.zeros((3, 8))},
            r"success in adroit/door is computed from .*; found \['images'\]",
        ),
    ],
)
def test_files_of_other_tasks_are_refused(observations, match):
    episode = dataclasses.replace(recorded("door", np.zeros((3, 39))), observations=observations)
    with pytest.raises(ValueError, match=match):
        adroit.adapt("door", episode)


def test_actions_of_other_robots_are_refused():
    episode = dataclasses.replace(
        recorded("door", np.zeros((3, 39))), actions=np.zeros((2, 24), np.float32)
    )
    with pytest.raises(
        ValueError, match=r"actions have rows of shape \(24,\), adroit/door needs \(28,\)"
    ):
        adroit.adapt("door", episode)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_the_files_here_hold_what_the_rule_computes(file):
    path = DATA / f"{file}.npz"
    if not path.exists():
        pytest.skip("the demonstration files are not on this machine")
    task = make_task_without_simulator(file.split("-")[0])
    raw, adapted = load_episodes(path, 20), load_episodes(path, 20, adapt=task.adapt)
    for before, after in zip(raw, adapted, strict=True):
        np.testing.assert_array_equal(before.rewards, after.rewards)
        assert before.success == after.success
        assert list(faults(after, task.spec)) == []
        assert len(after) == task.max_episode_steps


def test_a_name_for_each_environment():
    assert adroit.NAMES == ("pen", "door", "relocate", "hammer")
    assert [adroit.make(name, "0/1").collect is None for name in adroit.NAMES] == [
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("name", adroit.NAMES)
def test_spaces_horizon_and_the_success_measures(simulator, name):
    task = make_task(f"adroit/{name}")
    env, rng = task.make_env(), np.random.default_rng(0)
    observation, info = env.reset(seed=1)
    assert info == {"success": False, "solved_fraction": 0.0}
    ends, fractions = [], []
    while not ends or not (ends[-1][0] or ends[-1][1]):
        assert observation in env.observation_space
        assert observation["state"].dtype == np.float32
        observation, reward, terminated, truncated, info = env.step(
            rng.uniform(-1.5, 1.5, task.spec.action_dim)
        )
        assert type(info["success"]) is bool
        assert reward == float(info["success"]) == float(adroit.solved(name, observation["state"]))
        ends.append((terminated, truncated))
        fractions.append(reward)
    assert len(ends) == task.max_episode_steps == adroit.HORIZONS[name]
    assert ends[-1] == (False, True)
    assert info["solved_fraction"] == pytest.approx(np.mean(fractions))
    assert task.spec.observation == (("state", observation["state"].shape, "float32"),)
    assert env.action_space.shape == (task.spec.action_dim,)
    assert env.unwrapped._env.dt == pytest.approx(1 / task.control_hz)
    env.close()


@pytest.mark.parametrize("name", adroit.NAMES)
def test_a_seed_fixes_the_episode_in_fresh_and_used_environments(simulator, name):
    task, rng = make_task(f"adroit/{name}"), np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (25, task.spec.action_dim)).astype(np.float32)

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
    used.close()
    fresh.close()


def test_the_nail_is_driven_in_where_the_simulator_says_so(simulator):
    env = make_task("adroit/hammer").make_env()
    env.reset(seed=0)
    inner = env.unwrapped._env
    for depth in (0.05, 0.085):
        qpos = inner.data.qpos.copy()
        qpos[26] = depth
        inner.set_state(qpos, np.zeros_like(inner.data.qvel))
        observation, reward, *_, info = env.step(np.zeros(26, np.float32))
        assert (
            bool(adroit.solved("hammer", observation["state"]))
            is info["success"]
            is (depth > 0.081)
        )
        assert reward == float(depth > 0.081)
    env.close()


def test_staying_solved_pays_at_every_step(simulator):
    task = make_task("adroit/door")
    assert task.collect is not None
    (episode,) = task.collect(1, 0.0, 0)
    assert episode.success
    assert len(episode) == 200
    assert not episode.terminated
    assert episode.rewards.sum() > 50
    np.testing.assert_array_equal(
        episode.rewards, adroit.solved("door", episode.observations["state"][1:])
    )
    assert list(faults(episode, task.spec)) == []
    env = task.make_env()
    observation, _ = env.reset(seed=env_seed(0, 0))
    np.testing.assert_array_equal(observation["state"], episode.observations["state"][0])
    for action in episode.actions:
        *_, info = env.step(action)
    assert info["solved_fraction"] == pytest.approx(episode.rewards.mean())
    env.close()


def test_demonstrations_are_seeded(simulator):
    task = make_task("adroit/pen")
    assert task.collect is not None
    both = task.collect(2, 0.2, 3)
    assert fingerprint(task.collect(2, 0.2, 3)) == fingerprint(both)
    assert fingerprint(task.collect(1, 0.2, 3)) == fingerprint(both[:1])
    assert fingerprint(task.collect(1, 0.2, 4)) != fingerprint(both[:1])


@pytest.mark.parametrize("name", adroit.EXPERTS)
def test_the_experts_are_the_published_networks(name):
    """Against a plain evaluation of the formula, entry by entry."""
    policy = load_policy("adroit_experts", name)
    size, actions = adroit.SIZES[name]
    assert policy["log_std"].shape == (actions,)
    state = np.linspace(-1, 1, size).astype(np.float32)
    x = [
        (s - a) / (b + 1e-8)
        for s, a, b in zip(state, policy["in_shift"], policy["in_scale"], strict=True)
    ]
    for layer in ("0", "1"):
        weights, bias = policy[f"w{layer}"], policy[f"b{layer}"]
        x = [
            np.tanh(sum(w * v for w, v in zip(row, x, strict=True)) + b)
            for row, b in zip(weights, bias, strict=True)
        ]
    out = [
        sum(w * v for w, v in zip(row, x, strict=True)) + b
        for row, b in zip(policy["w2"], policy["b2"], strict=True)
    ]
    expected = np.array(out) * policy["out_scale"] + policy["out_shift"]
    np.testing.assert_allclose(adroit_action(policy, state), expected, rtol=1e-3, atol=1e-3)
