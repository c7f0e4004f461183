"""Runs whose replay is saved in segments go on to the bit, and read like any other run."""

from typing import Any

import numpy as np
import pytest

from exporl.acting.policy import load_policy
from exporl.cli.main import main
from exporl.data import sealing
from exporl.files import checkpoint
from exporl.files.run_files import CHECKPOINTS
from exporl.run.config import override
from exporl.run.loop import train
from helpers.runs import newest, tiny


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch):
    monkeypatch.setattr(sealing, "LEAST_BYTES", 1)
    monkeypatch.setattr(sealing, "MOST_BYTES", 200)


def segments_of(run):
    return {path.name for path in (run / CHECKPOINTS / "segments").iterdir()}


def same_run(one, two):
    (left, record), (right, wanted) = (checkpoint.load(newest(run)) for run in (one, two))
    assert newest(one).name == newest(two).name and left.keys() == right.keys()
    for part, arrays in left.items():
        assert arrays.keys() == right[part].keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, right[part][name], err_msg=f"{part} {name}")
    for name in ("updates", "last_eval", "rollout", "data"):
        assert record[name] == wanted[name], name


CASES: dict[str, dict[str, Any]] = {
    "several environments": {"chunk_length": 3, "num_envs": 2},
    "a full ring": {"data.capacity": 14},
    "kept samples": {"algo.backup": "cached", "algo.cache_refresh": 4},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_halves_are_a_whole(tmp_path, monkeypatch, name):
    """One run saved whole, without segments; the other in segments and resumed twice."""
    config = tiny(**CASES[name])
    with monkeypatch.context() as patch:
        patch.setattr(sealing, "LEAST_BYTES", 2**40)
        train(config, tmp_path / "straight")
    assert not (tmp_path / "straight" / CHECKPOINTS / "segments").exists()
    for steps in (10, 18, 24):
        part = override(config, {"train.online_steps": steps})
        train(part, tmp_path / "parts", resume=steps > 10)
    assert segments_of(tmp_path / "parts")
    same_run(tmp_path / "straight", tmp_path / "parts")


@pytest.mark.slow
def test_a_damaged_segment_costs_one_checkpoint_and_no_policy(tmp_path, capsys):
    config, run = tiny(), tmp_path / "run"
    train(config, tmp_path / "straight")
    train(config, run)
    kept = sorted(run.glob("checkpoints/checkpoint-*"))
    older, latest = (
        {each["name"] for each in checkpoint.read_manifest(path)["segments"]["replay"]}
        for path in kept[-2:]
    )
    name = min(latest - older)
    (run / CHECKPOINTS / "segments" / name).unlink()
    assert load_policy(run).checkpoint_name == kept[-1].name
    assert main(["report", str(run)]) == 0
    assert main(["train", "--resume", str(run)]) == 0
    said = capsys.readouterr()
    assert f"segments/{name} cannot be read" in said.err + said.out
    same_run(tmp_path / "straight", run)


@pytest.mark.slow
def test_learning_beside_acting_seals_as_well(tmp_path):
    config = tiny("bc", **{"train.asynchronous": True})
    train(override(config, {"train.online_steps": 12}), tmp_path / "run")
    first = segments_of(tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    assert first and first < segments_of(tmp_path / "run")
    _, record = checkpoint.load(newest(tmp_path / "run"))
    assert record["rollout"]["env_steps"] == 24
