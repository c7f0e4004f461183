"""How long a run will take is told by the last one of its kind."""

import json

import jax
import pytest

from exporl.run.pace import Pace, evaluations, expected_seconds, measured_pace, remember_pace
from exporl.run.phases import evaluation_due
from helpers.runs import tiny


@pytest.fixture
def kept_in(tmp_path):
    """A folder of compiled programs of one's own."""
    before = jax.config.values["jax_compilation_cache_dir"]
    (tmp_path / "cache").mkdir()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    jax.config.update("jax_compilation_cache_dir", before)


def write_run(folder):
    """A run of which 10 s passed before acting, then 0.5 s a step, and 8 s per evaluation."""
    folder.mkdir()
    lines = [
        {"env_steps": 10, "time/train_s": 15.0, "time/env_steps_per_s": 2.0},
        {"env_steps": 30, "time/train_s": 25.0, "time/env_steps_per_s": 2.0},
    ]
    text = {"metrics.jsonl": lines, "eval.jsonl": [{"time/eval_s": 6.0}, {"time/eval_s": 10.0}]}
    for name, written in text.items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in written))
    return folder


def test_the_pace_of_a_run_is_in_its_files(tmp_path):
    assert measured_pace(write_run(tmp_path / "run"), episodes=4) == Pace(10.0, 0.5, 2.0)


def test_a_run_that_logged_too_little_tells_no_pace(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text().splitlines()[0] + "\n")
    assert measured_pace(run, episodes=4) is None


def test_damaged_lines_of_a_run_are_left_out(tmp_path):
    run = write_run(tmp_path / "run")
    for name, bad in (("metrics.jsonl", '{"env_steps": "x"}\n{\n'), ("eval.jsonl", "{}\n[1]\n")):
        (run / name).write_text(bad + (run / name).read_text())
    assert measured_pace(run, episodes=4) == Pace(10.0, 0.5, 2.0)


def test_a_longer_run_of_the_same_kind_is_expected_to_take_as_long_per_step(tmp_path, kept_in):
    config = tiny()
    assert expected_seconds(config) is None
    remember_pace(config, write_run(tmp_path / "run"))
    longer = tiny(seed=7, **{"train.online_steps": 100, "eval.every": 50, "eval.episodes": 4})
    assert expected_seconds(longer) == pytest.approx(10 + 100 * 0.5 + 3 * 4 * 2.0)


@pytest.mark.parametrize("option", [{"algo.num_base_samples": 4}, {"train.utd_ratio": 1}])
def test_another_kind_of_run_tells_nothing(tmp_path, kept_in, option):
    remember_pace(tiny(), write_run(tmp_path / "run"))
    assert expected_seconds(tiny(**option)) is None


@pytest.mark.parametrize("content", ["[]", "{", '{"a": "b"}'])
def test_damaged_paces_are_forgotten(tmp_path, kept_in, content):
    (kept_in / "paces.json").write_text(content)
    assert expected_seconds(tiny()) is None
    remember_pace(tiny(), write_run(tmp_path / "run"))
    assert expected_seconds(tiny()) is not None


@pytest.mark.parametrize("total", [0, 1, 11, 12, 13, 24])
@pytest.mark.parametrize("at", [(), (5, 5, 12, 13, 30), (40,)])
def test_evaluations_are_counted_as_they_fall_due(total, at):
    config = tiny(**{"train.online_steps": total, "eval.every": 12, "eval.at": at})
    made, last = 0, -1
    for step in range(total + 1):
        if evaluation_due(config, last, step):
            made, last = made + 1, step
    assert evaluations(config) == made
