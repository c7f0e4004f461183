"""Which successes a base policy imitates most: weights worked out by hand, a slow twin from the
episodes to the weights, what is learnt from them, and runs that go on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import ALGORITHMS, BcConfig, ExpoConfig, make_algorithm
from exporl.algos.base_weight import success_weight
from exporl.algos.common import Imitation
from exporl.data.columns import needed_columns
from exporl.data.episodes import Episode
from exporl.data.mixture import Mixture
from exporl.data.replay import Replay
from exporl.files import checkpoint
from exporl.policies import BaseConfig, make_base
from exporl.run.config import override
from exporl.run.loop import train
from exporl.types import Spec
from helpers.batches import random_batch
from helpers.runs import newest, tiny

SPEC = Spec((("state", (2,), "float32"),), action_dim=1)
BASE = BaseConfig(
    "flow", num_steps=5, width=32, num_blocks=1, time_dim=8, learning_rate=3e-3, decay_steps=0
)
COLUMNS = needed_columns(("episode_length", "episode_number"), 0, SPEC, 0.9)
WEIGHTS = ("shorter", "recent")
SHARING = ("bc", "best_of_n", "expo", "fql", "idql", "qc")
"""Algorithms with an option `base_data`."""


def rows(success, *, prior=None, **columns):
    """A minibatch of which this is known."""
    size = len(success)
    found = {name: jnp.array(values, jnp.float32) for name, values in columns.items()}
    return random_batch(SPEC, size).replace(
        success=jnp.array(success, jnp.float32),
        prior=jnp.array(prior or [0] * size, jnp.float32),
        extra=found,
    )


def test_shorter_successes_weigh_more():
    """Lengths 10, 20, 30: mean 20, deviation sqrt(200 / 3), so z is -1.224745, 0, 1.224745; exp(-z)
    is 3.403297, 1, 0.293833, on average 1.565710. What failed does not count, and weighs nothing.
    """
    batch = rows([1, 0, 1, 1], episode_length=[10, 5, 20, 30])
    weight = success_weight("shorter", batch)
    np.testing.assert_allclose(weight, [2.173645, 0, 0.638688, 0.187668], rtol=1e-5)


def test_recent_successes_weigh_more_and_demonstrations_are_the_oldest():
    """Ages 0 (of a demonstration, whatever its number), -3, -6: z is 1.224745, 0, -1.224745."""
    batch = rows([1, 1, 0, 1], prior=[1, 0, 0, 0], episode_number=[9, 3, 40, 6])
    weight = success_weight("recent", batch)
    np.testing.assert_allclose(weight, [0.187668, 0.638688, 0, 2.173645], rtol=1e-5)


def test_weights_of_one_far_off_are_bounded():
    """24 of 100 steps, 1 of 10: z is -4.9 for that one and clipped to -2; 0.204124 for the others.
    exp(2) / exp(-0.204124) = 9.0622."""
    batch = rows([1] * 25, episode_length=[10] + [100] * 24)
    weight = np.asarray(success_weight("shorter", batch))
    np.testing.assert_allclose(weight[0] / weight[1:], 9.0622, rtol=1e-4)
    np.testing.assert_allclose(weight.sum(), 25, rtol=1e-5)


@pytest.mark.parametrize("lengths", [[70, 70, 70, 70], [123_457] * 4])
def test_equal_lengths_weigh_the_same(lengths):
    batch = rows([1, 1, 0, 1], episode_length=lengths)
    np.testing.assert_array_equal(success_weight("shorter", batch), batch.success)


def test_a_deviation_below_one_step_counts_as_one():
    weight = np.asarray(success_weight("shorter", rows([1, 1], episode_length=[7, 8])))
    np.testing.assert_allclose(weight[0] / weight[1], np.e, rtol=1e-5)  # z is -.5 and .5


@pytest.mark.parametrize("base_weight", WEIGHTS)
def test_without_a_success_demonstrations_are_imitated_all_alike(base_weight):
    imitation = Imitation(make_base(BASE, SPEC), successes_only=True, base_weight=base_weight)
    column = {"episode_length": [3, 9, 4], "episode_number": [1, 2, 3]}
    batch = rows([0, 0, 0], prior=[0, 1, 1], **column)
    np.testing.assert_array_equal(imitation.weight(batch), [0, 1, 1])
    np.testing.assert_array_equal(imitation.weight(rows([0, 0], **short(column))), [1, 1])
    np.testing.assert_array_equal(imitation.weight(rows([0, 1], **short(column))), [0, 1])


def short(column):
    """The first two rows of columns."""
    return {name: values[:2] for name, values in column.items()}


def test_uniform_is_the_success_of_a_row():
    batch = rows([1, 0])
    assert success_weight("uniform", batch) is batch.success


@pytest.mark.parametrize("base_weight", WEIGHTS)
def test_rows_without_the_column_are_refused(base_weight):
    with pytest.raises(ValueError, match=r"episode_\w+ reads Batch.extra\['episode_"):
        success_weight(base_weight, rows([1, 0]))


def options(name, **changes):
    """Of a small algorithm."""
    config = ALGORITHMS[name].config(**changes)
    small = {"hidden": (8,), "policy_hidden": (8,)}
    has = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **{k: v for k, v in small.items() if k in has})


def test_every_algorithm_that_chooses_its_base_data_can_weigh_it():
    having = {
        name: {field.name for field in dataclasses.fields(entry.config)}
        for name, entry in ALGORITHMS.items()
    }
    assert tuple(sorted(n for n, names in having.items() if "base_data" in names)) == SHARING
    assert tuple(sorted(n for n, names in having.items() if "base_weight" in names)) == SHARING


@pytest.mark.parametrize("name", SHARING)
def test_columns_are_asked_for_where_they_are_read(name):
    def columns(**changes):
        return make_algorithm(name, options(name, **changes), SPEC, base).needs.columns

    base = make_base(BASE, SPEC)
    assert columns() == columns(base_data="successes") == ()
    assert columns(base_data="successes", base_weight="shorter") == ("episode_length",)
    assert columns(base_data="successes", base_weight="recent") == ("episode_number",)


@pytest.mark.parametrize("name", SHARING)
def test_weights_without_successes_are_refused(name):
    with pytest.raises(ValueError, match=r"base_weight='recent' weighs .* base_data='all' imitate"):
        make_algorithm(name, options(name, base_weight="recent"), SPEC, make_base(BASE, SPEC))


# From episodes to weights, against a twin that knows all of them.


@dataclasses.dataclass
class Told:
    """What the twin is told of an episode."""

    length: int
    success: bool
    prior: bool
    number: int
    """Of those that the agent played, in the order in which they ended."""


def episode(index: int, told: Told) -> Episode:
    """One whose observations hold its index."""
    seen = np.full((told.length + 1, 2), index, np.float32)
    successes = np.zeros(told.length, bool)
    successes[-1] = told.success
    actions = np.zeros((told.length, 1), np.float32)
    return Episode({"state": seen}, actions, np.zeros(told.length, "f4"), successes, told.success)


def twin_weight(base_weight: str, sampled: list[Told]) -> np.ndarray:
    """Weights of one minibatch, whose rows are of these episodes."""
    chosen = [told for told in sampled if told.success]
    if not chosen:
        return np.array([float(told.prior) for told in sampled])
    measures = [
        told.length if base_weight == "shorter" else (0 if told.prior else -told.number)
        for told in chosen
    ]
    mean = sum(measures) / len(measures)
    deviation = max((sum((m - mean) ** 2 for m in measures) / len(measures)) ** 0.5, 1.0)
    exponentials = [np.exp(-min(max((m - mean) / deviation, -2), 2)) for m in measures]
    share = iter([len(chosen) * e / sum(exponentials) for e in exponentials])
    return np.array([next(share) if told.success else 0.0 for told in sampled])


@pytest.mark.parametrize("base_weight", WEIGHTS)
def test_weights_are_those_of_a_twin_that_knows_every_episode(base_weight):
    rng = np.random.default_rng(7)
    told, prior = [], Replay(SPEC, 400, prior=True, columns=COLUMNS)
    online = Replay(SPEC, 60, num_streams=2, columns=COLUMNS)  # the oldest are overwritten
    for index in range(60):
        is_prior, length = index < 20, int(rng.integers(1, 15))
        told.append(Told(length, bool(rng.integers(2)), is_prior, 0 if is_prior else index - 19))
        to, stream = (prior, 0) if is_prior else (online, int(rng.integers(2)))
        to.add_episode(episode(index, told[-1]), float, stream)
    imitation = Imitation(make_base(BASE, SPEC), successes_only=True, base_weight=base_weight)
    batches = Mixture([(prior, 0.5), (online, 0.5)]).sample(rng, 20, 12, discount=0.9)
    for i in range(20):
        batch = jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), batches)
        sampled = [told[int(index)] for index in batch.observation["state"][:, 0]]
        expected = twin_weight(base_weight, sampled)
        np.testing.assert_allclose(imitation.weight(batch), expected, rtol=1e-5, atol=1e-6)


# What is learnt.


def two_ways(num: int, lengths: tuple[int, int], *, in_turn: bool) -> Replay:
    """Episodes that begin at 0 and succeed: to the left in so many steps, and to the right in so
    many; in turn, or all to the left first."""
    replay = Replay(SPEC, 20_000, columns=COLUMNS)
    sides = [0, 1] * num if in_turn else [0] * num + [1] * num
    for side in sides:
        length, way = lengths[side], (-0.6, 0.6)[side]
        seen = np.zeros((length + 1, 2), np.float32)
        seen[:, 0], seen[:, 1] = np.arange(length + 1) / 8, way * np.arange(length + 1)
        actions = np.full((length, 1), way, np.float32)
        successes = np.arange(length) == length - 1
        replay.add_episode(
            Episode({"state": seen}, actions, np.zeros(length, "f4"), successes, True), float
        )
    return replay


def share_to_the_right(base_weight: str, replay: Replay) -> float:
    """Of the first actions of a base policy that imitates the episodes of a replay."""
    config = BcConfig(base_data="successes", base_weight=base_weight)
    algorithm = make_algorithm("bc", config, SPEC, make_base(BASE, SPEC))
    state, rng = jax.jit(algorithm.init)(jax.random.key(0)), np.random.default_rng(0)
    for i in range(40):
        batches = Mixture([(replay, 1.0)]).sample(rng, 10, 64, discount=0.9)
        state, _ = algorithm.update(state, batches, jax.random.key(i), phase="pretrain")
    start = {"state": jnp.zeros((500, 2))}
    action = algorithm.act(algorithm.acting(state), start, jax.random.key(0)).action
    return float((np.asarray(action) > 0).mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base_weight", "lengths", "in_turn"),
    [("shorter", (8, 2), True), ("recent", (4, 4), False)],
)
def test_of_two_ways_the_base_takes_the_one_that_weighs_more(base_weight, lengths, in_turn):
    """The short one, or the one found last."""
    replay = two_ways(200, lengths, in_turn=in_turn)
    weighted, uniform = (share_to_the_right(each, replay) for each in (base_weight, "uniform"))
    assert 0.3 < uniform < 0.7 and weighted > 0.75 and weighted > uniform + 0.2


@pytest.mark.slow
@pytest.mark.parametrize("base_weight", WEIGHTS)
def test_a_run_keeps_the_column_and_resumes_to_the_bit(tmp_path, base_weight):
    options = {"algo.base_data": "successes", "algo.base_weight": base_weight}
    config = tiny(**options)
    train(config, tmp_path / "whole")
    halves = tmp_path / "halves"
    train(override(config, {"train.online_steps": 12}), halves)
    train(config, halves, resume=True)
    whole, _ = checkpoint.load(newest(tmp_path / "whole"))
    parts, _ = checkpoint.load(newest(halves))
    for part, arrays in whole.items():
        for name, value in arrays.items():
            np.testing.assert_array_equal(parts[part][name], value, err_msg=f"{part} {name}")
    column = {"shorter": "episode_length", "recent": "episode_number"}[base_weight]
    assert whole["replay"][f"column/{column}"].max() > (1 if base_weight == "shorter" else 5)


def test_defaults_keep_no_column():
    assert make_algorithm("expo", ExpoConfig(hidden=(8,)), SPEC, make_base(BASE, SPEC)).needs == (
        make_algorithm(
            "expo", ExpoConfig(hidden=(8,), base_data="successes"), SPEC, make_base(BASE, SPEC)
        ).needs
    )
