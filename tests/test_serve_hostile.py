"""1,000 hostile messages: each ends in a message, the server goes on, and memory stays bounded."""

import base64
import os
import resource
import socket
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("websockets")
import msgpack
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from exporl.serve.client import Client
from exporl.serve.messages import packed
from helpers.serving import GOOD, Arithmetic, serving, until, wanted

MESSAGES = 1000
LARGEST = 2**20
MEMORY = 256 * 2**20
"""Bytes that the process may grow by, server and clients together."""


def marked(dtype, shape, data):
    return {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}


def wrong_dtype(rng):
    dtype = rng.choice(["|O", "|V8", "<c16", "<f3", "O", "", "<U9999", "<M8[s]", "f4,f4", "<f99"])
    return msgpack.packb({**plain(), "state": marked(str(dtype), (3,), rng.bytes(12))})


def huge_shape(rng):
    shape = [int(rng.integers(1, 2**62)) for _ in range(rng.integers(1, 5))]
    return msgpack.packb({**plain(), "state": marked("<f4", shape, rng.bytes(12))})


def negative_shape(rng):
    shape = [-int(rng.integers(1, 9)), 3]
    return msgpack.packb({**plain(), "force": marked("<f4", shape, rng.bytes(16))})


def wrong_shape(rng):
    shape = [int(n) for n in rng.integers(4, 9, rng.integers(2, 4))]
    return packed({**GOOD, "state": np.zeros(shape, np.float32)})


def truncated(rng):
    whole = packed(GOOD)
    return whole[: rng.integers(0, len(whole))]


def turned_bits(rng):
    data = bytearray(packed({"state": GOOD["state"]}))  # wrong as it is: an entry is missing
    for at in rng.integers(0, len(data), 3):
        data[at] ^= 1 << int(rng.integers(8))
    return bytes(data)


def random_bytes(rng):
    return rng.bytes(int(rng.integers(0, 200)))


def nested(rng):
    deep = int(rng.integers(20, LARGEST // 2))
    return bytes([int(rng.choice([0x91, 0x81]))]) * deep


def many_items(rng):
    return b"\xdd" + (LARGEST - 10).to_bytes(4, "big") + b"\x80" * (LARGEST - 10)


def wrong_entries(rng):
    return [
        packed({}),
        packed({"stat": GOOD["state"]}),
        packed({**GOOD, "state": "1 2 3"}),
        packed({**GOOD, "state": [None] * 3}),
        packed({**GOOD, "force": {"a": {"b": []}}}),
        packed({**GOOD, "state": np.full(3, np.nan)}),
        packed({**GOOD, "expo/seed": 2**40}),
        packed({**GOOD, "expo/seed": "7"}),
        packed({**GOOD, "expo/eval": "print()"}),
        packed(None),
        packed(7),
        msgpack.packb(msgpack.ExtType(42, b"code")),
    ][rng.integers(12)]


def text(rng):
    return "x" * int(rng.integers(0, 3000))


def too_long(rng):
    return bytes(LARGEST + int(rng.integers(1, 1000)))


KINDS = [
    wrong_dtype,
    huge_shape,
    negative_shape,
    wrong_shape,
    truncated,
    turned_bits,
    random_bytes,
    nested,
    many_items,
    wrong_entries,
    text,
    too_long,
]


def plain():
    return {
        "state": marked("<f8", (3,), np.zeros(3).tobytes()),
        "force": marked("<f4", (2, 2), bytes(16)),
    }


def answer_to(running, message) -> str:
    """How the server ends the connection: "told", with a sentence before it, or "too long"."""
    with connect(running.address, compression=None, close_timeout=5) as connection:
        connection.recv()
        try:
            connection.send(message)
            said = connection.recv(timeout=60)
            assert isinstance(said, str) and len(said) > 10 and "Traceback" not in said, said
            connection.recv(timeout=60)
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            assert closed.rcvd.code in (1011, 1009) and closed.rcvd.reason
            return "told" if closed.rcvd.code == 1011 else "too long"
    raise AssertionError("the connection stayed open")


@pytest.mark.slow
def test_hostile_messages():
    rng = np.random.default_rng(0)
    policy = Arithmetic()
    with serving(policy, largest_message=LARGEST) as running, Client(running.address) as robot:
        robot.act(GOOD)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ended = Counter()
        for number in range(MESSAGES):
            kind = KINDS[number % len(KINDS)]
            ended[kind.__name__, answer_to(running, kind(rng))] += 1
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        assert sum(ended.values()) == MESSAGES
        assert {kind for kind, how in ended if how == "too long"} == {"too_long"}
        assert grown < MEMORY, f"{grown} bytes more"
        np.testing.assert_allclose(robot.act(GOOD, seed=0), wanted(GOOD, 0))
        assert policy.sizes == [1, 1], "no hostile message reached the policy"


def upgraded(port, key=None) -> socket.socket:
    """A socket behind a handshake, for frames that no library would write."""
    opened = socket.create_connection(("127.0.0.1", port), 60)
    nonce = base64.b64encode(os.urandom(16)).decode()
    lines = [
        "GET / HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {nonce}",
        "Sec-WebSocket-Version: 13",
    ]
    opened.sendall("\r\n".join([*lines, "", ""]).encode())
    assert opened.recv(12) == b"HTTP/1.1 101"
    return opened


@pytest.mark.parametrize(
    "frame",
    [
        b"\x82\xff" + (2**62).to_bytes(8, "big") + b"\0" * 4 + b"x",
        b"\x82\xfe\xff\xff\0\0\0\0" + b"x" * 100,
        b"\x82\x05hello",
        b"\xf2\x80\0\0\0\0",
        b"\x80\x80\0\0\0\0",
        b"\xff" * 50,
        b"",
    ],
    ids=["huge", "half", "unmasked", "reserved", "continuation", "noise", "nothing"],
)
def test_hostile_frames(frame):
    with serving(Arithmetic()) as running, Client(running.address) as robot:
        with upgraded(running.port) as opened:
            opened.sendall(frame)
        until(lambda: running.server.connected == 1)
        np.testing.assert_allclose(robot.act(GOOD, seed=0), wanted(GOOD, 0))
