"""A replay that is saved in segments comes back to the bit, each row is written once, and damage,
failures and kills leave what the checkpoints list."""

import json
import os
import select
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from exporl.data import sealing
from exporl.data.replay import Replay
from exporl.data.sealing import Sealing
from exporl.files import checkpoint, segments
from exporl.files.checkpoint import CorruptCheckpointError
from helpers.replays import ACTIONS, COLUMNS, Writer, same_state, snapshot, spec_of


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch):
    """Everything that is final is sealed, in files of a few rows."""
    monkeypatch.setattr(sealing, "LEAST_BYTES", 1)
    monkeypatch.setattr(sealing, "MOST_BYTES", 700)


def replay_of(capacity: int = 1_000, num_streams: int = 1) -> Replay:
    return Replay(spec_of(2), capacity, num_streams=num_streams, columns=COLUMNS)


def save(folder: Path, step: int, sealed: Sealing, keep: int = 2) -> Path:
    parts = {"learner": {"w": np.full(3, step)}, "replay": sealed.seal()}
    return checkpoint.save(folder, step, parts, {"step": step}, keep, {"replay": sealed.segments})


def found_in(folder: Path) -> checkpoint.Found:
    found = checkpoint.find_newest(folder)
    assert found is not None
    return found


def again(folder: Path, replay: Replay) -> tuple[Replay, Sealing]:
    """What a resumption goes on with."""
    found = found_in(folder)
    restored = replay_of(replay.capacity, replay.num_streams)
    sealed = Sealing(restored, folder)
    sealed.load(found.parts["replay"], found.placed["replay"])
    return restored, sealed


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """The segments that are there: when each was written, and its inode."""
    place = folder / segments.FOLDER
    found = place.iterdir() if place.is_dir() else ()
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in found}


def listed(path: Path) -> list[str]:
    manifest = json.loads((path / "manifest.json").read_text())
    return [segment["name"] for segment in manifest["segments"]["replay"]]


def episodes(replay: Replay, writer: Writer, count: int, length: int = 5) -> None:
    for _ in range(count):
        for stream in range(replay.num_streams):
            for action in ["step"] * (length - 1) + ["terminate"]:
                writer.write(action, stream, replay)


@pytest.mark.parametrize(("capacity", "num_streams"), [(9, 1), (40, 3), (1_000, 2)])
def test_what_comes_back_is_what_the_replay_holds(tmp_path, capacity, num_streams):
    """Saved, restored and continued at random moments, beside a replay that is never saved; files
    stay as they were written."""
    rng = np.random.default_rng(capacity)
    straight, writer = replay_of(capacity, num_streams), Writer(num_streams)
    replay = replay_of(capacity, num_streams)
    sealed, before, most = Sealing(replay, tmp_path), {}, 0
    for step in range(400):
        action, stream = rng.choice(ACTIONS), int(rng.integers(num_streams))
        writer.write(str(action), stream, straight, replay)
        for each in (straight, replay):  # others write to this column whenever they like
            each.column("mark")[0, step % max(each.state()["size"][0], 1)] = step
        if rng.random() < 0.9:
            continue
        path = save(tmp_path, step, sealed)
        same_state(straight, found_in(tmp_path).parts["replay"])
        after = files(tmp_path)
        assert all(after[name] == before[name] for name in before.keys() & after.keys())
        assert set(listed(path)) <= after.keys()
        before, most = after, max(most, len(after))
        if rng.random() < 0.5:
            replay, sealed = again(tmp_path, replay)
            same_state(replay, snapshot(straight))
    assert most > 1
    batches = [
        each.sample(np.random.default_rng(0), 20, discount=0.9) for each in (straight, replay)
    ]
    np.testing.assert_array_equal(batches[0].action, batches[1].action)


def test_a_checkpoint_writes_only_what_is_new(tmp_path):
    replay, writer = replay_of(), Writer(1)
    sealed, sizes, new = Sealing(replay, tmp_path), [], []
    for step in range(1, 9):
        episodes(replay, writer, 6)
        writer.write("step", 0, replay)
        writer.write("truncate", 0, replay)
        writer.write("step", 0, replay)  # an open episode
        before = files(tmp_path)
        path = save(tmp_path, step, sealed)
        assert before.items() <= files(tmp_path).items()
        new.append(len(files(tmp_path).keys() - before.keys()))
        sizes.append((path / "replay.safetensors").stat().st_size)
        own = sealed.seal()
        assert len(own[segments.ROW]) == 2 and own["head"] == replay.state()["head"]
        writer.write("truncate", 0, replay)
    assert len(set(new[1:])) == 1 and max(sizes) - min(sizes) < 10 * 8 * 100, (new, sizes)


