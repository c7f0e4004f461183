"""LeRobot folders, written by hand from the documented layout: both versions, videos, interrupted
recordings, damage."""

import importlib.util
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from exporl.data.formats import ReadOptions, find_format, load_episodes, read_records

av = pytest.importorskip("av")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")

FPS, SIZE = 10, (48, 64)
LENGTHS = (4, 1, 6, 3, 5)
FILES = ((0, 0), (0, 0), (0, 1), (0, 1), (1, 0))
"""Chunk and file of each episode in version 3.0."""


def columns(index: int, length: int, **changes) -> dict[str, list]:
    """One episode: it ends in success if its number is even, by its time limit otherwise. None
    leaves a column out."""
    rng = np.random.default_rng(index)
    last = [False] * (length - 1)
    table = {
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32).tolist(),
        "observation.environment_state": rng.normal(size=(length, 2)).tolist(),
        "action": rng.uniform(-1, 1, (length, 2)).astype(np.float32).tolist(),
        "next.reward": [0.5 * value for value in range(length)],
        "next.success": [*last, index % 2 == 0],
        "next.done": [*last, True],
        "next.truncated": [*last, index % 2 == 1],
        "complementary_info.grip": [float(value) for value in range(length)],
        "note": ["text"] * length,
        "timestamp": [value / FPS for value in range(length)],
        "frame_index": list(range(length)),
        "episode_index": [index] * length,
        "index": list(range(length)),
        "task_index": [0] * length,
    } | changes
    return {name: value for name, value in table.items() if value is not None}


def picture(index: int, frame: int) -> np.ndarray:
    """A grey level that tells episode and frame apart, after lossy compression too."""
    return np.full((*SIZE, 3), 20 + 40 * index + 6 * frame, np.uint8)


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = *SIZE, "yuv420p", 4
        stream.bit_rate = 10_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_table(path: Path, rows: dict[str, list], **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), path, **options)


def make(
    folder: Path,
    version: str = "v3.0",
    video: bool = False,
    tables: list[dict] | None = None,
    **info,
) -> Path:
    """A data set of five episodes, or of the given ones."""
    tables = [columns(i, n) for i, n in enumerate(LENGTHS)] if tables is None else tables
    lengths = [len(next(iter(table.values()))) for table in tables]
    key = "observation.images.top"
    features = {"action": {"dtype": "float32", "shape": [2], "names": None}}
    features |= {key: {"dtype": "video", "shape": [*SIZE, 3], "names": None}} if video else {}
    content = {
        "codebase_version": version,
        "fps": FPS,
        "features": features,
        "total_episodes": len(tables),
        "total_frames": sum(lengths),
        "total_tasks": 1,
        "chunks_size": 2 if version < "v3" else 1000,
        "robot_type": "toy",
    }
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps({**content, **info}))
    if version < "v3":
        (folder / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "lift"}\n')
        lines = [
            {"episode_index": i, "tasks": ["lift"], "length": n} for i, n in enumerate(lengths)
        ]
        (folder / "meta/episodes.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines)
        )
        for i, table in enumerate(tables):
            write_table(folder / f"data/chunk-{i // 2:03d}/episode_{i:06d}.parquet", table)
            if video:
                write_video(folder / f"videos/chunk-{i // 2:03d}/{key}/episode_{i:06d}.mp4",
                            [picture(i, t) for t in range(lengths[i])])  # fmt: skip
        return folder
    write_table(folder / "meta/tasks.parquet", {"task": ["lift"], "task_index": [0]})
    places: list[dict] = []
    for chunk, file in dict.fromkeys(FILES):
        inside = [i for i in range(len(tables)) if FILES[i % 5] == (chunk, file)]
        starts = np.cumsum([0, *(lengths[i] for i in inside)])
        for i, start in zip(inside, starts, strict=False):
            videos = {"chunk_index": chunk, "file_index": file, "from_timestamp": start / FPS}
            places.append(
                {
                    "episode_index": i,
                    "length": lengths[i],
                    "tasks": ["lift"],
                    "data/chunk_index": chunk,
                    "data/file_index": file,
                    **({f"videos/{key}/{k}": v for k, v in videos.items()} if video else {}),
                }
            )
        if inside:
            merged = pa.concat_tables(
                [pa.table(tables[i]) for i in inside], promote_options="permissive"
            )
            path = folder / f"data/chunk-{chunk:03d}/file-{file:03d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(merged, path, row_group_size=3)  # smaller than episodes, and across them
        if inside and video:
            frames = [picture(i, t) for i in inside for t in range(lengths[i])]
            write_video(folder / f"videos/{key}/chunk-{chunk:03d}/file-{file:03d}.mp4", frames)
    # not in the order of the episodes
    for name, part in (("file-000", places[3:]), ("file-001", places[:3])):
        if part:
            write_table(folder / f"meta/episodes/chunk-000/{name}.parquet",
                        {field: [place[field] for place in part] for field in part[0]})  # fmt: skip
    return folder


