"""The benchmark of damage: it sees what is silent, and what it has found is nothing."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from damage import Seen, damages, exchange, files_of, flip, judge, named

ROOT = Path(__file__).parent.parent

INTACT = Seen({"report": 1, "act": 2}, [], [])


@pytest.mark.parametrize(
    ("results", "said", "foreign", "outcome"),
    [
        ({"report": 1, "act": 2}, [], [], "harmless"),
        ({"report": 1, "act": 3}, [], [], "silent, and changes a result"),
        ({"report": 1, "act": 3}, ["something else"], [], "silent, and changes a result"),
        ({"report": 1, "act": 3}, ["eval.jsonl was changed"], [], "told"),
        ({"report": 1, "act": 2}, ["eval.jsonl"], ["act: KeyError: 'x'"], "foreign error"),
    ],
)
def test_outcomes(results, said, foreign, outcome):
    assert judge("eval.jsonl", INTACT, Seen(results, said, foreign)) == outcome


def test_a_checkpoint_is_named_by_its_folder():
    assert named("checkpoints/checkpoint-7/manifest.json", ["checkpoint-7: it was altered"])
    assert not named("checkpoints/checkpoint-7/manifest.json", ["config.json was changed"])


def test_every_file_is_damaged_in_every_way(tmp_path):
    for run in ("run", "other"):
        for step in (1, 2):
            folder = tmp_path / run / "checkpoints" / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            (folder / "part").write_text(f"{run} {step}")
        (tmp_path / run / "config.json").write_text(f"config of {run}")
    run, made = tmp_path / "run", {}
    for kind, name, damage in damages(run, tmp_path / "other", np.random.default_rng(0), 2):
        made.setdefault(name, []).append(kind)
        if kind == "flip":
            before = (run / name).read_bytes()
            damage(run)
            assert (run / name).read_bytes() != before
            (run / name).write_bytes(before)
    assert set(files_of(run)) <= made.keys()
    assert made["config.json"] == [
        *["flip"] * 2,
        *["truncation"] * 4,
        "deletion",
        "swap with another run",
    ]
    assert "swap between checkpoints" in made["checkpoints/checkpoint-2/part"]
    assert made["checkpoints"] == made["checkpoints/checkpoint-2"] == ["deletion"]


def test_damage_can_be_undone(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"abc")
    two.write_bytes(b"xyz")
    flip(one, 9)
    assert one.read_bytes() == b"a`c"
    flip(one, 9)
    exchange(one, two)
    assert (one.read_bytes(), two.read_bytes()) == (b"xyz", b"abc")


def test_nothing_is_silent():
    result = json.loads((ROOT / "benchmarks" / "results" / "damage.json").read_text())
    assert result["damages"] >= 300
    assert result["faults"] == []
    assert {"flip", "truncation", "deletion", "swap with another run"} <= result["by_kind"].keys()