def test_few_rows_wait_in_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(sealing, "LEAST_BYTES", 2**20)
    replay = replay_of()
    episodes(replay, Writer(1), 10)
    sealed = Sealing(replay, tmp_path)
    save(tmp_path, 1, sealed)
    assert sealed.segments == [] and not (tmp_path / "segments").exists()
    same_state(replay, found_in(tmp_path).parts["replay"])


def test_what_a_ring_has_overwritten_is_removed(tmp_path):
    replay, writer = replay_of(capacity=30), Writer(1)
    sealed = Sealing(replay, tmp_path)
    for step in range(1, 30):
        episodes(replay, writer, 2)
        save(tmp_path, step, sealed, keep=1)
        assert len(files(tmp_path)) <= 12
        assert set(listed(tmp_path / f"checkpoint-{step:09d}")) == files(tmp_path).keys()
    same_state(replay, found_in(tmp_path).parts["replay"])


def test_a_kept_checkpoint_keeps_its_segments(tmp_path):
    replay, writer = replay_of(capacity=20), Writer(1)
    sealed, states = Sealing(replay, tmp_path), {}
    for step in range(1, 8):
        episodes(replay, writer, 3)
        save(tmp_path, step, sealed, keep=3)
        states[step] = snapshot(replay)
        for kept in range(max(step - 2, 1), step + 1):
            parts, _ = checkpoint.load(tmp_path / f"checkpoint-{kept:09d}")
            for name, value in states[kept].items():
                np.testing.assert_array_equal(parts["replay"][name], value)


def test_a_run_saved_whole_by_an_earlier_version_goes_on(tmp_path):
    straight, replay, writer = replay_of(), replay_of(), Writer(1)
    for each in (straight, replay):
        episodes(each, Writer(1), 4)
    episodes(replay_of(), writer, 4)
    path = checkpoint.save(tmp_path, 1, {"replay": replay.state()}, {}, 2)
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["segments"], manifest["self"]
    digest = checkpoint._digest(json.dumps(manifest, sort_keys=True))
    (path / "manifest.json").write_text(json.dumps(manifest | {"self": digest}))
    found, resumed = found_in(tmp_path), replay_of()
    sealed = Sealing(resumed, tmp_path)
    sealed.load(found.parts["replay"], found.placed.get("replay"))
    for action in ("step", "terminate", "step"):
        writer.write(action, 0, straight, resumed)
    save(tmp_path, 2, sealed)
    assert len(files(tmp_path)) > 1
    same_state(straight, found_in(tmp_path).parts["replay"])


