"""The demo, small: every step, not repeated when finished, its table from its files."""

import pytest

from exporl.algos import ALGORITHMS
from exporl.cli.demo import PRESETS
from exporl.cli.main import main
from helpers.runs import tiny_options

SMALL = {
    "chunk_length": 2,
    "train.update_after": 10,
    "eval.every": 24,
    "eval.episodes": 2,
    "data.demos": 2,
}


@pytest.mark.slow
def test_demo_runs_once_and_reports(tmp_path, monkeypatch, capsys):
    pytest.importorskip("metaworld")
    for name in ("expo", "rlpd"):
        small = {option: (value, "test") for option, value in (tiny_options(name) | SMALL).items()}
        presets, preset = ALGORITHMS[name].presets, PRESETS[name]
        monkeypatch.setitem(presets, preset, {**presets[preset], **small})
    args = ["demo", "--dir", str(tmp_path), "--task", "metaworld/reach-v3", "--steps", "24"]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert (
        "collecting 2 demonstrations" in out
        and "EXPO - RLPD" in out
        and "base policy before" in out
    )
    assert (tmp_path / "report.html").is_file()
    before = (tmp_path / "expo-s0" / "eval.jsonl").stat().st_mtime_ns
    assert main(args) == 0
    out = capsys.readouterr().out
    assert out.count("already finished") == 2 and "collecting" not in out
    assert (tmp_path / "expo-s0" / "eval.jsonl").stat().st_mtime_ns == before
    assert main([*args[:3], "--task", "metaworld/push-v3", *args[5:]]) == 2
    assert "holds a run on metaworld/reach-v3" in capsys.readouterr().err


def test_nothing_is_collected_before_both_runs_are_checked(tmp_path, monkeypatch, capsys):
    preset = ALGORITHMS["rlpd"].presets[PRESETS["rlpd"]]
    monkeypatch.setitem(preset, "train.batch_size", (1, "test"))
    assert main(["demo", "--dir", str(tmp_path / "demo"), "--steps", "24"]) == 2
    told = capsys.readouterr()
    assert "train.batch_size" in told.err and "collecting" not in told.out
    assert not (tmp_path / "demo").exists()
