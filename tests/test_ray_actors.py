"""Supervision of actors, with a stand-in for Ray and for the clock."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import jax.numpy as jnp
import numpy as np
import pytest

from exporl.distributed import ray_actors
from exporl.distributed.messages import Chunk
from exporl.run.build import Parts
from exporl.types import Step
from helpers.runs import tiny

LATE_S = ray_actors.START_S + 1


class Handle:
    """An actor; what it is asked for is ready as soon as it is asked, unless it is silent."""

    def __init__(self, ray):
        self.ray, self.silent, self.alive = ray, False, True
        self.collect = SimpleNamespace(remote=self._collect)

    def _collect(self, order, version, params):
        seen = {"state": np.zeros(2, np.float32)}
        step = Step(seen, np.zeros(1, np.float32), -1.0, False, False, seen, False)
        self.ray.chunks.append(Chunk(order.first, [(0, step)] * order.steps, []))
        self.ray.owners.append(self)
        return len(self.ray.chunks) - 1


class Ray:
    """As much of it as supervision needs."""

    exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def __init__(self):
        self.chunks, self.owners, self.handles = [], [], []
        self.init = self.shutdown = lambda **_: None

    def remote(self, **_):
        return lambda _: SimpleNamespace(remote=self._new)

    def _new(self, setup, number):
        self.handles.append(Handle(self))
        return self.handles[-1]

    def put(self, value):
        return value

    def wait(self, references, num_returns, timeout):
        ready = [each for each in references[::-1] if not self.owners[each].silent][:num_returns]
        return ready, [each for each in references if each not in ready]

    def get(self, reference, timeout):
        return self.chunks[reference]

    def kill(self, handle, no_restart):
        handle.alive = False


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(ray_actors, "Membership", Mock())
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(ray_actors.time, "monotonic", lambda: now.s)
    return now


def actors_on(ray, run_dir):
    changes: dict[str, Any] = {"train.actors": 2, "num_envs": 2, "train.online_steps": 1000}
    parts = Mock(
        spec=Parts,
        config=tiny(**changes),
        run_dir=run_dir,
        learner=SimpleNamespace(updates=0),
    )
    made = ray_actors.RayActors(
        parts, lambda _: None, ray=ray, say=lambda _: None, address=None, deadline_s=120.0
    )
    return made, lambda: made.step({"w": jnp.ones(1)})


def test_chunks_that_came_while_the_run_did_something_else_came_in_time(tmp_path, clock):
    actors, step = actors_on(Ray(), tmp_path)
    assert len(step()) == 10
    clock.s += LATE_S  # such as a long evaluation
    assert len(step()) == len(step()) == 10
    assert actors.service.restarts == 0


def test_all_actors_are_heard_where_the_run_is_slower_than_they_are(tmp_path, clock):
    _, step = actors_on(Ray(), tmp_path)
    heard = [{stream for stream, _ in step()} for _ in range(6)]
    assert heard == [{0}, {1}] * 3


def test_an_actor_that_gives_nothing_in_time_is_replaced_and_the_other_goes_on(tmp_path, clock):
    actors, step = actors_on(ray := Ray(), tmp_path)
    step()
    ray.handles[1].silent = True
    step()
    assert actors.service.restarts == 0
    clock.s += LATE_S
    assert len(step()) == 10
    assert (actors.service.restarts, actors.service.lost_steps) == (1, 10)
    assert [each.alive for each in ray.handles] == [True, False]
    step()
    assert [each.alive for each in ray.handles] == [True, False, True]
