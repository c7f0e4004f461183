"""Ray itself: loaded where it is used, started on this machine, or joined where it runs."""

import importlib
import os
import socket
import traceback
import warnings
from typing import Any

from exporl.distributed.head import host_and_port

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
REACH_S = 10.0
"""Longest wait for a connection to a cluster's address; Ray itself would go on for many minutes."""

ATTEMPTS = 3
"""Of starting Ray here: its processes must answer within 30 s of its own, and on a machine that is
busy they do so once their programs have been read."""


def load_ray(option: str) -> Any:
    """The package.

    Args:
        option: what needs it, for the message.

    Raises:
        ModuleNotFoundError: it is not installed; says how to install it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray's is 15 below everything else: on a busy machine the run would wait for its actors forever
    os.environ.setdefault("RAY_worker_niceness", "0")
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


def _start(ray: Any, num_cpus: int, store_bytes: int) -> None:
    local = {"include_dashboard": False, "object_store_memory": store_bytes}
    for attempt in range(1, ATTEMPTS + 1):
        try:
            ray.init(address="local", num_cpus=num_cpus, **QUIET, **local)
            return
        except Exception as error:  # of no other kind, where its processes do not answer in time
            _end_half_started(error)
            ray.shutdown()
            if attempt == ATTEMPTS:
                raise ValueError(
                    f"Ray could not be started on this machine, {ATTEMPTS} times: {error}"
                ) from error


def _end_half_started(error: BaseException) -> None:
    """Ends the processes of a start that failed: nobody but the failed call knows them."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node: Any = frame.f_locals.get("self")
        if hasattr(node, "kill_all_processes"):
            node.kill_all_processes(check_alive=False, allow_graceful=False)
            return


def _reach(address: str) -> None:
    """Whether anything listens at HOST:PORT; other forms of an address are left to Ray.

    Raises:
        OSError: nothing does.
    """
    colon, port = address.rpartition(":")[1:]
    if colon and "/" not in address and port.isdecimal():
        socket.create_connection(host_and_port(address), REACH_S).close()
