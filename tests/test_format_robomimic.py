"""robomimic files: as robomimic, MimicGen and this library write them, in odd forms, and
damaged."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from exporl.data.episodes import Episode, fingerprint
from exporl.data.formats import (
    FORMATS,
    ReadOptions,
    find_format,
    hdf5,
    load_episodes,
    read_records,
    robomimic,
)
from exporl.data.formats.robomimic import read_env_args, read_model_file, write_robomimic

h5py = pytest.importorskip("h5py")
KEYS = {"object": 10, "robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}


def demonstration(steps: int, seed: int = 0) -> dict[str, np.ndarray]:
    """The arrays of a demonstration as robomimic's observation extraction writes them: float64,
    success at the end."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for key, size in KEYS.items():
        values = rng.normal(size=(steps + 1, size))
        arrays |= {f"obs/{key}": values[:-1], f"next_obs/{key}": values[1:]}
    arrays["actions"] = rng.uniform(-1, 1, (steps, 7))
    arrays["states"] = rng.normal(size=(steps, 32))
    arrays["rewards"] = np.r_[np.zeros(steps - 1), 1.0]
    arrays["dones"] = np.r_[np.zeros(steps - 1, np.int64), 1]
    return arrays


def write(
    path: Path, demonstrations: dict[str, dict], masks: dict | None = None, **attributes
) -> Path:
    """A file with robomimic's layout; an array that is None is left out."""
    with h5py.File(path, "w") as root:
        data = root.create_group("data")
        data.attrs["total"] = 0
        data.attrs["env_args"] = json.dumps(
            {"env_name": "Lift", "type": 1, "env_kwargs": {"robots": ["Panda"]}}
        )
        for name, arrays in demonstrations.items():
            demo = data.create_group(name)
            demo.attrs["model_file"] = f"<mujoco model='{name}'/>"
            demo.attrs["num_samples"] = (
                len(arrays["actions"]) if arrays.get("actions") is not None else 0
            )
            for attribute, value in attributes.items():
                demo.attrs[attribute] = value
            for key, array in arrays.items():
                if array is not None:
                    demo[key] = array
        for key, names in (masks or {}).items():
            root[f"mask/{key}"] = names
    return path


def one(
    tmp_path: Path, steps: int = 4, options: ReadOptions | None = None, attributes=None, **changes
) -> Episode:
    """Reads a demonstration with arrays exchanged, `obs__object` standing for obs/object."""
    arrays = demonstration(steps) | {
        name.replace("__", "/"): value for name, value in changes.items()
    }
    write(tmp_path / "one.hdf5", {"demo_0": arrays}, **(attributes or {}))
    return load_episodes(tmp_path / "one.hdf5", options=options)[0]


def without_next(steps: int = 4) -> dict[str, None]:
    return {f"next_obs__{key}": None for key in KEYS}


def test_a_file_of_robomimic(tmp_path):
    arrays = demonstration(5)
    episode = one(tmp_path, 5)
    assert find_format(tmp_path / "one.hdf5").name == "robomimic"
    assert list(episode.observations) == list(KEYS)
    for key in KEYS:
        expected = np.concatenate([arrays[f"obs/{key}"], arrays[f"next_obs/{key}"][-1:]]).astype(
            np.float32
        )
        np.testing.assert_array_equal(episode.observations[key], expected)
        assert episode.observations[key].dtype == np.float32
    np.testing.assert_array_equal(episode.actions, arrays["actions"].astype(np.float32))
    assert episode.rewards.tolist() == [0, 0, 0, 0, 1] and episode.successes.tolist() == [
        False
    ] * 4 + [True]
    assert episode.terminated
    np.testing.assert_array_equal(episode.infos["states"], arrays["states"])
    assert episode.infos["states"].dtype == np.float64  # a simulator needs them as they were


def test_the_environment_and_the_model_are_kept(tmp_path):
    path = write(tmp_path / "lift.hdf5", {"demo_3": demonstration(2)})
    assert read_env_args(path) == {
        "env_name": "Lift",
        "type": 1,
        "env_kwargs": {"robots": ["Panda"]},
    }
    assert read_model_file(path, "demo_3") == "<mujoco model='demo_3'/>"
    with pytest.raises(ValueError, match=r"lift.hdf5: there is no group 'demo_0'; found demo_3"):
        read_model_file(path, "demo_0")
    with h5py.File(path, "a") as root:
        root["data"].attrs["env_args"] = "{"
    with pytest.raises(ValueError, match=r"lift.hdf5: env_args of group data is not JSON"):
        read_env_args(path)
    with h5py.File(path, "a") as root:
        root["data"].attrs["env_args"] = "[1]"
    with pytest.raises(ValueError, match=r"lift.hdf5: env_args of group data is not a JSON object"):
        read_env_args(path)
    with h5py.File(path, "a") as root:
        del root["data"].attrs["env_args"], root["data/demo_3"].attrs["model_file"]
    assert read_env_args(path) == {} and read_model_file(path, "demo_3") is None


