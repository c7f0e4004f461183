"""The other algorithms on the tiny tasks whose right answer is known."""

import numpy as np
import pytest

from helpers.probes import DISCOUNT, bandit_reward, learn, replay_of, samples, value

VALUED = ["idql", "fql", "calql", "qc", "dsrl", "dac", "qsm", "qam", "residual"]
"""Algorithms whose values are asked for."""


def kind(name):
    """Of the base policy."""
    return "diffusion" if name in ("dac", "qsm") else "flow"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["best_of_n", "idql", "fql", "qc", "dsrl", "dac", "qsm", "qam", "residual"]
)
def test_others_around_a_base_beat_it_too(name):
    learnt = learn(name, kind(name), replay_of("bandit"), pretrain=30, online=60)
    own, base = bandit_reward(samples(learnt)), bandit_reward(samples(learnt, "base"))
    assert own > base + 0.3 and own > -0.4
    np.testing.assert_allclose(base, -0.8, atol=0.2)


@pytest.mark.slow
def test_calql_approaches_the_optimum():
    learnt = learn("calql", "flow", replay_of("bandit"), online=150)
    mode = samples(learnt, "evaluate", 1)[0]
    np.testing.assert_allclose(mode, 0.8, atol=0.15)
    assert bandit_reward(samples(learnt)) > -0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", VALUED)
def test_values_reach_back_in_time(name):
    learnt = learn(name, kind(name), replay_of("delay"), online=100)
    first = [value(learnt, (0, 0), action) for action in (-0.5, 0.5)]
    second = [value(learnt, (1, action), 0.0) for action in (-0.5, 0.5)]
    np.testing.assert_allclose(second, [-1, 0], atol=0.15)
    np.testing.assert_allclose(first, [-DISCOUNT, 0], atol=0.2)
    np.testing.assert_allclose(first[1] - first[0], DISCOUNT, atol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("name", VALUED)
@pytest.mark.parametrize(("probe", "expected"), [("terminal", 1), ("timeout", 10)])
def test_values_beyond_the_end(name, probe, expected):
    calls = 200 if name == "idql" else 70  # its critics follow V, which follows the critics
    learnt = learn(name, kind(name), replay_of(probe), online=calls)
    np.testing.assert_allclose([value(learnt, (0, 0), a) for a in (-0.5, 0.5)], expected, rtol=0.05)
