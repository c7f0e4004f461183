"""Minari datasets: what the real package writes is read, what is written here the real package
reads, and damage."""

import gc
import importlib.util
import json
import shutil
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from exporl.data.episodes import Episode
from exporl.data.formats import FORMATS, ReadOptions, find_format, load_episodes, read_records
from exporl.data.formats.minari import write

for package in ("minari", "h5py", "pyarrow", "PIL"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the package {package}", allow_module_level=True)

IMAGE = gymnasium.spaces.Box(0, 255, (32, 40, 3), np.uint8)
BOX = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
NESTED = gymnasium.spaces.Dict({
    "goal": gymnasium.spaces.Box(-9, 9, (2,), np.float64),
    "hand": gymnasium.spaces.Dict({"pose": BOX, "grip": gymnasium.spaces.Box(0, 1, ())}),
    "pair": gymnasium.spaces.Tuple((BOX, gymnasium.spaces.Box(0, 9, (2, 2)))),
    "word": gymnasium.spaces.Text(8),
})  # fmt: skip
ACTIONS = gymnasium.spaces.Box(-1, 1, (2,))


class Small(gymnasium.Env):
    """Random observations; ends after four steps, every other episode in success."""

    action_space = ACTIONS

    def __init__(self, space: gymnasium.Space, success_key: str = "success"):
        self.observation_space, self.key, self.episodes = space, success_key, 0
        self.observation_space.seed(0)

    def info(self) -> dict:
        solved = self.steps == 4 and self.episodes % 2 == 0
        return {
            self.key: solved,
            "qpos": np.full(5, self.steps, np.float64),
            "deep": {"t": float(self.steps)},
        }

    def reset(self, *, seed=None, options=None):
        self.steps, self.episodes = 0, self.episodes + 1
        return self.observation_space.sample(), self.info()

    def step(self, action):
        self.steps += 1
        info = self.info()
        return (
            self.observation_space.sample(),
            float(self.steps % 2),
            info[self.key],
            self.steps == 4,
            info,
        )


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


_MADE: dict[tuple, tuple[Path, list]] = {}


def make(
    root: Path, kind: str = "hdf5", space=BOX, key: str = "success", jpeg: bool = True
) -> list:
    """Two episodes collected with the real package; returns its own reading of what it wrote."""
    import minari

    made = (kind, str(space), key, jpeg)
    if made not in _MADE:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = minari.DataCollector(
                Small(space, key), data_format=kind, record_infos=True, jpeg_encoding=jpeg
            )
            for seed in range(2):
                env.reset(seed=seed)
                for _ in range(4):
                    env.step(env.action_space.sample())
            dataset = env.create_dataset("robots/small/demo-v3")
            del env
            gc.collect()  # or its temporary folder complains later
        _MADE[made] = (
            shutil.copytree(root / FOLDER, root.parent.parent / f"made-{len(_MADE)}"),
            list(dataset),
        )
        shutil.rmtree(root / FOLDER)
    kept, episodes = _MADE[made]
    shutil.copytree(kept, root / FOLDER)
    return episodes


FOLDER = "robots/small/demo-v3"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hdf5", "arrow", "parquet"])
def test_what_the_package_writes(root, kind):
    expected = make(root, kind)
    folder = root / FOLDER
    for path in (
        folder,
        folder / "data",
        Path(FOLDER),
        *([folder / "data/main_data.hdf5"] if kind == "hdf5" else []),
    ):
        assert find_format(path).name == "minari"
        episodes = load_episodes(path)
        assert len(episodes) == 2
    for got, want in zip(episodes, expected, strict=True):
        assert got.observations.keys() == {"state"}
        np.testing.assert_array_equal(got.observations["state"], want.observations)
        np.testing.assert_array_equal(got.actions, want.actions)
        np.testing.assert_array_equal(got.rewards, [1, 0, 1, 0])
        assert (
            got.actions.dtype == got.rewards.dtype == got.observations["state"].dtype == np.float32
        )
        np.testing.assert_array_equal(got.infos["qpos"], want.infos["qpos"])
        np.testing.assert_array_equal(got.infos["deep/t"], np.arange(5))
    assert [e.terminated for e in episodes] == [False, True]
    assert [e.successes.tolist() for e in episodes] == [[False] * 4, [False] * 3 + [True]]
    assert [record.name for record in read_records(folder)] == ["episode_0", "episode_1"]


@pytest.mark.parametrize("kind", ["hdf5", "arrow"])
def test_nested_observations(root, kind):
    expected = make(root, kind, NESTED)[0].observations
    got = load_episodes(root / FOLDER)[0].observations
    assert set(got) == {"goal", "hand/pose", "hand/grip", "pair/0", "pair/1"}  # no text
    np.testing.assert_array_equal(got["goal"], expected["goal"].astype(np.float32))
    np.testing.assert_array_equal(got["hand/pose"], expected["hand"]["pose"])
    np.testing.assert_array_equal(
        got["hand/grip"][:, 0], np.asarray(expected["hand"]["grip"]).reshape(5)
    )
    np.testing.assert_array_equal(got["pair/1"], expected["pair"][1])
    chosen = load_episodes(root / FOLDER, options=ReadOptions(keys=("hand/pose", "goal")))[
        0
    ].observations
    assert list(chosen) == ["hand/pose", "goal"]
    with pytest.raises(
        ValueError,
        match=r"episode_0: there is no observation 'hand'; found goal, hand/grip, hand/pose",
    ):
        load_episodes(root / FOLDER, options=ReadOptions(keys=("hand",)))
    with pytest.raises(
        ValueError, match=r"there is no observation of numbers or images; found .*word"
    ):
        load_episodes(root / FOLDER, options=ReadOptions(keys=("word",)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hdf5", "arrow"])
@pytest.mark.parametrize("jpeg", [True, False])
def test_images(root, kind, jpeg):
    space = gymnasium.spaces.Dict(
        {"top": IMAGE, "tiny": gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8)}
    )
    expected = make(root, kind, space, jpeg=jpeg)[1].observations
    got = load_episodes(root / FOLDER)[1].observations
    for name in ("top", "tiny"):
        assert got[name].dtype == np.uint8
        np.testing.assert_array_equal(got[name], expected[name])


@pytest.mark.slow
@pytest.mark.parametrize("key", ["success", "is_success", "goal_achieved", "something"])
def test_where_success_comes_from(root, key):
    make(root, key=key)
    last = load_episodes(root / FOLDER)[1]
    assert last.successes.tolist() == [False, False, False, key != "something"]
    assert ("above 0 in 2 of 4 steps" in last.question) == (key == "something")


def test_ids(root):
    make(root)
    assert load_episodes(Path(FOLDER), limit=1)[0].success is False
    message = (
        r"no data at robots/other-v0: .* no Minari dataset of that id at .*minari/robots/other-v0\."
        r" Nothing is down"
    )
    with pytest.raises(FileNotFoundError, match=message):
        load_episodes(Path("robots/other-v0"))
    with pytest.raises(FileNotFoundError, match=r"no data file at robots/other-v0\.hdf5\. Check"):
        load_episodes(Path("robots/other-v0.hdf5"))


def episode(steps: int, seed: int = 0, terminated: bool = True, **observations) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        observations or {"state": rng.normal(size=(steps + 1, 3)).astype(np.float32)},
        rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        rng.normal(size=steps).astype(np.float32),
        rng.random(steps) < 0.5,
        terminated,
        {"qpos": rng.normal(size=(steps + 1, 4))},
    )


def test_the_package_reads_what_is_written(root):
    import minari

    episodes = [episode(5, 1), episode(1, 2, terminated=False), episode(12, 3)] * 4
    write(root / "ours/push-v0", iter(episodes))
    assert [p.name for p in (root / "ours").iterdir()] == ["push-v0"]
    dataset = minari.load_dataset("ours/push-v0")
    assert "ours/push-v0" in minari.list_local_datasets()
    assert (dataset.total_episodes, dataset.total_steps, dataset.id) == (12, 72, "ours/push-v0")
    assert dataset.observation_space == BOX and dataset.action_space == ACTIONS
    for got, want in zip(dataset.iterate_episodes(), episodes, strict=True):
        np.testing.assert_array_equal(got.observations, want.observations["state"])
        np.testing.assert_array_equal(got.actions, want.actions)
        np.testing.assert_array_equal(got.rewards, want.rewards)
        assert dataset.observation_space.contains(
            got.observations[0]
        ) and dataset.action_space.contains(got.actions[0])
        assert got.terminations[-1] == want.terminated and got.truncations[-1] != want.terminated
        assert not got.terminations[:-1].any() and not got.truncations[:-1].any()
        np.testing.assert_array_equal(got.infos["success"][1:], want.successes)
        np.testing.assert_array_equal(got.infos["qpos"], want.infos["qpos"])


def test_round_trip(root):
    image = np.random.default_rng(0).integers(256, size=(6, 32, 40, 3), dtype=np.uint8)
    parts = {
        "arm/pose": np.ones((6, 7), np.float32),
        "arm/grip": np.zeros((6, 1), np.float32),
        "top": image,
    }
    for name, episodes in (
        ("plain-v0", [episode(5), episode(1, 4, False)]),
        ("parts-v1", [episode(5, **parts)]),
    ):
        write(root / name, episodes)
        back = load_episodes(Path(name))
        for got, want in zip(back, episodes, strict=True):
            assert (
                got.observations.keys() == want.observations.keys()
                and got.terminated == want.terminated
            )
            for key in want.observations:
                np.testing.assert_array_equal(got.observations[key], want.observations[key])
            for field in ("actions", "rewards", "successes"):
                np.testing.assert_array_equal(getattr(got, field), getattr(want, field))
            np.testing.assert_array_equal(got.infos["qpos"], want.infos["qpos"])
    import minari

    space = minari.load_dataset("parts-v1").observation_space
    assert space["top"] == IMAGE and space["arm"]["pose"].shape == (7,)
    np.testing.assert_array_equal(
        next(iter(minari.load_dataset("parts-v1"))).observations["top"], image
    )


def test_writing_refuses(root):
    with pytest.raises(ValueError, match=r"named like door-v0; got 'demo'\. Add a version"):
        write(root / "demo", [episode(2)])
    with pytest.raises(ValueError, match="there are no episodes to write"):
        write(root / "demo-v0", [])
    with pytest.raises(
        ValueError, match=r"episode 1 has observations .*episode 0 has .*'state': \(3,\)"
    ):
        write(root / "demo-v0", [episode(2), episode(2, other=np.zeros((3, 1), np.float32))])
    with pytest.raises(ValueError, match="episode 0 has no steps"):
        write(root / "demo-v0", [episode(0)])
    assert list(root.iterdir()) == []
    write(root / "demo-v0", [episode(2)])
    with pytest.raises(ValueError, match=r"there already is something at .*demo-v0"):
        FORMATS["minari"].write(root / "demo-v0", [episode(2)])


def change(root: Path, name: str, value) -> None:
    """Replaces an array of a written file; None removes it."""
    import h5py

    with h5py.File(root / "data/main_data.hdf5", "a") as data:
        if name in data:
            del data[name]
        if value is not None:
            data[name] = value


ODD_ARRAYS = {
    "no rewards": (
        "rewards",
        None,
        r"episode_1: lacks rewards; it has actions, infos, observations, terminations",
    ),
    "no observations": ("observations", None, "lacks observations; it has actions"),
    "short rewards": ("rewards", np.zeros(4), "rewards has 4 rows, actions has 5"),
    "two rewards": (
        "rewards",
        np.zeros((5, 2)),
        r"rewards has shape \(5, 2\), expected one number per step",
    ),
    "long terminations": ("terminations", np.zeros(6), "terminations has 6 rows, actions has 5"),
    "short observations": (
        "observations",
        np.zeros((5, 3)),
        r"observations\['state'\] has 5 rows for 5 actions",
    ),
    "discrete actions": (
        "actions",
        np.zeros((5, 2), np.int64),
        "actions are int64. Only continuous actions",
    ),
    "text for rewards": (
        "rewards",
        ["a"] * 5,
        "rewards is not an array of numbers with one row per step",
    ),
    "a number for actions": (
        "actions",
        0.5,
        "actions is not an array of numbers with one row per step",
    ),
    "no steps": (
        "actions",
        np.zeros((0, 2), np.float32),
        "actions has no rows. Remove the episode",
    ),
    "NaN": (
        "observations",
        np.full((6, 3), np.nan),
        r"observations\['state'\] row 0 holds NaN or infinity",
    ),
    "large actions": (
        "actions",
        np.full((5, 2), 3.5),
        r"actions row 0 reaches 3.5, outside \[-1, 1\]",
    ),
    "odd success": ("infos/success", np.zeros(3), "infos/success has 3 rows for 5 actions"),
}


@pytest.mark.parametrize("name", ODD_ARRAYS)
def test_damaged_episodes_are_named_and_can_be_skipped(root, name):
    field, value, message = ODD_ARRAYS[name]
    write(root / "odd-v0", [episode(5, seed) for seed in range(3)])
    change(root / "odd-v0", f"episode_1/{field}", value)
    metadata = root / "odd-v0/data/metadata.json"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "total_steps": None}))
    with pytest.raises(
        ValueError, match=rf"odd-v0, episode_1: .*{message.removeprefix('episode_1: ')}"
    ):
        load_episodes(root / "odd-v0")
    said = []
    assert len(load_episodes(root / "odd-v0", skip_bad=True, say=said.append)) == 2
    assert said[-1].startswith("skipped 1 damaged episodes")


