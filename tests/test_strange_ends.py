"""Recordings whose ends have another name, contradict each other, or contradict the outcomes that
are stated: read as they were meant, or refused with the array's name. Episodes are never joined."""

import numpy as np
import pytest

from exporl.data.formats import ReadOptions, load_episodes
from exporl.data.formats.ends import CUT_OFFS, EPISODE_NUMBERS, FIRST_ROWS, LAST_ROWS, TRUE_ENDS
from exporl.data.from_arrays import from_arrays
from helpers.recordings import (
    LASTS,
    ROWS,
    crossings,
    flat,
    heard,
    leading_on,
    marks,
    refusal,
    states,
    steps,
    write_dataset,
    write_hdf5,
    write_lerobot,
    write_npz,
    write_robomimic,
)

pytest.importorskip("h5py")
pytest.importorskip("pyarrow")

MARKED = [
    *((name, marks(3, 11)) for name in (*CUT_OFFS, "Truncated", "TimeLimit.truncated")),
    *((name, marks(*LASTS)) for name in LAST_ROWS),
    *((name, marks(0, 4, 8)) for name in FIRST_ROWS),
    *((name, np.repeat([5, 9, 2], 4)) for name in EPISODE_NUMBERS),
    ("episode_ids", np.repeat([2**40, 2**40 + 1, 2**40 + 2], 4)),  # equal as float32
    ("timeouts", marks(3, 11)[:, None]),
]
CASES = [pytest.param(name, array, id=f"{i}-{name}") for i, (name, array) in enumerate(MARKED)]


def three(episodes) -> None:
    assert len(episodes) == 3 and not crossings(episodes), [states(e) for e in episodes]
    assert [e.terminated for e in episodes] == [False, True, False]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "array"), CASES)
def test_ends_under_any_known_name(tmp_path, name, array):
    three(load_episodes(write_npz(tmp_path / "a.npz", flat(**{name: array}))))
    three(load_episodes(write_hdf5(tmp_path / "a.hdf5", flat(**{name: array}))))
    stated = {"next_observations": leading_on(), name: array}
    three(load_episodes(write_npz(tmp_path / "b.npz", flat(**stated))))
    three(load_episodes(write_hdf5(tmp_path / "b.hdf5", flat(**stated))))
    three(from_arrays(flat(**stated)))


@pytest.mark.parametrize("name", TRUE_ENDS)
def test_true_ends_under_any_known_name(tmp_path, name):
    arrays = flat(terminals=None, timeouts=marks(3, 11)) | {name: marks(7)}
    three(load_episodes(write_npz(tmp_path / "a.npz", arrays)))
    three(load_episodes(write_hdf5(tmp_path / "a.hdf5", arrays)))
    three(from_arrays(arrays | {"next_observations": leading_on()}))


def test_ends_inside_a_group_of_infos(tmp_path):
    arrays = flat(**{"infos/TimeLimit.truncated": marks(3, 11)})
    three(load_episodes(write_hdf5(tmp_path / "a.hdf5", arrays)))
    three(load_episodes(write_npz(tmp_path / "a.npz", arrays)))


@pytest.mark.parametrize("name", ["episode_lengths", "traj_lengths"])
def test_lengths_instead_of_ends(tmp_path, name):
    three(
        load_episodes(
            write_npz(
                tmp_path / "a.npz", flat(**{name: [4, 4, 4], "next_observations": leading_on()})
            )
        )
    )
    said = refusal(
        load_episodes,
        write_npz(tmp_path / "b.npz", flat(**{name: [4, 4], "next_observations": leading_on()})),
    )
    assert f"the sums of {name} must rise from above 0 to the number of steps, 12" in said


DOUBTFUL = (
    "dones",
    "done",
    "dones_float",
    "ends",
    "is_done",
    "resets",
    "masks",
    "not_done",
    "discounts",
)


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_only_sounds_like_an_end_is_refused_where_it_adds_one(tmp_path, name):
    inverse = name in ("masks", "not_done", "discounts")
    array = (marks(3, 7, 11) ^ inverse).astype(np.float32)
    for write, path in ((write_npz, "a.npz"), (write_hdf5, "a.hdf5")):
        said = refusal(load_episodes, write(tmp_path / path, flat(**{name: array})))
        assert f"{name} singles out row 3 (" in said and "as timeouts" in said
        known = flat(timeouts=marks(3, 11), **{name: array})
        three(load_episodes(write(tmp_path / f"known-{path}", known)))
    unclear = write_hdf5(tmp_path / "only.hdf5", flat(terminals=None, **{name: array}))
    assert "terminals is missing" in (said := refusal(load_episodes, unclear)) and name in said
    unclear = write_npz(tmp_path / "only.npz", flat(terminals=None, **{name: array}))
    assert "episode_ends" in (said := refusal(load_episodes, unclear, format_name="arrays"))
    assert f"{name} may mark ends, but not which of them are true" in said


