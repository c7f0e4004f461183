"""Approximate backups still find values that are known: they must carry reward back through
time."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from exporl.algos import make_algorithm
from exporl.data.columns import proposal_columns
from exporl.data.mixture import Mixture
from exporl.data.proposals import renew_proposals
from exporl.data.replay import Replay
from exporl.envs.probes import SPEC, collect
from exporl.policies import BaseConfig, make_base
from helpers.compiling import a_little_optimized
from helpers.probes import CONFIGS, DISCOUNT, bandit_reward, samples, value

BASE = BaseConfig(
    kind="diffusion",
    num_steps=3,
    width=16,
    num_blocks=1,
    time_dim=8,
    learning_rate=3e-3,
    decay_steps=0,
)


def learn(backup, probe, calls):
    """`tests/test_probes.py: learn` with another backup; samples are renewed as the training loop
    does."""
    config = dataclasses.replace(CONFIGS["expo"], backup=backup)
    chosen = make_algorithm("expo", config, SPEC, make_base(BASE, SPEC))
    replay = Replay(SPEC, 2000, prior=True, columns=proposal_columns(chosen.needs.proposals, SPEC))
    for episode in collect(probe, 300, 0.3, seed=0):
        replay.add_episode(episode, float)
    mixture, rng, state = (
        Mixture([(replay, 1.0)]),
        np.random.default_rng(0),
        jax.jit(chosen.init)(jax.random.key(0)),
    )
    for i in range(30):
        batches = mixture.sample(rng, 10, 64, discount=DISCOUNT)
        state, _ = chosen.update(state, batches, jax.random.key(100 + i), phase="pretrain")
    for i in range(calls):
        if chosen.needs.proposals:
            key = jax.random.fold_in(jax.random.key(9), i)

            def draw(o, j, s=state, k=key):
                return np.asarray(chosen.propose(s, o, jax.random.fold_in(k, j)))

            renew_proposals([replay], draw, 64, i)
        batches = mixture.sample(rng, 10, 64, discount=DISCOUNT)
        with a_little_optimized():
            state, metrics = chosen.update(state, batches, jax.random.key(i), phase="online")
    return SimpleNamespace(
        algorithm=chosen, state=state, acting=chosen.acting(state), metrics=metrics
    )


@pytest.mark.slow
@pytest.mark.parametrize("backup", ["filtered", "cached"])
def test_values_reach_back_in_time(backup):
    learnt = learn(backup, "delay", 100)
    first = [value(learnt, (0, 0), action) for action in (-0.5, 0.5)]
    np.testing.assert_allclose(first, [-DISCOUNT, 0], atol=0.2)
    np.testing.assert_allclose(first[1] - first[0], DISCOUNT, atol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("backup", ["filtered", "cached"])
def test_it_beats_its_own_base(backup):
    learnt = learn(backup, "bandit", 60)
    own, base = samples(learnt), samples(learnt, "base")
    assert bandit_reward(own) > bandit_reward(base) + 0.3
    assert bandit_reward(own) > -0.35
