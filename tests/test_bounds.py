"""What is known about values before learning: against numbers worked out by hand."""

import dataclasses

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import ExpoConfig, RlpdConfig, make_algorithm
from exporl.algos.bounds import BoundOptions, TargetBounds
from exporl.envs.registry import make_task
from exporl.envs.task import sparse_reward
from exporl.files import checkpoint
from exporl.files.atomic import read_lines
from exporl.nets.critic import Critic
from exporl.policies import BaseConfig, make_base
from exporl.run.config import override
from exporl.run.loop import train
from exporl.types import Spec
from helpers.batches import random_batch
from helpers.runs import newest, tiny

SPEC = Spec((("state", (2,), "float32"),), action_dim=1, value_range=(-100.0, 0.0))
UNKNOWN = dataclasses.replace(SPEC, value_range=None)
ALL = BoundOptions(pessimistic_start=True, clip_targets=True, return_bound=True)
AUTO = BoundOptions(pessimistic_start="auto", clip_targets="auto", return_bound="auto")


def test_targets_stay_within_what_is_known():
    batch = random_batch(SPEC, 4).replace(
        extra={"return_bound": jnp.array([-jnp.inf, -40.0, -60.0, -jnp.inf])}
    )
    target, metrics = TargetBounds.create(ALL, SPEC).apply(
        jnp.array([-120.0, -50.0, -50.0, 5.0]), batch
    )
    np.testing.assert_array_equal(target, [-100, -40, -50, 0])
    assert metrics["critic/below_return"] == 0.25
    assert metrics["critic/out_of_range"] == 0.5


def test_off_changes_nothing():
    target = jnp.array([-120.0, -50.0, 5.0, 1.0])
    same, metrics = TargetBounds.create(BoundOptions(), SPEC).apply(target, random_batch(SPEC, 4))
    assert same is target and metrics == {}


@pytest.mark.slow
def test_a_pessimistic_start_lowers_every_critic_by_the_same():
    critic, bounds = Critic((8,), 3), TargetBounds.create(ALL, SPEC)
    features, action = jnp.ones((5, 2)), jnp.zeros((5, 1, 1))
    params, value = jax.jit(critic.init)(jax.random.key(0), features, action), jax.jit(critic.apply)
    before, after = (value(p, features, action) for p in (params, bounds.start(params)))
    np.testing.assert_allclose(after - before, np.full((3, 5), -100.0), rtol=1e-5)
    assert TargetBounds.create(BoundOptions(), SPEC).start(params) is params


@pytest.mark.parametrize("name", ["pessimistic_start", "clip_targets", "return_bound"])
def test_unknown_rewards(name):
    assert TargetBounds.create(AUTO, UNKNOWN) == TargetBounds()
    assert TargetBounds.create(AUTO, SPEC) == TargetBounds.create(ALL, SPEC)
    with pytest.raises(ValueError, match=f"{name} needs to know between which values .*{name}=F"):
        TargetBounds.create(BoundOptions(**{name: True}), UNKNOWN)


def test_rows_without_the_column_are_refused():
    with pytest.raises(ValueError, match="return_bound reads"):
        TargetBounds.create(ALL, SPEC).apply(jnp.zeros(4), random_batch(SPEC, 4))


@pytest.mark.parametrize("config", [ExpoConfig(return_bound=True), RlpdConfig(return_bound=True)])
def test_the_column_is_asked_for(config):
    name = "expo" if isinstance(config, ExpoConfig) else "rlpd"
    base = make_base(BaseConfig(width=8, num_blocks=1, time_dim=4), SPEC)
    small = dataclasses.replace(config, hidden=(8,))
    assert make_algorithm(name, small, SPEC, base).needs.columns == ("return_bound",)


class PaidBySuccess(gymnasium.Wrapper):
    """Pays 1 for success and 0 otherwise."""

    def step(self, action):
        seen, _, terminated, truncated, info = self.env.step(action)
        return seen, float(info["success"]), terminated, truncated, info


def sparse_probe():
    """`probe/delay`, but paid by success alone: its values have a range."""
    probe = make_task("probe/delay")

    def collect(*asked):
        return [
            dataclasses.replace(episode, rewards=episode.successes.astype(np.float32))
            for episode in probe.collect(*asked)
        ]

    return dataclasses.replace(
        probe,
        make_env=lambda: PaidBySuccess(probe.make_env()),
        collect=collect,
        reward=sparse_reward("-1/0"),
        reward_range=(0.0, 1.0),
    )


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["expo", "rlpd"])
def test_a_run_keeps_the_column_and_resumes_to_the_bit(tmp_path, algorithm):
    on = dict.fromkeys(("pessimistic_start", "clip_targets", "return_bound"), True)
    config = tiny(algorithm, **{f"algo.{name}": value for name, value in on.items()})
    train(config, tmp_path / "whole", task=sparse_probe())
    halves = tmp_path / "halves"
    train(override(config, {"train.online_steps": 12}), halves, task=sparse_probe())
    train(config, halves, resume=True, task=sparse_probe())
    whole, _ = checkpoint.load(newest(tmp_path / "whole"))
    parts, _ = checkpoint.load(newest(halves))
    for part, arrays in whole.items():
        for name, value in arrays.items():
            np.testing.assert_array_equal(parts[part][name], value, err_msg=f"{part} {name}")
    assert "column/return_bound" in whole["replay"]
    lines = [line for line in read_lines(halves / "metrics.jsonl") if "critic/loss" in line]
    assert all(
        -200 <= line["critic/target_min"] <= line["critic/target_max"] <= 0 for line in lines
    )
    assert all(line["critic/q_max"] < -50 for line in lines)  # they begin at the worst return
