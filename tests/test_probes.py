"""Learning on the tiny tasks whose right answer is known, by update calls on minibatches from the
replay."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos.expo_entry import make_expo
from exporl.envs.probes import SPEC
from helpers.probes import (
    CONFIGS,
    DISCOUNT,
    assert_near_the_optimum,
    assert_values_beyond_the_end,
    assert_values_reach_back,
    bandit_reward,
    base_policy,
    learn,
    replay_of,
    samples,
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
def test_rlpd_approaches_the_optimum():
    learnt = learn("rlpd", "flow", replay_of("bandit"), online=150)
    assert_near_the_optimum(learnt)


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
@pytest.mark.parametrize("name", ["expo", "rlpd"])
def test_values_reach_back_in_time(name):
    learnt = learn(name, "flow", replay_of("delay"), online=100)
    assert_values_reach_back(learnt)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "probe", "bootstrap_timeouts", "expected"),
    [
        ("expo", "terminal", True, 1),
        ("expo", "timeout", True, 10),
        ("rlpd", "terminal", True, 1),
        ("rlpd", "timeout", True, 10),
        ("rlpd", "timeout", False, 1),
    ],
)
def test_values_beyond_the_end(name, probe, bootstrap_timeouts, expected):
    learnt = learn(name, "flow", replay_of(probe, bootstrap_timeouts=bootstrap_timeouts), online=70)
    assert_values_beyond_the_end(learnt, expected)
