"""Mixtures: exact shares in every minibatch."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporl.data.mixture import Mixture
from exporl.data.replay import Replay
from exporl.types import Spec, Step

SPEC = Spec((("state", (1,), "float32"),), action_dim=1)


def replay(source: int, steps: int = 6) -> Replay:
    """One-step episodes whose observations name their source."""
    result, state = Replay(SPEC, 20, prior=source == 1), {"state": np.array([source], np.float32)}
    for t in range(steps):
        result.add(Step(state, np.zeros(1), float(t), True, False, state))
    return result


def sources_of(
    mixture: Mixture, num_minibatches: int, batch_size: int, seed: int = 0
) -> np.ndarray:
    batch = mixture.sample(np.random.default_rng(seed), num_minibatches, batch_size, discount=0.99)
    return batch.observation["state"][..., 0]


@pytest.mark.parametrize(
    ("shares", "batch_size", "counts"),
    [
        ([0.5, 0.5], 8, [4, 4]),
        ([0.5, 0.5], 7, [4, 3]),
        ([0.5, 0.5], 2, [1, 1]),
        ([0.25, 0.75], 5, [1, 4]),
        ([0.1, 0.9], 10, [1, 9]),
        ([1.0], 3, [3]),
        ([0.2, 0.3, 0.5], 10, [2, 3, 5]),
        ([0.3, 0.3, 0.4], 7, [2, 2, 3]),
    ],
)
def test_exact_shares_in_every_minibatch(shares, batch_size, counts):
    mixture = Mixture([(replay(source), share) for source, share in enumerate(shares, start=1)])
    assert mixture.counts(batch_size) == counts
    expected = np.repeat(np.arange(1, len(shares) + 1), counts)
    np.testing.assert_array_equal(sources_of(mixture, 5, batch_size), np.tile(expected, (5, 1)))


@pytest.mark.slow
@settings(deadline=None)
@given(st.floats(0.05, 0.95), st.integers(20, 400))
def test_two_shares_are_rounded_to_the_nearest_row(share, batch_size):
    counts = Mixture([(replay(1), share), (replay(2), 1 - share)]).counts(batch_size)
    assert sum(counts) == batch_size
    assert abs(counts[0] - share * batch_size) <= 0.5


def test_shapes_and_prior_flags():
    mixture = Mixture([(replay(1), 0.5), (replay(2), 0.5)])
    batch = mixture.sample(np.random.default_rng(0), 3, 6, discount=0.99)
    assert batch.action.shape == (3, 6, 1, 1)
    assert {leaf.shape[:2] for leaf in jax.tree.leaves(batch)} == {(3, 6)}
    np.testing.assert_array_equal(batch.prior, np.tile([1, 1, 1, 0, 0, 0], (3, 1)))


def test_minibatches_differ_and_repeat_with_the_generator():
    mixture = Mixture([(replay(1), 0.5), (replay(2), 0.5)])
    rewards = [
        mixture.sample(np.random.default_rng(s), 4, 32, discount=0.99).reward for s in (0, 0, 1)
    ]
    np.testing.assert_array_equal(rewards[0], rewards[1])
    assert not np.array_equal(rewards[0], rewards[2])
    assert len({tuple(minibatch) for minibatch in rewards[0].tolist()}) == 4


def test_prior_data_without_share_is_left_out():
    """It may still be imitated, before anything is met online."""
    mixture = Mixture.of_both(replay(1), replay(2), 0.0, 4)
    np.testing.assert_array_equal(sources_of(mixture, 2, 4), np.full((2, 4), 2))
    both = Mixture.of_both(replay(1), replay(2), 0.25, 4)
    np.testing.assert_array_equal(sources_of(both, 1, 4), [[1, 2, 2, 2]])


def test_a_source_without_share_is_never_needed():
    mixture = Mixture([(replay(1, steps=0), 0.0), (replay(2), 1.0)])
    assert mixture.ready
    np.testing.assert_array_equal(sources_of(mixture, 2, 3), 2)


def test_ready_once_every_source_can_be_sampled():
    online = replay(2, steps=0)
    mixture = Mixture([(replay(1), 0.5), (online, 0.5)])
    assert not mixture.ready
    with pytest.raises(ValueError, match="no complete chunk yet"):
        sources_of(mixture, 1, 4)
    state = {"state": np.zeros(1, np.float32)}
    online.add(Step(state, np.zeros(1), 0.0, False, False, state))
    assert mixture.ready
    assert sources_of(mixture, 1, 4).shape == (1, 4)


@pytest.mark.parametrize("shares", [[0.5, 0.4], [0.7, 0.7], [1.5, -0.5], [0.0, 0.0]])
def test_shares_that_are_none(shares):
    with pytest.raises(ValueError, match=r"shares must be at least 0 and sum to 1, got \["):
        Mixture([(replay(1), share) for share in shares])


@pytest.mark.parametrize(
    ("shares", "batch_size"), [([0.5, 0.5], 1), ([0.01, 0.99], 10), ([0.99, 0.01], 10)]
)
def test_a_minibatch_too_small_to_share(shares, batch_size):
    mixture = Mixture([(replay(1), shares[0]), (replay(2), shares[1])])
    with pytest.raises(
        ValueError, match=rf"a minibatch of {batch_size} cannot be shared as \[.*no row"
    ):
        sources_of(mixture, 1, batch_size)