def test_a_constant_or_a_continuous_array_of_such_a_name_says_nothing(tmp_path):
    for index, array in enumerate((np.ones(ROWS), np.linspace(0, 1, ROWS), np.zeros((ROWS, 3)))):
        path = write_npz(tmp_path / f"{index}.npz", flat(timeouts=marks(3, 11), masks=array))
        three(load_episodes(path))


INSIDE = {
    "terminals": marks(7, 9),
    "timeouts": marks(1),
    "truncations": marks(0, 6),
    "is_last": marks(3, 5, 7, 11),
    "episode_starts": marks(0, 4, 6, 8),
    "episode_ids": np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3]),
}


@pytest.mark.parametrize("name", INSIDE)
def test_an_end_inside_a_stated_episode_is_refused(tmp_path, name):
    changes = {"next_observations": leading_on(), "episode_ends": [4, 8, 12], name: INSIDE[name]}
    path = write_npz(tmp_path / "a.npz", flat(**changes))
    said = refusal(load_episodes, path)
    assert (
        f"{name} marks row" in said
        and "as the end of an episode, inside an episode of rows" in said
    )
    assert "inside an episode of rows" in refusal(from_arrays, flat(**changes))
    kept, words = heard(path, skip_bad=True)
    assert not crossings(kept) and "skipped episode" in words


def test_an_end_inside_a_demonstration_is_refused(tmp_path):
    inner = [0, 1, 0, 0]
    for name in ("truncated", "terminated", "timeouts", "is_last"):
        said = refusal(load_episodes, write_robomimic(tmp_path / "r.hdf5", **{name: inner}))
        assert f"demo_0: {name} marks row 1 as the end" in said
    ended = load_episodes(write_robomimic(tmp_path / "r.hdf5", terminated=[0, 0, 0, 1]))[0]
    assert ended.terminated and len(ended) == 4
    assert load_episodes(
        write_robomimic(tmp_path / "r.hdf5", dones=[0, 1, 0, 0])
    )  # a success there
    path = write_dataset(tmp_path / "cut-v0", truncations=[False, True, False, True])
    assert "episode_0: truncations marks step 1 of 4 as the end" in refusal(load_episodes, path)
    _, said = heard(write_dataset(tmp_path / "on-v0", terminations=[True, False, False, False]))
    assert "terminations marks 1 steps before the last one; the recording went on" in said
    for name in ("next__truncated", "truncated", "timeout"):
        path = write_lerobot(tmp_path / name, **{name: [False, True, False, False]})
        assert "frame 1 of 4 is marked as truncated (1 such frames" in refusal(load_episodes, path)
    _, said = heard(write_lerobot(tmp_path / "done", next__done=[True, False, False, True]))
    assert "1 frames before the last are marked as done" in said


def test_a_true_end_of_a_frame_under_another_name(tmp_path):
    for name in ("next__terminated", "is_terminal", "terminated"):
        episode = load_episodes(write_lerobot(tmp_path / name, **{name: [False] * 3 + [True]}))[0]
        assert episode.terminated and len(episode) == 4


def test_ends_beside_pushes_and_plays(tmp_path):
    push = {
        "action": np.zeros((ROWS, 2), np.float32),
        "state": np.zeros((ROWS, 5)),
        "episode_ends": [4, 12],
    }
    said = refusal(
        load_episodes, write_npz(tmp_path / "p.npz", push | {"timeouts": marks(3, 7, 11)})
    )
    assert "timeouts marks row 7 as the end of an episode, inside" in said
    assert len(load_episodes(write_npz(tmp_path / "q.npz", push | {"timeouts": marks(3, 11)}))) == 2
    play = flat(
        rewards=None, terminals=marks(3, 11), qpos=np.zeros((ROWS, 4)), is_first=marks(0, 4, 8)
    )
    said = refusal(load_episodes, write_npz(tmp_path / "o.npz", play))
    assert "is_first marks row 7" in said
    assert len(load_episodes(write_npz(tmp_path / "n.npz", play | {"is_first": marks(0, 4)}))) == 2


def test_where_only_true_ends_are_marked_a_word_says_so(tmp_path):
    for write, path in ((write_npz, tmp_path / "a.npz"), (write_hdf5, tmp_path / "a.hdf5")):
        write(path, flat())
        assert "only true ends are marked" in heard(path)[1]
        episodes, said = heard(path, options=ReadOptions(horizon=4))
        assert "only true ends" not in said and not crossings(episodes) and len(episodes) == 3


# What next observations state.


@pytest.mark.parametrize("noise", [1e-4, 1e-3, 1e-2, 5e-2])
@pytest.mark.parametrize("write", [write_npz, write_hdf5], ids=["npz", "hdf5"])
def test_small_differences_do_not_cut(tmp_path, write, noise):
    path = tmp_path / f"a.{'npz' if write is write_npz else 'hdf5'}"
    write(path, flat(next_observations=leading_on(noise), timeouts=marks(3, 11)))
    episodes, said = heard(path)
    three(episodes)
    assert [len(e) for e in episodes] == [4, 4, 4]
    assert "next_observations differ a little from the observations" in said


