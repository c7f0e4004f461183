"""What is decided per machine: where compiled programs go, and hoisting by measurement, once per
run."""

import json
import types
from pathlib import Path

import jax
import pytest

from exporl.run.build import build, decided_options
from exporl.run.progress import Silent
from exporl.speed import tuning
from helpers.runs import tiny

NO_DATA_TO_SPEAK_OF = {"train.offline_steps": 0, "data.demos": 2, "algo.backup": "fresh"}


@pytest.fixture
def no_cache_chosen():
    """JAX's own setting, cleared for one test."""
    before = jax.config.values["jax_compilation_cache_dir"]
    seconds = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


def test_jax_own_setting_wins():
    chosen = jax.config.values["jax_compilation_cache_dir"]
    assert tuning.keep_compiled_programs() == Path(chosen)
    assert jax.config.values["jax_compilation_cache_dir"] == chosen


def test_programs_are_kept_in_the_users_cache(no_cache_chosen, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tuning.keep_compiled_programs() == tmp_path / "exporl"
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "exporl")


def test_without_a_writable_cache_nothing_is_kept(no_cache_chosen, tmp_path, monkeypatch):
    (tmp_path / "exporl").write_text("a file where the folder would be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tuning.keep_compiled_programs() is None
    assert jax.config.values["jax_compilation_cache_dir"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("minibatches", "rows", "timed"), [(8, 4, 8), (20, 2048, 4), (20, 100_000, 2), (1, 4, 2)]
)
@pytest.mark.parametrize("per_row", [1.2, 1.0, 0.5])
def test_gain_compares_minibatches_one_by_one_with_all_at_once(
    minibatches, rows, timed, per_row, monkeypatch
):
    """A clock that says how long each run took: 1 s per minibatch, or `per_row` of that for all
    rows at once."""
    ran, ticks = [], [0.0]
    monkeypatch.setattr(tuning.jax.lax, "map", lambda block, x: ran.append(x.shape[0]) or x)
    monkeypatch.setattr(tuning.jax, "jit", lambda function: lambda x: function(x[..., :1]))

    def clock():
        calls = len(ticks) - 1
        ticks.append(
            ticks[-1] + (0.0 if calls % 2 == 0 else timed if calls % 4 == 1 else timed * per_row)
        )
        return ticks[-1]

    monkeypatch.setattr(tuning, "time", types.SimpleNamespace(perf_counter=clock))
    monkeypatch.setattr(tuning.jax.nn, "swish", lambda x: x)
    assert tuning.hoisting_gain(rows, minibatches, 1, repeats=2) == pytest.approx(1 / per_row)
    assert ran == 3 * [timed]  # the first one compiles


def test_gain_is_measured_for_real():
    assert 0 < tuning.hoisting_gain(8, 4, 4) < float("inf")


@pytest.fixture
def measurements(monkeypatch):
    """The sizes that were measured; every measurement finds the gain 1.2. Nothing is remembered by
    the process."""
    asked = []
    monkeypatch.setattr(tuning, "hoisting_gain", lambda *sizes: asked.append(sizes) or 1.2)
    tuning.hoisting_pays.cache_clear()
    yield asked
    tuning.hoisting_pays.cache_clear()


@pytest.mark.parametrize(("gain", "pays"), [(1.2, True), (1.02, False), (0.8, False)])
def test_hoisting_must_be_faster_by_a_margin(
    gain, pays, no_cache_chosen, measurements, monkeypatch
):
    monkeypatch.setattr(tuning, "hoisting_gain", lambda *sizes: gain)
    assert tuning.hoisting_pays(4, 8, 4) is pays


def test_a_measurement_is_kept_for_later_processes(no_cache_chosen, measurements, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    for sizes in [(4, 8, 4), (4, 8, 4), (4, 9, 4)]:
        tuning.hoisting_pays.cache_clear()
        assert tuning.hoisting_pays(*sizes)
    assert measurements == [(4, 8, 4), (4, 9, 4)]
    assert list(json.loads((tmp_path / "hoisting.json").read_text()).values()) == [1.2, 1.2]


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1', "\x00"])
def test_a_damaged_file_is_measured_again_and_replaced(
    content, no_cache_chosen, measurements, tmp_path
):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    (tmp_path / "hoisting.json").write_text(content)
    assert tuning.hoisting_pays(4, 8, 4)
    assert list(json.loads((tmp_path / "hoisting.json").read_text()).values()) == [1.2]


def test_a_cache_that_cannot_be_written_costs_only_a_measurement(
    no_cache_chosen, measurements, tmp_path
):
    (tmp_path / "file").write_text("")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "file"))
    assert tuning.hoisting_pays(4, 8, 4)
    assert measurements == [(4, 8, 4)]


@pytest.mark.parametrize("pays", [True, False])
def test_auto_is_measured_once_and_remembered(pays, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "exporl.run.build.hoisting_pays", lambda *sizes: asked.append(sizes) or pays
    )
    config = tiny(task="probe/bandit", **NO_DATA_TO_SPEAK_OF)
    for _ in range(2):
        build(config, tmp_path, Silent().say)
        assert decided_options(config, tmp_path).hoist_sampling is pays
    assert asked == [(8 * 2, 2, 16)]
    assert json.loads((tmp_path / "tuning.json").read_text()) == {"hoist_sampling": pays}


@pytest.mark.slow
@pytest.mark.parametrize("backup", ["filtered", "cached"])
def test_nothing_is_measured_where_nothing_can_be_hoisted(backup, tmp_path, monkeypatch):
    monkeypatch.setattr("exporl.run.build.hoisting_pays", lambda *sizes: pytest.fail("measured"))
    config = tiny(task="probe/bandit", **NO_DATA_TO_SPEAK_OF | {"algo.backup": backup})
    build(config, tmp_path, Silent().say)
    assert decided_options(config, tmp_path).hoist_sampling is False
