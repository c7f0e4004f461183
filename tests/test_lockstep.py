"""The room where runs meet: whose calls are answered together, in which order, and what happens
when one is missing."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import Algorithm
from exporl.lockstep import Room
from exporl.types import Batch, Decision


@pytest.fixture(autouse=True)
def no_key_checker():
    """The key-reuse checker takes keys inside `vmap` for a reuse (jax 0.10): off for that."""
    jax.config.update("jax_debug_key_reuse", False)
    yield
    jax.config.update("jax_debug_key_reuse", True)


CALLS: list[tuple[str, int]] = []
"""(function, traced calls so far): what was compiled."""


def counting() -> Algorithm:
    """State = a number: an update adds the mean reward, or takes it away in imitation; acting
    adds the observation."""

    def update(state, batches, key, *, phase):
        CALLS.append((phase, len(CALLS)))
        gain = batches.reward.mean() * (-1.0 if phase == "pretrain" else 1.0)
        return state + gain, {"gain": gain, "draw": jax.random.normal(key)}

    def act(acting, observation, key, *, mode="explore"):
        CALLS.append((mode, len(CALLS)))
        sign = -1 if mode == "base" else 1
        return Decision(
            sign * (observation["state"][:, None, :] + acting),
            {"mean": observation["state"].mean(axis=1)},
        )

    return Algorithm(lambda key: jnp.zeros(()), update, lambda state: state, act, has_base=True)


def batch(reward: float, rows: int = 2) -> Batch:
    here = {"state": jnp.zeros((1, rows, 1))}
    full = lambda value: jnp.full((1, rows), value)  # noqa: E731
    return Batch(
        here,
        jnp.zeros((1, rows, 1, 1)),
        full(reward),
        full(0.9),
        here,
        jnp.ones((1, rows, 1)),
        full(0.0),
        full(0.0),
    )


def together(room: Room, *works) -> list:
    """Every work in a thread of its own with its seat's algorithm; what each returned, or its
    error."""
    results: list = [None] * len(works)

    def run(seat):
        try:
            results[seat] = works[seat](room.join(seat, counting()))
        except Exception as error:
            results[seat] = error
        finally:
            room.leave()

    threads = [
        threading.Thread(target=run, args=(seat,), daemon=True) for seat in range(len(works))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a run waits for ever"
    return results


def updates(seed: int, rewards, phase="online"):
    def work(algorithm):
        state, metrics = jnp.float32(10 * seed), {}
        for i, reward in enumerate(rewards):
            key = jax.random.fold_in(jax.random.key(seed), i)
            state, metrics = algorithm.update(state, batch(reward), key, phase=phase)
        return float(state), float(metrics["draw"])

    return work


def test_each_run_gets_its_own_answer():
    """State, batch and key of a seat are never those of another one."""
    results = together(
        Room(3, threading.Event()), *(updates(seed, [seed + 1.0, 0.5]) for seed in range(3))
    )
    for seed, (state, draw) in enumerate(results):
        assert state == 10 * seed + seed + 1.5
        assert draw == pytest.approx(
            float(jax.random.normal(jax.random.fold_in(jax.random.key(seed), 1)))
        )


def test_equal_requests_are_one_call():
    CALLS.clear()
    together(Room(2, threading.Event()), updates(0, [1.0] * 4), updates(1, [1.0] * 4))
    assert [name for name, _ in CALLS] == ["online"], "compiled once, for both and all four steps"


def test_a_run_that_has_left_is_not_waited_for():
    results = together(Room(2, threading.Event()), updates(0, [1.0]), updates(1, [1.0] * 3))
    assert [state for state, _ in results] == [1.0, 13.0]


def test_runs_in_different_phases_are_answered_apart():
    results = together(
        Room(2, threading.Event()), updates(0, [1.0] * 2, "pretrain"), updates(1, [1.0] * 2)
    )
    assert [state for state, _ in results] == [-2.0, 12.0]


def test_acting_keeps_the_shape_of_the_full_room():
    """One seed asks alone: the batch is filled up, so nothing is compiled again, and the answer
    is its own."""
    CALLS.clear()

    def acting(seed, times):
        def work(algorithm):
            for _ in range(times):
                seen = {"state": np.full((1, 2), 5.0, np.float32)}
                decision = algorithm.act(jnp.float32(seed), seen, jax.random.key(0))
            return decision

        return work

    results = together(Room(2, threading.Event()), acting(0, 1), acting(1, 3))
    assert [decision.action.shape for decision in results] == [(1, 1, 2)] * 2
    assert [decision.action[0, 0, 0] for decision in results] == [5.0, 6.0]
    assert [decision.info["mean"].tolist() for decision in results] == [[5.0]] * 2
    assert [name for name, _ in CALLS] == ["explore"]


def test_new_parameters_are_not_mistaken_for_old_ones():
    def work(algorithm):
        seen, key, state = (
            {"state": np.zeros((1, 1), np.float32)},
            jax.random.key(0),
            jnp.float32(1),
        )
        before = algorithm.act(state, seen, key).action.item()
        state, _ = algorithm.update(state, batch(2.0), key)
        return before, algorithm.act(state, seen, key).action.item()

    assert together(Room(2, threading.Event()), work, work) == [(1.0, 3.0)] * 2


def test_a_refused_call_reaches_those_who_asked():
    """Shapes that cannot be stacked fail in both runs, with the reason, and neither hangs."""

    def bad(algorithm):
        return algorithm.update(jnp.zeros(2), batch(1.0), jax.random.key(0))

    results = together(Room(2, threading.Event()), bad, updates(1, [1.0]))
    assert all(isinstance(result, ValueError | TypeError) for result in results), results


def test_stop_is_passed_on_only_when_all_are_at_the_same_call():
    """A run that lags behind in imitation is let through first: then all stop at one step."""
    asked = threading.Event()
    asked.set()
    room, seen = Room(2, asked), []

    def late(algorithm):
        algorithm.update(jnp.float32(0), batch(1.0), jax.random.key(0), phase="pretrain")
        seen.append(room.stop.is_set())
        return updates(0, [1.0])(algorithm)

    together(room, late, updates(1, [1.0]))
    assert seen == [False] and room.stop.is_set()


def test_modes_are_answered_apart():
    def acting(mode):
        def work(algorithm):
            seen = {"state": np.full((1, 1), 5.0, np.float32)}
            return algorithm.act(jnp.float32(1), seen, jax.random.key(0), mode=mode).action.item()

        return work

    assert together(Room(2, threading.Event()), acting("explore"), acting("base")) == [6.0, -6.0]


def test_a_run_without_base_policy_has_none_in_the_room():
    algorithm = counting()._replace(has_base=False)
    assert not Room(1, threading.Event()).join(0, algorithm).has_base