@pytest.mark.parametrize("version", ["v3.0", "v2.1", "v2.0"])
def test_states_and_actions(tmp_path, version):
    folder = make(tmp_path / "set", version)
    assert find_format(folder).name == "lerobot"
    assert [record.name for record in read_records(folder)] == [f"episode {i}" for i in range(5)]
    tables = [columns(i, n) for i, n in enumerate(LENGTHS)]
    # the last action of what did not end is left out; nothing is left of episode 1
    episodes = {0: 4, 2: 6, 3: 2, 4: 5}
    said = []
    read = load_episodes(folder, skip_bad=True, say=said.append)
    assert said[0].startswith(
        "skipped episode 1: one frame and no true end: there is no observation after its action"
    )
    for (index, steps), got in zip(episodes.items(), read, strict=True):
        table = tables[index]
        states = np.array(table["observation.state"], np.float32)
        expected = np.concatenate([states, states[-1:]]) if index % 2 == 0 else states
        np.testing.assert_array_equal(got.observations["state"], expected)
        assert got.observations["environment_state"].shape == (steps + 1, 2)
        assert got.observations.keys() == {"state", "environment_state"}
        np.testing.assert_array_equal(got.actions, np.array(table["action"], np.float32)[:steps])
        np.testing.assert_array_equal(got.rewards, 0.5 * np.arange(steps))
        assert got.successes.tolist() == table["next.success"][:steps]
        assert got.terminated == (index % 2 == 0)
        assert set(got.infos) == {"complementary_info.grip", "timestamp", "task_index"}
        np.testing.assert_array_equal(got.infos["complementary_info.grip"], np.arange(steps))


def test_chosen_entries(tmp_path):
    folder = make(tmp_path / "set", video=True)
    episode = load_episodes(folder, 1, options=ReadOptions(keys=("environment_state",)))[0]
    assert list(episode.observations) == ["environment_state"]
    with pytest.raises(
        ValueError, match="no observation 'nothing'; found environment_state, state"
    ):
        load_episodes(folder, options=ReadOptions(keys=("nothing",)))
    with pytest.raises(ValueError, match="episode 0: top is a video: ask for images too"):
        load_episodes(folder, options=ReadOptions(keys=("top",)))


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_videos(tmp_path, version):
    folder = make(tmp_path / "set", version, video=True)
    assert "top" not in load_episodes(folder, 1)[0].observations
    options = ReadOptions(images=True, keys=("top", "state"))
    for index, got in zip(
        (0, 2, 3, 4), load_episodes(folder, options=options, skip_bad=True), strict=True
    ):
        frames = got.observations["top"]
        assert list(got.observations) == ["top", "state"]
        assert frames.dtype == np.uint8 and frames.shape == (len(got) + 1, *SIZE, 3)
        numbers = [*range(LENGTHS[index])] + ([LENGTHS[index] - 1] if got.terminated else [])
        expected = np.stack([picture(index, t) for t in numbers])
        assert np.abs(frames.astype(int) - expected).max() <= 2


