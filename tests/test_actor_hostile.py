"""What comes from actors that are broken, or none: it costs a place for a while, and no run."""

import socket
from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets")
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from exporl.acting.failures import EnvironmentLost
from exporl.actor.environment import ActorEnvironment
from exporl.distributed import pool as pools
from exporl.distributed.described import MOST_ACTIONS, Described, described
from exporl.distributed.peers import MOST_FRAGMENTS
from exporl.distributed.place import Lost, Place
from exporl.distributed.pool import ActorPool
from exporl.distributed.remote_env import RemoteEnv
from exporl.serve.messages import LARGEST, packed
from helpers.by_hand import ACTION, GOOD, SEEN, acting, heard, told
from helpers.joining import actor_threads
from helpers.robots import Arm, Other
from helpers.serving import until

NO_ACTION = np.zeros(2, np.float32)
RESET = {"observation": SEEN, "info": {}}
STEP = {
    **RESET,
    "reward": 0.0,
    "terminated": False,
    "truncated": False,
    "info": {"success": False, "executed_action": NO_ACTION},
}


@pytest.fixture
def pool():
    with ActorPool(1, port=0) as pool:
        yield pool


def info(**changes) -> dict[str, Any]:
    return {**STEP, "info": {**STEP["info"], **changes}}


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"observation": {}, "info": {}}, "has no array of numbers 'pose/q'"),
        ({"observation": [1], "info": {}}, "is a map of arrays"),
        ({"observation": {"pose/q": np.zeros(3)}, "info": {}}, "described as"),
        ({"observation": {"pose/q": np.array(["a", "b"])}, "info": {}}, "no array of numbers"),
        ({"observation": {**SEEN, "pose/q": np.array([0, np.nan])}, "info": {}}, "'pose/q' = nan"),
        ({"observation": {**SEEN, "pose/q": np.array([0, 1e16])}, "info": {}}, r"= 1e\+16"),
        ({"observation": SEEN}, "has no info"),
        ({"number": 5}, "call 1 was not answered"),
        ({"number": np.array([1, 1])}, "call 1 was not answered"),
        ({"number": True}, "call 1 was not answered"),
        ({"error": "\x1b[2J" + 9999 * "x"}, "x{400}"),
    ],
)
def test_a_reset_whose_answer_is_of_no_use_loses_the_actor(pool, answer, sentence):
    lost = pytest.raises(EnvironmentLost, match=f"actor 0 was lost: .*{sentence}")
    with acting(pool, answer) as env, lost as raised:
        env.reset(seed=0)
    assert (pool.restarts, pool.lost_steps) == (1, 0) and not pool.places[0].present
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({**STEP, "reward": None}, "the reward is None, which is no number"),
        ({**STEP, "reward": "1"}, "the reward is '1'"),
        ({**STEP, "reward": np.zeros(2)}, "the reward is array"),
        ({**STEP, "reward": float("inf")}, "the reward = inf"),
        ({**STEP, "terminated": "yes"}, "terminated is 'yes'"),
        ({**STEP, "truncated": {}}, "truncated is {}"),
        (info(success=np.zeros(2)), "'success' is array"),
        (info(executed_action=None), "without the action that was executed"),
        (info(executed_action=np.array(["a", "b"])), "without the action that was executed"),
        (
            info(executed_action=np.zeros(3)),
            r"'executed_action' has shape \(3,\), an action \(2,\)",
        ),
        (info(executed_action=np.array([np.nan, 0])), "'executed_action' = nan"),
        ({**STEP, "observation": None}, "is a map of arrays"),
    ],
)
def test_a_step_whose_answer_is_of_no_use_is_no_step(pool, answer, sentence):
    with acting(pool, RESET, answer) as env:
        env.reset(seed=0)
        with pytest.raises(EnvironmentLost, match=f"actor 0 was lost: .*{sentence}"):
            env.step(NO_ACTION)
    assert (pool.restarts, pool.lost_steps) == (1, 1)


def test_what_was_executed_lies_within_the_bounds(pool):
    with acting(pool, RESET, info(executed_action=np.array([-7.0, 1.0]))) as env:
        env.reset(seed=0)
        *_, said = env.step(NO_ACTION)
    np.testing.assert_array_equal(said["executed_action"], [-2.0, 1.0])  # pyright: ignore


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"observation": [["a", [2**22], "float32"], ["b", [2**25], "uint8"]]}, "bytes of a mess"),
        ({"observation": [["a", [1], "(9,)f4"]]}, "has the type"),
        ({"observation": [["a", [1], "f4,f4"]]}, "has the type"),
        ({"observation": [["a", [1], "float128"]]}, "has the type"),
        ({"action": {**ACTION, "low": np.zeros(MOST_ACTIONS + 1)}}, "1000 are the most"),
        ({"protocol": np.ones(2)}, "speaks version array"),
    ],
)
def test_descriptions_that_would_fill_the_memory_are_refused(changes, sentence):
    assert LARGEST == 2**25
    with pytest.raises(ValueError, match=sentence):
        described({**GOOD, **changes})


class Lying:
    """A connection that gives one answer, and remembers what it was sent."""

    def __init__(self, answer: bytes = b""):
        self.answer, self.sent = answer, []

    def send(self, message):
        self.sent.append(message)

    def recv(self, timeout):
        return self.answer

    def close(self):
        pass


