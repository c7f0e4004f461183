"""The robot's side: chunks, jumps, reconnection, and no JAX anywhere."""

import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("websockets")
from websockets.sync.server import serve

from exporl.serve.client import Client
from exporl.serve.jumps import JumpLimiter
from exporl.serve.messages import packed
from helpers.serving import GOOD, Arithmetic, serving, wanted

WITHOUT_JAX = """
import sys

class Only:
    def find_spec(self, name, path=None, target=None):
        known = {"exporl", "numpy", "websockets", "msgpack"} | sys.stdlib_module_names
        if name.split(".")[0] not in known:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Only())
import numpy as np
from exporl import Client, JumpLimiter

with Client(sys.argv[1], most_change=5.0) as client:
    seen = {"state": np.zeros(3), "force": np.zeros((2, 2))}
    print([float(client.next_action(seen)[0]) for _ in range(5)])
print(sorted({name.split(".")[0] for name in sys.modules} & {"jax", "flax", "gymnasium"}))
"""


@pytest.fixture
def running():
    with serving(Arithmetic()) as running:
        yield running


def test_it_needs_numpy_websockets_and_msgpack_alone(running):
    command = [sys.executable, "-c", WITHOUT_JAX, running.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["[0.0, 5.0, 10.0, 5.0, 10.0]", "[]"]


def test_chunks_are_played_to_their_end(running):
    """Three actions of each; seeds are counted chunk by chunk."""
    with Client(running.address) as client:
        played = [client.next_action(GOOD) for _ in range(7)]
        chunks = [*wanted(GOOD, 0), *wanted(GOOD, 1), wanted(GOOD, 2)[0]]
        np.testing.assert_allclose(played, chunks)
        client.reset(seed=9)
        np.testing.assert_allclose(client.next_action(GOOD), wanted(GOOD, 9)[0])


def test_the_same_seed_gives_the_same_actions(running):
    with Client(running.address) as one, Client(running.address) as other:
        np.testing.assert_array_equal(one.act(GOOD, seed=4), other.act(GOOD, seed=4))
        assert not np.array_equal(one.act(GOOD, seed=4), one.act(GOOD, seed=5))


def test_what_is_said_about_the_choice(running):
    with Client(running.address) as client:
        said = client.infer(GOOD, seed=2)
        assert (said["expo/q"], said["expo/index"], said["expo/edited"]) == (10.0, 3, True)
        assert client.metadata["expo"]["control_hz"] == 20.0


def test_an_observation_that_is_refused_does_not_end_the_client(running):
    with Client(running.address) as client:
        with pytest.raises(ValueError, match=r"server at ws://127.* answered: .*lacks 'force'"):
            client.act({"state": GOOD["state"]})
        assert client.act(GOOD).shape == (3, 2)


def test_jumps_are_held_back_across_chunks(running):
    with Client(running.address, most_change=[5.0, 30.0]) as client:
        client.reset(start=[9.0, 9.0])
        played = np.array([client.next_action(GOOD) for _ in range(4)])
    np.testing.assert_allclose(played[:, 0], [8, 13, 18, 13], err_msg="5 at most each step")
    np.testing.assert_allclose(played[:, 1], [8, 18, 28, 9], err_msg="never held back")
    assert client.jumps is not None and client.jumps.limited == 3


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def test_a_server_that_is_down_is_named():
    port = free_port()
    with pytest.raises(
        ConnectionError, match=rf"no policy server answers at ws://127.0.0.1:{port}; .* 0.2 s"
    ):
        Client(f"ws://127.0.0.1:{port}", deadline_s=0.2)


def test_it_waits_for_a_server_that_comes_later():
    port, made = free_port(), []
    waiting = threading.Thread(
        target=lambda: made.append(Client(f"ws://127.0.0.1:{port}", deadline_s=60.0))
    )
    waiting.start()
    with serving(Arithmetic(), port=port):
        waiting.join()
        assert made[0].act(GOOD).shape == (3, 2)


def test_a_server_that_was_restarted_is_found_again_and_draws_go_on():
    with serving(Arithmetic()) as running:
        client = Client(running.address, deadline_s=60.0)
        client.act(GOOD)
    with serving(Arithmetic(), port=running.port):
        np.testing.assert_allclose(client.act(GOOD), wanted(GOOD, 1))
    client.deadline_s = 0.2
    with pytest.raises(ConnectionError, match=f"no policy server answers at {running.address}"):
        client.act(GOOD)


def test_a_server_with_another_policy_is_not_used():
    with serving(Arithmetic()) as running:
        client = Client(running.address, deadline_s=60.0)
    other = Arithmetic()
    other.interface = other.interface.__class__(**{**vars(other.interface), "execute_length": 2})
    with (
        serving(other, port=running.port),
        pytest.raises(ValueError, match="serves another policy since"),
    ):
        client.act(GOOD)


def scripted(*frames):
    """A server that sends frames, whatever it is asked."""

    def handle(connection):
        for frame in frames:
            connection.send(frame)
        connection.recv()

    return serve(handle, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ((packed([1]),), "is no policy server"),
        (("hello",), "is no policy server"),
        ((b"\xc1",), "begins nothing"),
        ((packed({}), packed({"action": 1})), "an answer without actions"),
        ((packed({}), packed({"actions": None})), "an answer without actions"),
    ],
)
def test_a_server_that_is_none(frames, said):
    with scripted(*frames) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        try:
            with pytest.raises(ValueError, match=said):
                Client(address).act(GOOD)
        finally:
            server.shutdown()
            thread.join()


