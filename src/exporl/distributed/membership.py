"""A run's place in a Ray cluster, from joining it to leaving it."""

import contextlib
import importlib
import time
from collections.abc import Callable
from typing import Any

from exporl.distributed.cluster import connect
from exporl.distributed.head import HeadWatch
from exporl.distributed.last_words import LastWords

Say = Callable[[str], None]
LOOK_AGAIN_S = 1.0
"""Between two looks at how many machines a cluster has."""


class Membership:
    """A cluster that was joined, or Ray started here, with a CPU for each actor."""

    def __init__(
        self,
        ray: Any,
        address: str | None,
        *,
        actors: int,
        store_bytes: int,
        say: Say,
        wait_for_cpus_s: float,
        go_on: str,
    ):
        """Joins.

        Args:
            ray: the package.
            address: of the cluster; None starts Ray here.
            actors: each needs a CPU.
            store_bytes: memory, where Ray is started here, for what is on its way.
            say: told where CPUs are waited for.
            wait_for_cpus_s: seconds within which the cluster has to have them.
            go_on: the command that resumes the run.

        Raises:
            ValueError: it cannot be joined or started, or has too few CPUs.
        """
        self._ray = ray
        connect(ray, address, num_cpus=actors, store_bytes=store_bytes)
        with contextlib.ExitStack() as on_error:
            on_error.callback(ray.shutdown)
            wait_for_cpus(ray, actors, say, wait_for_cpus_s)
            self._head = HeadWatch(ray.get_runtime_context().gcs_address)
            on_error.pop_all()
        self._last_words = LastWords(
            "the process of the run has ended without a word: it was killed, or Ray ended it, "
            "because Ray's own processes on this machine are gone. Go on from the last checkpoint "
            f"with: {go_on}"
        )

    def check(self) -> None:
        """Nothing, as long as the head of the cluster answers.

        Raises:
            EnvironmentFailed: it does not any more.
        """
        self._head.check()

    def leave(self) -> None:
        """Leaves the cluster; ends Ray, where it was started here."""
        self._head.close()
        self._ray.shutdown()
        self._last_words.close()


def wait_for_cpus(ray: Any, actors: int, say: Say, patience_s: float = 0.0) -> None:
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
