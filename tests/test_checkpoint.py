"""Checkpoints: what comes back, what damage is noticed, and what failures and kills leave
behind."""

import json
import os
import select
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from exporl.files import atomic, checkpoint
from exporl.files.checkpoint import CorruptCheckpointError

PARTS = {
    "learner": {
        "['params']['kernel']": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
        "count": np.array(41, np.int32),
        "temperature": np.array(-0.5, np.float32),
        "key": np.array([1, 2**32 - 1], np.uint32),
        "transposed": np.arange(12, dtype=np.float64).reshape(3, 4).T,
    },
    "replay": {
        "is_step": np.array([[True, False, True]]),
        "head": np.array([2**40], np.int64),
        "observation/image": np.arange(8, dtype=np.uint8).reshape(1, 2, 2, 2),
        "done": np.array(True),
        "empty": np.zeros((0, 4), np.float32),
    },
}
RECORD = {"step": 7, "rate": 0.1, "nothing": None, "names": ["a", "ü"], "nested": {"on": True}}


def save(folder: Path, step: int, keep: int = 3, **record) -> Path:
    return checkpoint.save(
        folder, step, {"part": {"x": np.full(50, step)}}, {"step": step, **record}, keep
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def newest(folder: Path) -> tuple[int, list[str]]:
    """(step, problems) of the newest intact checkpoint, whose arrays must be its own."""
    found = checkpoint.load_newest(folder)
    assert found is not None
    parts, record, problems = found
    np.testing.assert_array_equal(parts["part"]["x"], np.full(50, record["step"]))
    return record["step"], problems


def test_round_trip(tmp_path):
    path = checkpoint.save(tmp_path / "new" / "folder", 7, PARTS, RECORD, 1)
    parts, record = checkpoint.load(path)
    assert record == RECORD
    assert {name: set(arrays) for name, arrays in parts.items()} == {
        name: set(arrays) for name, arrays in PARTS.items()
    }
    for name, arrays in PARTS.items():
        for key, expected in arrays.items():
            got = parts[name][key]
            assert (got.shape, got.dtype) == (expected.shape, expected.dtype), key
            np.testing.assert_array_equal(got, expected, err_msg=key)
    assert names(path) == ["learner.safetensors", "manifest.json", "replay.safetensors"]


def test_a_record_comes_back_as_json_has_it(tmp_path):
    path = save(tmp_path, 1, pair=(1, 2), counts={2: "two", 10: "ten"})
    assert checkpoint.load(path)[1] == {
        "step": 1,
        "pair": [1, 2],
        "counts": {"2": "two", "10": "ten"},
    }


@pytest.mark.parametrize("keep", [1, 2, 3, 6, 9])
def test_the_newest_are_kept(tmp_path, keep):
    steps = [5, 90, 100, 1_000, 20_000]
    for step in steps:
        save(tmp_path, step, keep)
    assert names(tmp_path) == [f"checkpoint-{step:09d}" for step in steps[-keep:]]
    assert newest(tmp_path) == (20_000, [])


@pytest.mark.parametrize("keep", [1, 2])
def test_what_was_just_written_is_kept_when_later_ones_are_damaged(tmp_path, keep):
    for step in (10, 20, 30):
        save(tmp_path, step, 9)
    for step in (20, 30):
        (tmp_path / f"checkpoint-{step:09d}" / "part.safetensors").unlink()
    assert newest(tmp_path)[0] == 10
    save(tmp_path, 15, keep)
    assert newest(tmp_path)[0] == 15


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path, 3, version=1)
    save(tmp_path, 3, version=2)
    assert names(tmp_path) == ["checkpoint-000000003"]
    assert checkpoint.load(tmp_path / "checkpoint-000000003")[1]["version"] == 2


def test_leftovers_of_a_kill_are_cleared(tmp_path):
    (tmp_path / ".tmp-1").mkdir()
    (tmp_path / ".tmp-1" / "part.safetensors").write_bytes(b"half")
    assert checkpoint.load_newest(tmp_path) is None
    save(tmp_path, 1)
    assert names(tmp_path) == ["checkpoint-000000001"]


