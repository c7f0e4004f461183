"""How a file of episodes is read: the same options in `exporl data`, in training and in Python, and
none of them ignored."""

import dataclasses
import importlib
import inspect
import json
import re

import numpy as np
import pytest

from exporl.cli.main import main
from exporl.data.formats import FORMATS, ReadOptions, check_reading, save_npz
from exporl.envs.registry import make_task
from exporl.run.config import DataConfig, check, from_json, to_json
from exporl.run.loop import train
from exporl.run.prior import prior_episodes
from helpers.recordings import flat, refusal, write_hdf5, write_npz, write_robomimic
from helpers.runs import SMALL, tiny

GIVEN = {
    "keys": ("state",),
    "filter_key": "train",
    "horizon": 4,
    "images": True,
    "assume_success": True,
}
BANDIT = make_task("probe/bandit")


@pytest.fixture
def masked(tmp_path):
    """Five episodes of a task in robomimic's format, two of them under mask/train."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "masked.hdf5"
    write = FORMATS["robomimic"].write
    assert write is not None
    write(path, BANDIT.collect(5, 0.1, 0))
    with h5py.File(path, "a") as file:
        file["mask/train"] = [b"demo_1", b"demo_3"]
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_says_which_options_its_reader_looks_at(name):
    source = inspect.getsource(importlib.import_module(f"exporl.data.formats.{name}"))
    looked_at = set(re.findall(r"\boptions\.(\w+)", source)) & set(GIVEN)
    assert set(FORMATS[name].options) == looked_at


def test_every_option_of_a_reader_is_an_option_of_training_too():
    names = {field.name for field in dataclasses.fields(ReadOptions)}
    assert set(GIVEN) == names <= {field.name for field in dataclasses.fields(DataConfig)}
    assert DataConfig(**GIVEN).reading == ReadOptions(**GIVEN)


def test_options_that_the_format_does_not_have_are_refused(tmp_path):
    archive = write_npz(tmp_path / "a.npz", flat())
    assert refusal(check_reading, archive, None, ReadOptions(filter_key="train")) == (
        f"{archive} is read as arrays, which has no option filter_key (that is for robomimic). Its "
        "options are keys, horizon. Leave filter_key out, or name another format."
    )
    pytest.importorskip("h5py")
    recorded = write_hdf5(tmp_path / "flat.hdf5", flat())
    said = refusal(check_reading, recorded, None, ReadOptions(keys=("object",)))
    assert "is read as d4rl, which has no option keys" in said and "options are horizon." in said
    robomimic = write_robomimic(tmp_path / "r.hdf5")
    said = refusal(check_reading, robomimic, None, ReadOptions(images=True))
    assert "is read as robomimic, which has no option images (that is for lerobot)" in said


def test_the_commands_refuse_them(tmp_path, capsys):
    path = write_npz(tmp_path / "a.npz", flat())
    for command in (["data", "inspect", str(path)], ["check", "probe/bandit", "--data", str(path)]):
        assert main([*command, "--assume-success"]) == 2
        assert "arrays, which has no option assume_success" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--filter-key=x", "--keys=a", "--images", "--format=arrays"])
def test_a_check_without_a_file_has_nothing_to_read(option, capsys):
    assert main(["check", "probe/bandit", option]) == 2
    said = capsys.readouterr().err
    assert f"{option.split('=')[0]} says how a file is read, and there is none" in said


def test_training_refuses_them_before_anything_is_written(tmp_path, capsys):
    path, run = tmp_path / "five.npz", tmp_path / "run"
    save_npz(path, BANDIT.collect(5, 0.1, 0))
    args = ["train", "expo", "--task", "probe/bandit", "--run-dir", str(run), *SMALL]
    assert main([*args, "--data.path", str(path), "--data.filter-key", "train"]) == 2
    assert "arrays, which has no option filter_key" in capsys.readouterr().err
    assert main([*args, "--seeds", "2", "--data.path", str(path), "--data.images"]) == 2
    assert "arrays, which has no option images" in capsys.readouterr().err
    assert not run.exists()


@pytest.mark.parametrize("name", [*GIVEN, "format"])
def test_they_say_nothing_without_a_file(name):
    config = tiny(**{f"data.{name}": {**GIVEN, "format": "arrays"}[name]})
    message = f"data.{name} says how a file is read, and there is none: give data.path as well"
    assert message in refusal(check, config)


def test_training_reads_what_they_ask_for(masked, tmp_path):
    asked = {"data.path": str(masked), "data.filter_key": "train", "data.demos": None}
    config, said = tiny(task="probe/bandit", **asked), []
    episodes = prior_episodes(config, tmp_path, BANDIT, said.append)
    everything = prior_episodes(
        tiny(task="probe/bandit", **{"data.path": str(masked)}), tmp_path, BANDIT, said.append
    )
    assert len(episodes) == 2 and len(everything) == 5
    np.testing.assert_array_equal(episodes[0].actions, everything[1].actions)


@pytest.mark.slow
def test_a_run_keeps_them(masked, tmp_path):
    reading = {"data.path": str(masked), "data.filter_key": "train", "data.format": "robomimic"}
    config = tiny("bc", "probe/bandit", **reading, **{"train.offline_steps": 1})
    train(dataclasses.replace(config), tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "config.json").read_text())["data"]
    assert kept["filter_key"] == "train" and kept["format"] == "robomimic"


def test_a_configuration_without_them_means_none_of_them():
    plain = to_json(tiny())
    for name in (*GIVEN, "format"):
        del plain["data"][name]
    assert from_json(plain).data.reading == ReadOptions()


def test_all_episodes_of_a_file_are_used_unless_told_otherwise(tmp_path):
    path = tmp_path / "many.npz"
    save_npz(path, BANDIT.collect(23, 0.1, 0))
    for demos, used, words in (
        (None, 23, "all its 23 episodes are used"),
        (0, 23, "all its 23 episodes are used"),
        (30, 23, "all its 23 episodes are used"),
        (21, 21, "21 of its 23 episodes are used"),
    ):
        config = tiny(task="probe/bandit", **{"data.path": str(path), "data.demos": demos})
        said = []
        assert len(prior_episodes(config, tmp_path, BANDIT, said.append)) == used
        assert f"{path}: {words}" in said


def test_twenty_are_collected_unless_told_otherwise(tmp_path):
    config = tiny(task="probe/bandit", **{"data.demos": None})
    said = []
    assert len(prior_episodes(config, tmp_path, BANDIT, said.append)) == 20
    assert "collecting 20 demonstrations" in said[0]
