"""The policy server, message by message, around a policy of arithmetic: no JAX is needed."""

import contextlib
import re
import socket
import threading
import urllib.request

import numpy as np
import pytest

pytest.importorskip("websockets")
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from exporl.serve.batches import SIZES, compile_calls
from exporl.serve.client import Client
from exporl.serve.messages import packed, unpacked
from helpers.serving import GOOD, Arithmetic, serving, until, wanted


@pytest.fixture
def policy():
    return Arithmetic()


@pytest.fixture
def running(policy):
    with serving(policy) as running:
        yield running


def refusal(running, message) -> str:
    """What the server says about a message before it closes the connection with 1011."""
    with connect(running.address, compression=None) as connection:
        connection.recv()
        with contextlib.suppress(ConnectionClosed):  # refused before all of it was sent
            connection.send(message)
        said = connection.recv()
        assert isinstance(said, str)
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv()
        assert closed.value.rcvd.code == 1011
    return said


def test_what_a_client_is_told_at_first(running):
    with connect(running.address, compression=None) as connection:
        told = unpacked(connection.recv())
    assert told == {
        "action_horizon": 3,
        "expo": {
            "task": "arithmetic",
            "checkpoint": "checkpoint-000000012",
            "observation": {
                "state": {"shape": [3], "dtype": "float32"},
                "force": {"shape": [2, 2], "dtype": "float32"},
            },
            "action": {
                "low": [-1.0, -1.0],
                "high": [1.0, 1.0],
                "shape": [2],
                "dtype": "float32",
            },
            "chunk_length": 4,
            "execute_length": 3,
            "control_hz": 20.0,
            "candidates": 4,
            "statistics_sha256": None,
            "extras": ["expo/seed", "expo/samples"],
            "most_samples": 64,
        },
    }


def test_an_answer(running):
    with connect(running.address, compression=None) as connection:
        connection.recv()
        connection.send(packed({**GOOD, "expo/seed": 5, "prompt": "not read"}))
        first = unpacked(connection.recv())
        connection.send(packed(GOOD))
        second = unpacked(connection.recv())
    np.testing.assert_allclose(first.pop("actions"), wanted(GOOD, 5))
    assert first.pop("server_timing").keys() == {"infer_ms"}
    assert second["server_timing"].keys() == {"infer_ms", "prev_total_ms"}
    assert first == {
        "expo/seed": 5,
        "expo/checkpoint": "checkpoint-000000012",
        "expo/q": 13.0,
        "expo/index": 3,
        "expo/edited": True,
    }
    assert second["expo/seed"] == 1, "requests of a connection are counted"
    until(lambda: running.server.answers == 2)  # counted once it is sent


