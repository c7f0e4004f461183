"""Named columns of the replay: values computed at an episode's end, against numbers worked out by hand."""

import numpy as np
import pytest

from exporl.data.columns import Column, proposal_columns, return_bound
from exporl.data.episodes import Episode
from exporl.data.replay import Replay
from exporl.types import Spec, Step

SPEC = Spec((("state", (1,), "float32"),), action_dim=1)
HALF = {"return_bound": return_bound(0.5, worst=-2.0)}
"""Discount 0.5, reward -1/0: the worst return is -1 / (1 - 0.5) = -2."""


def steps(rewards, *, terminated, success, first=0.0):
    """An episode that pays these rewards, as steps; its observations count from `first`."""
    last = len(rewards) - 1
    at = lambda i: {"state": np.array([first + i], np.float32)}  # noqa: E731
    return [
        Step(at(i), np.zeros(1, np.float32), paid, i == last and terminated,
             i == last and not terminated, at(i + 1), i == last and success)
        for i, paid in enumerate(rewards)
    ]  # fmt: skip


def filled(episodes, capacity=20, columns=HALF, **options):
    replay = Replay(SPEC, capacity, columns=columns, **options)
    for episode in episodes:
        for step in episode:
            replay.add(step)
    return replay


def bounds(replay, num):
    return replay.column("return_bound")[0, :num].tolist()


NONE = -np.inf


@pytest.mark.parametrize(
    ("rewards", "terminated", "success", "expected"),
    [
        ([-1, -1, 0], True, True, [-1.5, -1, 0]),  # -1 - 0.5 * 1 - 0.25 * 0
        ([-1, -1, 0], False, True, [-1.75, -1.5, -1]),  # then 0.5 * -2 after the time limit
        ([-1, -1, -1], False, False, [NONE] * 3),
        ([0, 0, 1], True, True, [0.25, 0.5, 1]),
    ],
)
def test_the_bound_is_the_return_of_a_successful_episode(rewards, terminated, success, expected):
    replay = filled([steps(rewards, terminated=terminated, success=success)])
    assert bounds(replay, 3) == expected


def test_open_episodes_have_no_bound_and_cut_ones_get_theirs():
    replay = filled([steps([-1, 0, -1], terminated=False, success=False)[:2]])
    assert bounds(replay, 2) == [NONE, NONE]
    replay = filled([steps([-1, 0], terminated=False, success=True)[:1]])
    replay.add(steps([-1, 0, -1], terminated=False, success=True)[1]._replace(success=True))
    assert bounds(replay, 2) == [NONE, NONE]
    replay.cut()
    assert bounds(replay, 2) == [-1 + 0.5 * -1, 0 + 0.5 * -2]


def test_an_episode_at_once_has_the_bounds_of_its_steps():
    rewards = np.array([-1, -1, 0], np.float32)
    observations = {"state": np.arange(4, dtype=np.float32)[:, None]}
    solved = np.array([False, False, True])
    for terminated in (True, False):
        episode = Episode(observations, np.zeros((3, 1), np.float32), rewards, solved, terminated)
        at_once = Replay.from_episodes(SPEC, [episode], float, columns=HALF)
        one_by_one = filled([steps(rewards.tolist(), terminated=terminated, success=True)])
        assert bounds(at_once, 3) == bounds(one_by_one, 3)


def test_bounds_survive_the_end_of_the_ring_and_overwritten_rows_lose_theirs():
    won = steps([-1, -1, 0], terminated=True, success=True)
    replay = filled([won, won], capacity=6)  # four rows each: the second overwrites half of the first
    kept = replay.column("return_bound")[0]
    assert kept[[4, 5, 0]].tolist() == [-1.5, -1, 0]
    assert kept[1] == NONE  # the observation after the last step
    long = [steps([-1] * 7 + [0], terminated=True, success=True)]
    replay = filled(long, capacity=6)  # what the ring still holds of it
    rows = [3, 4, 5, 0, 1]
    held = replay.column("return_bound")[0, rows]
    expected = [-(2 - 2 * 0.5**left) for left in (4, 3, 2, 1, 0)]
    np.testing.assert_allclose(held, expected)


def test_streams_do_not_mix():
    replay = Replay(SPEC, 10, num_streams=2, columns=HALF)
    won = steps([-1, -1, 0], terminated=True, success=True)
    lost = steps([-1, -1, -1], terminated=False, success=False)
    for a, b in zip(won, lost, strict=True):
        replay.add(a, 0)
        replay.add(b, 1)
    assert replay.column("return_bound")[:, :3].tolist() == [[-1.5, -1, 0], [NONE] * 3]


def test_a_chunk_carries_the_value_of_its_first_row_or_of_the_observation_after_it():
    columns = {"here": Column(at="row"), "after": Column((2,), "int64", at="next"), "hidden": Column(sampled=False)}
    spec = Spec(SPEC.observation, 1, chunk_length=2)
    replay = Replay(spec, 20, columns=columns)
    for step in steps([0] * 5, terminated=True, success=False):
        replay.add(step)
    replay.column("here")[0, :6] = np.arange(6)
    replay.column("after")[0, :6] = 10 * np.arange(6)[:, None] + [0, 1]
    batch = replay.sample(np.random.default_rng(0), 64, discount=0.9)
    first, following = batch.observation["state"][:, 0], batch.next_observation["state"][:, 0]
    assert set(batch.extra) == {"here", "after"} and batch.extra["after"].dtype == np.int64
    np.testing.assert_array_equal(batch.extra["here"], first)
    np.testing.assert_array_equal(batch.extra["after"], 10 * following[:, None] + [0, 1])
    assert set(first.tolist()) == {0, 1, 2, 3, 4}


def test_state_and_load_keep_columns_by_name():
    won = [steps([-1, -1, 0], terminated=True, success=True)]
    replay = filled(won)
    state = {name: np.array(value) for name, value in replay.state().items()}
    assert state["column/return_bound"].shape == (1, 4)
    again = Replay(SPEC, 20, columns=HALF)
    again.load(state)
    assert bounds(again, 3) == [-1.5, -1, 0] and bounds(again, 20)[5:] == [NONE] * 15
    with pytest.raises(ValueError, match="lacks 'column/return_bound'"):
        again.load({name: value for name, value in state.items() if "bound" not in name})
    with pytest.raises(ValueError, match="has 'column/return_bound', which this buffer does not keep"):
        Replay(SPEC, 20).load(state)


def test_no_proposals_no_columns():
    assert proposal_columns(0, SPEC) == {}
    assert proposal_columns(3, SPEC)["next_proposals"].shape == (3, 1, 1)
