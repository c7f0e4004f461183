"""The limiter's bounds and deadlines; training with learning beside acting: amounts, errors,
resumption."""

import threading
import time
from fractions import Fraction
from pathlib import Path

import jax.numpy as jnp
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporl.files import checkpoint
from exporl.files.atomic import read_lines
from exporl.parallel.background import AHEAD, BackgroundLearning, Limiter
from exporl.run.config import override
from exporl.run.loop import train
from exporl.run.progress import Silent
from exporl.run.stopping import Interrupted
from exporl.run.trainer import Trainer
from helpers.runs import StopAt, newest, tiny


def limiter(spi=Fraction(1), low=0, high=2, deadline_s=5.0) -> Limiter:
    return Limiter(spi, min_error=low, max_error=high, deadline_s=deadline_s)


def no_wait(action) -> bool:
    """Whether the action would have to wait (its deadline, which is over at once, says so)."""
    try:
        action()
    except TimeoutError:
        return False
    return True


@example(numerator=1, denominator=1, low=-3, spare=0, moves=[True])
@settings(max_examples=30, deadline=None)
@given(
    numerator=st.integers(1, 7),
    denominator=st.integers(1, 7),
    low=st.integers(-3, 2),
    spare=st.integers(0, 3),
    moves=st.lists(st.booleans(), max_size=40),
)
def test_bounds_hold_and_one_side_can_always_go_on(numerator, denominator, low, spare, moves):
    """Whatever is tried in whatever order: the error stays within its bounds, and never do both
    sides have to wait."""
    spi = Fraction(numerator, denominator)
    high = low + 1 - (-numerator // denominator) + spare
    if high < 0:
        with pytest.raises(ValueError, match=f"max_error must be at least 0, .* got {high}"):
            limiter(spi, low, high)
        return
    limit = limiter(spi, low, high, deadline_s=0.0)
    may_sample = lambda: no_wait(limit.may_sample)  # noqa: E731
    for insert in moves:
        if insert and not no_wait(limit.insert):
            assert may_sample()
        elif not insert:
            if may_sample():
                limit.sample()
                assert limit.error >= low
            else:
                assert no_wait(limit.insert)
        assert limit.error <= high
        assert limit.error == spi * limit.inserts - limit.samples


def test_bounds_without_room_are_refused():
    with pytest.raises(
        ValueError, match=r"must be at least 1 \+ samples_per_insert = 3.5, got 3 - 0"
    ):
        limiter(Fraction(5, 2), 0, 3)


def test_two_threads_reach_the_exact_ratio():
    limit, highest = limiter(Fraction(3, 2), 0, 3), []

    def learn():
        while limit.may_sample():
            highest.append(limit.error)
            limit.sample()

    thread = threading.Thread(target=learn)
    thread.start()
    for _ in range(200):
        assert limit.insert()
    assert limit.settle()
    assert limit.samples == 300 and limit.error == 0
    limit.close()
    thread.join(5)
    assert not thread.is_alive() and max(highest) <= 3
    assert not limit.insert(5) and not limit.may_sample()


def test_deadlines_say_who_waited_for_whom():
    limit = limiter(deadline_s=0.05)
    with pytest.raises(
        TimeoutError, match=r"learning waits for acting: nothing happened for 0.05 s, with 0 of 0"
    ):
        limit.may_sample()
    with pytest.raises(
        TimeoutError, match=r"acting waits for learning: .* with 0 of 2 update calls made"
    ):
        limit.insert(3)
    with pytest.raises(TimeoutError, match="a pause waits for learning"):
        limit.settle()


def test_a_pause_does_not_run_into_the_deadline():
    limit, failed = limiter(deadline_s=0.2), []

    def learn():
        try:
            while limit.may_sample():
                limit.sample()
        except TimeoutError as error:
            failed.append(error)

    thread = threading.Thread(target=learn)
    thread.start()
    limit.insert()
    limit.settle()
    time.sleep(0.5)  # an evaluation, say
    assert not failed and limit.insert()
    thread.join(3)
    assert len(failed) == 1, "after the pause the deadline counts again"


class Counter:
    """A learner: its parameters are the number of updates made."""

    def __init__(self, seconds=0.0, fail_at=None):
        self.made, self.seconds, self.fail_at = 0, seconds, fail_at

    def update(self):
        time.sleep(self.seconds)
        self.made += 1
        if self.made == self.fail_at:
            raise FloatingPointError("the update failed")
        return jnp.zeros(())

    def acting(self):
        return {"made": jnp.float32(self.made)}


def test_published_parameters_are_at_most_so_many_updates_behind():
    learner = Counter(seconds=0.01)
    with BackgroundLearning(learner.update, learner.acting) as beside:
        for due in range(20):
            assert due - float(beside.acting()["made"]) <= AHEAD + 1
            beside.owe(1)
        beside.settle()
        assert learner.made == 20 and float(beside.acting()["made"]) == 20
        assert 0 < beside.staleness() <= AHEAD + 1
        assert beside.staleness() == 0


def test_errors_of_learning_surface_where_acting_waits():
    learner = Counter(fail_at=3)
    with (
        pytest.raises(FloatingPointError, match="the update failed"),
        BackgroundLearning(learner.update, learner.acting) as beside,
    ):
        for _ in range(10):
            beside.owe(1)
        beside.settle()
    assert learner.made == 3


def test_errors_of_acting_end_learning():
    learner = Counter()
    with (
        pytest.raises(ValueError, match="the simulator"),
        BackgroundLearning(learner.update, learner.acting) as beside,
    ):
        beside.owe(1)
        raise ValueError("the simulator")
    assert not any(thread.name == "learning" for thread in threading.enumerate())


ASYNC = {"train.asynchronous": True}


def record(run: Path) -> dict:
    return checkpoint.load(newest(run))[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, {"num_envs": 2, "chunk_length": 3, "train.update_every": 3}], ids=["", "many"]
)
def test_same_amounts_as_in_step(tmp_path, changes):
    """Environment steps, updates at every line, and the evaluations' places are those of the
    deterministic mode."""
    train(tiny(**changes), tmp_path / "step")
    train(tiny(**changes, **ASYNC), tmp_path / "async")
    for name in ("metrics.jsonl", "eval.jsonl"):
        one, two = (read_lines(tmp_path / which / name) for which in ("step", "async"))
        keys = ("phase", "env_steps", "updates")
        assert [[line.get(k) for k in keys] for line in one] == [
            [line.get(k) for k in keys] for line in two
        ]
    assert record(tmp_path / "step")["updates"] == record(tmp_path / "async")["updates"]
    lags = [line["rollout/staleness_updates"] for line in two_lines(tmp_path / "async")]
    assert lags and all(0 <= lag <= AHEAD + 1 for lag in lags)
    assert all("rollout/staleness_updates" not in line for line in two_lines(tmp_path / "step"))


