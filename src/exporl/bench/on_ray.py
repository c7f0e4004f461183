"""Runs of a suite on Ray: every run is a Ray actor with its share of the cluster, which starts the
run there as `exporl bench` starts it here. Nothing else of a suite differs."""

import contextlib
import json
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from exporl.bench.ray_host import TOKEN, RunHost
from exporl.bench.running import CHILDREN
from exporl.distributed.cluster import connect, load_ray
from exporl.files.atomic import write_text
from exporl.parallel.processes import Job, child_of
from exporl.speed.cores import usable_cores

STORE_BYTES = 100 * 2**20
"""Ray's memory for what is on its way, where it is started here: lines of text."""
LOOK_AGAIN_S = 0.5
LOST = -9
"""Status of a run whose machine, or whose actor, is gone."""


class Share(NamedTuple):
    """What a run gets of the machine that it runs on."""

    cpus: int = 1
    gpus: float = 0.0


@contextlib.contextmanager
def on_ray(folder: Path, share: Share, address: str | None = None) -> Iterator["RayRuns"]:
    """While it lasts, Ray runs, here or on the cluster of an address.

    Args:
        folder: of the suite.
        share: of each run.
        address: of a Ray cluster, HOST:PORT, or "auto" for the one that this machine belongs to;
            None starts Ray here.

    Raises:
        ModuleNotFoundError: Ray is not installed; says how to install it.
        ValueError: no cluster answers, Ray could not be started, or no machine has room for a run.
    """
    ray = load_ray("--ray")
    connect(ray, address, num_cpus=len(usable_cores()), store_bytes=STORE_BYTES)
    try:
        yield RayRuns(ray, folder, share)
    finally:
        ray.shutdown()


class RayRuns:
    """Starts runs on Ray."""

    def __init__(self, ray: Any, folder: Path, share: Share):
        """Asks Ray how many runs have room at a time.

        Raises:
            ValueError: none has.
        """
        self._ray, self._folder, self.share = ray, folder, share
        self.room = _room(ray.nodes(), share)
        """Runs that the cluster has room for at a time."""
        if not self.room:
            raise ValueError(
                f"no machine of the Ray cluster has {share.cpus} CPUs and {share.gpus:g} GPUs for "
                "a run: ask for less with --cpus and --gpus."
            )
        resources = {"num_cpus": share.cpus, "num_gpus": share.gpus}
        self._host = ray.remote(max_restarts=0, max_concurrency=3, **resources)(RunHost)
        self._cores, self._token = _Cores(), uuid.uuid4().hex

    def start(self, job: Job, cores: Sequence[int], inherited: Sequence[int]) -> "RayRun":
        """Starts a run as soon as the cluster has room for it: a `parallel.processes.Start`."""
        held = self._folder / CHILDREN
        write_text(held.with_name(held.name + TOKEN), self._token)
        begin = (child_of(job), os.getcwd(), str(held), self._token)
        return RayRun(self._ray, self._host.remote(), self._cores, self.share.cpus, begin)


def _room(nodes: Sequence[dict[str, Any]], share: Share) -> int:
    """Runs for which the machines of a cluster have room, whole runs on each."""
    wanted = {name.removesuffix("s").upper(): n for name, n in share._asdict().items() if n}
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    return sum(min(int(has.get(kind, 0) / n) for kind, n in wanted.items()) for has in alive)


class _Cores:
    """Which cores of which machine the suite's runs have."""

    def __init__(self) -> None:
        self._taken: dict[str, set[int]] = {}
        self._lock = threading.Lock()

    def take(self, machine: str, usable: Sequence[int], count: int) -> list[int]:
        """Cores that no other run of the suite has; all, where there are too few of them."""
        with self._lock:
            taken = self._taken.setdefault(machine, set())
            free = [core for core in usable if core not in taken][:count]
            taken.update(free if len(free) == count else ())
            return free if len(free) == count else list(usable)

    def give_back(self, machine: str, cores: Sequence[int]) -> None:
        """Cores of a run that has ended."""
        with self._lock:
            self._taken[machine] -= set(cores)


class RayRun:
    """One run: what `parallel.processes` uses of a `subprocess.Popen`. Its standard input is there
    to be closed, which asks the run to stop; its standard output is what the run says."""

    def __init__(self, ray: Any, host: Any, cores: _Cores, cpus: int, begin: tuple[Any, ...]):
        self.stdin = self.stdout = self
        self._ray, self._host, self._cores, self._cpus = ray, host, cores, cpus
        self._begin = begin
        self._stopping, self._begun, self._ended = threading.Event(), False, False
        self._status = LOST

    def __enter__(self) -> "RayRun":
        """Nothing to begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """Lets go of its place in the cluster."""
        self.kill()

    def close(self) -> None:
        """Asks the run to stop after a checkpoint; one that still waits for room never begins."""
        self._stopping.set()
        if self._begun and not self._ended:
            self._host.stop.remote()

    def kill(self) -> None:
        """Ends the actor; its run, if there is one, saves and ends as one whose parent died."""
        self._ended = True
        self._ray.kill(self._host, no_restart=True)

    def wait(self) -> int:
        """The exit status, after all lines were read; negative where the actor is gone."""
        return self._status

    def __iter__(self) -> Iterator[str]:
        """What the run says, line by line, until it has ended."""
        try:
            reference = self._host.where.remote()
            while not self._ray.wait([reference], timeout=LOOK_AGAIN_S)[0]:
                if self._stopping.is_set():
                    self._status = 0
                    return
            machine, usable = self._ray.get(reference)
            cores = self._cores.take(machine, usable, self._cpus)
            try:
                yield from self._lines(cores)
            finally:
                self._cores.give_back(machine, cores)
        except self._ray.exceptions.RayActorError:
            self._status = LOST
        except self._ray.exceptions.RayError as error:
            self._status = 1
            yield json.dumps({"error": str(error).strip().splitlines()[-1]})

    def _lines(self, cores: Sequence[int]) -> Iterator[str]:
        child, *place = self._begin
        if not self._stopping.is_set():
            refused = self._ray.get(self._host.begin.remote(child, cores, *place))
            if refused is not None:
                self._status = 1
                yield json.dumps({"error": refused})
                return
            self._begun = True
            if self._stopping.is_set():  # it was closed meanwhile
                self._host.stop.remote()
            while (lines := self._ray.get(self._host.news.remote())) is not None:
                yield from lines
        self._status = self._ray.get(self._host.status.remote())