def test_odd_but_valid(root):
    write(root / "odd-v0", [episode(5, seed) for seed in range(12)])
    change(root / "odd-v0", "episode_10/rewards", np.ones((5, 1), np.int64))
    change(root / "odd-v0", "episode_10/terminations", np.array([[0], [1], [0], [0], [0]]))
    change(root / "odd-v0", "episode_10/infos", None)
    change(root / "odd-v0", "note", np.zeros(3))
    episodes = load_episodes(root / "odd-v0")
    # episode_10 comes after episode_9
    np.testing.assert_array_equal(episodes[11].actions, episode(5, 11).actions)
    assert episodes[10].rewards.tolist() == [1] * 5 and not episodes[10].success
    assert "above 0 in 5 of 5 steps, from 1 to 1" in episodes[10].question
    assert not episodes[10].terminated and episodes[10].infos == {}
    assert "marks 1 steps before the last one; the recording went on" in episodes[10].notes[0]


METADATA = {
    "no file": (None, r"metadata.json is missing\. Copy the whole folder"),
    "text": ("hello", r"metadata.json cannot be read \(Expecting value"),
    "a list": ("[]", "metadata.json holds list, not a JSON object"),
    "episodes": (
        {"total_episodes": 3},
        r"metadata.json states 3 episodes, the data has 2\. Copy the dataset again",
    ),
    "steps": ({"total_steps": 11}, "metadata.json states 11 steps, the data has 8"),
    "not a number": ({"total_steps": "8"}, "total_steps is '8', not a whole number"),
    "format": ({"data_format": "zarr"}, "is stored as 'zarr'. Known: hdf5, arrow, parquet"),
    "space": ({"observation_space": "{"}, "observation_space cannot be read"),
    "shape": (
        {"observation_space": '{"type": "Box", "shape": ["a"]}'},
        "observation_space cannot be read .*shape",
    ),
    "no list": (
        {"observation_space": '{"type": "Box", "shape": {}}'},
        "observation_space cannot be read .*shape",
    ),
    "no space": ({"observation_space": "3"}, "observation_space cannot be read"),
    "discrete": (
        {"action_space": '{"type": "Discrete", "n": 3}'},
        "actions of type Discrete. Only continuous",
    ),
}


