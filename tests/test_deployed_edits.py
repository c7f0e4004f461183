"""The benchmark of ways to deploy edits: what each way does to candidates and to the choice."""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import ExpoConfig
from exporl.algos.expo import Expo
from exporl.algos.expo_entry import make_expo
from exporl.policies import BaseConfig, make_base
from exporl.types import Spec

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from deployed_edits import WAYS, Deployed, Way

SPEC = Spec((("state", (3,), "float32"),), 2, chunk_length=2)
CONFIG = ExpoConfig(
    hidden=(16,), num_qs=3, num_min_qs=2, num_base_samples=4, num_edit_samples=4, edit_scale=0.1
)
OBSERVATION = {"state": jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)}
PROPOSALS = jnp.asarray(np.random.default_rng(1).uniform(-0.8, 0.8, (8, 4, 2, 2)), jnp.float32)
MEMBERS = jnp.arange(2)


@pytest.fixture(scope="module")
def agent():
    base = make_base(BaseConfig("flow", num_steps=2, width=8, num_blocks=1, time_dim=4), SPEC)
    return make_expo(CONFIG, SPEC, base)


@pytest.fixture(scope="module")
def state(agent):
    return jax.jit(agent.init)(jax.random.key(0))


def deployed(agent, way):
    fields = {field.name: getattr(agent, field.name) for field in dataclasses.fields(Expo)}
    return Deployed(**fields, way=way)


def drawn_by(agent, state, seed=1):
    key = jax.random.key(seed)
    return agent.candidates(state.edit.params, OBSERVATION, PROPOSALS, key)


def edited(agent, state, way, seed=1):
    candidates = drawn_by(deployed(agent, way), state, seed)
    np.testing.assert_array_equal(candidates.base, PROPOSALS)
    return np.asarray(candidates.edited)


def test_edits_are_those_of_expo_unless_a_way_changes_them(agent, state):
    own = drawn_by(agent, state).edited
    np.testing.assert_allclose(edited(agent, state, WAYS["with edits"]), own, atol=1e-6)
    assert edited(agent, state, WAYS["without edits"]).shape == (8, 0, 2, 2)
    half = edited(agent, state, WAYS["half of each edit"]) - PROPOSALS
    np.testing.assert_allclose(half, 0.5 * (own - PROPOSALS), atol=1e-6)
    drawn = edited(agent, state, WAYS["random edits"]) - PROPOSALS
    assert 0.05 < np.abs(drawn).max() <= 0.1 + 1e-6 and abs(drawn.mean()) < 0.02
    mean = edited(agent, state, WAYS["mean edits"])
    np.testing.assert_array_equal(mean, edited(agent, state, WAYS["mean edits"], 2))


def test_a_margin_keeps_edits_that_critics_do_not_agree_on(agent, state):
    critics = state.target_critic
    candidates = drawn_by(agent, state)
    free = agent.choose(critics, candidates, MEMBERS, jax.random.key(3))
    assert (free.index >= 4).any()
    best = np.asarray(free.q[:, :4].argmax(axis=-1))
    never = deployed(agent, Way(margin=1e6)).choose(critics, candidates, MEMBERS, jax.random.key(3))
    np.testing.assert_array_equal(never.index, best)
    chosen = np.take_along_axis(np.asarray(PROPOSALS), best[:, None, None, None], axis=1)[:, 0]
    np.testing.assert_array_equal(never.action, chosen)
    always = deployed(agent, Way(margin=-1e6)).choose(
        critics, candidates, MEMBERS, jax.random.key(3)
    )
    assert (always.index >= 4).all()
