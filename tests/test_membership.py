"""What is said of a cluster that is too small, whose head is gone, and of a process that is gone;
without Ray."""

import os
import socket
import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from exporl.acting.failures import EnvironmentFailed
from exporl.cli.train import _check_actors
from exporl.cli.train_request import parse
from exporl.distributed.cluster import connect
from exporl.distributed.head import TRIES, HeadWatch, host_and_port
from exporl.distributed.membership import wait_for_cpus
from helpers.runs import tiny


class Growing:
    """A cluster that has one CPU more whenever it is looked at."""

    __name__ = "growing"

    def __init__(self):
        self.cpus = 0

    def nodes(self):
        self.cpus += 1
        there = {"Alive": True, "Resources": {"CPU": float(self.cpus)}}
        return [
            there,
            {"Alive": False, "Resources": {"CPU": 8.0}},
            {"Alive": True, "Resources": {}},
        ]


@pytest.fixture
def asked(monkeypatch):
    """How many CPUs a cluster was asked for."""
    numbers = []
    sdk = ModuleType("growing.autoscaler.sdk")
    sdk.request_resources = lambda num_cpus: numbers.append(num_cpus)
    monkeypatch.setitem(sys.modules, "growing", ModuleType("growing"))
    monkeypatch.setitem(sys.modules, "growing.autoscaler", ModuleType("growing.autoscaler"))
    monkeypatch.setitem(sys.modules, sdk.__name__, sdk)
    monkeypatch.setattr("exporl.distributed.membership.LOOK_AGAIN_S", 0.0)
    return numbers


def test_a_cluster_that_is_too_small_is_refused_with_both_numbers(asked):
    with pytest.raises(ValueError, match="has 1 CPUs, and each of 4 actors needs one"):
        wait_for_cpus(Growing(), 4, print)
    assert asked == []


def test_one_that_grows_is_asked_for_machines_and_waited_for(asked):
    said = []
    wait_for_cpus(Growing(), 4, said.append, 60.0)
    assert said == ["the Ray cluster has 1 CPUs for 4 actors: waiting for it to grow"]
    assert asked == [4, 0]


def test_another_version_and_a_missing_token_are_named():
    def joined(error):
        def init(**_):
            raise error

        connect(SimpleNamespace(init=init), "auto", num_cpus=1, store_bytes=1)

    with pytest.raises(ValueError, match=r"of another version\. .*Ray: 2.0.0\. Install the same"):
        joined(RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.0.0\n"))
    with pytest.raises(ValueError, match="RAY_AUTH_MODE=token"):
        joined(ConnectionError("Failed to connect to Ray cluster at here:1"))


def test_a_head_that_is_gone_is_noticed_and_one_that_comes_back_is_not_gone():
    server = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{server.getsockname()[1]}"
    watch = HeadWatch(address, every_s=0.01)
    try:
        watch.check()
        server.close()
        with pytest.raises(EnvironmentFailed, match=rf"{address}, is gone: .* {TRIES} times"):
            while True:
                watch.check()
        with socket.create_server(host_and_port(address)):
            while watch._failed:
                time.sleep(0.01)
            watch.check()
    finally:
        watch.close()
        server.close()


LAST_WORDS = """
import os
from exporl.distributed.last_words import LastWords
words = LastWords("go on with this")
{end}
"""


@pytest.mark.parametrize(
    ("end", "said"),
    [("os._exit(1)", "go on with this\n"), ("words.close()", ""), ("raise SystemExit(2)", "")],
)
def test_last_words_are_those_of_a_process_that_could_not_speak(end, said):
    command = [sys.executable, "-c", LAST_WORDS.format(end=end)]
    # until both processes have ended: they share the stream
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    assert done.stderr == said


def test_how_long_cpus_are_waited_for_is_a_number_and_needs_an_address():
    command = ["expo", "--task", "a/b", "--address", "auto", "--wait-for-cpus"]
    assert parse([*command, "600"]).wait_for_cpus == 600
    for wrong in ("soon", "-1", "inf", "nan"):
        with pytest.raises(ValueError, match="--wait-for-cpus must be a number of seconds"):
            parse([*command[:-1], f"--wait-for-cpus={wrong}"])
    with pytest.raises(ValueError, match="no effect without --address"):
        _check_actors(tiny(**{"train.actors": 1}), None, False, 600.0)