@pytest.mark.parametrize("kind", ["hdf5", "arrow"])
@pytest.mark.parametrize("name", METADATA)
def test_metadata_that_does_not_agree(root, kind, name):
    make(root, kind)
    content, message = METADATA[name]
    path = root / FOLDER / "data/metadata.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(
            content
            if isinstance(content, str)
            else json.dumps({**json.loads(path.read_text()), **content})
        )
    with pytest.raises(ValueError, match=rf"demo-v3.*{message}"):
        load_episodes(root / FOLDER, format_name="minari")


def test_missing_parts(root):
    make(root, "arrow")
    data = root / FOLDER / "data"
    (data / "1/part-0.arrow").unlink()
    with pytest.raises(ValueError, match=r"episode_1: there is no \.arrow file in .*data/1"):
        load_episodes(root / FOLDER)
    (data / "0/metadata.json").write_text('{"total_steps": 7}')
    with pytest.raises(ValueError, match=r"metadata.json states 8 steps, the data has 11"):
        load_episodes(root / FOLDER)
    shutil.rmtree(data / "1")
    with pytest.raises(ValueError, match=r"metadata.json states 2 episodes, the data has 1"):
        load_episodes(root / FOLDER)
    make_root = root / "new"
    write(make_root / "a-v0", [episode(3)])
    (make_root / "a-v0/data/main_data.hdf5").unlink()
    with pytest.raises(ValueError, match=r"main_data.hdf5 is missing"):
        load_episodes(make_root / "a-v0", format_name="minari")