@pytest.mark.parametrize("write", [write_npz, write_hdf5], ids=["npz", "hdf5"])
def test_a_reset_that_nothing_marks_cuts_with_a_word(tmp_path, write):
    path = tmp_path / f"a.{'npz' if write is write_npz else 'hdf5'}"
    write(path, flat(next_observations=leading_on(1e-3), timeouts=marks(11)))
    episodes, said = heard(path)
    three(episodes)
    assert "ends where next_observations does not lead on, which no array marks" in said


ORDERS = {
    "shuffled": np.random.default_rng(0).permutation(ROWS),
    "backwards": np.arange(ROWS)[::-1],
    "two exchanged": np.r_[0, 2, 1, 3:ROWS],
    "every second": np.r_[0:ROWS:2, 1:ROWS:2],
}


@pytest.mark.parametrize("name", ORDERS)
def test_rows_out_of_order_are_refused_where_ends_are_stated(tmp_path, name):
    order, seen = ORDERS[name], steps((ROWS,))
    arrays = flat(
        observations=seen[order], next_observations=seen[order] + 1, terminals=np.zeros(ROWS)
    )
    path = write_npz(tmp_path / "a.npz", arrays | {"episode_ends": [ROWS]})
    said = refusal(load_episodes, path)
    assert "is not the observation of row" in said and "not in the order of time" in said
    assert "is not the observation of row" in refusal(
        from_arrays, arrays | {"episode_ends": [ROWS]}
    )


@pytest.mark.parametrize("name", ORDERS)
def test_rows_out_of_order_become_steps_of_their_own_where_none_are(tmp_path, name):
    order, seen = ORDERS[name], steps((ROWS,))
    arrays = flat(
        observations=seen[order], next_observations=seen[order] + 1, terminals=np.zeros(ROWS)
    )
    for episode in load_episodes(write_hdf5(tmp_path / "a.hdf5", arrays)):
        assert np.diff(states(episode)).tolist() == [1] * len(episode)


def test_outcomes_of_demonstrations_are_compared(tmp_path):
    after = steps((4,)) + 1
    good = load_episodes(write_robomimic(tmp_path / "a.hdf5", 1, next_obs__object=after))[0]
    assert states(good) == [0, 1, 2, 3, 4]
    _, said = heard(write_robomimic(tmp_path / "a.hdf5", 1, next_obs__object=after + 1e-3))
    assert "object: next_observations differ a little" in said
    wrong = write_robomimic(tmp_path / "a.hdf5", 1, next_obs__object=after[[1, 0, 2, 3]])
    assert "object: next_observations row 0 is not the observation of row 1" in refusal(
        load_episodes, wrong
    )


def test_one_array_that_was_written_into_states_nothing(tmp_path):
    """A logger that kept references: every next observation is its own row's observation."""
    arrays = flat(next_observations=steps(), timeouts=marks(3, 11))
    for write, name in ((write_npz, "a.npz"), (write_hdf5, "a.hdf5")):
        episodes, said = heard(write(tmp_path / name, arrays))
        assert [states(e)[:4] for e in episodes] == [
            [0, 1, 2, 3],
            [100, 101, 102, 103],
            [200, 201, 202, 203],
        ]
        assert [len(e) for e in episodes] == [3, 4, 3]
        assert "only repeat the observations of their own rows" in said
    assert [len(e) for e in from_arrays(arrays)] == [3, 4, 3]
    demo = load_episodes(write_robomimic(tmp_path / "r.hdf5", 1, next_obs__object=steps((4,))))[0]
    assert states(demo) == [0, 1, 2, 3]


def test_observations_that_never_change_contradict_nothing(tmp_path):
    still = np.ones((ROWS, 2), np.float32)
    arrays = flat(observations=still, next_observations=still, episode_ends=[4, 8, 12])
    assert [len(e) for e in load_episodes(write_npz(tmp_path / "a.npz", arrays))] == [4, 4, 4]


def test_pictures_may_differ_as_compression_makes_them(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(256, size=(5, 8, 8, 3), dtype=np.uint8)
    after = np.clip(frames[1:].astype(int) + rng.integers(-3, 4, (4, 8, 8, 3)), 0, 255).astype(
        np.uint8
    )
    arrays = {
        "observations/image": frames[:-1],
        "next_observations/image": after,
        "actions": np.zeros((4, 1)),
        "rewards": np.zeros(4),
        "terminals": np.zeros(4),
        "episode_ends": [4],
    }
    assert len(load_episodes(write_npz(tmp_path / "a.npz", arrays))[0]) == 4
    arrays["next_observations/image"] = after[[2, 0, 1, 3]]
    assert "not in the order of time" in refusal(
        load_episodes, write_npz(tmp_path / "b.npz", arrays)
    )