def test_demonstrations_come_in_numeric_order(tmp_path):
    lengths = {"demo_10": 3, "demo_2": 4, "demo_1": 5, "demo_0": 2}
    path = write(tmp_path / "f.hdf5", {name: demonstration(n) for name, n in lengths.items()})
    assert [record.name for record in read_records(path)] == [
        "demo_0",
        "demo_1",
        "demo_2",
        "demo_10",
    ]
    assert [len(e) for e in load_episodes(path, 3)] == [2, 5, 4]


@pytest.mark.parametrize("kind", ["S", "O"])
def test_filter_keys(tmp_path, kind):
    names = np.array(["demo_2", "demo_0"], dtype="S8" if kind == "S" else h5py.string_dtype())
    demonstrations = {f"demo_{i}": demonstration(i + 2) for i in range(3)}
    path = write(
        tmp_path / "f.hdf5", demonstrations, masks={"better": names, "lost": [b"demo_1", b"demo_9"]}
    )
    assert [len(e) for e in load_episodes(path, options=ReadOptions(filter_key="better"))] == [2, 4]
    with pytest.raises(ValueError, match=r"f.hdf5: no filter key 'train'; found better, lost"):
        load_episodes(path, options=ReadOptions(filter_key="train"))
    with pytest.raises(
        ValueError, match=r"f.hdf5, demo_9: there is no group 'demo_9'; found demo_0, demo_1"
    ):
        load_episodes(path, options=ReadOptions(filter_key="lost"))
    assert len(load_episodes(path, options=ReadOptions(filter_key="lost"), skip_bad=True)) == 1
    bare = write(tmp_path / "bare.hdf5", {"demo_0": demonstration(2)})
    with pytest.raises(ValueError, match=r"bare.hdf5: there is no group 'mask'; found data"):
        load_episodes(bare, options=ReadOptions(filter_key="train"))
    odd = write(tmp_path / "odd.hdf5", {"demo_0": demonstration(2)}, masks={"train/inner": [1]})
    with pytest.raises(ValueError, match=r"odd.hdf5: mask/train is not a readable list of names"):
        load_episodes(odd, options=ReadOptions(filter_key="train"))


def test_missing_next_observations_are_rebuilt(tmp_path):
    """A last step that ended the episode needs no next observation, any other is dropped."""
    arrays = demonstration(4)
    ended = one(tmp_path, 4, **without_next())
    assert len(ended) == 4 and ended.terminated and ended.rewards[-1] == 1
    expected = np.concatenate([arrays["obs/object"], arrays["obs/object"][-1:]]).astype(np.float32)
    np.testing.assert_array_equal(ended.observations["object"], expected)
    cut = one(tmp_path, 4, rewards=np.zeros(4), **without_next())
    assert len(cut) == 3 and not cut.terminated and len(cut.rewards) == len(cut.successes) == 3
    np.testing.assert_array_equal(
        cut.observations["object"], arrays["obs/object"].astype(np.float32)
    )
    np.testing.assert_array_equal(cut.actions, arrays["actions"][:3].astype(np.float32))
    np.testing.assert_array_equal(cut.infos["states"], arrays["states"])  # one per observation


def test_next_observations_of_some_entries_count_as_missing(tmp_path):
    options = ReadOptions(keys=("object", "robot0_eef_pos"))
    partly = {"next_obs__robot0_eef_pos": None, "rewards": np.zeros(4)}
    assert len(one(tmp_path, 4, options, **partly)) == 3
    assert len(one(tmp_path, 4, ReadOptions(keys=("object",)), **partly)) == 4


@pytest.mark.parametrize(
    ("dones", "rewards", "terminated"),
    [([0, 0, 1], [0, 0, 1], True), ([0, 0, 1], [0, 0, 0], False), ([0, 0, 0], [0, 0, 1], False),
     ([0, 1, 1], [0, 1, 1], True), (None, [0, 0, 1], False)],
)  # fmt: skip
def test_a_mark_on_the_last_row_is_an_end_only_with_success(tmp_path, dones, rewards, terminated):
    episode = one(tmp_path, 3, dones=dones, rewards=np.array(rewards, float))
    assert episode.terminated is terminated
    assert episode.successes.tolist() == [r > 0 for r in rewards]


