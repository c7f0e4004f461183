"""Replay against a list-based twin that keeps every step ever added, and its guarantees one by
one."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporl.data.columns import proposal_columns
from exporl.data.episodes import Episode
from exporl.data.proposals import keep_proposals
from exporl.data.replay import Replay
from exporl.types import Spec, Step
from helpers.replays import (
    ACTIONS,
    COLUMNS,
    DISCOUNT,
    Twin,
    Writer,
    same_batch,
    same_state,
    snapshot,
    spec_of,
    state,
)


@st.composite
def histories(draw):
    """(chunk length, capacity, streams, whether time-outs bootstrap, what happens in which
    stream)."""
    chunk_length, num_streams = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    capacity = draw(st.integers(chunk_length + 2, 14))
    event = st.tuples(st.sampled_from(ACTIONS), st.integers(0, num_streams - 1))
    return (
        chunk_length,
        capacity,
        num_streams,
        draw(st.booleans()),
        draw(st.lists(event, max_size=60)),
    )


def sampled(replay: Replay, size: int, seed: int = 0):
    return replay.sample(np.random.default_rng(seed), size, discount=DISCOUNT)


def agree(replay: Replay, twin: Twin) -> None:
    """Same steps stored, same starts possible, and every sampled row equal in every field."""
    expected = twin.chunks()
    assert len(replay) == len(twin.stored())
    assert replay.num_starts == len(expected)
    if not expected:
        with pytest.raises(ValueError, match="no complete chunk yet"):
            sampled(replay, 1)
        return
    batch = sampled(replay, 30 * len(expected))
    numbers = batch.observation["state"][:, 0].astype(int)
    assert set(numbers.tolist()) == set(expected)
    np.testing.assert_array_equal(batch.observation["state"][:, 1], -numbers)
    want = {
        name: np.stack([expected[number][name] for number in numbers.tolist()])
        for name in expected[numbers[0]]
    }
    for name in ("action", "valid", "success"):
        np.testing.assert_array_equal(getattr(batch, name), want[name], err_msg=name)
    np.testing.assert_array_equal(batch.next_observation["state"], want["next_observation"])
    np.testing.assert_allclose(batch.reward, want["reward"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(batch.discount, want["discount"], rtol=1e-6)
    np.testing.assert_array_equal(batch.prior, 0)
    assert batch.extra.keys() == replay.columns.values.keys()
    for name, values in batch.extra.items():
        np.testing.assert_allclose(values, want[name], rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(histories())
def test_equals_the_twin(history):
    chunk_length, capacity, num_streams, bootstrap_timeouts, events = history
    replay = Replay(
        spec_of(chunk_length),
        capacity,
        num_streams=num_streams,
        bootstrap_timeouts=bootstrap_timeouts,
        columns=COLUMNS,
    )
    twin, writer = (
        Twin(chunk_length, capacity, num_streams, bootstrap_timeouts),
        Writer(num_streams),
    )
    for action, stream in events:
        writer.write(action, stream, replay, twin)
    agree(replay, twin)


@pytest.mark.parametrize("chunk_length", [1, 2, 3, 4])
def test_equals_the_twin_after_every_step(chunk_length):
    replay = Replay(spec_of(chunk_length), 7, columns=COLUMNS)
    twin, writer = Twin(chunk_length, 7, 1, True), Writer(1)
    lengths = [1, 2, 3, 9, 4, 1, 1, 20, 5]
    for index, length in enumerate(lengths):
        for t in range(length):
            end = ("terminate", "truncate", "cut")[index % 3] if t == length - 1 else "step"
            if end == "cut":
                writer.write("step", 0, replay, twin)
            writer.write(end, 0, replay, twin)
            agree(replay, twin)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(histories(), st.integers(0, 60))
def test_a_restored_replay_goes_on_identically(history, saved_after):
    chunk_length, capacity, num_streams, bootstrap_timeouts, events = history
    make = lambda: Replay(  # noqa: E731
        spec_of(chunk_length),
        capacity,
        num_streams=num_streams,
        bootstrap_timeouts=bootstrap_timeouts,
        columns=COLUMNS,
    )
    replay, restored, writer, other = make(), make(), Writer(num_streams), Writer(num_streams)
    for action, stream in events[:saved_after]:
        writer.write(action, stream, replay)
    for action in ("step", "solve", "terminate", "step"):
        other.write(action, 0, restored)
    saved = snapshot(replay)
    restored.load(saved)
    for action, stream in events[saved_after:]:
        same_state(restored, snapshot(replay))
        writer.write(action, stream, replay, restored)
    same_state(restored, snapshot(replay))
    assert (len(restored), restored.num_starts) == (len(replay), replay.num_starts)
    if replay.num_starts:
        same_batch(sampled(restored, 50, seed=3), sampled(replay, 50, seed=3))


def filled(chunk_length: int = 2, capacity: int = 30, num_streams: int = 2) -> Replay:
    replay, writer = (
        Replay(spec_of(chunk_length), capacity, num_streams=num_streams),
        Writer(num_streams),
    )
    for index in range(50):
        writer.write("terminate" if index % 6 == 5 else "step", 0, replay)
    for index in range(8):
        writer.write("truncate" if index % 4 == 3 else "step", num_streams - 1, replay)
    return replay


def test_sampling_is_uniform_over_starts():
    replay, draws = filled(), 40_000
    numbers, counts = np.unique(
        sampled(replay, draws).observation["state"][:, 0], return_counts=True
    )
    assert len(numbers) == replay.num_starts
    expected, freedom = draws / len(numbers), len(numbers) - 1
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_the_same_generator_draws_the_same_rows():
    replay = filled()
    same_batch(sampled(replay, 64, seed=5), sampled(replay, 64, seed=5))
    different = sampled(replay, 64, seed=6).observation["state"]
    assert not np.array_equal(sampled(replay, 64, seed=5).observation["state"], different)


def test_sampling_changes_nothing():
    replay = filled()
    before = snapshot(replay)
    sampled(replay, 64)
    same_state(replay, before)


def test_a_sample_does_not_follow_later_writes():
    replay, writer = Replay(spec_of(1), 4), Writer(1)
    for _ in range(3):
        writer.write("step", 0, replay)
    batch = sampled(replay, 16)
    before = jax.tree.map(np.copy, batch)
    for _ in range(9):
        writer.write("step", 0, replay)
    same_batch(batch, before)


def test_discount_one_and_zero():
    replay, writer = Replay(spec_of(3), 20), Writer(1)
    for _ in range(3):
        writer.write("step", 0, replay)
    rewards = [float(number % 7 - 3) for number in (1_000, 1_001, 1_002)]
    for discount, reward, bootstrap in ((1.0, sum(rewards), 1.0), (0.0, rewards[0], 0.0)):
        batch = replay.sample(np.random.default_rng(0), 4, discount=discount)
        np.testing.assert_allclose(batch.reward, reward)
        np.testing.assert_array_equal(batch.discount, bootstrap)


def test_shapes_and_dtypes():
    batch = sampled(filled(chunk_length=2), 8)
    shapes = {
        name: getattr(batch, name).shape
        for name in ("action", "reward", "discount", "valid", "success")
    }
    assert shapes == {
        "action": (8, 2, 2),
        "reward": (8,),
        "discount": (8,),
        "valid": (8, 2),
        "success": (8,),
    }
    assert {leaf.dtype for leaf in jax.tree.leaves(batch)} == {np.dtype(np.float32)}


def test_images_keep_their_dtype():
    spec = Spec((("image", (3, 3, 1), "uint8"), ("state", (2,), "float32")), action_dim=2)
    replay, rng = Replay(spec, 6), np.random.default_rng(0)
    images = rng.integers(256, size=(5, 3, 3, 1), dtype=np.uint8)
    for t in range(4):
        step = Step(
            {"image": images[t]} | state(t),
            np.zeros(2),
            0.0,
            False,
            False,
            {"image": images[t + 1]} | state(9),
        )
        replay.add(step)
    batch = sampled(replay, 20)
    assert batch.observation["image"].dtype == batch.next_observation["image"].dtype == np.uint8
    numbers = batch.observation["state"][:, 0].astype(int)
    np.testing.assert_array_equal(batch.observation["image"], images[numbers])
    np.testing.assert_array_equal(batch.next_observation["image"], images[numbers + 1])


def test_float_images_are_refused():
    replay = Replay(Spec((("image", (2, 2, 1), "uint8"),), action_dim=1), 6)
    image = {"image": np.full((2, 2, 1), 0.5)}
    with pytest.raises(
        ValueError, match=r"observation\['image'\] is float64, the task needs uint8"
    ):
        replay.add(Step(image, np.zeros(1), 0.0, False, False, image))
    assert len(replay) == 0


@pytest.mark.parametrize("terminated", [True, False])
def test_recorded_episodes_become_prior_rows(terminated):
    def episode(first: int, length: int) -> Episode:
        numbers = np.arange(first, first + length + 1, dtype=np.float32)
        return Episode(
            {"state": np.stack([numbers, -numbers], axis=1)}, np.full((length, 2), 0.5, np.float32),
            np.arange(length, dtype=np.float32), np.arange(length) == 1, terminated,
        )  # fmt: skip

    lengths = (1, 3, 4)
    episodes = [episode(100 * index, length) for index, length in enumerate(lengths, start=1)]
    replay = Replay.from_episodes(spec_of(1), episodes, lambda reward: reward - 1)
    assert len(replay) == replay.num_starts == sum(lengths)
    batch = sampled(replay, 400)
    numbers = batch.observation["state"][:, 0].astype(int)
    assert set(numbers.tolist()) == {
        100 * i + t for i, length in enumerate(lengths, start=1) for t in range(length)
    }
    last = np.isin(numbers, [100, 202, 303])
    np.testing.assert_array_equal(batch.reward, numbers % 100 - 1)
    np.testing.assert_array_equal(
        batch.discount, np.where(last & terminated, 0, np.float32(DISCOUNT))
    )
    np.testing.assert_array_equal(batch.next_observation["state"][:, 0], numbers + 1)
    np.testing.assert_array_equal(batch.success, numbers >= 200)
    np.testing.assert_array_equal(batch.prior, 1)


def recorded(first: int, length: int, terminated: bool, dtype="float32") -> Episode:
    numbers = np.arange(first, first + length + 1).astype(dtype)
    actions = np.stack([np.sin(numbers[:-1]), np.cos(numbers[:-1])], axis=1).astype(dtype)
    return Episode(
        {"state": np.stack([numbers, -numbers / 3], axis=1)},
        actions,
        (numbers[:-1] % 7 / 3).astype(dtype),
        numbers[:-1] % 5 == 2,
        terminated,
    )


def add_step_by_step(replay: Replay, episode: Episode, stream: int) -> None:
    """The slow twin of `add_episode`."""
    at = lambda t: {name: values[t] for name, values in episode.observations.items()}  # noqa: E731
    for t in range(len(episode)):
        last = t == len(episode) - 1
        step = Step(
            at(t),
            episode.actions[t],
            3 * float(episode.rewards[t]) - 1,
            last and episode.terminated,
            last and not episode.terminated,
            at(t + 1),
            bool(episode.successes[t]),
        )
        replay.add(step, stream)


@st.composite
def episode_histories(draw):
    """(chunk length, capacity, streams, [(what, length, stream, terminated)])."""
    chunk_length, num_streams = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    event = st.tuples(
        st.sampled_from(["episode"] * 4 + ["step", "cut"]),
        st.integers(1, 12),
        st.integers(0, num_streams - 1),
        st.booleans(),
    )
    return (
        chunk_length,
        draw(st.integers(chunk_length + 2, 25)),
        num_streams,
        draw(st.lists(event, max_size=12)),
    )


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(episode_histories())
def test_an_episode_at_once_equals_its_steps_one_by_one(history):
    """Bit for bit: wrapping rings, episodes longer than the ring, open episodes, several
    streams."""
    chunk_length, capacity, num_streams, events = history
    at_once, by_step = (
        Replay(
            spec_of(chunk_length),
            capacity,
            num_streams=num_streams,
            columns=proposal_columns(2, spec_of(chunk_length)) | COLUMNS,
        )
        for _ in range(2)
    )
    every = np.indices((num_streams, capacity)).reshape(2, -1)
    for replay in (at_once, by_step):  # samples of observations that are about to be overwritten
        keep_proposals(replay, *every, np.ones((len(every[0]), 2, chunk_length, 2)), version=3)
    number = 0
    for what, length, stream, terminated in events:
        episode = recorded(number, length, terminated, "float64" if length % 3 == 0 else "float32")
        number += length + 1
        if what == "episode":
            at_once.add_episode(episode, lambda reward: 3 * reward - 1, stream)
            add_step_by_step(by_step, episode, stream)
        elif what == "step":
            for replay in (at_once, by_step):
                replay.add(GOOD, stream)
        else:
            at_once.cut(stream)
            by_step.cut(stream)
        expected = snapshot(by_step)
        same_state(at_once, expected)
        assert all(at_once.state()[name].dtype == value.dtype for name, value in expected.items())


def test_observations_pass_through_the_transform():
    double = lambda observation: {name: 2 * value for name, value in observation.items()}  # noqa: E731
    plain, doubled = (
        Replay.from_episodes(spec_of(1), [recorded(5, 4, True)], float, transform=f)
        for f in (None, double)
    )
    np.testing.assert_array_equal(
        doubled.state()["observation/state"], 2 * plain.state()["observation/state"]
    )


BAD_EPISODES = {
    "action": (
        lambda e: e.actions.__setitem__((2, 0), 1.5),
        r"step 2: action .* outside \[-1, 1\]",
    ),
    "action nan": (lambda e: e.actions.__setitem__((0, 1), np.nan), "step 0: action .* not finite"),
    "reward": (lambda e: e.rewards.__setitem__(3, np.inf), "step 3: reward is inf"),
    "observation": (
        lambda e: e.observations["state"].__setitem__((1, 0), np.nan),
        r"step 0: next_observation\['state'\]",
    ),
    "first observation": (
        lambda e: e.observations["state"].__setitem__((0, 0), np.inf),
        r"step 0: observation\['state'\]",
    ),
    "missing": (lambda e: e.observations.clear(), "step 0: observation lacks 'state'"),
    "shape": (
        lambda e: e.observations.update(state=np.zeros((5, 3))),
        r"step 0: observation\['state'\] has shape \(3,\)",
    ),
    "length": (
        lambda e: e.observations.update(state=np.zeros((9, 2))),
        "state covers 8 steps, the actions 4",
    ),
}


@pytest.mark.parametrize("name", BAD_EPISODES)
def test_a_bad_episode_is_refused_with_its_step_and_nothing_is_stored(name):
    damage, message = BAD_EPISODES[name]
    episode = recorded(5, 4, True)
    damage(episode)
    replay = filled(capacity=19)
    before = snapshot(replay)
    with pytest.raises(ValueError, match="^" + message):
        replay.add_episode(episode, float)
    same_state(replay, before)
    with pytest.raises(ValueError, match="episode 1, " + message):
        Replay.from_episodes(spec_of(1), [recorded(0, 3, True), episode], float)


def test_nothing_to_sample_yet():
    replay, writer = Replay(spec_of(3), 10), Writer(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="no complete chunk yet"):
            sampled(replay, 1)
        writer.write("step", 0, replay)
    writer.write("step", 0, replay)
    assert sampled(replay, 5).reward.shape == (5,)


def test_a_capacity_below_one_chunk_is_refused():
    with pytest.raises(ValueError, match=r"capacity must be at least chunk_length \+ 2 = 5, got 4"):
        Replay(spec_of(3), 4)
    assert Replay(spec_of(3), 5).capacity == 5


GOOD = Step(state(1), np.array([0.5, -1.0], np.float32), 0.0, False, False, state(2))
NAN, INF = np.array([np.nan, 0], np.float32), np.array([0, np.inf], np.float32)
BAD_STEPS = {
    "action shape": ({"action": np.zeros(3)}, r"action has shape \(3,\), the task needs \(2,\)"),
    "action batch": ({"action": np.zeros((1, 2))}, r"action has shape \(1, 2\)"),
    "action nan": ({"action": NAN}, "action .* not finite"),
    "action inf": ({"action": INF}, "action .* not finite"),
    "action above": ({"action": np.array([0.0, 1.001])}, r"action .* outside \[-1, 1\]"),
    "action below": ({"action": np.array([-1.001, 0.0])}, r"action .* outside \[-1, 1\]"),
    "reward nan": ({"reward": float("nan")}, "reward is nan"),
    "reward inf": ({"reward": float("-inf")}, "reward is -inf"),
    "reward beyond float32": ({"reward": 1e39}, r"reward is 1e\+39"),
    "observation nan": (
        {"observation": {"state": NAN}},
        r"^observation\['state'\] holds NaN or infinity",
    ),
    "observation inf": (
        {"observation": {"state": INF}},
        r"^observation\['state'\] holds NaN or infinity",
    ),
    "observation beyond float32": (
        {"observation": {"state": np.array([1e39, 0])}},
        r"^observation\['state'\] holds",
    ),
    "observation shape": (
        {"observation": {"state": np.zeros(3)}},
        r"^observation\['state'\] has shape \(3,\)",
    ),
    "observation missing": (
        {"observation": {"stat": np.zeros(2)}},
        r"^observation lacks 'state'; it has \['stat'\]",
    ),
    "next nan": (
        {"next_observation": {"state": NAN}},
        r"^next_observation\['state'\] holds NaN or infinity",
    ),
    "next shape": (
        {"next_observation": {"state": np.zeros(())}},
        r"^next_observation\['state'\] has shape \(\)",
    ),
    "next missing": ({"next_observation": {}}, "^next_observation lacks 'state'"),
}


@pytest.mark.parametrize("name", BAD_STEPS)
def test_a_bad_step_is_refused_and_nothing_is_stored(name):
    changes, message = BAD_STEPS[name]
    replay = filled(capacity=9)
    before = snapshot(replay)
    with pytest.raises(ValueError, match=message):
        replay.add(GOOD._replace(**changes))
    same_state(replay, before)
    replay.add(GOOD)
    assert not np.array_equal(replay.state()["head"], before["head"])


def without(name):
    return lambda saved: {key: value for key, value in saved.items() if key != name}


def changed(name, change):
    return lambda saved: saved | {name: change(saved[name])}


MISFITS = {
    "missing": (without("reward"), "saved replay lacks 'reward'"),
    "surplus": (
        lambda saved: saved | {"column/mark": saved["reward"]},
        "saved replay has 'column/mark'",
    ),
    "missing observation": (without("observation/state"), "saved replay lacks 'observation/state'"),
    "action dimensions": (
        changed("action", lambda x: x[..., :1]),
        "saved replay 'action' has shape",
    ),
    "axes": (changed("reward", lambda x: x[..., None]), "saved replay 'reward' has shape"),
    "streams": (lambda saved: {k: v[:1] for k, v in saved.items()}, "saved replay '.*' has shape"),
    "rows": (
        lambda saved: snapshot(filled(capacity=31)),
        "saved replay holds 31 rows, the capacity is 30",
    ),
    "ring": (
        lambda saved: snapshot(filled(capacity=29)),
        "full ring of 29 rows, the capacity is 30",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_load_refuses_what_does_not_fit_and_changes_nothing(name):
    change, message = MISFITS[name]
    replay = filled(capacity=30)
    before = snapshot(replay)
    with pytest.raises(ValueError, match=message):
        replay.load(change(snapshot(replay)))
    same_state(replay, before)


def test_a_replay_that_never_wrapped_may_grow():
    replay, writer = Replay(spec_of(2), 20, columns=COLUMNS), Writer(1)
    for index in range(12):
        writer.write("terminate" if index % 5 == 4 else "step", 0, replay)
    larger = Replay(spec_of(2), 40, columns=COLUMNS)
    larger.load(snapshot(replay))
    for index in range(20):
        writer.write("terminate" if index % 5 == 4 else "step", 0, larger)
    twin, again = Twin(2, 40, 1, True), Writer(1)
    for index in [*range(12), *range(20)]:
        again.write("terminate" if index % 5 == 4 else "step", 0, twin)
    agree(larger, twin)


def test_state_leaves_out_rows_never_written():
    replay, writer = Replay(spec_of(1), 1_000), Writer(1)
    for _ in range(4):
        writer.write("step", 0, replay)
    assert replay.state()["action"].shape == (1, 5, 2)
