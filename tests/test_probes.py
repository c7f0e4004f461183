"""Learning on the tiny tasks whose right answer is known, by update calls on minibatches from the replay."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import quick_compilation  # noqa: F401

from exporl.algos import BcConfig, ExpoConfig, RlpdConfig, make_algorithm
from exporl.data.mixture import Mixture
from exporl.data.replay import Replay
from exporl.envs.probes import SPEC, collect
from exporl.nets.critic import Critic
from exporl.policies import BaseConfig, make_base

DISCOUNT, HIDDEN = 0.9, (32, 32)
CONFIGS = {
    "expo": ExpoConfig(
        num_base_samples=4, num_edit_samples=4, edit_scale=0.3, num_qs=3, hidden=HIDDEN, tau=0.05,
        critic_learning_rate=3e-3, edit_learning_rate=3e-3, temperature_learning_rate=3e-3, decay_steps=0,
        initial_temperature=0.02, acting_base="live",
    ),
    "rlpd": RlpdConfig(
        num_qs=3, hidden=HIDDEN, tau=0.05, critic_learning_rate=3e-3, policy_learning_rate=3e-3,
        temperature_learning_rate=3e-3, initial_temperature=0.02, target_entropy=-1.5,
    ),
    "bc": BcConfig(),
}  # fmt: skip


@functools.cache
def algorithm(name, kind):
    base = BaseConfig(kind=kind, num_steps=5, width=32, num_blocks=1, time_dim=8, learning_rate=3e-3, decay_steps=0)
    return make_algorithm(name, CONFIGS[name], SPEC, make_base(base, SPEC))


def replay_of(probe, noise=0.3, bootstrap_timeouts=True):
    replay = Replay(SPEC, 2000, prior=True, bootstrap_timeouts=bootstrap_timeouts)
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
    return SimpleNamespace(algorithm=chosen, state=state, acting=chosen.acting(state), metrics=metrics)


def samples(act, learnt, num=500):
    """Actions in the state in which episodes start."""
    return np.asarray(act(learnt.acting, {"state": jnp.zeros((num, 2))}, jax.random.key(0)))[:, 0, 0]


every_critic = jax.jit(Critic(HIDDEN, 3).apply)


def value(learnt, state, action):
    """Mean over the critics of Q at one state and action."""
    state, action = jnp.asarray([state], jnp.float32), jnp.asarray([[[action]]], jnp.float32)
    return float(every_critic(learnt.state.critic.params, {"state": state}, action).mean())
