"""Archives of episodes: round trips, the recorded data beside the repository, and files that are
not what they say."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from exporl.data.episodes import Episode, fingerprint, validate_episodes
from exporl.data.formats import ReadOptions, load_npz, read_records, save_npz
from exporl.envs.metaworld import SPEC as METAWORLD
from helpers.episodes import random_episode

SHARED = Path(__file__).parents[2] / "shared" / "data"


def same_episodes(got: list[Episode], expected: list[Episode]) -> None:
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.observations.keys() == b.observations.keys()
        assert a.terminated is b.terminated
        fields = [(a.observations[name], b.observations[name]) for name in b.observations]
        for x, y in [
            *fields,
            (a.actions, b.actions),
            (a.rewards, b.rewards),
            (a.successes, b.successes),
        ]:
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
    assert fingerprint(got) == fingerprint(expected)


EPISODES = [
    random_episode(5, seed=1),
    random_episode(1, seed=2, terminated=False),
    random_episode(3, seed=3),
]


def flat(**changes) -> dict[str, np.ndarray]:
    """Two episodes of 2 and 3 steps in the flat layout; None leaves an array out."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(7, 3))  # in the order of time: the first episode has three of them
    arrays = {
        "observations": states[[0, 1, 3, 4, 5]],
        "next_observations": states[[1, 2, 4, 5, 6]],
        "actions": rng.uniform(-1, 1, (5, 2)),
        "rewards": np.array([0, 1, 0, 0, 0], np.float32),
        "terminals": np.array([0, 1, 0, 0, 0], np.float32),
        "episode_ends": np.array([2, 5]),
    } | changes
    return {name: array for name, array in arrays.items() if array is not None}


def load_flat(folder: Path, **changes) -> list[Episode]:
    np.savez(folder / "flat.npz", **flat(**changes))
    return load_npz(folder / "flat.npz")


@pytest.mark.parametrize("images", [False, True])
def test_round_trip(tmp_path, images):
    episodes = [
        random_episode(n, seed=n, terminated=n != 4, image=(4, 4, 1) if images else None)
        for n in (5, 1, 4)
    ]
    path = tmp_path / "new" / "folder" / "episodes.npz"
    save_npz(path, episodes)
    same_episodes(load_npz(path), episodes)
    assert [file.name for file in path.parent.iterdir()] == ["episodes.npz"]


@pytest.mark.parametrize("name", ["image", "state"])
def test_round_trip_of_a_single_entry(tmp_path, name):
    episodes = [random_episode(3, image=(4, 4, 1))]
    episodes = [
        Episode({name: e.observations[name]}, e.actions, e.rewards, e.successes, True)
        for e in episodes
    ]
    save_npz(tmp_path / "one.npz", episodes)
    same_episodes(load_npz(tmp_path / "one.npz"), episodes)


def test_limit_takes_the_first_episodes(tmp_path):
    save_npz(tmp_path / "all.npz", EPISODES)
    same_episodes(load_npz(tmp_path / "all.npz", 2), EPISODES[:2])
    same_episodes(load_npz(tmp_path / "all.npz", 9), EPISODES)


def test_others_may_read_what_was_written(tmp_path):
    (tmp_path / "plain").write_text("")
    save_npz(tmp_path / "data.npz", EPISODES)
    assert (tmp_path / "data.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("where", ["shutil.copyfileobj", "os.replace", "os.fsync"])
@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch, where, existing):
    path = tmp_path / "episodes.npz"
    if existing:
        save_npz(path, EPISODES[:1])

    def fail(*args, **kwargs):
        if where == "shutil.copyfileobj":
            args[1].write(b"half of it")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        with pytest.raises(OSError, match="disk full"):
            save_npz(path, EPISODES)
    assert list(tmp_path.iterdir()) == ([path] if existing else [])
    if existing:
        same_episodes(load_npz(path), EPISODES[:1])


