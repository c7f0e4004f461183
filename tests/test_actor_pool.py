"""Who joins a training over the network: actors, and anybody else."""

import re
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

pytest.importorskip("websockets")
from websockets.sync.client import connect

from exporl.acting.failures import EnvironmentFailed, EnvironmentLost
from exporl.actor.environment import ActorEnvironment
from exporl.actor.joining import Joining
from exporl.distributed.place import Deadlines
from exporl.distributed.pool import ActorPool
from exporl.distributed.remote_env import RemoteEnv, remote_task
from exporl.serve.client import Client
from exporl.serve.messages import packed
from helpers.by_hand import ACTION, GOOD, SEEN, acting, heard, told
from helpers.joining import actor_threads
from helpers.robots import Arm, Other, Stuck
from helpers.serving import until


@pytest.fixture
def pool():
    with ActorPool(1, port=0) as pool:
        yield pool


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"\xc1", "0xc1, begins nothing"),
        (b"", "cut off"),
        ("hello", "this one sent text"),
        (packed([1, 2]), "call 1 was not answered: this is no actor"),
        (packed({"number": 7}), "call 1 was not answered"),
        ({}, "no actor answered"),
        ({"protocol": 2}, "version 2 of the calls, this training 1"),
        ({"protocol": 1}, "describes an action"),
        ({**GOOD, "observation": []}, "describes an action"),
        ({**GOOD, "observation": [["a"]]}, r"\(name, shape, dtype\)"),
        ({**GOOD, "observation": [["a", [2**30], "float64"]]}, "has the shape"),
        ({**GOOD, "observation": [["a", [-1], "float64"]]}, "has the shape"),
        ({**GOOD, "observation": [["a", [1], "O"]]}, "has the type 'O'"),
        ({**GOOD, "observation": [["a", [1], "f4"]] * 2}, "have one name"),
        ({**GOOD, "action": {**ACTION, "dtype": "int32"}}, "must be a Box of floats"),
        ({**GOOD, "action": {**ACTION, "low": np.zeros(3)}}, "must be a Box of floats"),
        ({**GOOD, "action": {**ACTION, "low": np.array([np.nan, 0])}}, "must be finite"),
        ({**GOOD, "action": {**ACTION, "low": ACTION["high"]}}, "low below high"),
        ({**GOOD, "action": {**ACTION, "low": "x"}}, "no arrays of numbers"),
        ({**GOOD, "max_episode_steps": 0}, "max_episode_steps must be"),
        ({**GOOD, "control_hz": "fast"}, "control_hz must be"),
        ({"error": "no power"}, "no power"),
    ],
)
def test_whoever_is_no_actor_is_told_why(pool, answer, sentence):
    assert re.search(sentence, told(pool, answer))
    assert not pool.places[0].present and pool.restarts == 0


def test_a_client_of_a_policy_is_told_that_this_is_a_training(pool):
    client = Client(f"ws://{pool.address}")
    with pytest.raises(ValueError, match=r"answered: call 1 was not answered: .* exporl actor"):
        client.infer({"state": np.zeros(3)})


def test_a_browser_is_answered(pool):
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(f"http://{pool.address}/", timeout=30)
    with raised.value as answer:
        assert 400 <= answer.code < 500


def test_who_says_nothing_is_sent_away():
    deadlines = Deadlines(describe_s=0.05)
    with (
        ActorPool(1, port=0, deadlines=deadlines) as pool,
        connect(f"ws://{pool.address}", proxy=None) as connection,
    ):
        heard(connection)
        assert "no answer to 'describe' within 0.05 s" in heard(connection)


def test_all_environments_have_to_be_the_same():
    with ActorPool(2, port=0) as pool, actor_threads(pool, Arm()):
        until(lambda: pool.places[0].present)
        other = ActorEnvironment(Other())
        with pytest.raises(ValueError, match=r"is another than .* observation is .*theirs"):
            Joining(other, pool.address).run()


def test_who_finds_no_room_waits_for_it(pool):
    with actor_threads(pool, Arm()), pytest.raises(ConnectionError, match="all of its 1 actors"):
        pool.wait_until_full()
        Joining(ActorEnvironment(Arm()), pool.address, wait_s=0.1).run()


def test_not_all_come_in_time():
    said = []
    with (
        ActorPool(2, port=0, say=said.append, deadlines=Deadlines(join_s=0.1)) as pool,
        pytest.raises(TimeoutError, match=rf"0 of 2 actors joined at {pool.address} within"),
    ):
        pool.wait_until_full()
    assert f"exporl actor --env module:function --address {pool.address}" in said[0]
    assert "waiting for 2 of 2 actors" in said[0]


def test_the_place_is_taken_already(pool):
    with pytest.raises(OSError, match=rf"cannot listen on 127.0.0.1:{pool.port}: .* --listen"):
        ActorPool(1, port=pool.port)


def test_an_actor_that_does_not_answer_is_lost():
    with ActorPool(1, port=0, deadlines=Deadlines(step_s=0.05)) as pool:
        with acting(pool, {"observation": SEEN, "info": {}}) as env:
            env.reset(seed=0)
            with pytest.raises(EnvironmentLost, match=r"no answer to 'step' within 0.05 s"):
                env.step(np.zeros(2, np.float32))
        assert (pool.restarts, pool.lost_steps) == (1, 1)


def test_an_environment_that_cannot_be_reset_is_given_up():
    """Three times as many losses as places, without a step in between."""
    with ActorPool(1, port=0) as pool, actor_threads(pool, *[Stuck() for _ in range(3)]):
        pool.wait_until_full()
        with pytest.raises(EnvironmentFailed, match=r"3 actors .* the gripper is stuck"):
            RemoteEnv(pool).reset(seed=0)


def test_actors_are_told_the_end_before_their_connection_is_closed(pool, monkeypatch):
    """However long it takes until it is an actor's turn."""
    place = pool.places[0]
    told = place.tell_the_end

    def slow():
        end = time.monotonic() + 0.5
        while place._connection.close_code is None and time.monotonic() < end:
            time.sleep(0.01)
        told()

    with actor_threads(pool, Arm(), wait_s=5.0) as raised:
        pool.wait_until_full()
        monkeypatch.setattr(place, "tell_the_end", slow)
    assert raised == []


def test_one_actor_plays_one_episode_at_a_time(pool):
    with actor_threads(pool, Arm()):
        pool.wait_until_full()
        task = remote_task(pool, "remote/arm", "-1/0")
        assert (task.control_hz, task.max_episode_steps) == (20.0, 4)
        training, evaluation = task.make_env(), task.make_env()
        training.reset(seed=0)
        training.step(np.zeros(2, np.float32))
        evaluation.reset(seed=0)
        with pytest.raises(EnvironmentLost, match="actor 0 plays this episode no longer"):
            training.step(np.zeros(2, np.float32))
        evaluation.step(np.zeros(2, np.float32))
        with pytest.raises(ValueError, match=r"set eval.num_envs to 1 or less"):
            task.make_env()
        remote = evaluation.unwrapped
        assert isinstance(remote, RemoteEnv)
        assert set(remote.observation()) == {"pose/q", "force"}
        evaluation.close()
        task.make_env().close()
