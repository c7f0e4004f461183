"""Training that diverges is told with numbers, and never replaces the last good checkpoint."""

import numpy as np
import pytest

from exporl.envs.registry import make_task
from exporl.envs.task import value_range
from exporl.run.config import override
from exporl.run.divergence import ValueWatch, finite, value_watch
from exporl.run.loop import train
from exporl.types import Spec
from helpers.runs import tiny

VALUES = (-100.0, 0.0)


def line(low, high):
    return {"phase": "online", "critic/q_min": low, "critic/q_max": high}


def test_what_is_not_finite_is_named():
    fine = {"a": np.ones(3, np.float32), "steps": np.arange(3)}
    assert finite(fine) is fine
    with pytest.raises(FloatingPointError, match="2 of 3 numbers of critic/kernel are NaN"):
        finite(fine | {"critic/kernel": np.array([np.nan, np.inf, 0], np.float32)})


@pytest.mark.slow
def test_a_diverged_state_is_not_saved(tmp_path):
    config = tiny("bc", **{"base.learning_rate": 1e38, "base.decay_steps": 0, "log.every": 1000})
    with pytest.raises(FloatingPointError, match="diverged") as caught:
        train(override(config, {"train.offline_steps": 20}), tmp_path / "run")
    assert caught.value.__notes__ == [
        "No checkpoint was written before: there is nothing to go on from."
    ]
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(("low", "high"), [(-201, -50), (-100, 101), (-1e7, 1e7)])
def test_exploding_critics_are_told_once_with_numbers(low, high):
    said = []
    watch = ValueWatch(VALUES, "warn", said.append)
    for _ in range(3):
        watch.on_log_line(line(low, high))
    assert len(said) == 1
    assert f"between {low:.4g} and {high:.4g}" in said[0] and "allow [-100, 0] only" in said[0]


@pytest.mark.parametrize(("low", "high"), [(-100, 0), (-150, 60)])
def test_critics_that_err_by_some_of_the_range_are_not(low, high):
    ValueWatch(VALUES, "stop", pytest.fail).on_log_line(line(low, high))


def test_a_run_can_be_told_to_stop():
    with pytest.raises(FloatingPointError, match=r"they diverge. Start anew with lower learning"):
        ValueWatch(VALUES, "stop", pytest.fail).on_log_line(line(-1e4, 0.0))


def test_lines_without_critics_and_tasks_without_a_range_are_left_alone():
    ValueWatch(VALUES, "stop", pytest.fail).on_log_line({"phase": "pretrain"})
    ValueWatch(None, "stop", pytest.fail).on_log_line(line(-1e9, 1e9))


def test_the_range_follows_from_rewards_and_discount_where_entropy_adds_nothing():
    task, config = make_task("probe/bandit"), tiny("rlpd", **{"train.divergence": "stop"})
    assert value_range(task, 0.99) is None
    spec = Spec((("state", (2,), "float32"),), 1, value_range=VALUES)
    with pytest.raises(FloatingPointError):
        value_watch(config, spec, pytest.fail).on_log_line(line(-1e9, 0))
    soft = override(config, {"algo.backup_entropy": True})
    value_watch(soft, spec, pytest.fail).on_log_line(line(-1e9, 0))