def test_videos_without_their_package(tmp_path, monkeypatch):
    folder, find_spec = make(tmp_path / "set", video=True), importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "av" else find_spec(name)
    )
    assert load_episodes(folder, 1)
    with pytest.raises(
        ModuleNotFoundError, match=r"videos of .*set need the package 'av'\. .*exporl\[video\]"
    ):
        load_episodes(folder, options=ReadOptions(images=True))


def test_a_camera_that_some_episodes_lack(tmp_path):
    folder = make(tmp_path / "set", video=True)
    path = folder / "meta/episodes/chunk-000/file-001.parquet"
    rows = pq.read_table(path).to_pydict()
    key = "videos/observation.images.top/from_timestamp"
    write_table(path, {**rows, key: [0, *[None] * (len(rows[key]) - 1)]})  # 0, not 0.0
    episodes = load_episodes(folder, options=ReadOptions(images=True), skip_bad=True)
    assert ["top" in episode.observations for episode in episodes] == [True, False, True, True]


def test_damaged_videos(tmp_path):
    folder, options = make(tmp_path / "set", video=True), ReadOptions(images=True)
    file = folder / "videos/observation.images.top/chunk-000/file-000.mp4"
    content = file.read_bytes()
    write_video(file, [picture(0, t) for t in range(3)])
    with pytest.raises(
        ValueError,
        match=r"episode 0: videos/.*/file-000.mp4 has 3 of 4 frames from second 0 on, at 10 fr",
    ):
        load_episodes(folder, options=options)
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        ValueError,
        match=r"episode 0: videos/.*/file-000.mp4 cannot be read \((there is no video|.*Invalid)",
    ):
        load_episodes(folder, options=options)
    rng = np.random.default_rng(0)
    for position in rng.integers(len(content), size=15):
        file.write_bytes(
            content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :]
        )
        try:
            load_episodes(folder, 1, options=options)
        except ValueError as error:
            assert "episode 0: " in str(error)
    file.unlink()
    with pytest.raises(ValueError, match=r"episode 0: videos/.*/file-000.mp4 is missing"):
        load_episodes(folder, options=options)


def test_pictures_in_the_table(tmp_path):
    frames = np.random.default_rng(0).integers(256, size=(4, 5, 6, 3), dtype=np.uint8)
    cells = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, format="PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    odd = {"observation.environment_state": None, "image": cells}
    folder = make(tmp_path / "set", tables=[columns(0, 4, **odd)])
    assert set(load_episodes(folder)[0].observations) == {"state"}
    got = load_episodes(folder, options=ReadOptions(images=True))[0].observations["image"]
    np.testing.assert_array_equal(got, frames[[0, 1, 2, 3, 3]])
    small = io.BytesIO()
    Image.fromarray(frames[0, :3]).save(small, format="PNG")
    cells[1]["bytes"] = small.getvalue()
    with pytest.raises(
        ValueError, match=r"episode 0: image row 1 has shape \(3, 6, 3\), row 0 has \(5, 6, 3\)"
    ):
        load_episodes(
            make(tmp_path / "sizes", tables=[columns(0, 4, **odd)]),
            options=ReadOptions(images=True),
        )
    cells[1] = {"bytes": None, "path": "elsewhere.png"}
    with pytest.raises(ValueError, match="episode 0: image row 1 cannot be read"):
        load_episodes(
            make(tmp_path / "elsewhere", tables=[columns(0, 4, **odd)]),
            options=ReadOptions(images=True),
        )
    cells[1] = cells[0]
    cells[2]["bytes"] = b"no picture"
    folder = make(tmp_path / "odd", tables=[columns(0, 4, **odd)])
    with pytest.raises(ValueError, match="episode 0: image row 2 cannot be read"):
        load_episodes(folder, options=ReadOptions(images=True))
    odd = {"observation.environment_state": None, "observation.state": None, "image": cells}
    with pytest.raises(
        ValueError, match="episode 0: there is no observation but pictures: ask for images too"
    ):
        load_episodes(make(tmp_path / "pictures", tables=[columns(0, 4, **odd)]))