class Killed(BaseException):
    """Ends a call where the process would have ended."""


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_kill_while_an_old_checkpoint_is_removed_leaves_nothing_for_good(
    tmp_path, monkeypatch, call
):
    save(tmp_path, 1, keep=1)
    calls = []

    def killed_at(real):
        def remove(path, *args, **kwargs):
            calls.append(path.name)
            if len(calls) == call:
                raise Killed
            return real(path, *args, **kwargs)

        return remove

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed_at(Path.unlink))
        patch.setattr(Path, "rmdir", killed_at(Path.rmdir))
        with pytest.raises(Killed):
            save(tmp_path, 2, keep=1)
    assert calls == ["part.safetensors", "manifest.json", "checkpoint-000000001"][:call]
    assert newest(tmp_path) == (2, [])
    save(tmp_path, 3, keep=1)
    assert names(tmp_path) == ["checkpoint-000000003"]


def test_no_checkpoint_yet(tmp_path):
    assert checkpoint.load_newest(tmp_path) is None
    assert checkpoint.load_newest(tmp_path / "missing") is None


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def rewrite(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE = {
    "flipped first bit": (
        lambda p: flip(p / "part.safetensors", 0),
        "part.safetensors was altered or truncated",
    ),
    "flipped last bit": (
        lambda p: flip(p / "part.safetensors", -1),
        "part.safetensors was altered or truncated",
    ),
    "truncated": (
        lambda p: os.truncate(p / "part.safetensors", 100),
        "part.safetensors was altered or truncated",
    ),
    "emptied": (
        lambda p: os.truncate(p / "part.safetensors", 0),
        "part.safetensors was altered or truncated",
    ),
    "missing part": (
        lambda p: (p / "part.safetensors").unlink(),
        "part.safetensors cannot be read",
    ),
    "missing manifest": (lambda p: (p / "manifest.json").unlink(), "the manifest cannot be read"),
    "truncated manifest": (
        lambda p: os.truncate(p / "manifest.json", 30),
        "the manifest cannot be read",
    ),
    "empty manifest": (
        lambda p: os.truncate(p / "manifest.json", 0),
        "the manifest cannot be read",
    ),
    "zeroed manifest": (
        lambda p: (p / "manifest.json").write_bytes(bytes(50)),
        "the manifest cannot be read",
    ),
    "manifest of something else": (
        lambda p: (p / "manifest.json").write_text("[]"),
        "the manifest cannot be read",
    ),
    "unsigned manifest": (
        lambda p: (p / "manifest.json").write_text("{}"),
        "the manifest cannot be read",
    ),
    "other record": (
        lambda p: rewrite(p / "manifest.json", record={"step": 9}),
        "manifest.json was altered",
    ),
    "other step": (lambda p: rewrite(p / "manifest.json", step=9), "manifest.json was altered"),
    "fewer parts": (lambda p: rewrite(p / "manifest.json", sha256={}), "manifest.json was altered"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_and_the_previous_checkpoint_used(tmp_path, name):
    damage, message = DAMAGE[name]
    for step in (1, 2):
        save(tmp_path, step)
    path = tmp_path / "checkpoint-000000002"
    assert newest(tmp_path) == (2, [])
    damage(path)
    with pytest.raises(CorruptCheckpointError, match=f"^checkpoint-000000002: {message}"):
        checkpoint.load(path)
    step, problems = newest(tmp_path)
    assert step == 1
    assert len(problems) == 1
    assert problems[0].startswith(f"checkpoint-000000002: {message}")


def test_every_flipped_bit_of_the_manifest_is_noticed(tmp_path):
    path = save(tmp_path, 1) / "manifest.json"
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        )
        with pytest.raises(CorruptCheckpointError):
            checkpoint.load(path.parent)


def test_none_intact(tmp_path):
    for step in (1, 2):
        flip(save(tmp_path, step) / "part.safetensors", 60)
    with pytest.raises(
        CorruptCheckpointError, match=r"no intact checkpoint is left: .*000000002.*000000001"
    ):
        checkpoint.load_newest(tmp_path)


def fail_at(monkeypatch, where: str, call: int) -> None:
    """Makes the `call`-th call of a function raise; the others are real."""
    owner, name = where.rsplit(".", 1)
    owner = {"os": os, "Path": Path}[owner]
    real, count = getattr(owner, name), [0]

    def flaky(*args, **kwargs):
        count[0] += 1
        if count[0] == call:
            raise OSError("disk full")
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, flaky)


@pytest.mark.parametrize(
    ("where", "call"),
    [("os.fsync", 1), ("os.fsync", 2), ("os.fsync", 3), ("Path.open", 2), ("Path.rename", 1)],
)
def test_a_failure_while_writing_leaves_the_earlier_checkpoint(tmp_path, monkeypatch, where, call):
    save(tmp_path, 1, keep=1)
    with monkeypatch.context() as patch:
        fail_at(patch, where, call)
        with pytest.raises(OSError, match="disk full"):
            checkpoint.save(tmp_path, 2, PARTS, RECORD, 1)
    assert names(tmp_path) == ["checkpoint-000000001"]
    assert newest(tmp_path) == (1, [])


@pytest.mark.parametrize("call", [1, 2])
def test_a_failure_while_replacing_a_step_loses_nothing(tmp_path, monkeypatch, call):
    save(tmp_path, 1, keep=1, version=1)
    with monkeypatch.context() as patch:
        fail_at(patch, "Path.rename", call)
        with pytest.raises(OSError, match="disk full"):
            save(tmp_path, 1, keep=1, version=2)
    found = checkpoint.load_newest(tmp_path)
    assert found is not None
    assert found[1] == {"step": 1, "version": 1}
    save(tmp_path, 1, keep=1, version=3)
    assert names(tmp_path) == ["checkpoint-000000001"]
    assert checkpoint.load(tmp_path / "checkpoint-000000001")[1]["version"] == 3


def test_what_is_not_json_is_refused_before_anything_changes(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(TypeError):
        save(tmp_path, 2, rate=np.float32(1))
    assert names(tmp_path) == ["checkpoint-000000001"]


SAVER = """
import sys
from pathlib import Path
import numpy as np
from exporl.files import checkpoint

folder, step = Path(sys.argv[1]), int(sys.argv[2])
while True:
    step += 1
    arrays = {"x": np.full(20_000, step), "y": np.array(step)}
    parts = {"learner": arrays, "replay": arrays}
    checkpoint.save(folder, step, parts, {"step": step}, 2)
    print(step, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL needs a POSIX system")
def test_a_process_killed_while_saving_always_leaves_a_loadable_checkpoint(tmp_path):
    rng, step = np.random.default_rng(0), 0
    for _ in range(3):
        command = [sys.executable, "-c", SAVER, str(tmp_path), str(step)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                ready, _, _ = select.select([process.stdout], [], [], 60)
                assert ready, "the saving process wrote nothing within a minute"
                time.sleep(rng.uniform(0, 0.05))
            finally:
                process.kill()
            written = process.stdout.read().split("\n")[:-1]
        found = checkpoint.load_newest(tmp_path)
        assert found is not None
        parts, record, problems = found
        assert problems == []
        assert record["step"] >= int(written[-1]) > step
        step = record["step"]
        for arrays in parts.values():
            np.testing.assert_array_equal(arrays["x"], np.full(20_000, step))
            assert arrays["y"] == step
    assert len(parts) == 2


def test_text_is_replaced_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    atomic.write_text(path, "old")
    with monkeypatch.context() as patch:
        fail_at(patch, "os.fsync", 1)
        with pytest.raises(OSError, match="disk full"):
            atomic.write_text(path, "new and longer")
    assert path.read_text() == "old"
    atomic.write_text(path, "new ü")
    assert path.read_bytes() == "new ü".encode()


def test_a_file_of_any_size_that_is_no_checkpoint_is_not_read_into_memory(tmp_path):
    """Twenty gigabytes of nothing, which take no room on the disk."""
    path = checkpoint.save(tmp_path, 1, {"part": {"x": np.ones(3, np.float32)}}, {}, 1)
    assert checkpoint.load(path)[0]["part"]["x"].tolist() == [1, 1, 1]
    os.truncate(path / "part.safetensors", 20 * 10**9)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptCheckpointError, match=r"truncated .it has 20000000000"):
            checkpoint.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
