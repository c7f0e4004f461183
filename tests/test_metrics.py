"""Metrics: how an interval becomes one line, and what is read back after a crash."""

import json
import math
import time

import jax.numpy as jnp
import pytest

from exporl.files.atomic import append_line, read_lines
from exporl.run.metrics import MetricsWriter
from exporl.run.stopwatch import Speed, Stopwatch


def write(path, *updates: dict[str, float], **fields):
    writer = MetricsWriter(path)
    for update in updates:
        writer.add({name: jnp.float32(value) for name, value in update.items()})
    return writer.flush(**fields)


@pytest.mark.slow
def test_extremes_are_kept_and_the_rest_is_averaged(tmp_path):
    updates = [
        {"q_min": value, "q_max": value, "q_mean": value, "loss": value}
        for value in (2.0, -1.0, 5.0)
    ]
    line = write(tmp_path / "m.jsonl", *updates, env_steps=30, phase="online")
    expected = {
        "env_steps": 30,
        "phase": "online",
        "q_min": -1.0,
        "q_max": 5.0,
        "q_mean": 2.0,
        "loss": 2.0,
    }
    assert line == expected
    assert read_lines(tmp_path / "m.jsonl") == [expected]


def test_metrics_that_only_some_updates_have(tmp_path):
    line = write(tmp_path / "m.jsonl", {"a": 1.0}, {"a": 3.0, "b": 7.0})
    assert line == {"a": 2.0, "b": 7.0}


def test_metrics_over_some_rows_skip_intervals_without_any(tmp_path):
    updates = [{"q_online": math.nan, "q_prior": math.nan}, {"q_online": 4.0, "q_prior": math.nan}]
    assert write(tmp_path / "m.jsonl", *updates) == {"q_online": 4.0}
    assert "NaN" not in (tmp_path / "m.jsonl").read_text()


@pytest.mark.parametrize(
    "values", [[math.inf], [-math.inf], [1.0, math.inf, 2.0], [math.nan], [1.0, math.nan]]
)
@pytest.mark.parametrize("name", ["critic/loss", "critic/q_min", "critic/q_max"])
def test_divergence_raises_and_writes_nothing(tmp_path, name, values):
    with pytest.raises(FloatingPointError, match=f"{name} is NaN or infinite: training diverged"):
        write(tmp_path / "m.jsonl", *({name: value} for value in values))
    assert read_lines(tmp_path / "m.jsonl") == []


def test_every_interval_starts_empty(tmp_path):
    writer = MetricsWriter(tmp_path / "m.jsonl")
    writer.add({"loss": jnp.float32(1)})
    assert writer.flush(step=1) == {"step": 1, "loss": 1.0}
    assert writer.flush(step=2) == {"step": 2}
    writer.add({"loss": jnp.float32(3)})
    writer.flush(step=3)
    assert read_lines(tmp_path / "m.jsonl") == [
        {"step": 1, "loss": 1.0},
        {"step": 2},
        {"step": 3, "loss": 3.0},
    ]


def test_speed_counts_steps_since_the_last_call_without_pauses(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    stopwatch = Stopwatch()
    speed = Speed(stopwatch)
    for advance, steps, paused, expected in (
        (2.0, 10, 0.0, 5.0),
        (5.0, 40, 2.0, 10.0),
        (1.0, 40, 0.0, 0.0),
    ):
        with stopwatch.paused():
            clock[0] += paused
        clock[0] += advance - paused
        assert speed.per_second(steps) == pytest.approx(expected)


def test_no_file_has_no_lines(tmp_path):
    assert read_lines(tmp_path / "missing.jsonl") == []


def test_a_last_line_cut_off_is_left_out(tmp_path):
    path, records = tmp_path / "m.jsonl", [{"step": 1, "name": "ü"}, {"step": 2}]
    for record in records:
        append_line(path, record)
    whole = path.read_bytes()
    ends = [whole.index(b"\n") + 1, len(whole)]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        assert read_lines(path) == records[: sum(length >= end for end in ends)]


def test_damage_before_the_last_line_is_not_hidden(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"m\.jsonl, line 2 is not valid JSON"):
        read_lines(tmp_path / "m.jsonl")


def test_what_is_not_json_leaves_no_part_of_a_line(tmp_path):
    append_line(tmp_path / "m.jsonl", {"step": 1})
    with pytest.raises(TypeError):
        append_line(tmp_path / "m.jsonl", {"step": 2, "value": object()})
    assert (tmp_path / "m.jsonl").read_text() == '{"step": 1}\n'


def test_what_is_pending_survives_a_resumption(tmp_path):
    """Two updates before, one after, NaN where a source had no rows: the line is that of all
    three."""
    updates = [
        {"loss": 0.1, "q_prior": math.nan},
        {"loss": 0.7, "q_prior": 2.0},
        {"loss": 0.4, "q_prior": 1.0},
    ]
    whole = write(tmp_path / "whole.jsonl", *updates)
    first, second = MetricsWriter(tmp_path / "a.jsonl"), MetricsWriter(tmp_path / "b.jsonl")
    for update in updates[:2]:
        first.add({name: jnp.float32(value) for name, value in update.items()})
    second.load(json.loads(json.dumps(first.pending())))
    second.add({name: jnp.float32(value) for name, value in updates[2].items()})
    assert second.flush() == whole
