"""Tasks: the probes' known rewards, the registry's errors, Meta-World's determinism, endings and
demonstrations."""

import importlib.util
import inspect

import gymnasium
import numpy as np
import pytest

from exporl.data.episodes import Episode, Normalizer, fingerprint, validate_episodes
from exporl.envs import list_tasks, make_task
from exporl.envs import metaworld as ours
from exporl.envs.task import sparse_reward
from exporl.envs.wrappers import NormalizedObservation
from exporl.randomness import env_seed

PROBES = ("bandit", "delay", "terminal", "timeout", "image")
VARIED = (
    "reach-v3",
    "peg-insert-side-v3",
    "door-open-v3",
    "stick-pull-v3",
    "assembly-v3",
    "soccer-v3",
)


def play(env: gymnasium.Env, seed: int, actions) -> list[tuple]:
    """Everything an agent sees: (observation, reward, terminated, truncated, success) from the
    reset on."""
    observation, info = env.reset(seed=seed)
    seen = [(observation["state"], 0.0, False, False, info["success"])]
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(np.asarray(action, np.float32))
        seen.append((observation["state"], reward, terminated, truncated, info["success"]))
        if terminated or truncated:
            break
    return seen


def same_play(a: list[tuple], b: list[tuple]) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x[0], y[0])
        assert x[1:] == y[1:]


@pytest.mark.parametrize(
    ("name", "actions", "last"),
    [
        ("bandit", [[0.8]], ([0, 0], 0.0, True, False, True)),
        ("bandit", [[0.75]], ([0, 0], -0.05, True, False, True)),
        ("bandit", [[0.5]], ([0, 0], -0.3, True, False, False)),
        ("bandit", [[-0.5]], ([0, 0], -1.3, True, False, False)),
        ("delay", [[0.5]], ([1, 0.5], 0.0, False, False, False)),
        ("delay", [[0.5], [-1.0]], ([1, 0.5], 0.0, True, False, True)),
        ("delay", [[-0.5], [0.5]], ([1, -0.5], -1.0, True, False, False)),
        ("delay", [[0.0], [0.5]], ([1, 0.0], -0.5, True, False, False)),
        ("terminal", [[0.3]], ([0, 0], 1.0, True, False, True)),
        ("timeout", [[0.3]], ([0, 0], 1.0, False, True, True)),
    ],
)
def test_what_the_probes_pay_and_how_they_end(name, actions, last):
    env = make_task(f"probe/{name}").make_env()
    for _ in range(2):
        seen = play(env, 0, actions)
        assert len(seen) == len(actions) + 1
        np.testing.assert_array_equal(seen[0][0], [0, 0])
        state, reward, *ending = seen[-1]
        np.testing.assert_array_equal(state, np.array(last[0], np.float32))
        assert state.dtype == np.float32
        assert reward == pytest.approx(last[1], abs=1e-6)
        assert tuple(ending) == last[2:]


@pytest.mark.parametrize("name", PROBES)
def test_demonstrations_of_the_probes(name):
    task = make_task(f"probe/{name}")
    assert task.collect is not None
    episodes = task.collect(40, 0.0, 0)
    validate_episodes(episodes, task.spec)
    assert {len(e) for e in episodes} == ({2} if name in ("delay", "image") else {1})
    assert {e.terminated for e in episodes} == {name != "timeout"}
    assert {float(a) for e in episodes for a in e.actions.ravel()} == {-0.5, 0.5}
    noisy = np.concatenate([e.actions.ravel() for e in task.collect(200, 0.1, 0)])
    assert np.std(np.abs(noisy)) == pytest.approx(0.1, rel=0.3)
    assert fingerprint(task.collect(5, 0.3, 1)) == fingerprint(task.collect(5, 0.3, 1))
    assert fingerprint(task.collect(5, 0.3, 1)) != fingerprint(task.collect(5, 0.3, 2))


@pytest.mark.parametrize("reward", ["-1/0", "0/1", "env"])
def test_probes_keep_their_own_reward(reward):
    assert make_task("probe/bandit", reward).reward(-0.25) == -0.25


@pytest.mark.parametrize(
    ("kind", "step", "success"), [("-1/0", -1.0, 0.0), ("0/1", 0.0, 1.0), ("env", 0.0, 1.0)]
)
def test_reward_conventions(kind, step, success):
    transform = sparse_reward(kind)
    assert (transform(0.0), transform(1.0)) == (step, success)


def test_an_unknown_reward_convention():
    with pytest.raises(ValueError, match="reward must be one of -1/0, 0/1, env; got 'dense'"):
        inspect.unwrap(sparse_reward)("dense")


def test_every_task_has_a_name_of_its_own():
    names = [name for name, _ in list_tasks()]
    assert len(names) == len(set(names))
    assert {name for name in names if name.startswith("probe/")} == {
        f"probe/{name}" for name in PROBES
    }
    assert "metaworld/peg-insert-side-v3" in names


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("probe/bandid", "probe/bandit"),
        ("bandit", "probe/bandit"),
        ("metaworld/peg-insert-side", "metaworld/peg-insert-side-v3"),
        ("metaworld/door-open-v2", "metaworld/door-open-v3"),
    ],
)
def test_an_unknown_task_names_the_closest(name, closest):
    with pytest.raises(
        ValueError,
        match=(
            rf"unknown task '{name}'\. Did you mean '{closest}'\? .* lists all {len(list_tasks())}"
        ),
    ):
        make_task(name)


def test_a_task_like_no_other():
    with pytest.raises(
        ValueError, match=rf"unknown task '0000'. `exporl tasks` lists all {len(list_tasks())}"
    ):
        make_task("0000")


