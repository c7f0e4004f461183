"""The robot's side of a training elsewhere: five calls, and connections that come and go."""

import socket
import threading
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("websockets")
from websockets.sync.server import serve

from exporl.actor.environment import ActorEnvironment, load_environment
from exporl.actor.joining import Joining
from exporl.cli.main import main
from exporl.distributed.described import described
from exporl.distributed.pool import ActorPool
from exporl.serve.messages import packed
from helpers.joining import actor_threads
from helpers.robots import HIGH, LOW, Arm, Broken, Weak
from helpers.serving import Arithmetic, serving, until


def test_what_it_says_of_itself():
    said = ActorEnvironment(Arm()).describe()
    assert said["observation"] == [["pose/q", [2], "float64"], ["force", [1, 2], "float32"]]
    np.testing.assert_array_equal(said["action"]["high"], HIGH)
    assert (said["max_episode_steps"], said["control_hz"], said["protocol"]) == (4, 20.0, 1)
    said = ActorEnvironment(Arm(), max_episode_steps=9, control_hz=5.0).describe()
    assert (said["max_episode_steps"], said["control_hz"]) == (9, 5.0)


def test_limits_of_wrapped_environments_are_found():
    wrapped = SimpleNamespace(**{name: getattr(Arm(), name) for name in ("action_space",)})
    wrapped.observation_space, wrapped.env = Arm.observation_space, Arm()
    wrapped._max_episode_steps = 3
    assert ActorEnvironment(wrapped).describe()["max_episode_steps"] == 3


def test_types_may_be_given_as_numpy_has_them():
    """Environments without gymnasium write what they like into their spaces."""

    class Typed(Arm):
        action_space = SimpleNamespace(shape=(2,), dtype=np.float32, low=-1, high=1.0)
        observation_space = SimpleNamespace(shape=(3,), dtype=np.dtype("<f4"), low=0, high=1)

    found = described(ActorEnvironment(Typed()).describe())
    assert (found.observation, found.action_dtype) == ((("", (3,), "float32"),), "float32")
    assert (found.low, found.high) == ((-1.0, -1.0), (1.0, 1.0)), "one bound for all"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"max_episode_steps": None}, "no time limit: give --max-episode-steps N"),
        ({"action_space": SimpleNamespace(n=4)}, r"the action space is .* must be a Box"),
        (
            {"observation_space": SimpleNamespace(spaces={"a": SimpleNamespace(n=2)})},
            "observation 'a' is .* must be a Box",
        ),
        (
            {
                "observation_space": SimpleNamespace(
                    spaces={
                        "a/b": Arm.action_space,
                        "a": SimpleNamespace(spaces={"b": Arm.action_space}),
                    }
                )
            },
            "two entries of the observation have one name",
        ),
    ],
)
def test_environments_that_cannot_be_learnt_from(changes, sentence):
    env = Arm()
    for name, value in changes.items():
        setattr(env, name, value)
    with pytest.raises(ValueError, match=sentence):
        ActorEnvironment(env)


