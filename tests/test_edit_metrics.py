"""`edit/over_noise`: numbers known by hand, from critics and edits that are written down in a line;
and it changes nothing that is learnt."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from exporl.algos import ExpoConfig, edit_metrics
from exporl.algos.edit_policy import Edited, EditPolicy
from exporl.algos.expo_entry import make_expo
from exporl.nets.critic import Critic
from exporl.nets.gaussian import Normal, TanhGaussian
from exporl.nets.mlp import flat_action
from exporl.policies import BaseConfig, make_base
from exporl.types import Spec
from helpers.batches import random_batch, same, to_device

SPEC = Spec((("state", (3,), "float32"),), action_dim=2, chunk_length=2)
BASE = BaseConfig("flow", num_steps=2, width=8, num_blocks=1, time_dim=4)
CONFIG = ExpoConfig(num_qs=2, hidden=(8,), edit_scale=0.05, edit_dropout=0.5, decay_steps=0)
SIGNS = jnp.broadcast_to(jnp.array([[1.0, 1.0], [1.0, -1.0]]), (8, 2, 2))
"""Three dimensions up and one down, in every row."""


class Slopes(Critic):
    """The sum of an action's dimensions, and twice that."""

    @nn.compact
    def __call__(self, features, action):
        total = flat_action(action).sum(axis=-1)
        return jnp.stack([total, 2 * total])


class Constant(TanhGaussian):
    """The same distribution everywhere."""

    @nn.compact
    def __call__(self, features, action=None, deterministic=True):
        shape = action.shape[-2:]
        mean = self.param("mean", nn.initializers.zeros, shape)
        log_std = self.param("log_std", nn.initializers.zeros, shape)
        return Normal(*(jnp.broadcast_to(x, action.shape) for x in (mean, log_std)))


def constant(unit, log_std=-18.0):
    """Parameters of edits that are `unit` in every dimension."""
    mean = jnp.full((2, 2), np.arctanh(unit))
    return {"params": {"mean": mean, "log_std": jnp.full((2, 2), log_std)}}


@functools.cache
def functions(**changes):
    return make_expo(dataclasses.replace(CONFIG, **changes), SPEC, make_base(BASE, SPEC))


def over_noise(unit, action=0.0, signs=SIGNS, temperature=0.0, **changes):
    """Of EXPO's edits of an action with the same number in every dimension."""
    agent = dataclasses.replace(functions(**changes), edit=Constant((), 2, 2), critic=Slopes((), 2))
    batch = random_batch(SPEC, 8).replace(action=jnp.full((8, 2, 2), action))
    eps = jnp.zeros((8, 2, 2))
    _, metrics = agent.edit_loss(
        constant(unit), {}, jnp.float32(temperature), batch, eps, signs=signs
    )
    return float(metrics["edit/over_noise"])


@pytest.mark.parametrize(
    ("unit", "action", "changes", "expected"),
    [
        # .025 in each of 4 dimensions: a sum of .1; with the signs .05; critics' slopes 1 and 2
        (0.5, 0.0, {}, 1.5 * (0.1 - 0.05)),
        (0.5, 0.0, {"edit_value": "min"}, 0.1 - 0.05),
        # downwards the least critic is the steeper one; the random edit goes up all the same
        (-0.5, 0.0, {}, 1.5 * (-0.1 - 0.05)),
        (-0.5, 0.0, {"edit_value": "min"}, 2 * -0.1 - 0.05),
        # at the bound only the dimension that goes down moves
        (0.5, 1.0, {}, 1.5 * (0 + 0.025)),
        (0.5, 1.0, {"clip_edits": False}, 1.5 * (0.1 - 0.05)),
    ],
)
def test_edits_against_random_ones_of_the_same_size(unit, action, changes, expected):
    np.testing.assert_allclose(over_noise(unit, action, **changes), expected, rtol=1e-4)


