"""The other algorithms on the tiny tasks whose right answer is known."""

import numpy as np
import pytest

from helpers.probes import (
    assert_near_the_optimum,
    assert_values_beyond_the_end,
    assert_values_reach_back,
    bandit_reward,
    learn,
    replay_of,
    samples,
)

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
    assert_near_the_optimum(learnt)


@pytest.mark.slow
@pytest.mark.parametrize("name", VALUED)
def test_values_reach_back_in_time(name):
    learnt = learn(name, kind(name), replay_of("delay"), online=100)
    assert_values_reach_back(learnt)


@pytest.mark.slow
@pytest.mark.parametrize("name", VALUED)
@pytest.mark.parametrize(("probe", "expected"), [("terminal", 1), ("timeout", 10)])
def test_values_beyond_the_end(name, probe, expected):
    calls = 200 if name == "idql" else 70  # its critics follow V, which follows the critics
    learnt = learn(name, kind(name), replay_of(probe), online=calls)
    assert_values_beyond_the_end(learnt, expected)
