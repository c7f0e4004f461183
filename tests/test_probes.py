"""Learning on the tiny tasks whose right answer is known, by update calls on minibatches from the
replay."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import make_algorithm
from exporl.algos.expo_entry import make_expo
from exporl.data.columns import needed_columns
from exporl.data.mixture import Mixture
from exporl.data.replay import Replay
from exporl.envs.probes import SPEC, collect
from exporl.policies import BaseConfig, make_base
from helpers.probes import CONFIGS, DISCOUNT, bandit_reward, samples, value


def base_policy(kind):
    config = BaseConfig(
        kind=kind,
        num_steps=5,
        width=32,
        num_blocks=1,
        time_dim=8,
        learning_rate=3e-3,
        decay_steps=0,
    )
    return make_base(config, SPEC)


@functools.cache
def algorithm(name, kind):
    return make_algorithm(name, CONFIGS[name], SPEC, base_policy(kind))


def replay_of(probe, noise=0.3, bootstrap_timeouts=True):
    columns = needed_columns(("data_return",), 0, SPEC, DISCOUNT)
    replay = Replay(SPEC, 2000, prior=True, bootstrap_timeouts=bootstrap_timeouts, columns=columns)
    for episode in collect(probe, 300, noise, seed=0):
        replay.add_episode(episode, float)
    return replay


def learn(name, kind, replay, **calls):
    """The state after so many update calls per phase, each on ten minibatches of 64."""
    chosen, mixture, rng = algorithm(name, kind), Mixture([(replay, 1.0)]), np.random.default_rng(0)
    state = jax.jit(chosen.init)(jax.random.key(0))
    for phase, count in calls.items():
        for i in range(count):
            batches = mixture.sample(rng, 10, 64, discount=DISCOUNT)
            state, metrics = chosen.update(state, batches, jax.random.key(i), phase=phase)
    return SimpleNamespace(
        algorithm=chosen, state=state, acting=chosen.acting(state), metrics=metrics
    )


@pytest.fixture(scope="module", params=["flow", "diffusion"])
def bandit(request):
    return learn("expo", request.param, replay_of("bandit"), pretrain=30, online=60)


@pytest.mark.slow
def test_expo_beats_its_own_base(bandit):
    own, base = samples(bandit), samples(bandit, "base")
    assert bandit_reward(own) > bandit_reward(base) + 0.3
    assert bandit_reward(own) > -0.35
    assert np.abs(own).max() <= 1


@pytest.mark.slow
def test_no_value_gradient_enters_the_base(bandit):
    base = samples(bandit, "base")
    assert 0.35 < (base > 0).mean() < 0.75
    np.testing.assert_allclose(bandit_reward(base), -0.8, atol=0.15)


@pytest.mark.slow
def test_edits_move_towards_the_optimum(bandit):
    start = jnp.array([-0.5, 0.0, 0.5])[:, None, None]
    expo = make_expo(
        CONFIGS["expo"], SPEC, base_policy("flow")
    )  # the edits know nothing of the base
    edits = jax.jit(functools.partial(expo.draw_edits, expo.edit))(
        bandit.state.edit.params, jnp.zeros((3, 2)), start, jnp.zeros((3, 1, 1))
    )
    assert (np.asarray(edits.action) - np.asarray(start)).min() > 0.15
    assert bandit.metrics["edit/advantage"] > 0.03 and bandit.metrics["edit/picked"] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rlpd", "calql"])
def test_gaussian_policies_approach_the_optimum(name):
    learnt = learn(name, "flow", replay_of("bandit"), online=150)
    mode = samples(learnt, "evaluate", 1)[0]
    np.testing.assert_allclose(mode, 0.8, atol=0.15)
    assert bandit_reward(samples(learnt)) > -0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["best_of_n", "idql", "fql", "qc"])
def test_others_around_a_base_beat_it_too(name):
    learnt = learn(name, "flow", replay_of("bandit"), pretrain=30, online=60)
    own, base = bandit_reward(samples(learnt)), bandit_reward(samples(learnt, "base"))
    assert own > base + 0.3 and own > -0.4
    np.testing.assert_allclose(base, -0.8, atol=0.2)


@pytest.mark.slow
def test_bc_reproduces_both_modes():
    replay = replay_of("bandit", noise=0.05)
    learnt = learn("bc", "flow", replay, pretrain=80)
    actions = samples(learnt, num=2000)
    upper, data = (
        actions > 0,
        replay.sample(np.random.default_rng(1), 2000, discount=DISCOUNT).action,
    )
    np.testing.assert_allclose(upper.mean(), (data > 0).mean(), atol=0.1)
    np.testing.assert_allclose(
        [np.median(actions[upper]), np.median(actions[~upper])], [0.5, -0.5], atol=0.1
    )
    assert (np.abs(np.abs(actions) - 0.5) < 0.2).mean() > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("name", ["expo", "best_of_n", "idql", "fql", "calql", "qc", "rlpd"])
def test_values_reach_back_in_time(name):
    learnt = learn(name, "flow", replay_of("delay"), online=100)
    first = [value(learnt, (0, 0), action) for action in (-0.5, 0.5)]
    second = [value(learnt, (1, action), 0.0) for action in (-0.5, 0.5)]
    np.testing.assert_allclose(second, [-1, 0], atol=0.15)
    np.testing.assert_allclose(first, [-DISCOUNT, 0], atol=0.2)
    np.testing.assert_allclose(first[1] - first[0], DISCOUNT, atol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "probe", "bootstrap_timeouts", "expected"),
    [
        ("expo", "terminal", True, 1),
        ("expo", "timeout", True, 10),
        *((name, "terminal", True, 1) for name in ("best_of_n", "idql", "fql", "calql", "qc")),
        *((name, "timeout", True, 10) for name in ("best_of_n", "idql", "fql", "calql", "qc")),
        ("rlpd", "terminal", True, 1),
        ("rlpd", "timeout", True, 10),
        ("rlpd", "timeout", False, 1),
    ],
)
def test_values_beyond_the_end(name, probe, bootstrap_timeouts, expected):
    learnt = learn(name, "flow", replay_of(probe, bootstrap_timeouts=bootstrap_timeouts), online=70)
    np.testing.assert_allclose([value(learnt, (0, 0), a) for a in (-0.5, 0.5)], expected, rtol=0.05)
