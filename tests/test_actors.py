"""Actors and the learner's side of them, in one process and without Ray."""

import itertools
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from exporl.cli.train import _check_actors
from exporl.distributed.actor_service import ActorService, setup_of
from exporl.distributed.learner_service import CHUNK_STEPS, LearnerService
from exporl.distributed.messages import Chunk
from exporl.run.actors import actors_here
from exporl.run.build import build
from exporl.run.config import check
from exporl.types import Step
from helpers.runs import tiny

PARAMS = {"w": jnp.ones(3)}


def service(total=100, actors=2, envs=1):
    cuts, updates = [], SimpleNamespace(made=0)
    made = LearnerService(actors, envs, total, lambda: updates.made, cuts.append)
    made.publish(PARAMS)
    return made, cuts, updates


def a_step():
    seen = {"state": np.zeros(2, np.float32)}
    return Step(seen, np.zeros(1, np.float32), -1.0, False, False, seen, False)


def chunk(order, envs=1):
    return Chunk(
        order.first, [(env, a_step()) for _ in range(order.steps) for env in range(envs)], []
    )


def test_orders_fill_the_run_and_never_more():
    learner, _, _ = service(total=34, envs=2)
    given = 0
    while orders := [(p, o) for p in (0, 1) if (o := learner.order(p, "policy"))]:
        for place, order in orders:
            given += len(learner.take(place, chunk(order, 2)))
    assert given == learner.env_steps == 34


def test_streams_are_those_of_the_place():
    learner, _, _ = service(envs=2)
    order = learner.order(1, "policy")
    assert learner.order(1, "policy") is None
    assert {stream for stream, _ in learner.take(1, chunk(order, 2))} == {2, 3}


def test_a_chunk_that_was_not_ordered_is_refused():
    learner, _, _ = service()
    first = learner.order(0, "policy")
    learner.take(0, chunk(first))
    with pytest.raises(ValueError, match="not ordered"):
        learner.take(0, chunk(first))
    second = learner.order(0, "policy")
    assert second.first == CHUNK_STEPS
    with pytest.raises(ValueError, match="not what was ordered"):
        learner.take(0, chunk(second)._replace(steps=[]))


def test_a_lost_actor_is_counted_and_its_episodes_end():
    learner, cuts, _ = service(envs=2)
    learner.order(1, "policy")
    learner.lose(1)
    assert (learner.restarts, learner.lost_steps, cuts) == (1, 2 * CHUNK_STEPS, [2, 3])
    assert learner.order(1, "policy").first == 0


def test_parameters_are_published_once_each_and_their_age_is_known():
    learner, _, updates = service()
    assert not learner.publish(PARAMS) and learner.version == 1
    order = learner.order(0, "policy")
    updates.made = 7
    learner.take(0, chunk(order))
    assert learner.metrics()["actors/staleness_updates/0"] == 7
    assert learner.publish({"w": jnp.zeros(3)}) and learner.version == 2
    learner.take(0, chunk(learner.order(0, "policy")))
    assert learner.metrics()["actors/staleness_updates/0"] == 0


def test_what_a_checkpoint_keeps_is_loaded():
    learner, _, _ = service()
    learner.begin()
    learner.take(0, chunk(learner.order(0, "policy")))
    learner.lose(0)
    _, record = learner.state()
    other, cuts, _ = service()
    other.load(record)
    assert (other.env_steps, other.begun, other.restarts) == (CHUNK_STEPS, 1, 1)
    assert cuts == [0, 1]


@pytest.mark.slow
def test_an_actor_of_a_run_acts_with_what_it_is_given(tmp_path):
    config = tiny(**{"train.actors": 2, "num_envs": 2})
    parts = build(config, tmp_path, print)
    learner = LearnerService(2, 1, 24, lambda: parts.learner.updates, print)
    learner.publish(parts.learner.acting())
    actors = [ActorService.of_run(setup_of(parts), learner.begin()) for _ in range(2)]
    seen = []
    for place, actor in enumerate(actors):
        order = learner.order(place, "policy")
        given = actor.collect(order, learner.version, learner.params)
        steps = learner.take(place, given)
        assert len(steps) == CHUNK_STEPS and {stream for stream, _ in steps} == {place}
        for (_, one), (_, two) in itertools.pairwise(steps):
            ended = one.terminated or one.truncated
            assert ended or np.array_equal(one.next_observation["state"], two.observation["state"])
        seen.append(np.stack([step.action for _, step in steps]))
        with pytest.raises(ValueError, match="10 were given before"):
            actor.collect(order, learner.version, learner.params)
        actor.close()
    assert not np.array_equal(*seen)
    with pytest.raises(ValueError, match=r"train.actors=2 needs somebody"):
        actors_here(parts, print)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.actors": 2}, "num_envs=1 environments cannot be shared"),
        ({"train.actors": 1, "train.guard": "auto"}, "train.guard=auto works in one process"),
        ({"train.actors": 1, "base.policy": "a:b"}, "base.policy=a:b works in one process"),
    ],
)
def test_what_actors_cannot_do_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check(tiny(**changes))


def test_an_address_without_actors_and_seeds_with_them_are_refused():
    with pytest.raises(ValueError, match="has no effect without actors"):
        _check_actors(tiny(), "auto", False)
    with pytest.raises(ValueError, match=r"train\.actors must be in \[0, 10000\], got -2"):
        _check_actors(tiny(**{"train.actors": -2}), None, False)
    config = tiny(**{"train.actors": 1})
    with pytest.raises(ValueError, match="one run at a time"):
        _check_actors(config, None, True)