def test_an_answer_that_does_not_come():
    policy = Arithmetic()
    with serving(policy) as running:
        client = Client(running.address)
        policy.open.clear()
        client.deadline_s = 0.1
        with pytest.raises(TimeoutError, match=r"ws://127.* gave no answer within 0.1 s"):
            client.act(GOOD)
        policy.open.set()
        client.deadline_s = 60.0
        np.testing.assert_allclose(client.act(GOOD, seed=3), wanted(GOOD, 3))


@pytest.mark.parametrize(("address", "deadline"), [("http://x", 1.0), ("ws://127.0.0.1", 0.0)])
def test_what_it_cannot_be_made_with(address, deadline):
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"no address such as|must be above 0"):
        Client(address, deadline_s=deadline)
    assert time.monotonic() - began < 60


def test_the_limiter():
    limiter = JumpLimiter(0.5)
    assert limiter(np.float32([3.0, -3.0])).tolist() == [3.0, -3.0], "nothing before the first"
    assert limiter(np.float32([3.2, 9.0])).tolist() == pytest.approx([3.2, -2.5])
    assert limiter(np.float32([3.2, 9.0])).tolist() == pytest.approx([3.2, -2.0])
    assert limiter(np.float32([3.2, -2.0])).dtype == np.float32
    assert limiter.limited == 2
    limiter.reset(start=[0.0, 0.0])
    assert limiter(np.array([1.0, 0.2])).tolist() == [0.5, 0.2]
    limiter.reset()
    assert limiter(np.array([7.0, 7.0])).tolist() == [7.0, 7.0]


def test_what_the_limiter_refuses():
    for most in (0.0, -1.0, np.inf, np.nan, []):
        with pytest.raises(ValueError, match="largest change per step must be above 0"):
            JumpLimiter(most)
    limiter = JumpLimiter([1.0, 1.0])
    with pytest.raises(ValueError, match=r"shape \(3,\) does not fit"):
        limiter(np.zeros(3))
    with pytest.raises(ValueError, match="the action holds NaN or infinity: it is not played"):
        limiter(np.array([np.nan, 0.0]))
    with pytest.raises(ValueError, match="the start holds NaN"):
        limiter.reset(start=[np.inf, 0.0])