def test_a_missing_package_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError,
        match=r"needs the package 'metaworld'.*pip install 'exporl\[metaworld\]'",
    ):
        make_task("metaworld/reach-v3")
    assert make_task("probe/delay").name == "probe/delay"


def test_episode_seeds_differ_and_repeat():
    counters = [
        (run, stream, episode) for run in range(4) for stream in range(4) for episode in range(50)
    ]
    seeds = [env_seed(*c) for c in counters]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [env_seed(*c) for c in counters]
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_normalised_environments_show_normalised_observations():
    normalizer = Normalizer(
        {"state": np.array([1, 0], np.float32)}, {"state": np.array([2, 0.5], np.float32)}, clip=1.5
    )
    env = NormalizedObservation(make_task("probe/delay").make_env(), normalizer)
    seen = play(env, 0, [[0.25], [0.0]])
    np.testing.assert_array_equal(np.stack([s[0] for s in seen]), [[-0.5, 0], [0, 0.5], [0, 0.5]])
    np.testing.assert_array_equal(play(env, 0, [[1.0]])[1][0], [0, 1.5])
    assert seen[-1][1:] == (-0.25, True, False, False)


@pytest.fixture(scope="module")
def metaworld():
    return pytest.importorskip("metaworld", reason="the extra exporl[metaworld] is not installed")


def test_all_metaworld_tasks_are_listed(metaworld):
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.policies import ENV_POLICY_MAP

    assert len(ours.NAMES) == 50
    assert set(ours.NAMES) == set(ALL_V3_ENVIRONMENTS) == set(ENV_POLICY_MAP)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIED)
def test_a_seed_fixes_the_episode_in_fresh_and_used_environments(metaworld, name):
    task, rng = make_task(f"metaworld/{name}"), np.random.default_rng(0)
    actions, seed = rng.uniform(-1, 1, (20, 4)), env_seed(0, 1, 2)
    used, fresh = task.make_env(), task.make_env()
    for other in (3, 4):
        play(used, other, rng.uniform(-1, 1, (15, 4)))
    expected = play(fresh, seed, actions)
    same_play(play(used, seed, actions), expected)
    same_play(play(used, seed, actions), expected)
    assert not np.array_equal(play(used, seed + 1, [])[0][0], expected[0][0])
    assert np.abs(expected[0][0][-3:]).max() > 0, "the goal is hidden"
    for env in (used, fresh):
        env.close()


def test_metaworld_spaces_and_horizon(metaworld):
    task = make_task("metaworld/peg-insert-side-v3")
    env = task.make_env()
    assert env.action_space == gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    (name, shape, dtype), *others = task.spec.observation
    assert others == []
    assert (name, shape, dtype) == ("state", (39,), "float32")
    assert env.observation_space["state"].shape == shape
    assert task.spec.action_dim == 4
    seen = play(env, 0, np.zeros((250, 4)))
    assert all(s[0] in env.observation_space["state"] for s in seen)
    assert len(seen) == task.max_episode_steps + 1 == 201
    assert [s[2:] for s in seen[:-1]] == [(False, False, False)] * 200
    assert seen[-1][1:] == (0.0, False, True, False)
    play(env, 1, np.zeros((30, 4)))
    assert len(play(env, 0, np.zeros((250, 4)))) == len(seen)
    env.close()


def test_actions_beyond_the_range_are_clipped(metaworld):
    env, action = make_task("metaworld/reach-v3").make_env(), np.array([3.0, -2.0, 1.5, 7.0])
    same_play(play(env, 5, [action] * 5), play(env, 5, [np.clip(action, -1, 1)] * 5))
    env.close()


@pytest.mark.parametrize("reward", ["-1/0", "0/1", "env"])
def test_metaworld_rewards_in_each_convention(metaworld, reward):
    task = make_task("metaworld/reach-v3", reward)
    assert (task.reward(0.0), task.reward(1.0)) == ((-1.0, 0.0) if reward == "-1/0" else (0.0, 1.0))


def test_success_ends_a_metaworld_episode(metaworld):
    task = make_task("metaworld/door-open-v3")
    assert task.collect is not None
    (episode,) = task.collect(1, 0.0, 0)
    assert episode.success
    assert episode.terminated
    assert len(episode) < ours.HORIZON
    assert episode.successes.tolist() == [False] * (len(episode) - 1) + [True]
    np.testing.assert_array_equal(episode.rewards, episode.successes)
    seen = play(task.make_env(), env_seed(0, 0), episode.actions)
    np.testing.assert_array_equal(np.stack([s[0] for s in seen]), episode.observations["state"])
    assert seen[-1][1:] == (1.0, True, False, True)


@pytest.mark.slow
def test_metaworld_demonstrations_are_seeded(metaworld):
    task = make_task("metaworld/reach-v3")

    def collect(episodes: int, noise: float, seed: int) -> list[Episode]:
        assert task.collect is not None
        return task.collect(episodes, noise, seed)

    both = collect(2, 0.3, 1)
    validate_episodes(both, task.spec)
    assert fingerprint(collect(2, 0.3, 1)) == fingerprint(both)
    assert fingerprint(collect(1, 0.3, 1)) == fingerprint(both[:1])
    different = [collect(1, 0.3, 2), collect(1, 0.0, 1)]
    assert len({fingerprint(episodes) for episodes in [both[:1], both[1:], *different]}) == 4
    np.testing.assert_array_equal(
        different[1][0].observations["state"][0], both[0].observations["state"][0]
    )
    noises = [
        collect(1, 0.01, seed)[0].actions[0] - collect(1, 0.0, seed)[0].actions[0]
        for seed in (1, 2)
    ]
    assert np.abs(noises).max(axis=1).min() > 0
    assert np.abs(noises[0] - noises[1]).max() > 1e-3
    for e in both:
        assert e.terminated == e.success
        assert len(e) <= ours.HORIZON