NO_REWARD = {"next.reward": None, "next.success": None}
ENDS = {
    # columns, options -> rewards, successes, terminated (of three frames)
    "demonstrations": ({**NO_REWARD, "next.truncated": None}, {}, [0, 0], [0, 0], False),
    "all successful": (
        {**NO_REWARD, "next.truncated": None},
        {"assume_success": True},
        [0, 0, 1],
        [0, 0, 1],
        True,
    ),
    "no end recorded": (
        {**NO_REWARD, "next.truncated": None, "next.done": None},
        {"assume_success": True},
        [0, 0, 1],
        [0, 0, 1],
        True,
    ),
    "recorded success counts": (
        {"next.success": [False] * 3},
        {"assume_success": True},
        [0, 0.5, 1],
        [0, 0, 0],
        True,
    ),
    "recorded reward counts": (
        {"next.success": None, "next.reward": [0.0] * 3},
        {"assume_success": True},
        [0, 0, 0],
        [0, 0, 0],
        True,
    ),
    "sparse rewards": (
        {"next.success": None, "next.truncated": None, "next.reward": [0.0, 0.0, 1.0]},
        {},
        [0, 0, 1],
        [0, 0, 1],
        True,
    ),
    "dense rewards do not tell": (
        {"next.success": None, "next.truncated": None},
        {},
        [0, 0.5],
        [0, 0],
        False,
    ),
    "dense rewards, all successful": (
        {"next.success": None, "next.truncated": None},
        {"assume_success": True},
        [0, 0.5, 1],
        [0, 0, 1],
        True,
    ),
    "success, no reward": ({"next.reward": None}, {}, [0, 0, 1], [0, 0, 1], True),
    "done may be a limit": (
        {"next.success": [False] * 3, "next.truncated": None},
        {},
        [0, 0.5],
        [0, 0],
        False,
    ),
    "a true failure": ({"next.success": [False] * 3}, {}, [0, 0.5, 1], [0, 0, 0], True),
    "success at the limit": (
        {"next.truncated": [False, False, True]},
        {},
        [0, 0.5, 1],
        [0, 0, 1],
        False,
    ),
    "success and not done": ({"next.done": [False] * 3}, {}, [0, 0.5, 1], [0, 0, 1], False),
    "one-column rewards": (
        {"next.reward": [[0.0], [0.5], [1.0]]},
        {},
        [0, 0.5, 1],
        [0, 0, 1],
        True,
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_how_episodes_end(tmp_path, name):
    changes, options, rewards, successes, terminated = ENDS[name]
    folder = make(tmp_path / "set", tables=[columns(0, 3, **changes)])
    episode = load_episodes(folder, options=ReadOptions(**options))[0]
    assert episode.rewards.tolist() == rewards and episode.rewards.dtype == np.float32
    assert episode.successes.astype(int).tolist() == successes and episode.successes.dtype == bool
    assert episode.terminated is terminated
    assert len(episode.observations["state"]) == len(rewards) + 1


def test_odd_but_valid(tmp_path):
    changes = {
        "observation.state": [3.0, 1.0, 2.0], "observation.environment_state": None, "action": None,
        "actions": [0.3, 0.1, 0.2], "frame_index": [2, 0, 1], "next.reward": [1, 0, 0],
        "next.success": [[True], [False], [False]], "next.done": None,
    }  # fmt: skip
    episode = load_episodes(make(tmp_path / "set", tables=[columns(0, 3, **changes)]))[0]
    np.testing.assert_array_equal(episode.observations["state"], [[1], [2], [3], [3]])
    np.testing.assert_array_equal(episode.actions, np.array([[0.1], [0.2], [0.3]], np.float32))
    assert episode.successes.tolist() == [False, False, True] and episode.rewards.tolist() == [
        0,
        0,
        1,
    ]
    one = load_episodes(make(tmp_path / "one", tables=[columns(0, 1)]))[0]
    assert len(one) == 1 and one.terminated and one.observations["state"].shape == (2, 3)


ODD = {
    "no action": (
        {"action": None},
        r"data/chunk-000/file-000.parquet lacks action; it has .*observation.state",
    ),
    "no frames of it": (
        {"episode_index": [7] * 4},
        "file-000.parquet has 0 frames of it, meta/episodes states 4",
    ),
    "frames missing": (
        {"frame_index": [0, 1, 3, 4]},
        "frame_index in .* does not count from 0 to 3",
    ),
    "frames repeated": (
        {"frame_index": [0, 1, 1, 2]},
        "frame_index in .* does not count from 0 to 3",
    ),
    "NaN": (
        {"observation.state": [[0.0]] * 3 + [[float("nan")]]},
        r"observations\['state'\] row 3 holds NaN",
    ),
    "unequal rows": (
        {"observation.state": [[0.0]] * 3 + [[0.0, 1.0]]},
        "state has rows of 1 to 2 numbers",
    ),
    "empty cells": (
        {"action": [[0.0, 0.0], None, [0.0, 0.0], [0.0, 0.0]]},
        "action has 1 empty cells",
    ),
    "empty numbers": ({"next.reward": [0.0, None, 0.0, 0.0]}, "next.reward has 1 empty cells"),
    "no rows": (
        {"observation.state": [[]] * 4},
        "observation.state is not a column of numbers; it is list<",
    ),
    "text": ({"action": [["a"]] * 4}, "action is not a column of numbers"),
    "robot units": (
        {"action": [[30.0, -90.0]] * 4},
        r"actions row 0 reaches 90, outside \[-1, 1\]",
    ),
    "two rewards": (
        {"next.reward": [[0.0, 1.0]] * 4},
        r"next.reward has shape \(4, 2\), expected one number",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_damaged_episodes_are_named(tmp_path, name):
    changes, message = ODD[name]
    folder = make(
        tmp_path / "set",
        "v2.1",
        tables=[columns(0, 4, **changes), columns(2, 4, episode_index=[1] * 4)],
    )
    message = message.replace("chunk-000/file-000", "chunk-000/episode_000000").replace(
        "file-000", "episode_000000"
    )
    with pytest.raises(ValueError, match=f"set, episode 0: .*{message}"):
        load_episodes(folder)
    said = []
    assert len(load_episodes(folder, skip_bad=True, say=said.append)) == 1
    assert said[-1].startswith("skipped 1 damaged episodes")


def test_an_interrupted_recording_is_explained(tmp_path):
    folder = make(tmp_path / "set")
    file = folder / "data/chunk-000/file-001.parquet"
    file.write_bytes(file.read_bytes()[:-8])
    message = (
        r"episode 2: data/chunk-000/file-001.parquet has no Parquet footer: its recording was "
        r"interrupted .*finalize"
    )
    with pytest.raises(ValueError, match=message):
        read_one(folder, "episode 2")
    assert [e.actions.shape[0] for e in load_episodes(folder, skip_bad=True)] == [4, 5]
    file.unlink()
    with pytest.raises(ValueError, match=r"episode 2: data/chunk-000/file-001.parquet is missing"):
        read_one(folder, "episode 2")
    meta = folder / "meta/episodes/chunk-000/file-000.parquet"
    meta.write_bytes(b"PAR1")
    with pytest.raises(
        ValueError, match=r"meta/episodes/chunk-000/file-000.parquet cannot be read"
    ):
        load_episodes(folder)
    meta.write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"meta/episodes/chunk-000/file-000.parquet has no Parquet footer"
    ):
        load_episodes(folder)
    shutil.rmtree(folder / "meta/episodes")
    with pytest.raises(ValueError, match=r"meta/episodes has no .parquet file"):
        load_episodes(folder)


def read_one(folder: Path, name: str):
    """Reads one episode alone, with the error as `load_episodes` words it."""
    record = next(record for record in read_records(folder) if record.name == name)
    try:
        return record.read()
    except ValueError as error:
        raise ValueError(f"{record.name}: {error}") from error


INFO = {
    "version": (
        {"codebase_version": "v1.6"},
        r"codebase_version is 'v1.6'\. Known: v3.0, v2.1, v2.0",
    ),
    "no version": ({"codebase_version": None}, "codebase_version is None"),
    "features": ({"features": [1]}, "features is not an object of objects"),
    "fps": ({"fps": 0}, "fps is 0, not a rate above 0"),
    "episodes": (
        {"total_episodes": 9},
        "info.json states 9 episodes, meta/episodes has 5. The recording was interrupted",
    ),
    "frames": ({"total_frames": 18}, "info.json states 18 frames, meta/episodes has 19"),
    "count": ({"total_frames": -1}, "total_frames is -1, not a whole number"),
    "template": (
        {"data_path": "data/{x}.parquet"},
        "data_path in meta/info.json has the unknown field 'x'",
    ),
    "attribute": ({"data_path": "{file_index.real}.parquet"}, "is missing"),
    "no path": ({"data_path": 3}, "data_path in meta/info.json is 3, not a path"),
    "long": ({"data_path": "{file_index:99d}" * 3}, "makes a name of more than 255 letters: 000"),
    "outside": ({"data_path": "../{file_index:03d}"}, r"leads out of the folder: \.\./00[01]"),
}


@pytest.mark.parametrize("name", INFO)
def test_odd_info(tmp_path, name):
    changes, message = INFO[name]
    with pytest.raises(ValueError, match=message):
        load_episodes(make(tmp_path / "set", **changes))


def test_odd_episode_lists(tmp_path):
    folder = make(tmp_path / "set", "v2.1")
    file = folder / "meta/episodes.jsonl"
    lines = file.read_text()
    for content, message in {
        lines + "{": r"episodes.jsonl line 6 cannot be read",
        lines + "[]\n": r"episodes.jsonl line 6 holds list",
        '{"episode_index": 0}\n': r"episodes.jsonl: an episode lacks length; it has episode_index",
        lines.replace('"episode_index": 1', '"episode_index": 0'): "set/meta lists episode 0 twice",
        lines.replace('"length": 4', '"length": 4.5'): "length is 4.5, not a whole number",
        "": "states 5 episodes, meta/episodes has 0",
    }.items():
        file.write_text(content)
        with pytest.raises(ValueError, match=message):
            load_episodes(folder)
    folder = make(tmp_path / "new", video=True)
    for name, value, message in (
        ("length", "4", "length is '4', not a whole number"),
        ("data/file_index", None, "an episode lacks data/file_index"),
        (
            "videos/observation.images.top/from_timestamp",
            -1.0,
            "from_timestamp is -1.0, not a second of the video",
        ),
    ):
        path = folder / "meta/episodes/chunk-000/file-001.parquet"
        rows = pq.read_table(path).to_pydict()
        write_table(path, {**rows, name: [value] * len(rows[name])})
        with pytest.raises(ValueError, match=message):
            load_episodes(folder)
        write_table(path, rows)
    assert load_episodes(make(tmp_path / "none", tables=[columns(0, 3)], total_episodes=None), 1)


def test_neighbours_are_decoded_once(tmp_path, monkeypatch):
    folder, read = make(tmp_path / "set"), []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, number, **k: read.append(k["columns"]) or original(self, number, **k),
    )
    load_episodes(folder, skip_bad=True)
    groups = sum(
        pq.ParquetFile(path).num_row_groups for path in (folder / "data").rglob("*.parquet")
    )
    assert (
        sum(names != ["episode_index"] for names in read)
        == sum(names == ["episode_index"] for names in read)
        == groups
    )


def test_files_without_statistics(tmp_path):
    folder = make(tmp_path / "set", tables=[columns(0, 4), columns(2, 5, episode_index=[1] * 5)])
    path = folder / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path), path, write_statistics=False, row_group_size=4)
    assert [len(episode) for episode in load_episodes(folder)] == [4, 5]


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_flipped_bits(tmp_path, version):
    folder = make(tmp_path / "set", version, tables=[columns(0, 4), columns(1, 3)])
    rng = np.random.default_rng(0)
    refused = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and "tasks" not in p.name):
        content = path.read_bytes()
        for position in rng.integers(len(content), size=25):
            altered = bytearray(content)
            altered[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(altered)
            try:
                load_episodes(folder, format_name="lerobot")
            except ValueError as error:
                refused += 1
                assert str(folder) in str(error)
        path.write_bytes(content)
    assert refused