# Damage.


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def link(path: Path) -> None:
    shutil.move(path, path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


DAMAGE = {
    "flipped bit": (flip, "was altered or truncated"),
    "cut off": (lambda path: os.truncate(path, 40), "was altered or truncated"),
    "emptied": (lambda path: os.truncate(path, 0), "was altered or truncated"),
    "removed": (Path.unlink, "cannot be read"),
    "link": (link, "is a symbolic link"),
}


@pytest.fixture
def two(tmp_path):
    """Two checkpoints of which the second has segments of its own; the state at the first."""
    replay, writer = replay_of(), Writer(1)
    sealed = Sealing(replay, tmp_path)
    episodes(replay, writer, 5)
    save(tmp_path, 1, sealed)
    first = snapshot(replay)
    episodes(replay, writer, 5)
    save(tmp_path, 2, sealed)
    return tmp_path, first


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_segment_is_named_and_the_checkpoint_before_it_used(two, name):
    folder, first = two
    older, newest = (listed(folder / f"checkpoint-{step:09d}") for step in (1, 2))
    damage, message = DAMAGE[name]
    own = next(each for each in newest if each not in older)
    damage(folder / "segments" / own)
    with pytest.raises(CorruptCheckpointError, match=f"000002: segments/{own} {message}"):
        checkpoint.load(folder / "checkpoint-000000002")
    assert checkpoint.load(folder / "checkpoint-000000002", ("learner",))[1] == {"step": 2}
    found = found_in(folder)
    assert found.name == "checkpoint-000000001" and own in found.problems[0]
    for key, value in first.items():
        np.testing.assert_array_equal(found.parts["replay"][key], value)


def test_a_segment_that_all_list_leaves_none_intact(two):
    folder, _ = two
    shared = listed(folder / "checkpoint-000000001")[0]
    flip(folder / "segments" / shared)
    with pytest.raises(CorruptCheckpointError, match=f"no intact.*000002.*{shared}.*000001"):
        checkpoint.find_newest(folder)


def test_a_resumption_replaces_what_was_damaged(two):
    folder, first = two
    for name in set(listed(folder / "checkpoint-000000002")) - set(
        listed(folder / "checkpoint-000000001")
    ):
        flip(folder / "segments" / name)
    replay, sealed = again(folder, replay_of())
    same_state(replay, first)
    writer = Writer(1)
    episodes(replay_of(), writer, 5)
    episodes(replay, writer, 5)
    save(folder, 2, sealed)
    assert found_in(folder).problems == []
    same_state(replay, found_in(folder).parts["replay"])


def test_segments_that_vanish_while_a_run_goes_on_are_written_again(tmp_path):
    replay, writer = replay_of(), Writer(1)
    sealed = Sealing(replay, tmp_path)
    episodes(replay, writer, 5)
    save(tmp_path, 1, sealed)
    shutil.rmtree(tmp_path / "segments")
    episodes(replay, writer, 1)
    save(tmp_path, 2, sealed)
    same_state(replay, found_in(tmp_path).parts["replay"])


def test_while_a_manifest_cannot_be_read_no_segment_is_removed(two):
    folder, _ = two
    shutil.copytree(folder / "checkpoint-000000002", folder / "checkpoint-000000009")  # a copy
    before = files(folder)
    replay = replay_of()
    save(folder, 3, Sealing(replay, folder), keep=1)
    assert before.keys() <= files(folder).keys()
    shutil.rmtree(folder / "checkpoint-000000009")
    save(folder, 4, Sealing(replay, folder), keep=1)
    assert files(folder) == {} and not (folder / "segments").exists()


def test_only_segments_are_removed(tmp_path):
    place, digits = tmp_path / "segments", "0" * 32
    place.mkdir()
    left = f".replay-{digits}.safetensors-{digits}"
    for name in (f"replay-{digits}.safetensors", left, "thesis.txt", "replay-1.safetensors"):
        (place / name).write_text("precious")
    segments.remove_unlisted(tmp_path, ())
    assert {path.name for path in place.iterdir()} == {"thesis.txt", "replay-1.safetensors"}
    place.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / f"replay-{digits}.safetensors").write_text("precious")
    place.symlink_to(tmp_path / "elsewhere")
    segments.remove_unlisted(tmp_path, ())
    assert len(list((tmp_path / "elsewhere").iterdir())) == 3
    with pytest.raises(ValueError, match="nothing is written through links"):
        segments.write_segments(tmp_path, "replay", [])


# Manifests and files that somebody else has made.


def signed(folder: Path, listing) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"segments": listing}
    del manifest["self"]
    digest = checkpoint._digest(json.dumps(manifest, sort_keys=True))
    (folder / "manifest.json").write_text(json.dumps(manifest | {"self": digest}))


NAMES = ["../../victim", "/etc/passwd", "replay.safetensors", "", "..", 7]


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_a_manifest_names_plain_segments_only(two, name):
    path = two[0] / "checkpoint-000000002"
    signed(path, {"replay": [{"name": name, "sha256": "0" * 64}]})
    with pytest.raises(CorruptCheckpointError, match=f"names {name!r}, which is no segment"):
        checkpoint.load(path)


@pytest.mark.parametrize("listing", [[], {"replay": 3}, {"replay": ["x"]}, {"replay": [{"a": 1}]}])
def test_a_listing_that_is_none_is_named(two, listing):
    path = two[0] / "checkpoint-000000002"
    signed(path, listing)
    with pytest.raises(CorruptCheckpointError, match=r"manifest\.json: its list of segments"):
        checkpoint.read_manifest(path)


MISFITS = {
    "a row beyond the last": {segments.ROW: np.array([10**6], np.int32)},
    "a row before the first": {segments.ROW: np.array([-1], np.int32)},
    "a row of no stream": {segments.STREAM: np.array([5], np.int32)},
    "no places": {segments.ROW: None},
    "places that are no numbers": {segments.ROW: np.array([0.5])},
    "another dtype": {"rows/reward": np.array([1.0])},
    "another shape": {"rows/action": np.zeros((1, 7), np.float32)},
    "more rows than places": {"rows/reward": np.zeros(2, np.float32)},
    "an array too many": {"rows/more": np.zeros(1)},
    "an array too few": {"rows/reward": None},
}


