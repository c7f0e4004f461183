"""Best of n: EXPO without edits to the bit, its options and its presets."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import BestOfNConfig, ExpoConfig, Measurements, best_of_n, find_algorithm
from exporl.algos.expo_entry import PRESETS as EXPO_PRESETS
from exporl.algos.expo_entry import expo
from exporl.nets.critic import Critic
from exporl.policies import BaseConfig, make_base
from exporl.types import Spec
from helpers.batches import random_batch, same, to_device, to_host
from helpers.draws import still

SPEC = Spec((("state", (3,), "float32"),), action_dim=2, chunk_length=2)
SMALL = {"num_base_samples": 3, "num_qs": 3, "hidden": (8,), "base_updates": 2}
BASE = make_base(BaseConfig("flow", num_steps=2, width=8, num_blocks=1, time_dim=4), SPEC)
BATCHES = random_batch(SPEC, 2, 8)
ENTRY = find_algorithm("best_of_n")


@functools.cache
def algorithm():
    return best_of_n(BestOfNConfig(**SMALL), SPEC, still(BASE, 3))


@pytest.fixture(scope="module")
def learnt():
    """A state after one update call, and the metrics of that call."""
    start = jax.jit(algorithm().init)(jax.random.key(0))
    return to_host(algorithm().update(start, BATCHES, jax.random.key(1), phase="online"))


@pytest.mark.slow
def test_it_is_expo_without_edits_to_the_bit(learnt):
    options = {**SMALL, "num_edit_samples": 0}
    twin = expo(ExpoConfig(**options), SPEC, still(BASE, 3))
    start = jax.jit(twin.init)(jax.random.key(0))
    state, metrics = to_host(twin.update(start, BATCHES, jax.random.key(1), phase="online"))
    assert same(learnt, (state, metrics))
    assert not [name for name in metrics if name.startswith("edit/")]
    observation = {"state": BATCHES.observation["state"][0]}
    for mode in ("explore", "evaluate", "base"):
        own, other = (
            made.act(made.acting(to_device(state)), observation, jax.random.key(2), mode=mode)
            for made in (algorithm(), twin)
        )
        assert same(to_host(own), to_host(other))


@pytest.mark.slow
def test_the_sample_that_two_critics_rate_highest_acts(learnt):
    """By hand: three samples, the minimum over a pair of target critics, the highest one."""
    state, _ = learnt
    acting, observation = algorithm().acting(state), {"state": BATCHES.observation["state"][0]}
    noise = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, *BASE.noise_shape)))
    features = jnp.asarray(observation["state"])[:, None]
    noise = jnp.repeat(noise, 8, axis=0)
    samples = jax.jit(BASE.decode)(acting["base"], {"state": features}, noise)
    q = np.asarray(jax.jit(Critic((8,), 3).apply)(acting["critic"], features, samples))
    found = algorithm().act(acting, observation, jax.random.key(3))
    explained = []
    for pair in ([0, 1], [0, 2], [1, 2]):
        best = q[pair].min(axis=0)
        index = best.argmax(axis=1)
        explained.append(
            np.array_equal(index, found.info["index"])
            and np.allclose(best.max(axis=1), found.info["q"], atol=1e-5)
            and np.allclose(np.asarray(samples)[np.arange(8), index], found.action, atol=1e-5)
        )
    assert sum(explained) >= 1
    assert not np.asarray(found.info["edited"]).any()


def test_its_options_and_defaults_are_those_of_expo():
    own, others = ({f.name: f for f in dataclasses.fields(c)} for c in (BestOfNConfig, ExpoConfig))
    assert set(own) < set(others)
    assert {name: field.default for name, field in own.items()} == {
        name: others[name].default for name in own
    }
    missing = set(others) - set(own)
    assert {name for name in missing if "edit" not in name} == {
        "temperature_learning_rate",
        "initial_temperature",
        "entropy_scale",
        "target_entropy",
        "decay_steps",
        "target_policy",
        "backup_entropy",
    }


def test_its_presets_are_those_of_expo_without_what_concerns_edits():
    assert ENTRY.presets.keys() == EXPO_PRESETS.keys()
    for name, preset in ENTRY.presets.items():
        left_out = EXPO_PRESETS[name].keys() - preset.keys()
        assert all("edit" in option or "temperature" in option for option in left_out)
        assert all(EXPO_PRESETS[name][option] == value for option, value in preset.items())
    assert "algo.num_base_samples" in ENTRY.presets["paper"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_base_samples": 0}, r"num_base_samples must be at least 1, got 0"),
        ({"num_min_qs": 11}, r"num_min_qs must be between 1 and num_qs=10, got 11"),
        ({"filter_acting": True}, r"filter_acting needs backup='filtered'"),
        ({"softness": 2.0}, r"softness=2.0 has no effect with selection='argmax'"),
        ({"tau": 0.0}, r"tau must be in \(0, 1\], got 0.0"),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(ValueError, match=message):
        best_of_n(BestOfNConfig(**changes), SPEC, BASE)


def test_it_needs_a_base_policy():
    with pytest.raises(ValueError, match="best_of_n needs a base policy"):
        best_of_n(BestOfNConfig(), SPEC, None)


@pytest.mark.parametrize("pays", [True, False])
def test_hoisting_is_decided_by_measurement(pays):
    asked = []

    def hoisting_pays(num):
        asked.append(num)
        return pays

    decided = ENTRY.resolve(BestOfNConfig(num_base_samples=5), Measurements(hoisting_pays))
    assert decided == BestOfNConfig(num_base_samples=5, hoist_sampling=pays) and asked == [5]
