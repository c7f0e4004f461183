"""Actors as Ray actors, supervised: whoever dies or does not answer is replaced and counted."""

import functools
import importlib
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from exporl.acting.failures import EnvironmentFailed
from exporl.acting.guard import Arm, Guard, Outcome
from exporl.distributed.actor_service import ActorService, Setup, setup_of
from exporl.distributed.cluster import load_ray
from exporl.distributed.learner_service import LearnerService
from exporl.distributed.membership import Membership
from exporl.distributed.messages import Chunk, Order
from exporl.run.actors import MakeActors
from exporl.run.build import Parts
from exporl.run.endings import resumption
from exporl.speed.tuning import keep_compiled_programs
from exporl.types import Params, Step

Say = Callable[[str], None]
DEADLINE_S, START_S = 120.0, 600.0
"""Longest wait for a chunk; and for the first one of an actor, which has to be built and
compiled."""
WAIT_S = 1.0
"""Longest wait for any chunk before the run looks after itself, such as for a signal to stop."""
LAST_S = 5.0
"""Longest wait for what has come already: where this process was stopped, Ray reads it late."""
MOST_FAILURES = 3
"""Actors lost one after the other, without a chunk of any in between, that end the run."""
STORE_BYTES = 256 * 2**20
"""Ray's memory for what is on its way, where the run starts Ray itself."""


def ray_actors(
    say: Say,
    address: str | None = None,
    deadline_s: float = DEADLINE_S,
    wait_for_cpus_s: float = 0.0,
) -> MakeActors:
    """What makes the actors of a run on Ray.

    Args:
        say: told of actors that are replaced.
        address: of a Ray cluster that runs, HOST:PORT, or "auto" for the one of this machine; None
            starts Ray here, for the time of the run.
        deadline_s: seconds without an answer after which an actor is replaced.
        wait_for_cpus_s: seconds within which the cluster has to have a CPU for every actor.

    Raises:
        ModuleNotFoundError: Ray is not installed; says how to install it.
    """
    return functools.partial(
        RayActors,
        ray=load_ray("--actors"),
        say=say,
        address=address,
        deadline_s=deadline_s,
        wait_for_cpus_s=wait_for_cpus_s,
    )


class RemoteActor:
    """An `ActorService` in a process of its own; Ray makes it and calls it."""

    def __init__(self, setup: Setup, number: int):
        """Builds the actor, on the CPU: accelerators are the learner's."""
        jax = importlib.import_module("jax")
        jax.config.update("jax_platforms", "cpu")
        keep_compiled_programs(_ignored)
        self._service = ActorService.of_run(setup, number)

    def collect(self, order: Order, version: int, params: Mapping[str, np.ndarray]) -> Chunk:
        """As `ActorService.collect`."""
        return self._service.collect(order, version, params)