def test_many_samples_in_one_answer(policy, running):
    """Sample i is what the seed i later is answered with; calls are of the largest size."""
    with connect(running.address, compression=None) as connection:
        connection.recv()
        for seed, samples in ((5, 3), (2**32 - 2, 20), (7, 1)):
            policy.sizes.clear()
            connection.send(packed({**GOOD, "expo/seed": seed, "expo/samples": samples}))
            found = unpacked(connection.recv())
            seeds = [(seed + i) % 2**32 for i in range(samples)]
            each = np.stack([wanted(GOOD, each) for each in seeds])
            np.testing.assert_array_equal(found["actions"], each.astype(np.float32))
            np.testing.assert_array_equal(found["expo/q"], each[:, 0, 0].astype(np.float32))
            assert found["expo/index"].tolist() == [3] * samples and found["expo/seed"] == seed
            assert found["expo/checkpoint"] == "checkpoint-000000012"
            assert set(policy.sizes) == {16} and len(policy.sizes) == 1 + samples // 17


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"force": GOOD["force"]}, r"the observation lacks 'state'; it has \['force'\]"),
        ({**GOOD, "state": np.zeros(4)}, r"observation 'state' has shape \(4,\); .* needs \(3,\)"),
        ({**GOOD, "state": np.full(3, np.nan)}, r"'state' holds NaN or infinity, at \[0\] first"),
        ({**GOOD, "state": np.full(3, 1e300)}, r"'state' holds NaN or infinity"),
        ({**GOOD, "state": ["1", "2", "3"]}, r"'state' is not an array of numbers: it is a list"),
        ({**GOOD, "state": np.array(["1", "2", "3"])}, r"'state' .* of type <U1"),
        ({**GOOD, "state": None}, r"'state' is not an array of numbers: it is a NoneType"),
        ({**GOOD, "state": [[1.0], 2.0]}, r"'state' is not an array of numbers"),
        ({**GOOD, "state": {"x": 1.0}}, r"'state' is not an array of numbers: it is a dict"),
        ({n: np.stack([v, v]) for n, v in GOOD.items()}, r"a message asks about one"),
        ({**GOOD, "expo/seed": -1}, r"'expo/seed' must be a whole number in .*, got -1"),
        ({**GOOD, "expo/seed": True}, r"'expo/seed' must be a whole number"),
        ({**GOOD, "expo/samples": 0}, r"'expo/samples' must be a whole number in \[1, 65\), got 0"),
        ({**GOOD, "expo/samples": 65}, r"'expo/samples' must be .*, got 65"),
        ({**GOOD, "expo/samples": None}, r"'expo/samples' must be a whole number"),
        ({**GOOD, "expo/samples": np.ones(2)}, r"'expo/samples' must be a whole number"),
        ({**GOOD, "expo/samples": 2, "state": np.full(3, 1e31)}, r"came to no number"),
        ({**GOOD, "expo/sede": 1}, r"unknown entry 'expo/sede'. Did you mean 'expo/seed'"),
        ({**GOOD, "state": np.full(3, 1e31)}, r"the policy came to no number"),
        ([1, 2], r"an observation is a map of entries, and this is a list"),
    ],
)
def test_a_wrong_observation_is_answered_with_what_is_wrong(running, message, said):
    assert re.search(said, refusal(running, packed(message)))
    assert len(running.said) == 1 and running.said[0].startswith("client 127.0.0.1:")
    assert Client(running.address).act(GOOD).shape == (3, 2), "others are not concerned"


def test_text_is_no_observation(running):
    assert "binary message" in refusal(running, "hello")


def test_a_message_in_endless_pieces(running):
    assert "more than 1000 pieces" in refusal(running, iter([b""] * 1001))


def test_a_message_that_is_too_long(policy):
    with (
        serving(policy, largest_message=1000) as running,
        connect(running.address, compression=None) as connection,
    ):
        connection.recv()
        connection.send(packed({**GOOD, "image": np.zeros(2000)}))
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv()
        assert closed.value.rcvd.code == 1009
        with pytest.raises(ValueError, match="takes no message of 16"):
            Client(running.address).act({**GOOD, "image": np.zeros(2000)})


def test_health_is_asked_over_http_without_a_key(policy):
    with serving(policy, api_key="secret") as running:
        url = running.address.replace("ws:", "http:") + "/healthz"
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert (answer.status, answer.read()) == (200, b"OK\n")


@pytest.mark.parametrize(
    "given", [None, "Api-Key wrong", "Api-Key other secre", "other secret", "api-key other secret"]
)
def test_a_wrong_key_does_not_get_in(policy, given):
    headers = {} if given is None else {"Authorization": given}
    with serving(policy, api_key="other secret") as running:
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(running.address, additional_headers=headers),
        ):
            pass
        assert refused.value.response.status_code == 401
        with pytest.raises(ConnectionError, match=r"ws://127.* refuses this client \(401\)"):
            Client(running.address, api_key="wrong")
        assert Client(running.address, api_key="other secret").act(GOOD, 0).shape == (3, 2)


def test_more_clients_than_it_takes(policy):
    with serving(policy, most_clients=1) as running, Client(running.address) as first:
        with pytest.raises(InvalidStatus) as refused, connect(running.address):
            pass
        assert refused.value.response.status_code == 503
        assert b"has 1 clients already" in (refused.value.response.body or b"")
        assert first.act(GOOD).shape == (3, 2)


