"""Ray is started, or joined where something answers; a stand-in takes its place."""

import socket
import sys

import pytest

from exporl.distributed.cluster import connect, load_ray


class Ray:
    """Notes how it was begun."""

    def __init__(self, error=None):
        self.calls, self.error, self.ended = [], error, 0

    def init(self, **options):
        self.calls.append(options)
        if self.error is not None:
            raise self.error

    def shutdown(self):
        self.ended += 1


def join(ray, address):
    connect(ray, address, num_cpus=3, store_bytes=100)


def test_an_address_where_nothing_listens_is_said_before_ray_is_asked():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        join(ray := Ray(), address)
        assert [call["address"] for call in ray.calls] == [address]
    with pytest.raises(ValueError, match=rf"--address {address}: no Ray cluster answers there"):
        join(ray := Ray(), address)
    assert not ray.calls


@pytest.mark.parametrize("address", ["auto", "ray://somewhere:10001", "local"])
def test_other_addresses_are_left_to_ray(address):
    join(ray := Ray(), address)
    assert [call["address"] for call in ray.calls] == [address]
    with pytest.raises(ValueError, match=r"no Ray cluster answers there \(gone\)"):
        join(Ray(ConnectionError("gone")), address)


def test_without_an_address_ray_is_started_here():
    join(ray := Ray(), None)
    (call,) = ray.calls
    assert (call["address"], call["num_cpus"], call["object_store_memory"]) == ("local", 3, 100)
    with pytest.raises(ValueError, match="not be started on this machine, 3 times: no processes"):
        join(Ray(Exception("no processes")), None)


class Node:
    """Starts, and its processes do not answer in time; notes that they were ended."""

    ended = 0

    def __init__(self):
        raise RuntimeError("timed out during startup")

    def kill_all_processes(self, **_):
        Node.ended += 1


class Busy(Ray):
    """Starts at the second attempt."""

    def init(self, **options):
        super().init(**options)
        if len(self.calls) == 1:
            Node()


def test_a_start_on_a_busy_machine_is_tried_again_and_leaves_nothing_behind():
    join(ray := Busy(), None)
    assert (len(ray.calls), ray.ended, Node.ended) == (2, 1, 1)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"--this needs Ray: pip install 'exporl\[ray\]'"):
        load_ray("--this")