class RayActors:
    """The `Actors` of a run in Ray processes. Each always has one order, so that all act while the
    learner learns, and none is more than a chunk ahead.

    Not repeatable: which steps come first depends on timing.
    """

    def __init__(
        self,
        parts: Parts,
        cut: Callable[[int], None],
        *,
        ray: Any,
        say: Say,
        address: str | None,
        deadline_s: float,
        wait_for_cpus_s: float = 0.0,
    ):
        """Starts or joins Ray; actors begin with the first step.

        Raises:
            ValueError: there is no cluster at the address, or it has too few CPUs.
        """
        config = parts.config
        actors = config.train.actors
        self._ray, self._say, self._deadline_s = ray, say, deadline_s
        self._setup = setup_of(parts)
        self.guard: Guard | None = None
        self.env_steps = 0
        self.outcomes: list[Outcome] = []
        self.service = LearnerService(
            actors,
            config.num_envs // actors,
            config.train.online_steps,
            lambda: parts.learner.updates,
            cut,
        )
        self._membership = Membership(
            ray,
            address,
            actors=actors,
            store_bytes=STORE_BYTES,
            say=say,
            wait_for_cpus_s=wait_for_cpus_s,
            go_on=resumption(config, parts.run_dir),
        )
        self._class = ray.remote(num_cpus=1, max_restarts=0)(RemoteActor)
        self._params: Any = None
        self._failures = 0
        self._handles: list[Any] = [None] * actors
        self._waiting: list[tuple[Any, float] | None] = [None] * actors
        """Of every place, the chunk that is waited for, and until when."""
        self._orders = itertools.count()
        self._turns = [0] * actors
        """Of every place, the number of its last order."""

    def _count(self) -> None:
        self.env_steps, self.outcomes = self.service.env_steps, self.service.outcomes

    @property
    def deployed(self) -> Arm:
        """The policy: there is no guard."""
        return "explore"

    def step(self, acting: Params, mode: str = "policy") -> list[tuple[int, Step]]:
        """The next chunk that has come, as (stream, step) pairs; none where none came within a
        second.

        Raises:
            EnvironmentFailed: actors are lost again and again; says what the last one said. Or the
                head of the Ray cluster is gone.
        """
        self._membership.check()
        self._ask(acting, mode)
        waiting = {each[0]: place for place, each in enumerate(self._waiting) if each is not None}
        steps: list[tuple[int, Step]] = []
        if (reference := self._next(waiting)) is not None:
            steps = self._receive(waiting[reference], reference)
        for place in self._silent():
            self._replace(place, "it does not answer")
        return steps

    def _next(self, waiting: Mapping[Any, int]) -> Any:
        """Of the chunks that have come, the one that was ordered first; None where none came within
        a second. Ray says which have come, in no order: some would not be taken for a long time."""
        one, _ = self._ray.wait(list(waiting), num_returns=1, timeout=WAIT_S)
        if not one:
            return None
        come, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        return min(come or one, key=lambda reference: self._turns[waiting[reference]])

    def _silent(self) -> list[int]:
        """Places whose time is over and that have given nothing. What came while the run itself
        did something else, such as an evaluation, came in time."""
        now = time.monotonic()
        late = {
            each[0]: place
            for place, each in enumerate(self._waiting)
            if each is not None and now > each[1]
        }
        if not late:
            return []
        _, missing = self._ray.wait(list(late), num_returns=len(late), timeout=LAST_S)
        return [late[reference] for reference in missing]

    def _ask(self, acting: Params, mode: str) -> None:
        """Gives every actor that has nothing to do an order, with the newest parameters."""
        for place, waiting in enumerate(self._waiting):
            if waiting is not None:
                continue
            if self.service.publish(acting):
                self._params = self._ray.put(self.service.params)
            if (order := self.service.order(place, mode)) is None:
                continue
            if self._handles[place] is None:
                self._handles[place] = self._class.remote(self._setup, self.service.begin())
            reference = self._handles[place].collect.remote(
                order, self.service.version, self._params
            )
            patience = START_S if order.first == 0 else self._deadline_s
            self._waiting[place] = reference, time.monotonic() + patience
            self._turns[place] = next(self._orders)

    def _receive(self, place: int, reference: Any) -> list[tuple[int, Step]]:
        try:
            chunk = self._ray.get(reference, timeout=self._deadline_s)
        except self._ray.exceptions.RayError as error:
            self._replace(place, _why(error))
            return []
        self._waiting[place], self._failures = None, 0
        steps = self.service.take(place, chunk)
        self._count()
        return steps

    def _replace(self, place: int, reason: str) -> None:
        """Ends an actor for good; another one begins in its place with the next order."""
        handle, self._handles[place], self._waiting[place] = self._handles[place], None, None
        self._ray.kill(handle, no_restart=True)
        self.service.lose(place)
        self._failures += 1
        if self._failures >= MOST_FAILURES * len(self._handles):
            raise EnvironmentFailed(
                f"{self._failures} actors were lost one after the other without a step; the last "
                f"one: {reason}"
            )
        self._say(f"actor {place} was lost ({reason}): another one begins in its place")

    def metrics(self) -> dict[str, float]:
        """Counts of actors, restarts and lost steps; staleness of each actor."""
        return self.service.metrics()

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """What a checkpoint keeps: open episodes are not in it."""
        return self.service.state()

    def load(self, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> list[int]:
        """Restores `state`; open episodes are ended, so that no stream is left to cut."""
        self.service.load(record)
        self._count()
        return []

    def close(self) -> None:
        """Ends the actors; and Ray, where the run started it."""
        for handle in self._handles:
            if handle is not None:
                self._ray.kill(handle, no_restart=True)
        self._membership.leave()


def _why(error: Exception) -> str:
    """The part of what Ray says that is about the actor, without its advice."""
    last = str(error).strip().splitlines()[-1]
    return last.split(" Some common causes")[0].rstrip(".")


def _ignored(message: str) -> None:
    """What is said about compiled programs, the run says."""
