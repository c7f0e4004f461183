"""D4RL files: with and without timeouts and next observations, in odd forms, and damaged."""

from pathlib import Path

import numpy as np
import pytest

from exporl.data.episodes import Episode
from exporl.data.formats import FORMATS, ReadOptions, d4rl, find_format, load_episodes, read_records

h5py = pytest.importorskip("h5py")
ROWS = 12


def flat(**changes) -> dict[str, np.ndarray]:
    """Episodes of 4 rows (a terminal), 5 rows (a timeout) and 3 rows (cut short); None leaves an
    array out."""
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.normal(size=(ROWS, 3)),
        "actions": rng.uniform(-1, 1, (ROWS, 2)),
        "rewards": np.array([0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0], np.float32),
        "terminals": np.arange(ROWS) == 3,
        "timeouts": np.arange(ROWS) == 8,
        "infos__qpos": rng.normal(size=(ROWS, 4)),
        "infos__goal": rng.normal(size=(ROWS, 2)),
    } | changes
    return {name.replace("__", "/"): array for name, array in arrays.items() if array is not None}


def following(arrays: dict[str, np.ndarray], ends=(3, 8, 11)) -> np.ndarray:
    """Next observations that agree with the following row except at ends."""
    result = np.roll(arrays["observations"], -1, axis=0)
    result[list(ends)] = np.arange(3) + 100.0
    return result


def write(path: Path, arrays: dict, **kind) -> Path:
    with h5py.File(path, "w") as root:
        for name, array in arrays.items():
            root.create_dataset(name, data=array, **kind)
        root["metadata/algorithm"] = "SAC"
    return path


def load(folder: Path, options: ReadOptions | None = None, **changes) -> list[Episode]:
    return load_episodes(write(folder / "flat.hdf5", flat(**changes)), options=options)


def test_timeouts_and_terminals(tmp_path):
    arrays = flat()
    ended, timed_out, cut = load(tmp_path)
    assert find_format(tmp_path / "flat.hdf5").name == "d4rl"
    observations = arrays["observations"].astype(np.float32)
    assert [len(e) for e in (ended, timed_out, cut)] == [4, 4, 2]
    assert [e.terminated for e in (ended, timed_out, cut)] == [True, False, False]
    # a true end needs no next observation
    expected = np.concatenate([observations[:4], observations[3:4]])
    np.testing.assert_array_equal(ended.observations["state"], expected)
    np.testing.assert_array_equal(timed_out.observations["state"], observations[4:9])
    np.testing.assert_array_equal(timed_out.actions, arrays["actions"][4:8].astype(np.float32))
    assert timed_out.rewards.tolist() == [0, 0, 1, 0]  # the step with the timeout is dropped
    assert timed_out.successes.tolist() == [False, False, True, False]
    np.testing.assert_array_equal(cut.observations["state"], observations[9:])
    np.testing.assert_array_equal(timed_out.infos["qpos"], arrays["infos/qpos"][4:9])
    assert list(ended.infos) == ["goal", "qpos"] and ended.infos["goal"].dtype == np.float64


def test_next_observations_keep_every_step(tmp_path):
    arrays = flat()
    episodes = load(tmp_path, next_observations=following(arrays))
    assert [len(e) for e in episodes] == [4, 5, 3]
    assert [e.terminated for e in episodes] == [True, False, False]
    for episode, start, stop in zip(episodes, (0, 4, 9), (4, 9, 12), strict=True):
        expected = np.concatenate([arrays["observations"][start:stop], [[100, 101, 102]]]).astype(
            np.float32
        )
        np.testing.assert_array_equal(episode.observations["state"], expected)
        np.testing.assert_array_equal(episode.rewards, arrays["rewards"][start:stop])


@pytest.mark.parametrize("block", [1, 3, 16_384])
def test_unmarked_ends_show_in_the_next_observations(tmp_path, monkeypatch, block):
    monkeypatch.setattr(d4rl, "_BLOCK_ROWS", block)
    episodes = load(tmp_path, next_observations=following(flat(), ends=(3, 6, 8, 11)))
    assert [len(e) for e in episodes] == [4, 3, 2, 3]
    nothing = np.zeros(ROWS)
    path = write(
        tmp_path / "f.hdf5",
        flat(terminals=nothing, timeouts=None, next_observations=following(flat())),
    )
    assert [len(e) for e in load_episodes(path)] == [4, 5, 3]


