"""The benchmark that fuzzes: it sees an answer that is not clean, asks about every option, and what
it has found is nothing."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from fuzz import ACCEPTED, Answer, faults_of, left_behind, squeezed
from fuzz_commands import BASES, CONTRADICTIONS, command_lines, of_contradictions, options_of
from fuzz_files import data_files
from fuzz_process import stated_size
from fuzz_runs import signed

from exporl.algos import ALGORITHMS
from exporl.run.config import flatten
from exporl.run.presets import preset_config

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "fuzz.json"
CLEAN = "error: data.path: no data file at gone.npz.\n"


def answer(status=2, error=CLEAN, out="", cpu_s=0.1):
    return Answer(status, out, error, cpu_s, 0)


def found(refused=True, names=("gone.npz",), **changes):
    return list(faults_of(answer(**changes), refused, names))


def test_a_clean_refusal_has_no_fault():
    assert found() == found(status=0, refused=False) == found(status=ACCEPTED, refused=False) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"status": 0}, "accepted"),
        ({"status": ACCEPTED}, "accepted"),
        ({"status": 1}, "exit status 1"),
        ({"status": -11}, "ended by signal 11"),
        ({"error": ""}, "0 messages"),
        ({"error": CLEAN + CLEAN}, "2 messages"),
        ({"error": "error: something.\n"}, "names none of gone.npz"),
        ({"error": CLEAN + "Traceback (most recent call last)"}, "a stack trace"),
        ({"error": CLEAN + "x.py:1: RuntimeWarning: overflow"}, "a warning of a library"),
        ({"error": CLEAN + "\x1b[31mred"}, "characters that a terminal obeys"),
        ({"error": CLEAN + "x" * 9000}, "9044 characters"),
        ({"cpu_s": 11.0}, "11 s"),
    ],
)
def test_what_is_not_clean_is_seen(changes, fault):
    assert fault in found(**changes)


def test_lists_of_faults_need_no_error():
    assert found(error="", out="d.npz: 3 episodes checked, 2 faults in 1 episodes") == []


def test_layout_does_not_hide_a_name():
    assert squeezed("│ --train.batch- │\n│ size │") == squeezed("--train.batch-size")


def test_what_is_left_behind_is_seen():
    assert left_behind({"a": 1}, {"a": 1}) == ""
    assert left_behind({"a": 1}, {"a": 2, "new": -1}) == "left behind or changed: a, new"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_option_of_a_run_is_asked_about(algorithm):
    asked = {option.spelling for option in options_of(f"train {algorithm}")}
    known = set(flatten(preset_config(algorithm, "tiny", "probe/bandit"))) - {"algorithm"}
    assert {f"--{name}".replace("_", "-") for name in known} <= asked


def test_options_are_those_of_the_commands_parsers():
    known = {"--episodes", "--seed", "--task", "--trust", "--video", "--video-dir"}
    assert known == {o.spelling for o in options_of("eval")}
    assert all(options_of(command) or command in ("tasks", "presets") for command in BASES)


def test_lines_are_seeded_and_hold_every_contradiction():
    assert command_lines(200, 1) == command_lines(200, 1) != command_lines(200, 2)
    assert len(command_lines(500, 0)) == 500
    lines = {line.args for line in command_lines(200, 1)}
    assert {line.args for line in of_contradictions()} <= lines
    assert len(CONTRADICTIONS) >= 50 and not any("EXPO" in args for args in lines)


def test_hostile_files_can_be_made_and_hurt_nothing(tmp_path):
    """Those that are small and cheap; the others are made by the benchmark alone."""
    cases = [case for case in data_files(330) if "MB" not in case.what and "3,000" not in case.what]
    assert len(data_files(330)) == 330
    for index, case in enumerate(cases[::9]):
        (folder := tmp_path / str(index)).mkdir()
        path = case.make(folder)
        assert path.is_relative_to(folder) and stated_size(path) < 10**8, case.what


def test_a_signed_manifest_has_the_digest_that_fits(tmp_path):
    from exporl.files.checkpoint import read_manifest

    manifest = {"step": 3, "sha256": {}, "record": {"x": [1.5]}, "self": "wrong"}
    (folder := tmp_path / "checkpoint-000000003").mkdir()
    (folder / "manifest.json").write_bytes(signed(manifest))
    assert read_manifest(folder)["record"] == {"x": [1.5]}


def test_nothing_is_answered_badly():
    result = json.loads(RESULT.read_text())
    assert result["faults"] == []
    asked = result["asked"]
    assert asked["command lines"] >= 500 and asked["processes"] >= 40
    assert asked["data files"] + asked["run directories"] >= 500
    assert result["most_memory_in_parts_of_allowed"] <= 1
