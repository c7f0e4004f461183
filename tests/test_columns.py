"""Named columns of the replay: values computed at an episode's end, against numbers worked out by
hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.data.columns import (
    Column,
    data_return,
    needed_columns,
    proposal_columns,
    return_bound,
)
from exporl.data.episodes import Episode
from exporl.data.mixture import Mixture, pack, unpack
from exporl.data.replay import Replay
from exporl.envs.registry import make_task
from exporl.envs.task import sparse_reward, value_range
from exporl.types import Spec, Step

SPEC = Spec((("state", (1,), "float32"),), action_dim=1)
HALF = {"return_bound": return_bound(0.5, worst=-2.0)}
"""Discount 0.5, reward -1/0: the worst return is -1 / (1 - 0.5) = -2."""
NONE = -np.inf


def steps(rewards, *, terminated, success):
    """An episode that pays these rewards, as steps; its observations are numbered from 0."""
    last, result = len(rewards) - 1, []
    for i, paid in enumerate(rewards):
        seen, following = ({"state": np.array([number], np.float32)} for number in (i, i + 1))
        ends = (i == last and terminated, i == last and not terminated)
        result.append(
            Step(seen, np.zeros(1, np.float32), paid, *ends, following, i == last and success)
        )
    return result


def recorded(rewards, *, terminated, success) -> Episode:
    """The same episode as a recording."""
    length = len(rewards)
    numbers = np.arange(length + 1, dtype=np.float32)
    solved = (np.arange(length) == length - 1) & success
    return Episode(
        {"state": numbers[:, None]},
        np.zeros((length, 1), np.float32),
        np.array(rewards, np.float32),
        solved,
        terminated,
    )


WON = steps([-1, -1, 0], terminated=True, success=True)


def filled(*episodes, capacity=20, columns=HALF, **options):
    replay = Replay(SPEC, capacity, columns=columns, **options)
    for episode in episodes:
        for step in episode:
            replay.add(step)
    return replay


def bounds(replay, num):
    return replay.column("return_bound")[0, :num].tolist()


def snapshot(replay):
    return {name: np.array(value) for name, value in replay.state().items()}


def task(kind, reward_range=(0.0, 1.0)):
    """A task that pays so much, learnt from in a convention."""
    probe = make_task("probe/bandit")
    return dataclasses.replace(probe, reward=sparse_reward(kind), reward_range=reward_range)


CASES = [
    ("-1/0", [-1, -1, 0], True, True, [-1 - 0.5, -1, 0]),
    ("-1/0", [-1, -1, 0], False, True, [-1 - 0.5 - 0.125 * 2, -1 - 0.25 * 2, -0.5 * 2]),
    ("-1/0", [-1, -1, -1], False, False, [NONE] * 3),
    ("-1/0", [-1, -1, -1], True, False, [NONE] * 3),
    ("0/1", [0, 0, 1], True, True, [0.25, 0.5, 1]),
    ("0/1", [0, 0, 1], False, True, [0.25, 0.5, 1]),  # nothing less than 0 can follow
    ("0/1", [0, 0, 0], False, False, [NONE] * 3),
]


@pytest.mark.parametrize(("kind", "rewards", "terminated", "success", "expected"), CASES)
def test_the_bound_is_the_return_of_a_successful_episode(
    kind, rewards, terminated, success, expected
):
    low, _ = value_range(task(kind), 0.5)
    columns = {"return_bound": return_bound(0.5, low)}
    how = {"terminated": terminated, "success": success}
    assert bounds(filled(steps(rewards, **how), columns=columns), 4) == [*expected, NONE]
    prior = Replay.from_episodes(SPEC, [recorded(rewards, **how)], float, columns=columns)
    assert bounds(prior, 4) == [*expected, NONE]


def test_success_at_any_step_counts():
    solved_early = [step._replace(success=i == 0) for i, step in enumerate(WON)]
    assert bounds(filled(solved_early), 3) == [-1.5, -1, 0]


def test_the_bound_is_in_the_learning_reward():
    episode = recorded([0, 0, 1], terminated=True, success=True)
    replay = Replay.from_episodes(SPEC, [episode], lambda reward: reward - 1, columns=HALF)
    assert bounds(replay, 3) == [-1.5, -1, 0]


def test_open_episodes_have_no_bound_and_cut_ones_get_theirs():
    replay = filled([step._replace(success=True) for step in WON[:2]])
    assert bounds(replay, 3) == [NONE] * 3
    replay.cut()
    assert bounds(replay, 3) == [-1 - 0.5 - 0.25 * 2, -1 - 0.5 * 2, NONE]


def test_an_overwritten_row_loses_its_bound():
    replay = filled(WON, WON[:1], capacity=5)  # four rows, then row 4, followed by row 0
    assert bounds(replay, 5) == [NONE, -1, 0, NONE, NONE]


def test_bounds_go_around_the_ring():
    kept = bounds(filled(WON, WON, capacity=6), 6)  # the second episode begins in row 4
    assert [kept[row] for row in (4, 5, 0, 1)] == [-1.5, -1, 0, NONE]


def test_an_episode_longer_than_the_ring_has_bounds_where_it_is_still_there():
    replay = filled(steps([-1] * 7 + [0], terminated=True, success=True), capacity=6)
    # row 0 holds step 6, row 1 step 7, row 2 the last observation: -(2 - 2 * 0.5^n) for n steps to
    # go
    assert bounds(replay, 6) == [-1, 0, NONE, -1.875, -1.75, -1.5]


def test_streams_do_not_mix():
    replay = Replay(SPEC, 10, num_streams=2, columns=HALF)
    for a, b in zip(WON, steps([-1, -1, -1], terminated=False, success=False), strict=True):
        replay.add(a, 0)
        replay.add(b, 1)
    assert replay.column("return_bound")[:, :3].tolist() == [[-1.5, -1, 0], [NONE] * 3]


def test_an_episode_that_was_open_when_saved_gets_its_bounds_after_resuming():
    first = WON[0]._replace(success=True)  # only the part before the checkpoint saw the success
    rest = [step._replace(success=False) for step in WON[1:]]
    saved = snapshot(filled([first]))
    assert saved["column/return_bound"].tolist() == [[NONE, NONE]]
    again = filled(WON)  # what it held before does not matter
    again.load(saved)
    assert bounds(again, 20) == [NONE] * 20
    for step in rest:
        again.add(step)
    assert bounds(again, 20) == [-1.5, -1, 0] + [NONE] * 17


def test_minus_infinity_reaches_the_device_and_is_no_bound():
    lost = steps([-1, -1, -1], terminated=False, success=False)
    replay = filled(WON, lost, columns=HALF)
    batch = Mixture([(replay, 1.0)]).sample(np.random.default_rng(0), 2, 32, discount=0.5)
    batch = jax.device_put(unpack(pack(batch)))
    values = jnp.full((2, 32), -1.25)
    raised = np.asarray(jax.jit(jnp.maximum)(values, batch.extra["return_bound"]))
    number, success = np.asarray(batch.observation["state"][..., 0]).astype(int), batch.success == 1
    assert set(number[success]) == set(number[~success]) == {0, 1, 2}
    np.testing.assert_array_equal(
        raised, np.where(success, np.array([-1.25, -1, 0])[number], -1.25)
    )


def test_a_chunk_carries_the_value_of_its_first_row_or_of_the_observation_after_it():
    def numbered(rewards, terminated, success):
        return np.arange(len(rewards))

    columns = {
        "here": Column(at="row"),
        "after": Column((2,), "int64", at="next"),
        "hidden": Column(sampled=False),
        "step": Column(finish=numbered),
        "step before": Column(at="next", finish=numbered),
    }
    replay = Replay(Spec(SPEC.observation, 1, chunk_length=2), 20, columns=columns)
    for step in steps([0] * 5, terminated=True, success=False):
        replay.add(step)
    replay.column("here")[0, :6] = np.arange(6)
    replay.column("after")[0, :6] = 10 * np.arange(6)[:, None] + [0, 1]
    batch = replay.sample(np.random.default_rng(0), 64, discount=0.9)
    first, following = batch.observation["state"][:, 0], batch.next_observation["state"][:, 0]
    assert (
        batch.extra.keys() == columns.keys() - {"hidden"} and batch.extra["after"].dtype == np.int64
    )
    np.testing.assert_array_equal(batch.extra["here"], first)
    np.testing.assert_array_equal(batch.extra["after"], 10 * following[:, None] + [0, 1])
    np.testing.assert_array_equal(batch.extra["step"], first)
    np.testing.assert_array_equal(batch.extra["step before"], following - 1)
    assert set(first.tolist()) == {0, 1, 2, 3, 4}


def test_columns_change_neither_draws_nor_the_rest_of_a_batch():
    plain, more = (
        filled(WON, WON, columns=columns, num_streams=1).sample(
            np.random.default_rng(3), 50, discount=0.5
        )
        for columns in ({}, HALF | proposal_columns(2, SPEC))
    )
    assert plain.extra == {} and plain.next_proposals is None
    assert more.next_proposals is more.extra["next_proposals"]
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(more.replace(extra={})), strict=True):
        np.testing.assert_array_equal(a, b)


def test_saved_columns_have_names_and_others_are_refused():
    saved = snapshot(filled(WON))
    assert saved["column/return_bound"].tolist() == [[-1.5, -1, 0, NONE]]
    replay = filled(WON, WON)
    before = snapshot(replay)
    lacking = {name: value for name, value in saved.items() if "bound" not in name}
    with pytest.raises(
        ValueError,
        match=r"lacks 'column/return_bound', which this buffer keeps\. The checkpoint was",
    ):
        replay.load(lacking)
    other = saved | {"column/return_bound": saved["column/return_bound"][..., None]}
    with pytest.raises(
        ValueError,
        match=r"'column/return_bound' has shape \(1, 4, 1\), this buffer needs \(1, rows\)",
    ):
        replay.load(other)
    for name, value in snapshot(replay).items():
        np.testing.assert_array_equal(value, before[name])
    with pytest.raises(
        ValueError, match="has 'column/return_bound', which this buffer does not keep"
    ):
        Replay(SPEC, 20).load(saved)


def test_only_columns_that_others_write_are_kept_apart():
    columns = HALF | {"flag": Column(dtype="bool"), "hidden": Column((2,), sampled=False)}
    replay = filled(WON, columns=columns)
    replay.column("flag")[0, 1] = True
    replay.column("hidden")[0, 2] = [4, 5]
    kept = {name: value.copy() for name, value in replay.column_state().items()}
    assert kept.keys() == {"column/flag", "column/hidden"}
    again = filled(WON, columns=columns)
    again.load_columns(kept)
    assert snapshot(again).keys() == snapshot(replay).keys()
    for name, value in snapshot(replay).items():
        np.testing.assert_array_equal(again.state()[name], value)
    with pytest.raises(ValueError, match="lacks 'column/flag'"):
        again.load_columns({"column/hidden": kept["column/hidden"]})
    with pytest.raises(ValueError, match="has 'column/return_bound'"):
        again.load_columns(kept | {"column/return_bound": kept["column/flag"]})
    with pytest.raises(ValueError, match="has 'column/flag'"):
        filled(WON).load_columns(kept)


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("a/b", Column(), "column 'a/b': a name has letters and no slash"),
        ("", Column(), "column '': a name has letters"),
        ("c", Column(at="after"), "column 'c': at must be 'row' or 'next', got 'after'"),  # type: ignore[arg-type]
        ("c", Column(dtype="int32", fill=-np.inf), "column 'c': int32 cannot hold fill=-inf"),
        ("c", Column(dtype="int32", fill=0.5), "column 'c': int32 cannot hold fill=0.5"),
        ("c", Column((2,), numbered=True), "column 'c': a numbered column holds one number per"),
    ],
)
def test_columns_that_cannot_be_kept(name, column, message):
    with pytest.raises(ValueError, match=message):
        Replay(SPEC, 10, columns={name: column})


def test_a_finish_of_another_shape_is_refused():
    columns = {"short": Column(finish=lambda rewards, terminated, success: rewards[1:])}
    with pytest.raises(
        ValueError,
        match=r"column 'short': finish returned shape \(2,\) for 3 steps, .* needs \(3,\)",
    ):
        filled(WON, columns=columns)


def test_sources_of_a_mixture_have_the_same_columns():
    with pytest.raises(ValueError, match=r"same sampled columns, got \[\['return_bound'\], \[\]\]"):
        Mixture([(filled(WON), 0.5), (filled(WON, columns={}), 0.5)])
    Mixture([(filled(WON), 1.0), (filled(WON, columns={}), 0.0)])


def test_no_proposals_no_columns():
    assert proposal_columns(0, SPEC) == {}
    assert proposal_columns(3, SPEC)["next_proposals"].shape == (3, 1, 1)


def test_the_range_of_values():
    assert value_range(task("-1/0"), 0.75) == (-4, 0)
    assert value_range(task("0/1"), 0.75) == (0, 4)
    assert value_range(task("0/1", reward_range=(-2.0, 0.5)), 0.75) == (-8, 2)
    assert value_range(task("0/1", reward_range=(1.0, 3.0)), 0.5) == (1, 6)  # one step, or all
    assert value_range(task("0/1"), 1.0) is None
    assert value_range(make_task("probe/bandit"), 0.9) is None


@pytest.mark.parametrize(("worst", "after"), [(-2.0, -2.0), (None, 0.0)])
def test_what_an_episode_brought_is_kept_whether_or_not_it_succeeded(worst, after):
    """At discount 0.5, by hand. A time limit is followed by the worst there is, as far as known."""
    column = {"data_return": data_return(0.5, worst)}
    failed = steps([-1, -1], terminated=False, success=False)
    ended = steps([-1, -3], terminated=True, success=False)
    still_open = WON[:2]
    replay = filled(WON, failed, ended, still_open, columns=column)
    found = replay.column("data_return")[0]
    assert found[:3].tolist() == [-1.5, -1, 0]
    last = -1 + 0.5 * after
    assert found[4:6].tolist() == [-1 + 0.5 * last, last]
    assert found[7:9].tolist() == [-2.5, -3]
    assert found[10:12].tolist() == [NONE, NONE]


def test_columns_are_found_by_name():
    spec = dataclasses.replace(SPEC, value_range=(-2.0, 0.0))
    columns = needed_columns(("return_bound",), 3, spec, 0.5)
    assert list(columns) == ["next_proposals", "proposed", "return_bound"]
    assert bounds(filled(WON, columns={"return_bound": columns["return_bound"]}), 3) == [
        -1.5,
        -1,
        0,
    ]
    with pytest.raises(
        ValueError,
        match="no column 'returns'; known are next_proposals, return_bound, data_ret",
    ):
        needed_columns(("returns",), 0, spec, 0.5)
    assert list(needed_columns(("data_return",), 0, SPEC, 0.5)) == ["data_return"]
    with pytest.raises(ValueError, match="return_bound needs rewards whose range is known"):
        needed_columns(("return_bound",), 0, SPEC, 0.5)


def test_lengths_and_numbers_of_episodes():
    """Both are 0 in an open episode; a number is 1 more than the greatest that is still kept."""
    columns = needed_columns(("episode_length", "episode_number"), 0, SPEC, 0.5)
    failed = steps([-1, -1], terminated=False, success=False)
    replay = filled(WON, failed, WON[:1], columns=columns)
    assert replay.column("episode_length")[0, :9].tolist() == [3, 3, 3, 0, 2, 2, 0, 0, 0]
    assert replay.column("episode_number")[0, :9].tolist() == [1, 1, 1, 0, 2, 2, 0, 0, 0]
    replay.cut()
    assert replay.column("episode_length")[0, 7] == 1 and replay.column("episode_number")[0, 7] == 3
    again = Replay(SPEC, 20, columns=columns)
    again.load(replay.state())
    for each in (replay, again):
        for step in WON:
            each.add(step)
        assert each.column("episode_number")[0, 9:12].tolist() == [4, 4, 4]
    assert replay.columns.owned == ()  # adding the same episodes again brings both back


def test_episodes_of_several_streams_are_numbered_as_they_end():
    columns = needed_columns(("episode_number",), 0, SPEC, 0.5)
    replay = Replay(SPEC, 20, num_streams=2, columns=columns)
    first, *rest = WON
    replay.add(first, 0)
    for step in WON:
        replay.add(step, 1)
    for step in rest:
        replay.add(step, 0)
    assert replay.column("episode_number")[:, :3].tolist() == [[2, 2, 2], [1, 1, 1]]


@pytest.mark.parametrize(
    ("discount", "worst"), [(1.1, 0.0), (-0.5, 0.0), (np.nan, 0.0), (0.9, -np.inf), (0.9, np.nan)]
)
def test_a_bound_needs_numbers(discount, worst):
    with pytest.raises(ValueError, match="must"):
        return_bound(discount, worst)
