"""OGBench archives: the recorded ones beside the repository, the compact form, odd forms, and
damage."""

from pathlib import Path

import numpy as np
import pytest

from exporl.data.episodes import Episode
from exporl.data.formats import FORMATS, ReadOptions, find_format, load_episodes, read_records

SHARED = Path(__file__).parents[2] / "shared" / "data" / "ogbench"
ROWS = 9


def flat(**changes) -> dict[str, np.ndarray]:
    """Trajectories of 4 and 5 states; None leaves an array out."""
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.normal(size=(ROWS, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
        "terminals": np.isin(np.arange(ROWS), (3, 8)),
        "qpos": rng.normal(size=(ROWS, 6)),
        "button_states": rng.integers(2, size=(ROWS, 4)),
    } | changes
    return {name: array for name, array in arrays.items() if array is not None}


def load(folder: Path, **changes) -> list[Episode]:
    np.savez_compressed(folder / "play.npz", **flat(**changes))
    return load_episodes(folder / "play.npz")


def same(got: list[Episode], expected: list[Episode]) -> None:
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a.observations["state"], b.observations["state"])
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.infos["qpos"], b.infos["qpos"])
        assert a.infos.keys() == b.infos.keys()


def test_the_marked_state_is_the_last_of_its_trajectory(tmp_path):
    arrays = flat()
    first, second = load(tmp_path)
    assert find_format(tmp_path / "play.npz").name == "ogbench"
    assert (len(first), len(second)) == (3, 4)
    np.testing.assert_array_equal(first.observations["state"], arrays["observations"][:4])
    np.testing.assert_array_equal(second.observations["state"], arrays["observations"][4:])
    # the last state's action leads nowhere
    np.testing.assert_array_equal(second.actions, arrays["actions"][4:8])
    for episode in (first, second):
        assert not episode.terminated and not episode.success and not episode.rewards.any()
        assert episode.rewards.shape == episode.successes.shape == (len(episode),)
    np.testing.assert_array_equal(second.infos["qpos"], arrays["qpos"][4:])
    np.testing.assert_array_equal(second.infos["button_states"], arrays["button_states"][4:])


def test_the_compact_form(tmp_path):
    expected = load(tmp_path)
    marks = np.isin(np.arange(ROWS), (2, 3, 7, 8))
    valids = 1.0 - np.isin(np.arange(ROWS), (3, 8))
    same(load(tmp_path, terminals=marks.astype(np.float32), valids=valids), expected)


def test_the_end_of_the_file_ends_a_trajectory(tmp_path):
    assert [len(e) for e in load(tmp_path, terminals=np.arange(ROWS) == 3)] == [3, 4]


def test_rewards_are_read_where_there_are_some(tmp_path):
    rewards = np.array([[0], [0], [1], [9], [0], [0], [0], [0], [9]])
    first, second = load(tmp_path, rewards=rewards)
    assert first.rewards.tolist() == [0, 0, 1] and first.successes.tolist() == [False, False, True]
    assert not second.success and "rewards" not in second.infos


def test_images_stay_bytes(tmp_path):
    frames = np.random.default_rng(0).integers(256, size=(ROWS, 8, 8, 3), dtype=np.uint8)
    episode = load(tmp_path, observations=frames)[1]
    assert list(episode.observations) == ["image"]
    assert episode.observations["image"].dtype == np.uint8
    np.testing.assert_array_equal(episode.observations["image"], frames[4:])


def test_columns_and_one_step(tmp_path):
    terminals = np.isin(np.arange(ROWS), (1, 3, 8)).astype(np.int64)[:, None]
    assert [len(e) for e in load(tmp_path, terminals=terminals)] == [1, 1, 4]


def test_arrays_are_held_once(tmp_path):
    np.savez(tmp_path / "play.npz", **flat())
    episodes = [record.read() for record in read_records(tmp_path / "play.npz")]
    for get in (lambda e: e.observations["state"], lambda e: e.actions, lambda e: e.infos["qpos"]):
        bases = [get(e).base for e in episodes]
        assert bases[0] is not None and bases[0] is bases[1]