def test_flat_layout(tmp_path):
    arrays = flat()
    first, second = load_flat(tmp_path)
    assert (len(first), len(second), first.terminated, second.terminated) == (2, 3, True, False)
    expected = np.concatenate([arrays["observations"][2:5], arrays["next_observations"][4:5]])
    np.testing.assert_array_equal(second.observations["state"], expected)
    np.testing.assert_array_equal(first.actions, arrays["actions"][:2].astype(np.float32))
    np.testing.assert_array_equal(first.rewards, [0, 1])


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({}, [[False, True], [False, False, False]]),
        ({"success": np.array([False, True])}, [[False, False], [False, False, True]]),
        ({"successes": np.array([1, 0, 0, 1, 0])}, [[True, False], [False, True, False]]),
        (
            {"successes": np.array([1, 0, 0, 1, 0]), "success": np.zeros(2)},
            [[True, False], [False, True, False]],
        ),
    ],
)
def test_where_success_comes_from(tmp_path, arrays, expected):
    assert [e.successes.tolist() for e in load_flat(tmp_path, **arrays)] == expected


def test_columns_and_integer_types(tmp_path):
    changes = {
        "rewards": np.array([[0], [1], [0], [0], [0]], np.int64),
        "terminals": np.array([[False], [True], [False], [False], [False]]),
        "episode_ends": np.array([[2.0], [5.0]]),
    }
    same_episodes(load_flat(tmp_path, **changes), load_flat(tmp_path))


def test_one_step_episodes(tmp_path):
    episodes = load_flat(tmp_path, episode_ends=np.arange(1, 6))
    assert [len(e) for e in episodes] == [1] * 5
    assert [e.terminated for e in episodes] == [False, True, False, False, False]
    arrays = flat()
    for t, e in enumerate(episodes):
        expected = np.stack([arrays["observations"][t], arrays["next_observations"][t]])
        np.testing.assert_array_equal(e.observations["state"], expected)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no data file at .*nowhere\.npz"):
        load_npz(tmp_path / "nowhere.npz")
    with pytest.raises(FileNotFoundError, match="no data file at"):
        load_npz(tmp_path)


NOT_ARCHIVES = {
    "empty": b"",
    "text": b"observations,actions\n0.5,0.1\n",
    "zeros": bytes(1000),
    "zip without its directory": b"PK\x03\x04" + bytes(200),
}


@pytest.mark.parametrize("name", NOT_ARCHIVES)
def test_not_an_archive(tmp_path, name):
    path = tmp_path / "broken.npz"
    path.write_bytes(NOT_ARCHIVES[name])
    with pytest.raises(ValueError, match=r"broken.npz is not a readable .npz archive"):
        load_npz(path)