def test_against_their_own_direction_edits_gain_nothing():
    assert abs(over_noise(0.5, signs=jnp.ones((8, 2, 2)))) < 1e-6
    assert abs(over_noise(-0.5, signs=-jnp.ones((8, 2, 2)))) < 1e-6


def test_the_entropy_in_the_loss_is_no_value():
    found = over_noise(0.5, temperature=0.3, entropy_scale=0.25)
    np.testing.assert_allclose(found, 1.5 * (0.1 - 0.05), rtol=1e-4)


def test_the_edit_policy_of_qam_has_the_same():
    adam = optax.adam(1e-3)
    edit = EditPolicy(0.05, -1.0, Constant((), 2, 2), Slopes((), 2), adam, adam)
    given = Edited(jnp.zeros((8, 3)), jnp.zeros((8, 2, 2)), {})
    eps = jnp.zeros((8, 2, 2))
    _, metrics = edit.loss(constant(0.5), jnp.float32(0.1), given, eps, SIGNS)
    np.testing.assert_allclose(metrics["edit/over_noise"], 1.5 * (0.1 - 0.05), rtol=1e-4)


def test_edits_without_a_direction_are_worth_nothing():
    """4,096 rows: the standard error of their mean is .002. Edits of the same size that all go up
    are worth 1.5 x 4 x .05 x mean |e|, that is .16."""
    agent = dataclasses.replace(functions(), edit=Constant((), 2, 2), critic=Slopes((), 2))
    shape = (4_096, 2, 2)
    batch = random_batch(SPEC, shape[0]).replace(action=jnp.zeros(shape))
    signs = edit_metrics.random_signs(jax.random.key(3), shape)
    eps = jax.random.normal(jax.random.key(4), shape)

    def found(eps):
        given = constant(0.0, log_std=0.0), {}, jnp.float32(0.1), batch, eps
        return float(agent.edit_loss(*given, signs=signs)[1]["edit/over_noise"])

    assert abs(found(eps)) < 0.008
    assert abs(found(jnp.abs(eps)) - 0.3 * float(jnp.tanh(jnp.abs(eps)).mean())) < 0.008


def test_signs_are_random_and_of_a_key_of_their_own():
    key = jax.random.key(5)
    first, second = (
        np.asarray(edit_metrics.random_signs(each, (64, 2, 2))) for each in (key, jax.random.key(6))
    )
    assert set(np.unique(first)) == {-1, 1} and abs(first.mean()) < 0.3
    assert (first != second).any()
    halves = jax.random.key_data(jax.random.split(key))
    own = jax.random.key_data(jax.random.fold_in(key, 2))
    assert not any((np.asarray(half) == np.asarray(own)).all() for half in halves)


@pytest.mark.slow
def test_nothing_that_is_learnt_depends_on_it(monkeypatch):
    """Whatever the signs, the step is the one that the edit loss alone gives, to the bit."""
    agent, batch = functions(), to_device(random_batch(SPEC, 8))
    state = jax.jit(agent.init)(jax.random.key(0))

    def step():
        return jax.jit(agent.update_edit)(state, batch, jax.random.key(1))

    usual, metrics = step()
    monkeypatch.setattr(edit_metrics, "random_signs", lambda key, shape: jnp.full(shape, 0.25))
    other, other_metrics = step()
    assert same(usual, other)
    assert metrics["edit/over_noise"] != other_metrics["edit/over_noise"]

    @jax.jit
    def alone(state):
        eps_key, dropout_key = jax.random.split(jax.random.key(1))
        eps = jax.random.normal(eps_key, batch.action.shape)
        temperature = jnp.exp(state.log_temperature.params)
        given = state.critic.params, temperature, batch, eps, dropout_key
        grads, metrics = jax.grad(agent.edit_loss, has_aux=True)(state.edit.params, *given)
        return state.edit.apply_gradients(grads, agent.edit_optimizer), metrics

    edit, alone_metrics = alone(state)
    assert same(edit, usual.edit)
    assert "edit/over_noise" not in alone_metrics
