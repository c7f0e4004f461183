"""Base samples kept by the replay, against a slow list of which observation was given samples
when."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporl.data.columns import PROPOSED, proposal_columns
from exporl.data.mixture import Mixture, pack, unpack
from exporl.data.proposals import (
    oldest_proposals,
    proposal_age,
    renew_proposals,
    without_proposals,
)
from exporl.data.replay import Replay
from exporl.spec import PROPOSALS
from helpers.replays import (
    ACTIONS,
    DISCOUNT,
    Twin,
    Writer,
    same_batch,
    same_state,
    snapshot,
    spec_of,
)

NUM, BLOCK = 2, 3


class Base:
    """Samples that name their observation and the version that made them; remembers every call."""

    def __init__(self, version: int):
        self.version, self.calls = version, []

    def __call__(self, observation, index):
        numbers = observation["state"][:, 0].astype(int)
        assert index == len(self.calls)
        self.calls.append(numbers.tolist())
        return samples_of(numbers, self.version)

    @property
    def asked(self) -> set[int]:
        """Every observation that was asked for."""
        return {number for call in self.calls for number in call}


def samples_of(numbers, version):
    """[b, n, h, a], different for every observation and version."""
    value = np.asarray(numbers, np.float32) * 64 + version
    return value[:, None, None, None] + np.zeros((1, NUM, 1, 2), np.float32)


class AgeTwin(Twin):
    """Also keeps the version at which each observation was given samples."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.made: dict[int, int] = {}

    def next_numbers(self) -> set[int]:
        """Observations that follow a stored step: the only ones that a backup reads."""
        return {int(episode.steps[t].next_observation["state"][0]) for episode, t in self.stored()}

    def renew(self, base: Base, block: int) -> None:
        """What a renewal promises about the observations that it asked for."""
        here = self.next_numbers()
        made = {number: version for number, version in self.made.items() if number in here}
        missing = here - made.keys()
        assert missing <= base.asked <= here
        spare = max(block, -(-len(missing) // block) * block) - len(missing)
        renewed = base.asked - missing
        assert len(renewed) == min(spare, len(made))
        left = made.keys() - renewed
        assert (
            not renewed or not left or max(made[n] for n in renewed) <= min(made[n] for n in left)
        )
        assert all(len(call) == block for call in base.calls)
        assert len(base.calls) == -(-len(base.asked) // block)
        self.made = made | dict.fromkeys(base.asked, base.version)


def numbers_in(replay: Replay, where) -> list[int]:
    return sorted(replay.observation(*where)["state"][:, 0].astype(int).tolist())


def slow_oldest(replay: Replay, limit: int) -> list[tuple[int, int]]:
    """(stream, row) of next observations with samples: by version, then stream, then row."""
    made, is_step = replay.column(PROPOSED), replay.state()["is_step"]
    streams, used = is_step.shape
    found = [
        (made[stream, row], stream, row)
        for stream in range(streams)
        for row in range(used)
        if is_step[stream, row - 1] and made[stream, row]
    ]
    return [(stream, row) for _, stream, row in sorted(found)[:limit]]


def agree(replay: Replay, twin: AgeTwin, version: int) -> None:
    """Same observations without samples, same age, and every sampled row has its own next
    observation's samples."""
    here = twin.next_numbers()
    made = {number: v for number, v in twin.made.items() if number in here}
    assert numbers_in(replay, without_proposals(replay)) == sorted(here - made.keys())
    assert numbers_in(replay, oldest_proposals(replay, 10_000)) == sorted(made)
    for limit in (0, 1, BLOCK, len(made), 10_000):
        streams, rows = oldest_proposals(replay, limit)
        found = list(zip(streams.tolist(), rows.tolist(), strict=True))
        assert found == slow_oldest(replay, limit)
    age = proposal_age(replay, version)
    np.testing.assert_allclose(
        age, np.mean([version - v for v in made.values()]) if made else np.nan
    )
    if replay.num_starts:
        batch = replay.sample(np.random.default_rng(0), 40, discount=DISCOUNT)
        follows = batch.next_observation["state"][:, 0].astype(int)
        known = np.isin(follows, list(made))
        expected = samples_of(follows, np.array([made.get(n, 0) for n in follows.tolist()]))[known]
        np.testing.assert_array_equal(
            batch.next_proposals[known], expected + np.zeros_like(batch.next_proposals[known])
        )


def make(chunk_length, capacity, num_streams):
    spec = spec_of(chunk_length)
    return Replay(spec, capacity, num_streams=num_streams, columns=proposal_columns(NUM, spec))


@st.composite
def renewed_histories(draw):
    """(chunk length, capacity, streams, what happens in which stream), with renewals in between."""
    chunk_length, num_streams = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    capacity = draw(st.integers(chunk_length + 2, 12))
    event = st.tuples(
        st.sampled_from((*ACTIONS, "renew", "renew")), st.integers(0, num_streams - 1)
    )
    return chunk_length, capacity, num_streams, draw(st.lists(event, max_size=50))


def spread_out(proposals, chunk_length):
    return np.repeat(proposals, chunk_length, axis=2)


def play(events, replays, twin, writer, chunk_length, version=1):
    """Writes and renewals, in every replay alike; returns the version after them."""
    for action, stream in events:
        if action != "renew":
            writer.write(action, stream, *replays, twin)
            continue
        for replay in replays:
            base = Base(version)

            def asked(observation, index, base=base):
                return spread_out(base(observation, index), chunk_length)

            assert renew_proposals([replay], asked, BLOCK, version) == len(base.asked)
        twin.renew(base, BLOCK)
        version += 1
    return version


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(renewed_histories())
def test_equals_the_twin(history):
    chunk_length, capacity, num_streams, events = history
    replay, twin = (
        make(chunk_length, capacity, num_streams),
        AgeTwin(chunk_length, capacity, num_streams, True),
    )
    writer, version = Writer(num_streams), 1
    for event in events:
        version = play([event], [replay], twin, writer, chunk_length, version)
        agree(replay, twin, version)


@settings(max_examples=50, deadline=None)
@given(renewed_histories(), st.integers(0, 50))
def test_a_restored_replay_goes_on_identically(history, saved_after):
    chunk_length, capacity, num_streams, events = history
    replay, restored = (
        make(chunk_length, capacity, num_streams),
        make(chunk_length, capacity, num_streams),
    )
    twin, writer = AgeTwin(chunk_length, capacity, num_streams, True), Writer(num_streams)
    version = play(events[:saved_after], [replay], twin, writer, chunk_length)
    restored.load(snapshot(replay))
    play(events[saved_after:], [replay, restored], twin, writer, chunk_length, version)
    same_state(restored, snapshot(replay))


def steps(replay: Replay, number: int, first_stream: int = 0) -> Replay:
    """The replay with so many steps of one open episode."""
    writer = Writer(first_stream + 1)
    writer.numbers = [1_000 * (first_stream + 1)]
    for _ in range(number):
        writer.write("step", 0, replay)
    return replay


def test_the_order_of_renewal_does_not_depend_on_the_capacity():
    """A run that is resumed for longer has a larger buffer."""
    asked = []
    for capacity in (30, 60):
        replay, writer = make(1, capacity, 2), Writer(2)
        for index in range(20):
            writer.write("step", index % 2, replay)
        for version in range(1, 12):
            base = Base(version)
            renew_proposals([replay], base, BLOCK, version)
            asked.append((capacity, base.calls))
    assert [calls for capacity, calls in asked if capacity == 30] == [
        calls for c, calls in asked if c == 60
    ]


def test_the_rate_is_shared_and_what_a_small_buffer_cannot_use_goes_to_the_other():
    large, small = steps(make(1, 100, 1), 40), steps(make(1, 100, 1), 2, first_stream=4)
    renew_proposals([large, small], Base(1), 4, 1)
    for replays in ([large, small], [small, large]):
        base = Base(2)
        assert renew_proposals(replays, base, 10, 2) == 10
        assert len([n for n in base.asked if n > 4_000]) == 2
    base = Base(3)
    renew_proposals([large, large], base, 10, 3)
    two = steps(make(1, 100, 1), 40, first_stream=4)
    renew_proposals([two], Base(1), 4, 1)
    base = Base(4)
    assert renew_proposals([large, two], base, 10, 4) == 10
    assert len([n for n in base.asked if n > 4_000]) == 5


def test_every_observation_is_renewed_in_turn():
    replay, seen = steps(make(1, 100, 1), 12), []
    renew_proposals([replay], Base(1), 4, 1)
    for version in (2, 3, 4):
        base = Base(version)
        renew_proposals([replay], base, 4, version)
        seen += [n for call in base.calls for n in call]
        assert proposal_age(replay, version) == {2: 2 / 3, 3: 1, 4: 1}[version]
    assert sorted(seen) == list(range(1_001, 1_013))


def test_nothing_to_renew():
    replay = make(1, 10, 1)
    assert renew_proposals([replay], Base(1), BLOCK, 1) == 0
    assert np.isnan(proposal_age(replay, 1))


def test_samples_alone_can_be_saved_and_restored():
    replay = steps(make(1, 100, 1), 7)
    renew_proposals([replay], Base(1), BLOCK, 1)
    saved = {name: value.copy() for name, value in replay.column_state().items()}
    assert saved.keys() == {f"column/{PROPOSALS}", f"column/{PROPOSED}"}
    assert saved["column/next_proposals"].shape == (1, 8, NUM, 1, 2)
    again = steps(make(1, 100, 1), 7)
    again.load_columns(saved)
    same_state(again, snapshot(replay))
    assert steps(Replay(spec_of(1), 100), 3).column_state() == {}


def test_a_replay_saved_without_samples_is_refused():
    replay = steps(make(1, 20, 1), 5)
    with pytest.raises(ValueError, match="saved replay lacks 'column/next_proposals'"):
        replay.load(snapshot(steps(Replay(spec_of(1), 20), 5)))


@pytest.mark.parametrize("num", [0, NUM])
def test_a_packed_batch_is_the_batch(num):
    replay = steps(Replay(spec_of(2), 30, columns=proposal_columns(num, spec_of(2))), 9)
    batch = Mixture([(replay, 1.0)]).sample(np.random.default_rng(0), 2, 4, discount=DISCOUNT)
    batch = batch.replace(
        observation=batch.observation | {"camera/top": batch.observation["state"] + 1}
    )
    arrays = pack(batch)
    assert {"observation/state", "observation/camera/top", "reward/"} <= arrays.keys()
    assert ("extra/next_proposals" in arrays) == bool(num)
    same_batch(unpack(arrays), batch)