@pytest.mark.parametrize("timeouts", [None, np.zeros(ROWS)])
def test_without_timeouts_the_horizon_ends_episodes(tmp_path, timeouts):
    horizon = ReadOptions(horizon=3)
    episodes = load(tmp_path, horizon, timeouts=timeouts)
    assert [len(e) for e in episodes] == [2, 1, 2, 2, 1]  # rows 0-2, 3, 4-6, 7-9, 10-11
    assert [e.terminated for e in episodes] == [False, True, False, False, False]
    assert [
        len(e) for e in load(tmp_path, horizon, timeouts=timeouts, terminals=np.zeros(ROWS))
    ] == [2] * 4
    assert [len(e) for e in load(tmp_path, timeouts=timeouts)] == [4, 7]  # by terminals alone
    assert [len(e) for e in load(tmp_path, ReadOptions(horizon=100), timeouts=timeouts)] == [4, 7]


def test_marked_timeouts_make_the_horizon_unnecessary(tmp_path):
    assert [len(e) for e in load(tmp_path, ReadOptions(horizon=2))] == [4, 4, 2]


def test_files_without_any_end_ask_for_the_horizon(tmp_path):
    with pytest.raises(
        ValueError,
        match=(
            r"flat.hdf5: no row of its 12 is marked .* with --horizon \(in training "
            r"--data.horizon\)"
        ),
    ):
        load(tmp_path, terminals=np.zeros(ROWS), timeouts=None)
    assert (
        len(load(tmp_path, ReadOptions(horizon=50), terminals=np.arange(ROWS) == 11, timeouts=None))
        == 1
    )
    with pytest.raises(ValueError, match="the horizon must be at least 1 step, got 0"):
        load(tmp_path, ReadOptions(horizon=0), timeouts=None)


def test_columns_and_integers(tmp_path):
    expected = load(tmp_path)
    arrays = flat()
    columns = {
        name: arrays[name].astype(np.int64)[:, None]
        for name in ("rewards", "terminals", "timeouts")
    }
    for got, episode in zip(load(tmp_path, **columns), expected, strict=True):
        np.testing.assert_array_equal(got.rewards, episode.rewards)
        assert got.rewards.dtype == np.float32 and got.terminated is episode.terminated


def test_episodes_of_one_row(tmp_path):
    """A true end is a step; a timeout without a next observation is not."""
    every = np.ones(ROWS)
    episodes = load(tmp_path, terminals=every)
    assert [len(e) for e in episodes] == [1] * ROWS and all(e.terminated for e in episodes)
    with pytest.raises(
        ValueError, match=r"flat.hdf5: every row ends an episode and none has a next observation"
    ):
        load(tmp_path, terminals=np.zeros(ROWS), timeouts=every)
    assert [len(e) for e in load(tmp_path, timeouts=np.isin(np.arange(ROWS), (4, 5)))] == [4, 5]
    arrays = flat()
    assert [
        len(e) for e in load(tmp_path, timeouts=every, next_observations=following(arrays))
    ] == [1] * ROWS


def test_images_stay_bytes(tmp_path):
    frames = np.random.default_rng(0).integers(256, size=(ROWS, 4, 4, 3), dtype=np.uint8)
    episode = load(tmp_path, observations=frames)[1]
    assert (
        list(episode.observations) == ["image"] and episode.observations["image"].dtype == np.uint8
    )
    np.testing.assert_array_equal(episode.observations["image"], frames[4:9])


def test_compressed_files_and_late_reading(tmp_path):
    expected = load(tmp_path)
    path = write(tmp_path / "packed.hdf5", flat(), compression="gzip", chunks=True)
    records = list(read_records(path))
    for record, episode in zip(reversed(records), reversed(expected), strict=True):
        got = record.read()
        np.testing.assert_array_equal(got.observations["state"], episode.observations["state"])
        np.testing.assert_array_equal(got.infos["qpos"], episode.infos["qpos"])


def test_the_file_is_closed_afterwards(tmp_path):
    """HDF5 refuses to write to a file that is still open for reading."""
    path = write(tmp_path / "flat.hdf5", flat())
    load_episodes(path, 1)
    records = list(read_records(path))
    records[1].read()
    with h5py.File(path, "a") as root:
        root["rewards"][...] = 5.0
    assert records[1].read().rewards.tolist() == [5.0] * 4


