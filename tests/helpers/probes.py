"""Algorithms small enough for the probe tasks, and what they have learnt there."""

import contextlib
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from exporl.algos import (
    BcConfig,
    BestOfNConfig,
    CalqlConfig,
    DacConfig,
    DsrlConfig,
    ExpoConfig,
    FqlConfig,
    IdqlConfig,
    QamConfig,
    QcConfig,
    QsmConfig,
    ResidualConfig,
    RlpdConfig,
    make_algorithm,
)
from exporl.data.columns import needed_columns
from exporl.data.mixture import Mixture
from exporl.data.replay import Replay
from exporl.envs.probes import SPEC, collect
from exporl.nets.critic import Critic
from exporl.policies import BaseConfig, make_base
from helpers.compiling import a_little_optimized

DISCOUNT, HIDDEN = 0.9, (32,)
CRITICS = {"num_qs": 3, "hidden": HIDDEN, "tau": 0.1, "critic_learning_rate": 3e-3}
"""What most of them share."""

CONFIGS = {
    "expo": ExpoConfig(
        **CRITICS,
        num_base_samples=4,
        num_edit_samples=4,
        edit_scale=0.3,
        edit_learning_rate=3e-3,
        temperature_learning_rate=3e-3,
        decay_steps=0,
        initial_temperature=0.02,
        acting_base="live",
    ),
    "best_of_n": BestOfNConfig(
        **CRITICS,
        num_base_samples=8,
        acting_base="live",
    ),
    "idql": IdqlConfig(
        num_base_samples=16,
        expectile=0.9,
        num_qs=3,
        hidden=HIDDEN,
        tau=0.5,
        critic_learning_rate=3e-3,
        value_learning_rate=1e-2,
        base_tau=0.1,
    ),
    "fql": FqlConfig(
        **CRITICS,
        distill_weight=0.3,
        policy_learning_rate=3e-3,
    ),
    "calql": CalqlConfig(
        **CRITICS,
        conservatism=0.02,
        num_actions=4,
        policy_hidden=HIDDEN,
        policy_learning_rate=3e-3,
        temperature_learning_rate=3e-3,
        initial_temperature=0.01,
        target_entropy=-2.5,
    ),
    "qc": QcConfig(**CRITICS, num_base_samples=8),
    "dsrl": DsrlConfig(
        **CRITICS,
        policy_learning_rate=3e-3,
        temperature_learning_rate=3e-3,
        initial_temperature=0.01,
        target_entropy=-2.0,
        backup_entropy=False,
    ),
    "dac": DacConfig(
        **CRITICS,
        imitation_weight=0.3,
        num_base_samples=8,
        num_target_samples=4,
        pessimism=0.5,
        policy_every=1,
        policy_learning_rate=3e-3,
    ),
    "qsm": QsmConfig(
        **CRITICS,
        q_weight=20.0,
        noise=0.05,
        pessimism=0.5,
        policy_learning_rate=3e-3,
    ),
    "qam": QamConfig(
        **CRITICS,
        q_weight=5.0,
        policy_learning_rate=3e-3,
        initial_temperature=0.02,
    ),
    "residual": ResidualConfig(
        **CRITICS,
        residual_scale=0.8,
        policy_learning_rate=1e-2,
    ),
    "rlpd": RlpdConfig(
        **CRITICS,
        policy_learning_rate=1e-2,
        temperature_learning_rate=3e-3,
        initial_temperature=0.01,
        target_entropy=-2.5,
    ),
    "bc": BcConfig(),
}


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
            with a_little_optimized() if phase == "online" else contextlib.nullcontext():
                state, metrics = chosen.update(state, batches, jax.random.key(i), phase=phase)
    return SimpleNamespace(
        algorithm=chosen, state=state, acting=chosen.acting(state), metrics=metrics
    )


def samples(learnt, mode="explore", num=500):
    """Actions in the state in which episodes start."""
    observation = {"state": jnp.zeros((num, 2))}
    decision = learnt.algorithm.act(learnt.acting, observation, jax.random.key(0), mode=mode)
    return np.asarray(decision.action)[:, 0, 0]


every_critic = jax.jit(Critic(HIDDEN, 3).apply)


def value(learnt, state, action):
    """Mean over the critics of Q at one state and action."""
    state, action = jnp.asarray([state], jnp.float32), jnp.asarray([[[action]]], jnp.float32)
    return float(every_critic(learnt.state.critic.params, state, action).mean())


def bandit_reward(actions):
    return -np.abs(actions - 0.8).mean()


def assert_near_the_optimum(learnt):
    """On "bandit"."""
    mode = samples(learnt, "evaluate", 1)[0]
    np.testing.assert_allclose(mode, 0.8, atol=0.15)
    assert bandit_reward(samples(learnt)) > -0.3


def assert_values_reach_back(learnt):
    """On "delay"."""
    first = [value(learnt, (0, 0), action) for action in (-0.5, 0.5)]
    second = [value(learnt, (1, action), 0.0) for action in (-0.5, 0.5)]
    np.testing.assert_allclose(second, [-1, 0], atol=0.15)
    np.testing.assert_allclose(first, [-DISCOUNT, 0], atol=0.2)
    np.testing.assert_allclose(first[1] - first[0], DISCOUNT, atol=0.15)


def assert_values_beyond_the_end(learnt, expected):
    """On "terminal" and "timeout"."""
    found = [value(learnt, (0, 0), action) for action in (-0.5, 0.5)]
    np.testing.assert_allclose(found, expected, rtol=0.05)