def test_actions_are_clipped_and_what_was_executed_is_said():
    env = ActorEnvironment(Arm())
    env.reset(3)
    np.testing.assert_array_equal(env.step(np.array([-9, 9.0]))["info"]["executed_action"], [-2, 5])
    weak = ActorEnvironment(Weak())
    weak.reset(3)
    answer = weak.step(LOW)
    np.testing.assert_array_equal(answer["info"]["executed_action"], LOW / 2)
    np.testing.assert_array_equal(weak.observation()["observation"]["force"][0], LOW / 2)
    assert set(answer["info"]) == {"success", "executed_action"}


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (np.zeros(3), r"float64 and shape \(3,\) was sent; the environment takes float32"),
        (np.array([np.nan, 1.0]), "NaN or infinity"),
        (None, "type object"),
        ("left", "type <U4"),
    ],
)
def test_nothing_is_played_of_what_is_no_action(action, sentence):
    env = ActorEnvironment(robot := Arm())
    env.reset(0)
    with pytest.raises(ValueError, match=sentence):
        env.step(action)
    assert robot.steps == 0


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("helpers.robots:Arms", "has no 'Arms'.*'Arm'"),
        ("helpers.robots:STEPS", "is int, not a function"),
        ("helpers.joining:actor_process", "takes? no arguments|raised TypeError"),
        ("builtins:dict", "returned dict, which has no reset, step"),
        ("no_such_module:f", "cannot import 'no_such_module'"),
        ("my_robot", "'my_robot' is not module:function, such as my_robot:make_env"),
    ],
)
def test_names_that_lead_to_no_environment(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_environment(name)


def joining(address, **options):
    return Joining(ActorEnvironment(Arm()), address, **options)


def test_nobody_is_there():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    with pytest.raises(ConnectionError, match=rf"127.0.0.1:{port}; tried for 0.1 s .* --listen"):
        joining(f"127.0.0.1:{port}", wait_s=0.1, say=(said := []).append).run()
    assert len(said) == 1 and "waiting up to 0.1 s for a training with room at ws://127" in said[0]


@pytest.mark.parametrize("address", ["http://robot:1", "robot:port", ""])
def test_addresses_that_are_none(address):
    with pytest.raises(ValueError, match=r"is no address such as HOST:PORT"):
        joining(address)


def test_a_policy_server_is_no_training():
    with (
        serving(Arithmetic()) as running,
        pytest.raises(ValueError, match="is no training of exporl"),
    ):
        joining(running.address, wait_s=5.0).run()


def test_a_long_answer_is_told_in_short():
    def talking(connection):
        connection.send(100_000 * "no ")
        connection.recv()

    with serve(talking, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        with pytest.raises(ValueError, match="answered: no no no") as raised:
            joining(f"127.0.0.1:{port}").run()
    assert len(str(raised.value)) < 2000


def test_another_version_of_the_calls():
    def old(connection):
        connection.send(packed({"call": "describe", "number": 1, "protocol": 0}))
        connection.recv()

    with serve(old, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        with pytest.raises(ValueError, match="speaks version 0 of the calls, this actor 1"):
            joining(f"127.0.0.1:{port}").run()


def test_a_key_is_needed_and_a_wrong_one_is_final():
    with ActorPool(1, port=0, api_key="right") as pool:
        for key in (None, "wrong"):
            with pytest.raises(ConnectionError, match=r"refuses this actor \(401\): .* API key"):
                joining(pool.address, api_key=key).run()
        with actor_threads(pool, Arm(), api_key="right") as raised:
            pool.wait_until_full()
        assert raised == []


def test_it_comes_back_to_a_training_that_was_begun_again():
    with ActorPool(1, port=0) as pool, actor_threads(pool, Arm()) as raised:
        pool.wait_until_full()
        place = pool.places[0]
        place._connection.close()  # as where the training's process has ended
        until(lambda: place.joined == 2)
    assert raised == []


class Jammed(Broken):
    """Cannot be closed, either."""

    def close(self):
        raise RuntimeError("the brake is stuck")


def test_an_environment_that_cannot_be_closed_is_told(monkeypatch, capsys):
    """Alone, and beside what has failed before."""
    monkeypatch.setattr("helpers.robots.Jammed", Jammed, raising=False)
    command = ["actor", "--env", "helpers.robots:Jammed", "--address"]
    assert main([*command, "127.0.0.1:1", "--wait", "0.01"]) == 2
    told = capsys.readouterr().err
    assert "no training has room" in told and "close raised RuntimeError: the brake" in told
    with ActorPool(1, port=0) as pool:
        status = []
        actor = threading.Thread(target=lambda: status.append(main([*command, pool.address])))
        actor.start()
        pool.wait_until_full()
        pool.close()
        actor.join(60)
    assert status == [2]
    assert "error: the environment's close raised RuntimeError" in capsys.readouterr().err


def test_the_command_says_what_is_wrong(capsys):
    assert main(["actor", "--env", "helpers.robots:Arm"]) == 2
    assert "--address" in capsys.readouterr().err
    address = ["--address", "127.0.0.1:1", "--wait", "0.01"]
    assert main(["actor", "--env", "helpers.robots:Arm", *address]) == 2
    assert "error: no training has room for this actor" in capsys.readouterr().err