def test_an_arrow_episode_of_the_wrong_length(root):
    make(root, "arrow")
    path = root / FOLDER / "data/1/metadata.json"
    path.write_text('{"id": 1, "total_steps": 5}')
    dataset = root / FOLDER / "data/metadata.json"
    dataset.write_text(json.dumps({**json.loads(dataset.read_text()), "total_steps": 9}))
    with pytest.raises(
        ValueError, match=r"episode_1: metadata.json states 5 steps, the data has 4"
    ):
        load_episodes(root / FOLDER)


def test_arrow_cells_that_do_not_fit(root):
    import pyarrow as pa

    make(root, "arrow")
    path = root / FOLDER / "data/0/part-0.arrow"
    good = {
        "observations": [[0.0, 1.0]] * 5,
        "actions": [[0.0]] * 5,
        "rewards": [0.0] * 5,
        "terminations": [False] * 5,
    }
    odd = {
        r"actions has rows of 1 to 2 numbers": {"actions": [[0.0], [0.0, 1.0]] + [[0.0]] * 3},
        r"rewards has 1 empty cells": {"rewards": [0.0, None, 0.0, 0.0, 0.0]},
        r"rewards is not an array of numbers": {"rewards": ["a"] * 5},
        r"lacks actions; it has observations": {"actions": None},
        r"observations\['state'\] has rows of shape \(2,\), \(3,\) is stated": {},
    }
    for message, changes in odd.items():
        table = pa.table(
            {name: value for name, value in {**good, **changes}.items() if value is not None}
        )
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        with pytest.raises(ValueError, match=f"episode_0: .*{message}"):
            load_episodes(root / FOLDER)