def two_lines(run: Path) -> list[dict]:
    return [line for line in read_lines(run / "metrics.jsonl") if line["phase"] == "online"]


@pytest.mark.slow
def test_interrupted_and_resumed(tmp_path):
    config = tiny(**ASYNC, **{"log.save_every": 100})
    with pytest.raises(Interrupted, match="everything is saved"):
        train(config, tmp_path / "run", StopAt(12))
    assert not any(thread.name == "learning" for thread in threading.enumerate())
    stopped = record(tmp_path / "run")
    steps = stopped["rollout"]["env_steps"]
    assert 0 < steps < 24 and stopped["updates"] == 1 + max(steps - 4, 0)
    train(config, tmp_path / "run", resume=True)
    assert record(tmp_path / "run")["updates"] == 1 + 20
    with pytest.raises(ValueError, match=r"train.asynchronous was True, now False"):
        train(override(config, {"train.asynchronous": False}), tmp_path / "run", resume=True)


@pytest.mark.slow
def test_divergence_surfaces_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    config = tiny(**ASYNC)
    trainer = Trainer(config, tmp_path, Silent(), False)
    trainer.pretrain()
    saved = newest(tmp_path)
    monkeypatch.setattr(trainer.learner, "update", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.online()
    checkpoint.load(saved)
    assert not any(thread.name == "learning" for thread in threading.enumerate())
