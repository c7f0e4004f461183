"""What is said of many actors, against numbers worked out by hand."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from actors_extrapolated import (
    PUBLISHING,
    RECEIVING,
    UPDATES,
    Measured,
    Plan,
    chunk_seconds,
    extrapolated,
)

MEASURED = Measured(
    version_bytes=1_000_000,
    publish_s=0.002,
    chunk_bytes=3_000,
    chunk_s={1: 0.001, 4: 0.0015, 16: 0.0025},
    update_s=0.5,
)
PLAN = Plan(actors=64, envs_each=2, control_hz=20, chunk_steps=10, update_every=4, devices=8)


def test_the_load_is_that_worked_out_by_hand():
    load = extrapolated(MEASURED, PLAN)
    # 64 actors x 2 environments x 20 Hz; a chunk has 20 steps; every fourth step an update call
    assert (load.env_steps, load.chunks, load.messages) == (2_560, 128, 256)
    assert (load.update_calls, load.versions) == (640, 128)
    assert load.step_bytes == 384_000 and load.parameter_bytes == 128_000_000
    # (2.5 - 1) ms over 15 actors: 48 more cost 4.8 ms more
    assert load.seconds[RECEIVING] == pytest.approx(128 * 0.0073)
    assert load.seconds[PUBLISHING] == pytest.approx(0.256)
    assert load.host_s == pytest.approx(1.1904)
    assert load.seconds[UPDATES] == pytest.approx(40)
    assert load.order == [UPDATES, RECEIVING, PUBLISHING]
    assert load.possible(UPDATES) == pytest.approx(64)


def test_the_bottleneck_is_what_takes_longest():
    fast = MEASURED._replace(update_s=0.0001)
    assert extrapolated(fast, PLAN).order[0] == RECEIVING
    assert extrapolated(fast._replace(publish_s=0.02), PLAN).order[0] == PUBLISHING


def test_there_are_no_more_versions_than_update_calls():
    load = extrapolated(MEASURED, PLAN._replace(update_every=128))
    assert (load.update_calls, load.versions) == (20, 20)
    assert load.seconds[PUBLISHING] == pytest.approx(0.04)


def test_chunks_of_many_actors_are_never_taken_for_cheaper_than_measured():
    assert chunk_seconds({1: 0.003, 16: 0.002}, 64) == 0.002
    assert chunk_seconds({4: 0.003}, 64) == 0.003
    assert chunk_seconds({1: 0.001, 2: 0.002}, 4) == pytest.approx(0.004)
