"""Noise at deployment, and of the first of several samples, for the algorithms beside EXPO: without
noise everyone acts by the central action, and training acts as if there were no such option."""

import dataclasses
import functools
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import ALGORITHMS, make_algorithm
from exporl.algos.deploy_noise import noise_scales
from exporl.algos.idql import Idql
from exporl.algos.qc import Qc
from exporl.algos.residual import Residual
from exporl.nets.one_step import OneStep, one_step_action
from exporl.options import check_options
from exporl.plain import from_plain
from exporl.policies import BaseConfig, make_base
from exporl.types import Spec
from helpers.batches import random_batch

ROOT = Path(__file__).parents[1]
SPEC = Spec((("state", (3,), "float32"),), action_dim=2, chunk_length=2)
SMALL = {"hidden": (8,), "num_base_samples": 3, "num_qs": 2, "edits": False, "residual_scale": 0.3}
DIFFUSIONS = ("dac", "qsm")
COPIES = ("dac", "qsm", "qam")
"""Whose policy has the network of the base policy."""
CHOOSING = ("idql", "qc")
RIVALS = ("bc", *CHOOSING, "residual", "dsrl", "fql", *COPIES)
BATCH = jax.tree.map(lambda x: jnp.asarray(x[0]), random_batch(SPEC, 1, 8))
OBSERVATION = BATCH.observation


@functools.cache
def base(name):
    kind = "diffusion" if name in DIFFUSIONS else "flow"
    return make_base(BaseConfig(kind, num_steps=2, width=8, num_blocks=1, time_dim=4), SPEC)


def options(name, **changes):
    config = ALGORITHMS[name].config()
    has = {field.name for field in dataclasses.fields(config)}
    small = {key: value for key, value in SMALL.items() if key in has}
    return dataclasses.replace(config, **small | changes)


def algorithm(name, **changes):
    return make_algorithm(name, options(name, **changes), SPEC, base(name))


def shaken(params):
    """Parameters with something added to each, so that nothing is 0."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: (x + 0.2 * rng.standard_normal(x.shape)).astype(x.dtype), params)


@functools.cache
def acting(name):
    """What acts; of a policy with the base's network, the same parameters."""
    made = algorithm(name)
    found = made.acting(jax.jit(made.init)(jax.random.key(0)))
    if name == "bc":
        return shaken(found)
    found = {key: value if key == "share" else shaken(value) for key, value in found.items()}
    return found | ({"policy": found["base"]} if name in COPIES else {})


@functools.cache
def decided(name, mode, scale, seed=0):
    """Actions [b, h, a]."""
    made, key = algorithm(name, deploy_noise_scale=scale), jax.random.key(seed)
    return np.asarray(made.act(acting(name), OBSERVATION, key, mode=mode).action)


@functools.cache
def central(name):
    """The base policy's actions for noise of 0."""
    params = acting(name) if name == "bc" else acting(name)["base"]
    noise = jnp.zeros((8, *base(name).noise_shape))
    return np.asarray(jax.jit(base(name).decode)(params, OBSERVATION, noise))


@pytest.mark.slow
@pytest.mark.parametrize("name", RIVALS)
def test_without_noise_the_base_alone_is_central_and_trains_with_all_of_it(name):
    for seed in (0, 1):
        np.testing.assert_allclose(decided(name, "base", 0.0, seed), central(name), atol=1e-6)
    assert np.abs(decided(name, "base", 1.0) - central(name)).max() > 1e-2
    np.testing.assert_array_equal(decided(name, "sample", 0.0), decided(name, "base", 1.0))
    np.testing.assert_array_equal(decided(name, "explore", 0.0), decided(name, "explore", 1.0))
    assert algorithm(name).needs.alone == "base"
    assert algorithm(name, deploy_noise_scale=0.5).needs.alone == "sample"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bc", *CHOOSING, *COPIES])
def test_without_noise_the_policy_acts_by_its_central_action(name):
    """All of its samples are the same one. (QAM without edits.)"""
    np.testing.assert_allclose(decided(name, "evaluate", 0.0), central(name), atol=1e-6)
    assert np.abs(decided(name, "evaluate", 1.0) - central(name)).max() > 1e-2


@pytest.mark.slow
def test_half_the_noise_is_half_the_noise():
    """Of a linear decoder, whose action is the noise: exactly."""
    plain = base("bc")._replace(decode=lambda params, observation, noise: noise)
    full, half = (
        make_algorithm("bc", options("bc", deploy_noise_scale=scale), SPEC, plain).act(
            acting("bc"), OBSERVATION, jax.random.key(0), mode="evaluate"
        )
        for scale in (1.0, 0.5)
    )
    np.testing.assert_array_equal(half.action, full.action / 2)


