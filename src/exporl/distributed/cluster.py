"""Ray itself: loaded where it is used, started on this machine, or joined where it runs."""

import importlib
import os
import socket
import time
import warnings
from collections.abc import Callable
from typing import Any

from exporl.distributed.head import host_and_port

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
LOOK_AGAIN_S = 1.0
"""Between two looks at how many machines a cluster has."""
REACH_S = 10.0
"""Longest wait for a connection to a cluster's address; Ray itself would go on for many minutes."""


def load_ray(option: str) -> Any:
    """The package.

    Args:
        option: what needs it, for the message.

    Raises:
        ModuleNotFoundError: it is not installed; says how to install it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{option} needs Ray: pip install 'exporl[ray]'") from error


def connect(ray: Any, address: str | None, *, num_cpus: int, store_bytes: int) -> None:
    """Joins a cluster, or starts Ray on this machine.

    Args:
        ray: the package.
        address: of a cluster, HOST:PORT, or "auto" for the one that this machine belongs to; None
            starts Ray here.
        num_cpus: what Ray, started here, takes this machine to have.
        store_bytes: memory, where it is started here, for what is on its way.

    Raises:
        ValueError: no cluster answers at the address, it has another version of Ray or Python or
            wants a token, or Ray could not be started.
    """
    with warnings.catch_warnings():  # its processes are other programs, not forks of JAX
        warnings.simplefilter("ignore", RuntimeWarning)
        if address is None:
            _start(ray, num_cpus, store_bytes)
            return
        try:
            _reach(address)
            ray.init(address=address, **QUIET)
        except Exception as error:  # of other kinds, too, where a token is missing
            raise ValueError(f"--address {address}: {_why_not(error)}") from error


def _why_not(error: Exception) -> str:
    """Why a cluster could not be joined, and what to do."""
    said = " ".join(str(error).split())
    if "Version mismatch" in said:
        return (
            f"the Ray cluster there is of another version. {said}. Install the same versions of "
            "Python and Ray on every machine."
        )
    return (
        f"no Ray cluster answers there ({said}). Start one with `ray start --head`, or leave "
        "--address out. One that was started with a token is joined with RAY_AUTH_MODE=token in "
        "front of the command, and its token in ~/.ray/auth_token or RAY_AUTH_TOKEN."
    )


def wait_for_cpus(
    ray: Any, actors: int, say: Callable[[str], None], patience_s: float = 0.0
) -> None:
    """Whether a cluster that was joined has a CPU for each actor.

    Args:
        ray: the package.
        actors: so many CPUs are needed.
        say: told where they are waited for.
        patience_s: seconds within which a cluster that grows by itself, which is asked for them,
            has to have them.

    Raises:
        ValueError: it has fewer; names both numbers.
    """
    end, told = time.monotonic() + patience_s, False
    while (cpus := _cpus(ray)) < actors:
        if time.monotonic() >= end:
            raise ValueError(
                f"the Ray cluster has {cpus} CPUs, and each of {actors} actors needs one. Lower "
                "--actors, add machines with `ray start --address`, or give a cluster that grows "
                "by itself time with --wait-for-cpus SECONDS."
            )
        if not told:
            _ask_for(ray, actors)
            say(f"the Ray cluster has {cpus} CPUs for {actors} actors: waiting for it to grow")
            told = True
        time.sleep(min(LOOK_AGAIN_S, patience_s))
    if told:  # the actors ask for themselves from now on
        _ask_for(ray, 0)


def _cpus(ray: Any) -> int:
    """CPUs of the machines that are there, in whole ones."""
    return sum(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])


def _ask_for(ray: Any, cpus: int) -> None:
    importlib.import_module(f"{ray.__name__}.autoscaler.sdk").request_resources(num_cpus=cpus)


def _start(ray: Any, num_cpus: int, store_bytes: int) -> None:
    local = {"include_dashboard": False, "object_store_memory": store_bytes}
    try:
        ray.init(address="local", num_cpus=num_cpus, **QUIET, **local)
    except Exception as error:  # of no other kind, where its processes do not answer in time
        raise ValueError(f"Ray could not be started on this machine: {error}") from error


def _reach(address: str) -> None:
    """Whether anything listens at HOST:PORT; other forms of an address are left to Ray.

    Raises:
        OSError: nothing does.
    """
    colon, port = address.rpartition(":")[1:]
    if colon and "/" not in address and port.isdecimal():
        socket.create_connection(host_and_port(address), REACH_S).close()