def test_damaged_jpeg(root):
    make(root, space=gymnasium.spaces.Dict({"top": IMAGE}))
    import h5py

    with h5py.File(root / FOLDER / "data/main_data.hdf5", "a") as data:
        frames = data["episode_0/observations/top"]
        frames[2] = frames[2] * 0
    with pytest.raises(
        ValueError, match=r"episode_0: observations\['top'\] row 2 cannot be read \(cannot identify"
    ):
        load_episodes(root / FOLDER)


def test_missing_packages(root, monkeypatch):
    make(root, "arrow", gymnasium.spaces.Dict({"top": IMAGE}))
    find_spec = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "PIL", None)
        message = (
            r"observations\['top'\] holds encoded pictures, which need the package 'PIL'\. .*pip "
            r"install pillow"
        )
        with pytest.raises(ModuleNotFoundError, match=message):
            load_episodes(root / FOLDER, skip_bad=True)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find_spec(name)
    )
    with pytest.raises(
        ModuleNotFoundError,
        match=r"data needs the package 'pyarrow'\. .*pip install 'exporl\[formats\]'",
    ):
        load_episodes(root / FOLDER)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hdf5", "arrow", "parquet"])
def test_truncated_and_flipped_files(root, kind):
    """A clean error or a valid read, whatever the damage; a truncated file never passes."""
    make(root, kind)
    path = root / FOLDER / "data" / ("main_data.hdf5" if kind == "hdf5" else f"1/part-0.{kind}")
    content, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for length in (0, 7, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(
            ValueError, match=r"main_data.hdf5 is not a readable HDF5 file|episode_1: 1/part-0"
        ):
            load_episodes(root / FOLDER)
    for position in rng.integers(len(content), size=80):
        altered = bytearray(content)
        altered[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(altered)
        try:
            load_episodes(root / FOLDER)
        except ValueError as error:
            refused += 1
            assert FOLDER in str(error)
    assert refused
