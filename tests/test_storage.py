"""A replay whose arrays lie in files: the same to the bit as one in memory, beyond memory, refused
before anything is lost where a disk is too small."""

import errno
import mmap
import resource
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from exporl.data import sealing
from exporl.data.episodes import Episode
from exporl.data.memory import ReplayPlan, mapped_bytes, row_bytes
from exporl.data.replay import Replay
from exporl.data.sealing import Sealing
from exporl.files import checkpoint, mapped
from exporl.files.mapped import mapped_zeros
from exporl.files.segments import FOLDER
from exporl.run.callbacks import Callback
from exporl.run.config import check
from exporl.run.loop import train
from exporl.run.memory import check_memory, least_bytes, replay_zeros
from exporl.types import Spec
from helpers.replays import ACTIONS, COLUMNS, DISCOUNT, Writer, same_batch, same_state, snapshot
from helpers.runs import Heard, newest, tiny

PICTURE = (40, 40, 3)
SPEC = Spec((("state", (2,), "float32"), ("image", PICTURE, "uint8")), action_dim=2)
MB = 2**20


def in_files(folder):
    def zeros(shape, dtype):
        return mapped_zeros(folder, shape, dtype)

    return zeros


def root_of(array):
    """What an array's values lie in."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


@pytest.fixture
def limit():
    """Sets a limit of this process for one test."""
    before = {}

    def set_to(which, value):
        before[which] = resource.getrlimit(which)
        resource.setrlimit(which, (value, before[which][1]))

    yield set_to
    for which, limits in before.items():
        resource.setrlimit(which, limits)


# The arrays.


def test_zeros_in_a_file(tmp_path):
    """It has no name, is zero, and keeps what is written to it."""
    array = mapped_zeros(tmp_path, (3, 100, 1024), np.float32)
    assert list(tmp_path.iterdir()) == [] and isinstance(root_of(array), mmap.mmap)
    assert array.shape == (3, 100, 1024) and array.dtype == np.float32 and not array.any()
    array[1, 2] = 5
    assert array.sum() == 5 * 1024 and array.flags.writeable


@pytest.mark.parametrize("shape", [(3, 100, 1023), (3, 100), (3, 0, 5000)])
def test_small_rows_stay_in_memory(tmp_path, shape):
    array = mapped_zeros(tmp_path, shape, np.float32)
    assert array.shape == shape and not array.any() and array.base is None


def test_a_disk_that_is_too_small_is_told_at_once(tmp_path, limit):
    """The system refuses to make a file of more than a megabyte."""
    limit(resource.RLIMIT_FSIZE, MB)
    message = rf"{tmp_path} cannot hold a file of {4 * MB:,} B for the replay: .*Set data.scratch"
    with pytest.raises(OSError, match=message) as refused:
        mapped_zeros(tmp_path, (1, 4, MB), np.uint8)
    assert refused.value.errno in (errno.EFBIG, errno.ENOSPC)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="No such file or directory"):
        mapped_zeros(tmp_path / "gone", (1, 4, MB), np.uint8)


def test_what_memory_cannot_hold(tmp_path, limit):
    """128 MB of images where the process may have 64 MB more: minibatches are right."""
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    limit(resource.RLIMIT_DATA, used + 64 * MB)
    spec = Spec((("image", (64, 64, 3), "uint8"),), action_dim=1)
    rows = 128 * MB // (64 * 64 * 3)
    with pytest.raises(MemoryError):
        Replay(spec, rows)
    replay = Replay(spec, rows, zeros=in_files(tmp_path))
    for number in range(20):
        images = np.full((501, 64, 64, 3), number, np.uint8)
        actions, nothing = np.zeros((500, 1), np.float32), np.zeros(500, np.float32)
        episode = Episode({"image": images}, actions, nothing, nothing > 0, False)
        replay.add_episode(episode, lambda _, number=number: float(number), checked=True)
    batch = replay.sample(np.random.default_rng(0), 64, discount=0.9)
    images = batch.observation["image"].reshape(64, -1)
    np.testing.assert_array_equal(images.min(axis=1), batch.reward)
    np.testing.assert_array_equal(images.max(axis=1), batch.reward)
    assert len(set(batch.reward.tolist())) > 10


# The replay.


def with_images(writer_step):
    """A step of `Writer` with a picture that follows from its state."""

    def picture(observation):
        number = int(observation["state"][0])
        return observation | {"image": np.full(PICTURE, number % 251, np.uint8)}

    return writer_step._replace(
        observation=picture(writer_step.observation),
        next_observation=picture(writer_step.next_observation),
    )


class Seeing:
    """A replay that is shown pictures as well."""

    def __init__(self, replay):
        self.replay, self.cut = replay, replay.cut

    def add(self, step, stream):
        self.replay.add(with_images(step), stream)


def replays(folder, capacity=23, num_streams=2):
    """One in memory, one in files."""
    made = [
        Replay(SPEC, capacity, num_streams=num_streams, columns=COLUMNS, zeros=zeros)
        for zeros in (np.zeros, in_files(folder))
    ]
    assert isinstance(root_of(made[1]._observation["image"]), mmap.mmap)
    assert made[1]._observation["state"].base is None
    return made


def write(rng, writer, replays, count):
    for _ in range(count):
        action = ACTIONS[rng.integers(len(ACTIONS))]
        writer.write(action, int(rng.integers(2)), *map(Seeing, replays))


def test_files_hold_what_memory_holds(tmp_path):
    """Any history, full rings included: state and minibatches, to the bit."""
    pair, writer, rng = replays(tmp_path), Writer(2), np.random.default_rng(0)
    for _ in range(15):
        write(rng, writer, pair, 10)
        same_state(pair[1], snapshot(pair[0]))
        batches = [
            replay.sample(np.random.default_rng(1), 50, discount=DISCOUNT) for replay in pair
        ]
        same_batch(*batches)
        assert batches[0].observation["image"].dtype == np.uint8


def test_what_was_saved_comes_back_into_files(tmp_path, monkeypatch):
    """From segments, without being held in memory, by either kind."""
    monkeypatch.setattr(sealing, "LEAST_BYTES", 1)
    monkeypatch.setattr(sealing, "MOST_BYTES", 500)
    pair, writer, rng = replays(tmp_path), Writer(2), np.random.default_rng(0)
    write(rng, writer, pair, 60)
    folder = tmp_path / "checkpoints"
    sealed = Sealing(pair[1], folder)
    checkpoint.save(folder, 1, {"replay": sealed.seal()}, {}, 1, {"replay": sealed.segments})
    assert len(list((folder / FOLDER).iterdir())) > 3
    found = checkpoint.find_newest(folder, zeros=in_files(tmp_path))
    assert found is not None
    saved = found.parts["replay"]
    assert isinstance(root_of(saved["observation/image"]), mmap.mmap)
    others = replays(tmp_path)
    for replay in others:
        Sealing(replay, folder).load(saved, found.placed["replay"])
        same_state(replay, snapshot(pair[0]))
    write(rng, writer, [*pair, *others], 30)
    for replay in others:
        same_state(replay, snapshot(pair[0]))


# Runs.


def same_arrays(one, other):
    """The newest checkpoints of two runs, to the bit."""
    left, right = (checkpoint.load(newest(run))[0] for run in (one, other))
    for part, arrays in left.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, right[part][name], err_msg=f"{part} {name}")


@pytest.mark.slow
def test_a_run_on_disk_is_the_run_in_memory(tmp_path, monkeypatch):
    """Resumed in files, then in memory: to the bit, whatever lies where."""
    monkeypatch.setattr(sealing, "LEAST_BYTES", 1)
    monkeypatch.setattr(sealing, "MOST_BYTES", 2000)
    monkeypatch.setattr(mapped, "LEAST_BYTES", 100)
    options = {"data.capacity": 14}
    scratch, heard = tmp_path / "scratch", Heard()
    scratch.mkdir()
    train(tiny("rlpd", "probe/image", **options), tmp_path / "memory")
    disk = options | {"data.storage": "disk", "data.scratch": str(scratch)}
    for steps, changes in ((10, disk), (18, disk | {"data.scratch": None}), (24, options)):
        config = tiny("rlpd", "probe/image", **changes | {"train.online_steps": steps})
        train(config, tmp_path / "run", heard, resume=steps > 10)
        assert list(scratch.iterdir()) == []
    same_arrays(tmp_path / "memory", tmp_path / "run")
    plans = [said for said in heard.said if said.startswith("replay:")]
    assert ["in files" in plan for plan in plans] == [True, True, False]


class Fills(Callback):
    """No file may be larger than a page once there is a checkpoint."""

    def __init__(self, limit):
        self.limit = limit

    def on_checkpoint(self, path):
        self.limit(resource.RLIMIT_FSIZE, resource.getpagesize())


@pytest.mark.slow
def test_a_disk_that_fills_up_leaves_the_last_checkpoint(tmp_path, limit, monkeypatch):
    """The run ends, says what there is to go on from, and goes on to the bit."""
    monkeypatch.setattr(mapped, "LEAST_BYTES", 100)
    config = tiny("rlpd", "probe/image", **{"data.storage": "disk", "log.save_every": 8})
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OSError, match="File too large") as full:
        train(config, tmp_path / "run", callbacks=[Fills(limit)])
    resource.setrlimit(resource.RLIMIT_FSIZE, hard)
    (note,) = full.value.__notes__
    assert note.startswith("The last checkpoint is checkpoint-000000008; go on with: exporl train")
    train(config, tmp_path / "run", resume=True)
    train(config, tmp_path / "whole")
    same_arrays(tmp_path / "whole", tmp_path / "run")


def test_a_scratch_folder_is_checked(tmp_path):
    with pytest.raises(ValueError, match=r"data.scratch='/x' has no effect: data.storage is 'mem"):
        check(tiny(**{"data.scratch": "/x"}))
    config = tiny(**{"data.scratch": str(tmp_path / "gone"), "data.storage": "disk"})
    with pytest.raises(ValueError, match=r"data.scratch='.*gone' is no folder. Make it first."):
        replay_zeros(config, tmp_path)


def test_a_task_without_images_needs_no_files(tmp_path):
    message = r"data.storage='disk' has no effect on probe/delay: no entry .* has 4,096 B or more"
    with pytest.raises(ValueError, match=message):
        train(tiny(**{"data.storage": "disk"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# The plan.


Usage = namedtuple("Usage", "total used free")


def test_the_plan_tells_memory_and_files_apart(tmp_path, monkeypatch):
    plan = ReplayPlan(
        1000, prior_rows=2_000, online_rows=5_000, num_streams=2, mapped_row_bytes=900
    )
    assert str(plan).endswith("10,000 rows 10.0 MB); 9.0 MB of it in files")
    plan.check(3_000_000)
    message = r"only 2.5 MB of memory are available. Set data.capacity to at most 2500,"
    with pytest.raises(ValueError, match=message):
        plan.check(2_500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, 18_000_000))
    plan.check_disk(tmp_path, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, 17_000_000))
    message = rf"{tmp_path} needs 18.0 MB, and 17.0 MB are free. Set data.capacity or train"
    with pytest.raises(ValueError, match=message):
        plan.check_disk(tmp_path, tmp_path)
    ReplayPlan(1000, 2_000, 5_000).check_disk(tmp_path, tmp_path)


@pytest.mark.slow
def test_a_run_whose_disk_is_too_small_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, 100))
    monkeypatch.setattr(mapped, "LEAST_BYTES", 100)
    with pytest.raises(ValueError, match="and 100 B are free"):
        train(tiny("bc", "probe/image", **{"data.storage": "disk"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bytes_in_files_are_those_of_the_arrays(tmp_path):
    replay = Replay(SPEC, 100, zeros=in_files(tmp_path))
    assert replay._observation["image"].nbytes == 100 * mapped_bytes(SPEC) < 100 * row_bytes(SPEC)


def test_what_lies_in_files_needs_no_memory():
    config = tiny(**{"train.online_steps": 10**9, "data.capacity": 10**9})
    needed = sum(least_bytes(config, SPEC).values())
    with pytest.raises(ValueError, match=r"online replay \(train.online_steps, data.capacity, num"):
        check_memory(config, SPEC, needed // 2)
    disk = tiny(**{"train.online_steps": 10**9, "data.capacity": 10**9, "data.storage": "disk"})
    check_memory(disk, SPEC, needed // 2)