def test_what_is_asked_while_a_call_runs_goes_into_the_next_together(policy, running):
    """And each gets what it would get alone."""
    clients = [Client(running.address) for _ in range(6)]
    observations = [{**GOOD, "state": np.full(3, float(i))} for i in range(6)]
    alone = [c.act(o, seed=i) for i, (c, o) in enumerate(zip(clients, observations, strict=True))]
    policy.sizes.clear()
    policy.open.clear()
    answers = [np.zeros(0)] * 6

    def ask(i):
        answers[i] = clients[i].act(observations[i], seed=i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    threads[0].start()
    until(lambda: policy.sizes == [1])
    for thread in threads[1:]:
        thread.start()
    until(lambda: running.server.batches.waiting == 5)
    policy.open.set()
    for thread in threads:
        thread.join()
    assert policy.sizes == [1, 16], "one call for the five, in the next size"
    np.testing.assert_array_equal(answers, alone)


def test_every_size_is_compiled_beforehand(policy):
    compile_calls(policy)
    assert policy.sizes == list(SIZES)


def test_one_bad_observation_does_not_spoil_the_call_of_the_others(policy, running):
    good, bad = Client(running.address), Client(running.address)
    policy.open.clear()
    results = {}

    def ask(name, client, state):
        try:
            results[name] = client.act({**GOOD, "state": state}, seed=0)
        except ValueError as error:
            results[name] = str(error)

    threads = [
        threading.Thread(target=ask, args=(name, client, np.full(3, value)))
        for name, client, value in (
            ("first", Client(running.address), 0.0),
            ("good", good, 1.0),
            ("bad", bad, 1e31),
        )
    ]
    threads[0].start()
    until(lambda: policy.sizes == [1])
    for thread in threads[1:]:
        thread.start()
    until(lambda: running.server.batches.waiting == 2)
    policy.open.set()
    for thread in threads:
        thread.join()
    assert policy.sizes == [1, 4]
    assert results["good"].shape == (3, 2) and "came to no number" in results["bad"]


def test_a_client_that_vanishes_costs_nothing(policy, running):
    first, last = Client(running.address), Client(running.address)
    policy.open.clear()
    asking = threading.Thread(target=first.act, args=(GOOD,))
    asking.start()
    until(lambda: policy.sizes == [1])
    with connect(running.address, compression=None) as vanishing:
        vanishing.recv()
        vanishing.send(packed(GOOD))
        until(lambda: running.server.batches.waiting == 1)
        vanishing.socket.shutdown(socket.SHUT_RDWR)
        until(lambda: running.server.connected == 2)
    policy.open.set()
    asking.join()
    last.act(GOOD)
    assert policy.sizes == [1, 1], "what it asked was never computed"
    until(lambda: running.server.answers == 2)  # counted once it is sent


def test_no_answer_within_the_deadline(policy):
    with serving(policy, deadline_s=0.05) as running:
        policy.open.clear()
        try:
            assert "no decision within 0.05 s" in refusal(running, packed(GOOD))
        finally:
            policy.open.set()


def test_a_policy_that_raises(policy, running):
    policy.decide_each = lambda batch, seeds: [][0]
    assert "list index out of range" in refusal(running, packed(GOOD))


def test_a_newer_policy_on_the_same_connection(running):
    with Client(running.address) as client:
        before = client.infer(GOOD)["expo/checkpoint"]
        running.server.exchange(Arithmetic("checkpoint-000000024"))
        after = client.infer(GOOD)["expo/checkpoint"]
    assert (before, after) == ("checkpoint-000000012", "checkpoint-000000024")


def test_the_end_closes_every_connection(policy):
    with contextlib.ExitStack() as opened:
        with serving(policy) as running:
            connection = opened.enter_context(connect(running.address, compression=None))
            connection.recv()
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv()
    assert closed.value.rcvd.code == 1001


def test_a_port_that_is_taken(policy, running):
    with (
        pytest.raises(OSError, match=rf"cannot listen on 127.0.0.1:{running.port}: .* --port"),
        serving(policy, port=running.port),
    ):
        pass