@pytest.mark.parametrize("name", MISFITS)
def test_segments_that_do_not_fit_are_refused(two, name):
    folder = two[0]
    path = folder / "checkpoint-000000002"
    segment = listed(path)[0]
    from safetensors.numpy import load_file

    one = {key: value[:1] for key, value in load_file(folder / "segments" / segment).items()}
    changed = {key: value for key, value in (one | MISFITS[name]).items() if value is not None}
    [made] = segments.write_segments(folder, "replay", [changed])
    signed(path, segments.to_json({"replay": [made]}))
    with pytest.raises(CorruptCheckpointError, match="its segments do not fit together"):
        checkpoint.load(path)


@pytest.mark.parametrize("shape", [(1, 10**12), (10**9, 10), (-1, 5), (1, 1, 1)])
def test_small_files_that_claim_much_are_refused(tmp_path, shape):
    own = Sealing(replay_of(), tmp_path).seal() | {segments.SHAPE: np.array(shape)}
    path = checkpoint.save(tmp_path, 1, {"replay": own}, {}, 1, {"replay": []})
    tracemalloc.start()
    try:
        with pytest.raises(CorruptCheckpointError, match="its segments do not fit together"):
            checkpoint.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


# Failures and kills.


@pytest.mark.parametrize(
    ("where", "call"), [(os, n) for n in range(1, 12)] + [(Path, n) for n in range(1, 5)]
)
def test_a_failure_while_writing_leaves_the_earlier_checkpoint(tmp_path, monkeypatch, where, call):
    """Every write, sync and renaming may fail; the next checkpoint has everything."""
    replay, writer = replay_of(), Writer(1)
    sealed = Sealing(replay, tmp_path)
    episodes(replay, writer, 3)
    save(tmp_path, 1, sealed)
    before = snapshot(replay)
    episodes(replay, writer, 3)
    owner, name = (os, "fsync") if where is os else (Path, "replace")
    real, count = getattr(owner, name), [0]

    def flaky(*args, **kwargs):
        count[0] += 1
        if count[0] == call:
            raise OSError(28, "disk full")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, flaky)
        try:
            save(tmp_path, 2, sealed)
        except OSError:
            found = found_in(tmp_path)  # the second, where only the last sync has failed
            then = {"checkpoint-000000001": before, "checkpoint-000000002": snapshot(replay)}
            assert found.problems == [] and (name == "fsync" or found.name in list(then)[:1])
            for key, value in then[found.name].items():
                np.testing.assert_array_equal(found.parts["replay"][key], value)
        else:
            assert count[0] < call or found_in(tmp_path).problems == []
    save(tmp_path, 3, sealed)
    same_state(replay, found_in(tmp_path).parts["replay"])
    paths = sorted(tmp_path.glob("checkpoint-*"))
    assert files(tmp_path).keys() == {name for path in paths for name in listed(path)}


SAVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_sealing as tests

tests.sealing.LEAST_BYTES, tests.sealing.MOST_BYTES = 1, 700
folder, replay, step = Path(sys.argv[2]), tests.replay_of(60), 0
sealed, writer = tests.Sealing(replay, folder), tests.Writer(1)
if folder.exists():
    found = tests.found_in(folder)
    step = found.record["step"]
    sealed.load(found.parts["replay"], found.placed["replay"])
    tests.episodes(tests.replay_of(), writer, step)
while True:
    step += 1
    tests.episodes(replay, writer, 1)
    tests.save(folder, step, sealed)
    print(step, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL needs a POSIX system")
def test_a_process_killed_while_sealing_always_leaves_a_loadable_checkpoint(tmp_path):
    rng, last, folder = np.random.default_rng(0), 0, tmp_path / "checkpoints"
    for _ in range(2):
        command = [sys.executable, "-c", SAVER, str(Path(__file__).parent), str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                ready, _, _ = select.select([process.stdout], [], [], 120)
                assert ready, "the saving process wrote nothing within two minutes"
                time.sleep(rng.uniform(0, 0.3))
            finally:
                process.kill()
            written = process.stdout.read().split("\n")[:-1]
        found = found_in(folder)
        assert found.problems == [] and found.record["step"] >= int(written[-1]) > last
        last = found.record["step"]
        straight = replay_of(60)
        episodes(straight, Writer(1), last)
        same_state(straight, found.parts["replay"])
