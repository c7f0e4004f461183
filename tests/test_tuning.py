"""What is decided per machine: where compiled programs go, and hoisting by measurement, once per run."""

import json
import types
from pathlib import Path

import jax
import pytest

from exporl import override, preset_config, tuning
from exporl.session import Session, Silent

TINY = {"base.width": 16, "base.num_blocks": 1, "algo.hidden": (16,), "train.offline_steps": 0, "data.demos": 2,
        "algo.backup": "fresh"}  # fmt: skip


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


@pytest.mark.parametrize(("per_row", "pays"), [(1.0, False), (0.9, False), (0.5, True)])
def test_hoisting_pays_when_many_rows_are_cheaper_per_row(per_row, pays, monkeypatch):
    """A clock that says how long each call took: 1 s for one minibatch, `per_row` * 8 s for eight at once."""
    ticks = [0.0]

    def clock():
        ticks.append(ticks[-1] + (0.0 if len(ticks) % 2 else 1.0 if len(ticks) % 4 == 2 else 8 * per_row))
        return ticks[-1]

    monkeypatch.setattr(tuning, "time", types.SimpleNamespace(perf_counter=clock))
    assert tuning.hoisting_pays.__wrapped__(4, 8, 4) == pays


@pytest.mark.parametrize("pays", [True, False])
def test_auto_is_measured_once_and_remembered(pays, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("exporl.session.hoisting_pays", lambda *sizes: asked.append(sizes) or pays)
    config = override(preset_config("expo", "tiny", "probe/bandit"), TINY)
    for _ in range(2):
        session = Session(config, tmp_path, Silent())
        assert session._algo_options().hoist_sampling is pays
    assert asked == [(64 * 4, 4, 16)]
    assert json.loads((tmp_path / "tuning.json").read_text()) == {"hoist_sampling": pays}


@pytest.mark.parametrize("backup", ["filtered", "cached"])
def test_nothing_is_measured_where_nothing_can_be_hoisted(backup, tmp_path, monkeypatch):
    monkeypatch.setattr("exporl.session.hoisting_pays", lambda *sizes: pytest.fail("measured"))
    config = override(preset_config("expo", "tiny", "probe/bandit"), TINY | {"algo.backup": backup})
    assert Session(config, tmp_path, Silent())._algo_options().hoist_sampling is False