def test_a_file_of_mimicgen(tmp_path):
    """As generated: no rewards, no dones, no next observations, extra groups."""
    changes = without_next() | {
        "rewards": None,
        "dones": None,
        "datagen_info__eef_pose": np.zeros((4, 4, 4)),
    }
    episode = one(tmp_path, 4, **changes)
    assert len(episode) == 3 and episode.rewards.tolist() == [0, 0, 0] and not episode.success
    assert list(episode.observations) == list(KEYS) and list(episode.infos) == ["states"]


def test_chosen_entries_in_the_order_asked_for(tmp_path):
    episode = one(tmp_path, options=ReadOptions(keys=("robot0_gripper_qpos", "object")))
    assert list(episode.observations) == ["robot0_gripper_qpos", "object"]
    with pytest.raises(
        ValueError, match=r"one.hdf5, demo_0: obs/image is missing; found object, robot0_eef_pos"
    ):
        one(tmp_path, options=ReadOptions(keys=("image",)))


def test_images_stay_bytes(tmp_path):
    frames = np.random.default_rng(0).integers(256, size=(5, 8, 8, 3), dtype=np.uint8)
    images = {"obs__agentview_image": frames[:-1], "next_obs__agentview_image": frames[1:]}
    episode = one(tmp_path, 4, **images)
    assert episode.observations["agentview_image"].dtype == np.uint8
    np.testing.assert_array_equal(episode.observations["agentview_image"], frames)


def test_columns_and_one_step(tmp_path):
    episode = one(tmp_path, 1, rewards=np.ones((1, 1)), dones=np.array([[True]]))
    assert len(episode) == 1 and episode.rewards.shape == (1,) and episode.terminated
    assert len(one(tmp_path, 1, **without_next())) == 1
    with pytest.raises(
        ValueError, match=r"one.hdf5, demo_0: next_obs is missing: what followed its only step"
    ):
        one(tmp_path, 1, dones=np.zeros(1), **without_next())