def test_a_single_array_is_not_an_archive(tmp_path):
    with (tmp_path / "broken.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"broken.npz is not a readable .npz archive"):
        load_npz(tmp_path / "broken.npz")


def test_truncated_files_are_refused(tmp_path):
    path = tmp_path / "cut.npz"
    save_npz(path, EPISODES)
    content = path.read_bytes()
    for length in [*range(0, len(content), 101), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut.npz is not a readable .npz archive"):
            load_npz(path)


@pytest.mark.slow
def test_flipped_bits_are_refused_or_harmless(tmp_path):
    path, rng, refused = tmp_path / "flipped.npz", np.random.default_rng(0), 0
    save_npz(path, EPISODES)
    content = path.read_bytes()
    for position in rng.integers(len(content), size=300):
        altered = bytearray(content)
        altered[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(altered)
        try:
            episodes = load_npz(path)
        except ValueError as error:
            assert "flipped.npz" in str(error)
            refused += 1
        else:
            same_episodes(episodes, EPISODES)
    assert refused > 150


def test_pickles_are_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "sprung").touch, ())

    with pytest.raises(
        ValueError, match=r"flat\.npz is not a readable \.npz archive .*allow_pickle"
    ):
        load_flat(tmp_path, actions=np.array([Trap()] * 5, object))
    assert not (tmp_path / "sprung").exists()


BAD_ARRAYS = {
    "no actions": ({"actions": None}, "flat.npz lacks actions; it has episode_ends, "),
    "no ends or rewards": (
        {"episode_ends": None, "rewards": None},
        "flat.npz lacks rewards, episode_ends; it has",
    ),
    "no observations": ({"observations": None}, "flat.npz lacks observations; it has"),
    "no next observations": (
        {"next_observations": None},
        "flat.npz lacks next_observations; it has",
    ),
    "no next image": (
        {"observations": None, "observations/image": np.zeros((5, 2))},
        "flat.npz lacks next_observations/image; it has",
    ),
    "short rewards": ({"rewards": np.zeros(4)}, "flat.npz: rewards has 4 rows, actions have 5"),
    "long terminals": (
        {"terminals": np.zeros(6)},
        "flat.npz: terminals has 6 rows, actions have 5",
    ),
    "short observations": ({"observations": np.zeros((4, 3))}, "flat.npz: observations has 4 rows"),
    "long next observations": (
        {"next_observations": np.zeros((7, 3))},
        "flat.npz: next_observations has 7 rows",
    ),
    "short successes": (
        {"successes": np.zeros(2)},
        "flat.npz: successes has 2 rows, actions have 5",
    ),
    "short success": ({"success": np.zeros(1)}, "flat.npz: success has 1 rows for 2 episodes"),
    "long success": ({"success": np.zeros(3)}, "flat.npz: success has 3 rows for 2 episodes"),
    "a number for actions": (
        {"actions": np.array(0.5)},
        "flat.npz: rewards has 5 rows, actions have 1",
    ),
}
BAD_ENDS = {
    "empty": [],
    "too early": [2, 4],
    "too late": [2, 6],
    "falling": [4, 2, 5],
    "an empty episode": [2, 2, 5],
    "starting at zero": [0, 5],
    "negative": [-1, 5],
    "fractions": [2.5, 5],
    "NaN": [float("nan"), 5],
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_missing_and_unequal_arrays_are_named(tmp_path, name):
    changes, message = BAD_ARRAYS[name]
    with pytest.raises(ValueError, match=message):
        load_flat(tmp_path, **changes)


@pytest.mark.parametrize("name", BAD_ENDS)
def test_bad_episode_ends(tmp_path, name):
    with pytest.raises(
        ValueError, match="episode_ends must rise from above 0 to the number of steps, 5"
    ):
        load_flat(tmp_path, episode_ends=np.array(BAD_ENDS[name]))


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no recorded data at {SHARED}")
@pytest.mark.parametrize(
    ("task", "success"),
    [("peg-insert-side", 0.78), ("push", 0.88), ("assembly", 0.58), ("door-open", 0.94)],
)
def test_recorded_metaworld_data(task, success):
    path = SHARED / "metaworld" / f"{task}-v3-mixed.npz"
    episodes = load_npz(path)
    assert len(episodes) == 50
    validate_episodes(episodes, METAWORLD, str(path))
    assert np.mean([e.success for e in episodes]) == pytest.approx(success)
    for e in episodes:
        assert len(e) == 200 or e.terminated
        assert e.successes[:-1].sum() == 0
        assert e.terminated == e.success
    with np.load(path) as archive:
        assert sum(len(e) for e in episodes) == len(archive["actions"])
        np.testing.assert_array_equal(
            np.concatenate([e.actions for e in episodes]), archive["actions"]
        )


def test_only_the_entries_asked_for_in_that_order(tmp_path):
    save_npz(tmp_path / "both.npz", [random_episode(3, image=(4, 4, 1))])

    def read(*keys):
        return next(read_records(tmp_path / "both.npz", options=ReadOptions(keys=keys))).read()

    assert list(read("image", "state").observations) == ["image", "state"]
    assert list(read("image").observations) == ["image"]
    with pytest.raises(
        ValueError, match=r"both.npz lacks observations/depth; it has .*observations/image"
    ):
        read("image", "depth")


def test_further_arrays_survive_a_round_trip(tmp_path):
    episodes = [
        dataclasses.replace(
            e, infos={"qpos": np.arange(2.0 * len(e) + 2).reshape(-1, 2), "step": np.arange(len(e))}
        )
        for e in EPISODES
    ]
    save_npz(tmp_path / "infos.npz", episodes)
    for got, expected in zip(load_npz(tmp_path / "infos.npz"), episodes, strict=True):
        assert got.infos.keys() == expected.infos.keys()
        for name, value in expected.infos.items():
            np.testing.assert_array_equal(got.infos[name], value)
    with pytest.raises(ValueError, match=r"flat.npz: infos/qpos has 6 rows for 5 steps"):
        load_flat(tmp_path, **{"infos/qpos": np.zeros(6)})


def test_episodes_are_written_one_at_a_time(tmp_path):
    save_npz(tmp_path / "stream.npz", (e for e in EPISODES))
    same_episodes(load_npz(tmp_path / "stream.npz"), EPISODES)
    save_npz(tmp_path / "again.npz", EPISODES)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "stream.npz").read_bytes()


def test_episodes_that_do_not_go_together(tmp_path):
    other = Episode(
        {"state": np.zeros((3, 4), np.float32)},
        np.zeros((2, 2)),
        np.zeros(2),
        np.zeros(2, bool),
        True,
    )
    with pytest.raises(
        ValueError,
        match=r"observations is float32 \(4,\) in one episode and float32 \(3,\) in those",
    ):
        save_npz(tmp_path / "mixed.npz", [*EPISODES, other])
    with pytest.raises(ValueError, match=r"episode 1 has .*observations/image.*those before have"):
        save_npz(tmp_path / "mixed.npz", [random_episode(2), random_episode(2, image=(4, 4, 1))])
    with pytest.raises(ValueError, match=r"no episodes to write to .*mixed\.npz"):
        save_npz(tmp_path / "mixed.npz", [])
    assert list(tmp_path.iterdir()) == []


def test_rows_of_different_shapes(tmp_path):
    with pytest.raises(
        ValueError, match="observations and next_observations have rows of different shapes"
    ):
        load_flat(tmp_path, next_observations=np.zeros((5, 2)))


def test_a_recording_of_observations_and_actions_alone(tmp_path):
    """Two episodes of 3 and 2 rows: 2 and 1 steps whose outcome is known, none of them a true
    end."""
    arrays = {
        "observations": np.arange(10, dtype=np.float32).reshape(5, 2),
        "actions": np.full((5, 1), 0.5, np.float32),
        "rewards": np.array([0, 1, 9, 0, 9], np.float32),
        "episode_ends": np.array([3, 5]),
    }
    np.savez(tmp_path / "bare.npz", **arrays)
    first, second = load_npz(tmp_path / "bare.npz")
    np.testing.assert_array_equal(first.observations["state"], arrays["observations"][:3])
    np.testing.assert_array_equal(second.observations["state"], arrays["observations"][3:])
    assert (len(first), len(second)) == (2, 1) and not (first.terminated or second.terminated)
    np.testing.assert_array_equal(first.rewards, [0, 1])
    assert first.success and not second.success
    np.savez(tmp_path / "short.npz", **arrays | {"episode_ends": np.array([4, 5])})
    with pytest.raises(
        ValueError, match=r"short.npz has an episode of one step and no next_observations"
    ):
        load_npz(tmp_path / "short.npz")


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside the repository")
def test_teleoperated_demonstrations_are_read():
    episodes = load_npz(SHARED / "adroit" / "door-human.npz")
    assert len(episodes) == 25 and sum(len(e) for e in episodes) == 6_729 - 25