@pytest.mark.slow
def test_the_residual_corrects_the_central_action():
    agent = Residual.create(options("residual"), SPEC, base("residual"))
    params, features = acting("residual")["policy"], OBSERVATION["state"]
    alone = jnp.asarray(central("residual"))
    expected = jax.jit(agent.corrected)(params, features, alone, jnp.zeros_like(alone))
    found = decided("residual", "evaluate", 0.0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(decided("residual", "unedited", 0.0), alone, atol=1e-6)
    assert np.abs(found - alone).max() > 1e-3


@pytest.mark.slow
def test_fqls_one_step_policy_gets_no_noise():
    policy, features = OneStep((8,)), OBSERVATION["state"]
    expected = one_step_action(policy, acting("fql")["policy"], features, jnp.zeros((8, 2, 2)))
    found = decided("fql", "evaluate", 0.0)
    np.testing.assert_allclose(found, np.clip(expected, -1, 1), atol=1e-5)
    assert np.abs(found - decided("fql", "evaluate", 1.0)).max() > 1e-2


@pytest.mark.slow
def test_dsrls_policy_keeps_the_noise_that_it_chose():
    np.testing.assert_array_equal(
        decided("dsrl", "evaluate", 0.0), decided("dsrl", "evaluate", 1.0)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("idql", Idql), ("qc", Qc)])
def test_the_first_sample_has_no_noise_and_the_last_all_of_it(name, kind):
    params = acting(name)["base"]

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def proposed(least, factor, seed):
        agent = kind.create(options(name, min_noise_scale=least), SPEC, base(name))
        return agent.propose(params, OBSERVATION, jax.random.key(seed), factor)

    one, other, plain = proposed(0.0, 1.0, 0), proposed(0.0, 1.0, 1), proposed(1.0, 1.0, 0)
    for narrowed in (one, other, proposed(0.0, 0.5, 0)):
        np.testing.assert_allclose(narrowed[:, 0], central(name), atol=1e-6)
    np.testing.assert_allclose(one[:, -1], plain[:, -1], atol=1e-6)
    assert np.abs(one[:, 1] - plain[:, 1]).max() > 1e-2
    assert np.abs(proposed(0.0, 0.5, 0)[:, -1] - plain[:, -1]).max() > 1e-2


@pytest.mark.slow
def test_qcs_target_values_the_narrowed_samples():
    """With one sample, of no noise, the TD target is the same for every key."""
    config = options("qc", num_base_samples=1, min_noise_scale=0.0)
    agent = Qc.create(config, SPEC, base("qc"))
    state = jax.jit(agent.init)(jax.random.key(0))
    step = jax.jit(lambda seed: agent.update_critic(state, BATCH, jax.random.key(seed))[1])
    assert step(0)["critic/target_mean"] == step(1)["critic/target_mean"]


def test_the_claim_gives_rivals_the_noise_of_expo():
    """Every row `-helped` without a preset of its own, as far as its algorithm has the options."""
    suite = tomllib.loads((ROOT / "benchmarks/claim.toml").read_text())["algorithms"]
    rows = {row["algorithm"]: row for label, row in suite.items() if label.endswith("-helped")}
    for name in RIVALS:
        has = {field.name for field in dataclasses.fields(ALGORITHMS[name].config)}
        for option in has & {"deploy_noise_scale", "min_noise_scale"}:
            of_expo, _ = ALGORITHMS["expo"].presets["stable"][f"algo.{option}"]
            assert rows[name]["options"]["algo"][option] == of_expo, (name, option)


def test_scales_by_hand():
    np.testing.assert_allclose(np.asarray(noise_scales(3, 0.5, 0.0)), [0.0, 0.25, 0.5])
    np.testing.assert_allclose(np.asarray(noise_scales(2, 0.5)), [0.5, 0.5])
    np.testing.assert_allclose(np.asarray(noise_scales(1, 1.0, 0.2)), [0.2])
    assert noise_scales(4, 1.0) is None


@pytest.mark.parametrize("name", RIVALS)
def test_configurations_without_the_options_had_all_of_the_noise(name):
    """And the ranges are checked."""
    names = ("deploy_noise_scale", *(("min_noise_scale",) if name in CHOOSING else ()))
    written = dataclasses.asdict(options(name, **dict.fromkeys(names, 0.5)))
    kind = ALGORITHMS[name].config
    before = {key: value for key, value in written.items() if key not in names}
    for option in names:
        assert getattr(from_plain(kind, before), option) == 1.0
        assert getattr(from_plain(kind, written), option) == 0.5
        with pytest.raises(ValueError, match=rf"{option} must be in \[0, 1\], got 1.5"):
            check_options(options(name, **{option: 1.5}))
    assert hasattr(options(name), "min_noise_scale") == (name in CHOOSING)