BAD = {
    "no terminals": (
        {"terminals": None},
        "terminals is missing; found actions, button_states, observations, qpos",
    ),
    "no observations": (
        {"observations": None, "actions": None},
        "observations, actions is missing; found",
    ),
    "no end": (
        {"terminals": np.zeros(ROWS)},
        "no row of its 9 is marked in terminals as the last of a trajectory",
    ),
    "no end, compact": (
        {"valids": np.ones(ROWS)},
        "no row of its 9 is marked in valids as the last of a trajectory",
    ),
    "empty": ({name: value[:0] for name, value in flat().items()}, "actions has no rows"),
    "short observations": (
        {"observations": np.zeros((8, 3))},
        "observations has 8 rows, actions has 9",
    ),
    "long qpos": ({"qpos": np.zeros((10, 3))}, "qpos has 10 rows, actions has 9"),
    "wide terminals": (
        {"terminals": np.zeros((9, 2))},
        r"terminals has shape \(9, 2\), expected one number per step",
    ),
    "NaN terminals": (
        {"terminals": np.r_[np.zeros(8), np.nan]},
        "terminals row 8 holds NaN or infinity",
    ),
    "text": ({"qpos": np.array(["a"] * 9)}, "qpos is not an array of numbers"),
    "complex": ({"actions": np.zeros((9, 2), complex)}, "actions is not an array of numbers"),
}
BAD_EPISODES = {
    "one state": ({"terminals": np.ones(9)}, "a single state without a step"),
    "NaN observation": (
        {"observations": np.full((9, 3), np.nan)},
        r"observations\['state'\] row 0 holds NaN",
    ),
    "NaN action": ({"actions": np.full((9, 2), np.nan)}, "actions row 0 holds NaN or infinity"),
    "out of range": (
        {"actions": np.full((9, 2), 1.25)},
        r"actions row 0 reaches 1.25, outside \[-1, 1\]",
    ),
    "flat actions": (
        {"actions": np.zeros(9)},
        r"actions has shape \(3,\), expected \[steps, action dimensions\]",
    ),
    "wide rewards": (
        {"rewards": np.zeros((9, 2))},
        r"rewards has shape \(3, 2\), expected one number per step",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named(tmp_path, name):
    changes, message = BAD[name]
    np.savez(tmp_path / "bad.npz", **flat(**changes))
    with pytest.raises(ValueError, match=f"bad.npz: {message}"):
        load_episodes(tmp_path / "bad.npz", format_name="ogbench")


@pytest.mark.parametrize("name", BAD_EPISODES)
def test_bad_trajectories_are_named(tmp_path, name):
    changes, message = BAD_EPISODES[name]
    with pytest.raises(ValueError, match=f"play.npz, trajectory 0: {message}"):
        load(tmp_path, **changes)


def test_one_bad_trajectory_does_not_hide_the_others(tmp_path):
    actions = flat()["actions"]
    actions[1] = np.inf
    np.savez(tmp_path / "bad.npz", **flat(actions=actions))
    assert [len(e) for e in load_episodes(tmp_path / "bad.npz", skip_bad=True)] == [4]


def test_it_is_told_from_plain_archives(tmp_path):
    np.savez(tmp_path / "plain.npz", **flat(episode_ends=np.array([4, 9])))
    assert not FORMATS["ogbench"].matches(tmp_path / "plain.npz")
    assert find_format(tmp_path / "plain.npz").name == "arrays"
    np.savez(tmp_path / "d4rl-like.npz", **flat(next_observations=np.zeros((ROWS, 3))))
    with pytest.raises(ValueError, match="is in no known format"):
        find_format(tmp_path / "d4rl-like.npz")
    with pytest.raises(FileNotFoundError, match="no data file at"):
        list(FORMATS["ogbench"].records(tmp_path / "nowhere.npz", ReadOptions()))


def test_damaged_files_are_refused_or_harmless(tmp_path):
    expected = load(tmp_path)
    good = (tmp_path / "play.npz").read_bytes()
    rng, refused, path = np.random.default_rng(0), 0, tmp_path / "damaged.npz"
    for position in rng.integers(len(good), size=150):
        altered = bytearray(good)
        altered[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(altered if rng.random() < 0.8 else altered[:position])
        for record in FORMATS.values():
            record.matches(path)
        try:
            episodes = load_episodes(path, format_name="ogbench")
        except ValueError as error:
            assert "damaged.npz" in str(error)
            refused += 1
        else:
            same(episodes, expected)
    assert refused > 100


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no recorded data at {SHARED}")
@pytest.mark.parametrize(
    ("name", "trajectories", "observation", "action", "qpos"),
    [
        ("antmaze-medium-navigate-60ep", 60, 29, 8, 15),
        ("cube-single-play-20ep", 20, 28, 5, 21),
        ("cube-single-play-20ep-val", 2, 28, 5, 21),
    ],
)
def test_recorded_data(name, trajectories, observation, action, qpos):
    episodes = load_episodes(SHARED / f"{name}.npz")
    assert [len(e) for e in episodes] == [1000] * trajectories
    for e in episodes:
        assert e.observations["state"].shape == (1001, observation) and e.actions.shape == (
            1000,
            action,
        )
        assert e.infos["qpos"].shape == (1001, qpos) and e.infos["qvel"].shape == (1001, qpos - 1)