BAD = {
    "no actions": (
        {"actions": None},
        "actions is missing; found dones, next_obs, obs, rewards, states",
    ),
    "no observations": (
        {f"obs__{key}": None for key in KEYS},
        "obs is missing: this is a raw file",
    ),
    "no steps": ({"actions": np.zeros((0, 7))}, "actions has no rows"),
    "flat actions": (
        {"actions": np.zeros(4)},
        r"actions has shape \(4,\), expected \[steps, action dimensions\]",
    ),
    "short rewards": ({"rewards": np.zeros(3)}, "rewards has 3 rows, actions has 4"),
    "wide rewards": (
        {"rewards": np.zeros((4, 2))},
        r"rewards has shape \(4, 2\), expected one number per step",
    ),
    "long dones": ({"dones": np.zeros(6)}, "dones has 6 rows, actions has 4"),
    "short observations": (
        {"obs__object": np.zeros((2, 10))},
        "obs/object has 2 rows, actions has 4",
    ),
    "long next": (
        {"next_obs__object": np.zeros((5, 10))},
        "next_obs/object has 5 rows, actions has 4",
    ),
    "wide next": (
        {"next_obs__object": np.zeros((4, 9))},
        r"next_obs/object has shape \(4, 9\), obs/object has",
    ),
    "short states": ({"states": np.zeros((2, 3))}, "states has 2 rows, actions has 4"),
    "text": ({"obs__object": ["a", "b", "c", "d"]}, "obs/object is not an array of numbers"),
    "a number": ({"rewards": 1.0}, "rewards is not an array of numbers with one row per step"),
    "NaN observation": (
        {"obs__object": np.full((4, 10), np.nan)},
        r"observations\['object'\] row 0 holds NaN",
    ),
    "NaN action": ({"actions": np.full((4, 7), np.nan)}, "actions row 0 holds NaN"),
    "infinite reward": (
        {"rewards": np.array([0, 0, np.inf, 1])},
        "rewards row 2 holds NaN or infinity",
    ),
    "too large for float32": (
        {"rewards": np.array([0, 0, 1e300, 1])},
        "rewards row 2 holds NaN or infinity",
    ),
    "action out of range": (
        {"actions": np.full((4, 7), 1.5)},
        r"actions row 0 reaches 1.5, outside \[-1, 1\]",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_bad_demonstrations_are_named_and_can_be_skipped(tmp_path, name):
    changes, message = BAD[name]
    with pytest.raises(ValueError, match=f"one.hdf5, demo_0: {message}"):
        one(tmp_path, 4, **changes)
    with h5py.File(tmp_path / "one.hdf5", "a") as root:
        good = root["data"].create_group("demo_7")
        for key, array in demonstration(3).items():
            good[key] = array
    said = []
    assert len(load_episodes(tmp_path / "one.hdf5", skip_bad=True, say=said.append)) == 1
    assert said[0].startswith("skipped demo_0: ") and said[1].startswith(
        "skipped 1 damaged episodes"
    )


def test_a_wrong_number_of_samples_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"one.hdf5, demo_0: attribute num_samples says 9, actions has 4 rows"
    ):
        one(tmp_path, attributes={"num_samples": 9})


def test_files_without_demonstrations(tmp_path):
    path = write(tmp_path / "none.hdf5", {})
    with pytest.raises(ValueError, match=r"none.hdf5: there are no demonstrations in group data"):
        load_episodes(path, format_name="robomimic")
    with pytest.raises(ValueError, match=r"none.hdf5 is in no known format"):
        load_episodes(path)
    with h5py.File(path, "w"):
        pass
    with pytest.raises(ValueError, match=r"none.hdf5: there is no group 'data'; found nothing"):
        load_episodes(path, format_name="robomimic")
    with pytest.raises(FileNotFoundError, match="no data file at"):
        list(FORMATS["robomimic"].records(tmp_path / "nowhere.hdf5", ReadOptions()))


def test_a_group_that_contains_itself_ends(tmp_path):
    one(tmp_path)
    with h5py.File(tmp_path / "one.hdf5", "a") as root:
        root["data/demo_0/obs/again"] = root["data/demo_0/obs"]
    with pytest.raises(
        ValueError, match=r"one.hdf5, demo_0: obs/again.* is nested more than 8 deep"
    ):
        load_episodes(tmp_path / "one.hdf5")


def test_a_size_that_nothing_backs_is_refused(tmp_path):
    one(tmp_path)
    with h5py.File(tmp_path / "one.hdf5", "a") as root:
        del root["data/demo_0/states"]
        root["data/demo_0"].create_dataset("states", (4, 2**40), "f8", chunks=(1, 2**10))
    with pytest.raises(ValueError, match=r"one.hdf5, demo_0: states claims \d+ bytes and stores 0"):
        load_episodes(tmp_path / "one.hdf5")


def written(length: int, seed: int, terminated: bool = True, extra_state: bool = False) -> Episode:
    rng = np.random.default_rng(seed)
    observations = {
        "object": rng.normal(size=(length + 1, 3)).astype(np.float32),
        "nested/pos": rng.normal(size=(length + 1, 2)).astype(np.float32),
        "image": rng.integers(256, size=(length + 1, 4, 4, 3), dtype=np.uint8),
    }
    infos = {
        "states": rng.normal(size=(length + extra_state, 5)),
        "qpos": rng.normal(size=(length + 1, 2)),
    }
    return Episode(
        observations,
        rng.uniform(-1, 1, (length, 2)).astype(np.float32),
        rng.normal(size=length).astype(np.float32),
        rng.random(length) < 0.3,
        terminated,
        infos,
    )


EPISODES = [
    written(5, 1),
    written(1, 2, terminated=False),
    written(12, 3, extra_state=True),
    written(1, 4),
]


def same(got: list[Episode], expected: list[Episode]) -> None:
    assert fingerprint(got) == fingerprint(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.observations.keys() == b.observations.keys() and a.terminated is b.terminated
        for name, value in b.infos.items():
            np.testing.assert_array_equal(a.infos[name], value)
        assert a.infos.keys() == b.infos.keys()


def test_round_trip(tmp_path):
    path = tmp_path / "new" / "folder" / "episodes.hdf5"
    FORMATS["robomimic"].write(path, iter(EPISODES))
    assert find_format(path).name == "robomimic"
    same(load_episodes(path), EPISODES)
    assert [file.name for file in path.parent.iterdir()] == ["episodes.hdf5"]


def test_what_is_written_is_what_robomimic_reads(tmp_path):
    """The accesses of robomimic's SequenceDataset and of its file utilities."""
    path, env_args = (
        tmp_path / "f.hdf5",
        {"env_name": "Lift", "type": 1, "env_kwargs": {"robots": "Panda"}},
    )
    write_robomimic(path, EPISODES, env_args)
    with h5py.File(path, "r", swmr=True, libver="latest") as root:
        assert json.loads(root["data"].attrs["env_args"]) == env_args == read_env_args(path)
        assert root["data"].attrs["total"] == 19
        demos = sorted(root["data"], key=lambda name: int(name[5:]))
        for name, episode in zip(demos, EPISODES, strict=True):
            demo = root[f"data/{name}"]
            assert demo.attrs["num_samples"] == len(episode)
            for key, value in episode.observations.items():
                np.testing.assert_array_equal(demo[f"obs/{key}"][()], value[:-1])
                np.testing.assert_array_equal(demo[f"next_obs/{key}"][()], value[1:])
            np.testing.assert_array_equal(demo["actions"][()].astype("float32"), episode.actions)
            np.testing.assert_array_equal(
                demo["states"][()], episode.infos["states"][: len(episode)]
            )
            assert demo["dones"][()].tolist() == [0] * (len(episode) - 1) + [
                int(episode.terminated)
            ]
            np.testing.assert_array_equal(demo["rewards"][()], episode.rewards)


def test_records_can_be_read_later_and_in_any_order(tmp_path):
    write_robomimic(tmp_path / "f.hdf5", EPISODES)
    records = list(read_records(tmp_path / "f.hdf5"))
    same([record.read() for record in reversed(records)], EPISODES[::-1])


def test_episodes_are_written_as_they_come(tmp_path, monkeypatch):
    def episodes():
        for episode in EPISODES:
            seen.append(len(done))
            yield episode

    seen, done = [], []
    write = robomimic._write_episode
    monkeypatch.setattr(robomimic, "_write_episode", lambda *args: (write(*args), done.append(1)))
    write_robomimic(tmp_path / "f.hdf5", episodes())
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize("where", ["os.replace", "os.fsync", "h5py.Group.create_dataset"])
@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch, where, existing):
    path = tmp_path / "episodes.hdf5"
    if existing:
        write_robomimic(path, EPISODES[:1])

    def fail(*args, **kwargs):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        with pytest.raises(OSError, match="disk full"):
            write_robomimic(path, EPISODES)
    with pytest.raises(ValueError, match=r"there are no episodes to write to .*episodes.hdf5"):
        write_robomimic(path, [])
    assert list(tmp_path.iterdir()) == ([path] if existing else [])
    if existing:
        same(load_episodes(path), EPISODES[:1])


def test_without_h5py_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    write_robomimic(tmp_path / "f.hdf5", EPISODES)
    monkeypatch.setitem(sys.modules, "h5py", None)
    for act in (
        lambda: write_robomimic(tmp_path / "g.hdf5", EPISODES),
        lambda: read_env_args(tmp_path / "f.hdf5"),
    ):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'exporl\[formats\]'"):
            act()
    assert FORMATS["robomimic"].matches(tmp_path / "f.hdf5")


def test_truncated_files_are_refused(tmp_path):
    path = tmp_path / "cut.hdf5"
    write_robomimic(path, EPISODES)
    content = path.read_bytes()
    for length in [*range(8, len(content), 997), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut.hdf5 is not a readable HDF5 file"):
            load_episodes(path)
    for length in (0, 5):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut.hdf5 is in no known format"):
            load_episodes(path)


@pytest.mark.slow
def test_flipped_bits_are_refused_or_harmless(tmp_path):
    """Checksums cover the arrays; structure and attributes have none, but what is read of them is
    checked."""
    rng, refused = np.random.default_rng(0), 0
    write_robomimic(tmp_path / "good.hdf5", EPISODES[1:2])
    content = (tmp_path / "good.hdf5").read_bytes()
    path = tmp_path / "flipped.hdf5"
    for position in rng.integers(len(content), size=80):
        altered = bytearray(content)
        altered[position] ^= 1 << int(rng.integers(8))
        path.unlink(missing_ok=True)
        path.write_bytes(altered)
        try:
            episodes = load_episodes(path, format_name="robomimic")
        except ValueError as error:
            assert "flipped.hdf5" in str(error)
            refused += 1
        else:
            arrays = [(e.actions, e.rewards) for e in episodes]
            assert all(
                np.isfinite(actions).all() and np.isfinite(rewards).all()
                for actions, rewards in arrays
            )
    assert refused > 5


def test_recognition_never_raises(tmp_path):
    (tmp_path / "signature").write_bytes(hdf5.SIGNATURE + b"nonsense")
    (tmp_path / "text").write_text("nothing")
    for name in ("signature", "text", ".", "nowhere"):
        for record in FORMATS.values():
            assert record.matches(tmp_path / name) in (True, False)
    # whose reader says what is wrong
    assert find_format(tmp_path / "signature").name == "robomimic"