BAD = {
    "no actions": (
        {"actions": None},
        "actions is missing; found infos, metadata, observations, rewards",
    ),
    "no rewards or terminals": (
        {"rewards": None, "terminals": None},
        "rewards, terminals is missing; found",
    ),
    "empty": ({name: value[:0] for name, value in flat().items()}, "actions has no rows"),
    "short rewards": ({"rewards": np.zeros(5)}, "rewards has 5 rows, actions has 12"),
    "long timeouts": ({"timeouts": np.zeros(13)}, "timeouts has 13 rows, actions has 12"),
    "short qpos": ({"infos__qpos": np.zeros((2, 4))}, "infos/qpos has 2 rows, actions has 12"),
    "long observations": (
        {"observations": np.zeros((13, 3))},
        "observations has 13 rows, actions has 12",
    ),
    "wide next": (
        {"next_observations": np.zeros((12, 4))},
        r"next_observations has shape \(12, 4\), observations has",
    ),
    "wide terminals": (
        {"terminals": np.zeros((12, 2))},
        r"terminals has shape \(12, 2\), expected one number per",
    ),
    "NaN terminals": ({"terminals": np.full(12, np.nan)}, "terminals row 0 holds NaN or infinity"),
    "text": ({"observations": ["a"] * 12}, "observations is not an array of numbers"),
    "a number": ({"rewards": 1.0}, "rewards is not an array of numbers with one row per step"),
    "a group": ({"rewards": None, "rewards__sum": np.zeros(12)}, "rewards is not an array"),
}
BAD_EPISODES = {
    "NaN observation": (
        {"observations": np.full((12, 3), np.nan)},
        r"observations\['state'\] row 0 holds NaN",
    ),
    "NaN reward": ({"rewards": np.full(12, np.nan)}, "rewards row 0 holds NaN or infinity"),
    "out of range": (
        {"actions": np.full((12, 2), -3.0)},
        r"actions row 0 reaches 3, outside \[-1, 1\]",
    ),
    "flat actions": (
        {"actions": np.zeros(12)},
        r"actions has shape \(4,\), expected \[steps, action dimensions\]",
    ),
    "wide rewards": (
        {"rewards": np.zeros((12, 3))},
        r"rewards has shape \(4, 3\), expected one number per step",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named(tmp_path, name):
    changes, message = BAD[name]
    path = write(tmp_path / "bad.hdf5", flat(**changes))
    with pytest.raises(ValueError, match=f"bad.hdf5: {message}"):
        load_episodes(path, format_name="d4rl")


@pytest.mark.parametrize("name", BAD_EPISODES)
def test_bad_episodes_are_named(tmp_path, name):
    changes, message = BAD_EPISODES[name]
    with pytest.raises(ValueError, match=f"flat.hdf5, episode 0: {message}"):
        load(tmp_path, **changes)


def test_one_bad_episode_does_not_hide_the_others(tmp_path):
    observations = flat()["observations"]
    observations[5] = np.inf
    path, said = write(tmp_path / "bad.hdf5", flat(observations=observations)), []
    assert [len(e) for e in load_episodes(path, skip_bad=True, say=said.append)] == [4, 2]
    assert (
        said[0]
        == "skipped episode 1: observations['state'] row 1 holds NaN or infinity. Remove or repair "
        "the episode."
    )


def test_it_is_told_from_the_other_hdf5_formats(tmp_path):
    minari = tmp_path / "main_data.hdf5"
    with h5py.File(minari, "w") as root:
        root["episode_0/observations"] = np.zeros((3, 2))
        root["episode_0/actions"] = np.zeros((2, 2))
    assert not FORMATS["d4rl"].matches(minari) and not FORMATS["robomimic"].matches(minari)
    with pytest.raises(
        ValueError, match=r"observations, actions, rewards, terminals is missing; found episode_0"
    ):
        load_episodes(minari, format_name="d4rl")
    flat_file = write(tmp_path / "flat.hdf5", flat())
    assert FORMATS["d4rl"].matches(flat_file) and not FORMATS["robomimic"].matches(flat_file)
    with pytest.raises(FileNotFoundError, match="no data file at"):
        list(FORMATS["d4rl"].records(tmp_path, ReadOptions()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{}, {"compression": "gzip", "fletcher32": True, "chunks": True}])
def test_damaged_files_are_refused_or_harmless(tmp_path, kind):
    """Plain arrays have no checksums, so a flipped bit may change a number; it never ends in
    anything but that."""
    good = write(tmp_path / "good.hdf5", flat(), **kind).read_bytes()
    rng, refused = np.random.default_rng(0), 0
    path = tmp_path / "damaged.hdf5"
    for position in rng.integers(len(good), size=80):
        altered = bytearray(good)
        altered[position] ^= 1 << int(rng.integers(8))
        path.unlink(missing_ok=True)
        path.write_bytes(altered if rng.random() < 0.8 else altered[: max(position, 8)])
        try:
            episodes = load_episodes(path, format_name="d4rl")
        except ValueError as error:
            assert "damaged.hdf5" in str(error)
            refused += 1
        else:
            assert all(np.isfinite(e.observations["state"]).all() for e in episodes)
    assert refused > 15