def altered(message: bytes, rng) -> bytes:
    """Some bits turned, and often a piece cut out, doubled, or put elsewhere."""
    data = bytearray(message)
    for at in rng.integers(0, len(data), rng.integers(1, 3)):
        data[at] ^= 1 << int(rng.integers(8))
    begin, end = sorted(rng.integers(0, len(data), 2))
    kind = rng.integers(4)
    if kind == 1:
        del data[begin:end]
    elif kind == 2:
        data[begin:begin] = data[begin:end]
    return bytes(data)


def test_altered_messages_end_in_a_sentence_or_are_what_they_say():
    """400 descriptions, and as many answers to a step."""
    rng = np.random.default_rng(0)
    pool, joined = ActorPool(1, port=0), 0
    pool.described, place = described(GOOD), pool.places[0]
    ends = {"described": 0, "played": 0, "refused": 0}
    with pool:
        env = RemoteEnv(pool)
        for _ in range(400):
            newcomer = Place(-1)
            try:
                number = newcomer.enter(Lying(altered(packed({"number": 1, **GOOD}), rng)))
                found = described(newcomer.ask(number, "describe", 1.0))
                assert isinstance(found, Described) and found.observation_space() is not None
                ends["described"] += 1
            except (ValueError, Lost) as error:
                assert 10 < len(str(error)) < 1000
                ends["refused"] += 1
            answer = altered(packed({"number": place._asked + 1, **STEP}), rng)
            env._joined = joined = place.enter(Lying(answer))
            place.user = env
            try:
                seen, reward, terminated, truncated, said = env.step(NO_ACTION)
                assert np.isfinite(seen["pose/q"]).all() and isinstance(reward, float)
                assert isinstance(terminated, bool) and isinstance(truncated, bool)
                assert np.isfinite(said["executed_action"]).all()
                ends["played"] += 1
            except EnvironmentLost as error:
                assert 10 < len(str(error)) < 1000
                ends["refused"] += 1
    assert joined == 400 and min(ends.values()) > 9, ends


def test_whoever_asks_for_a_lost_actor_does_not_reach_the_one_that_came_after_it():
    """In the moment in which the place changes hands."""

    class Asked(Place):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "_connection" and isinstance(value, Lying) and self.joined > 1:
                with pytest.raises(Lost, match="its connection was closed"):
                    self.ask(before, "step", 1.0, action=NO_ACTION)

    place, newer = Asked(0), Lying()
    before = place.enter(Lying())
    place.leave(before)
    assert place.enter(newer) == 2 and newer.sent == []


def test_no_page_in_a_browser_is_an_actor(pool):
    """Browsers say where a page comes from, and let any page connect to this machine."""
    with pytest.raises(InvalidStatus) as raised:
        connect(f"ws://{pool.address}", origin="http://example.org", proxy=None)  # pyright: ignore
    assert raised.value.response.status_code == 403


def test_a_message_in_endless_pieces_ends_the_connection(pool):
    with connect(f"ws://{pool.address}", proxy=None) as connection:
        heard(connection)
        with pytest.raises(ConnectionClosed):
            connection.send(b"" for _ in range(2 * MOST_FRAGMENTS))
            heard(connection)
    assert "begins nothing" in told(pool, b"\xc1"), "it listens as before"


def test_a_message_in_some_pieces_is_a_message(pool):
    with connect(f"ws://{pool.address}", proxy=None) as connection:
        heard(connection)
        whole = packed({"number": 1, **GOOD})
        connection.send(whole[i : i + 1] for i in range(len(whole)))
        until(lambda: pool.places[0].present)


def test_connections_that_say_nothing_are_counted(monkeypatch):
    monkeypatch.setattr(pools, "MOST_STRANGERS", 2)
    with ActorPool(1, port=0) as pool:
        silent = [socket.create_connection(("127.0.0.1", pool.port)) for _ in range(4)]
        try:
            closed = []
            for each in silent:
                each.settimeout(0.01)

            def one_is_closed():
                for each in silent:
                    try:
                        if each not in closed and each.recv(1) == b"":
                            closed.append(each)
                    except TimeoutError:
                        pass
                return bool(closed)

            until(one_is_closed)
            assert len(closed) == 1
        finally:
            for each in silent:
                each.close()
        with actor_threads(pool, Arm()) as raised:
            pool.wait_until_full()
    assert raised == []


def test_who_came_first_and_left_again_decides_nothing(pool):
    """The wrong environment, ended and begun again as the right one."""
    with connect(f"ws://{pool.address}", proxy=None) as connection:
        heard(connection)
        connection.send(packed({"number": 1, **ActorEnvironment(Other()).describe()}))
        until(lambda: pool.places[0].present)
    until(lambda: pool.restarts == 1)
    with actor_threads(pool, Arm()) as raised:
        assert pool.wait_until_full() == described(GOOD)
    assert raised == []


def test_actors_that_come_and_go_while_nothing_is_asked_end_no_run(pool):
    """A network that fails again and again during a long pretraining."""
    for times in range(1, 5):
        with connect(f"ws://{pool.address}", proxy=None) as connection:
            heard(connection)
            connection.send(packed({"number": 1, **GOOD}))
            until(lambda: pool.places[0].present)
        until(lambda times=times: pool.restarts == times)
    pool.check()
    assert pool.lost_steps == 0


def test_it_listens_on_the_newer_internet_as_well():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")
    with ActorPool(1, "::1", 0) as pool, actor_threads(pool, Arm()) as raised:
        assert pool.address == f"[::1]:{pool.port}"
        pool.wait_until_full()
    assert raised == []
