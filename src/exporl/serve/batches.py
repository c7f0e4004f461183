"""Requests of several clients, decided in one compiled call."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from exporl.serve.requests import Decided, Request, Served

SIZES = (1, 4, 16)
"""Rows of a call: with fewer requests the rest is filled up, so that nothing is compiled while
robots wait."""


class Answered(NamedTuple):
    """A decision, and the checkpoint that it was made with."""

    decided: Decided
    checkpoint: str


class Batches:
    """Decides one call after the other, in a thread of its own. What is asked while a call runs
    goes into the next one together; nothing waits for others to come."""

    def __init__(self, policy: Served):
        self.policy = policy
        """What decides; may be exchanged for another with the same interface at any time."""
        self.calls = 0
        """Compiled calls so far."""
        self._waiting: list[tuple[Request, asyncio.Future[Answered]]] = []
        self._thread = ThreadPoolExecutor(1, "decide")
        self._runner: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait for the call that runs."""
        return len(self._waiting)

    async def decide_each(self, request: Request) -> list[Answered]:
        """The decisions that one request asks for, in the order of their seeds.

        Raises:
            FloatingPointError: as `decide`.
        """
        return await asyncio.gather(*map(self.decide, request.each()))

    async def decide(self, request: Request) -> Answered:
        """The decision about one request. Whoever is cancelled while it waits costs nothing.

        Raises:
            FloatingPointError: the policy came to no number for this observation.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await future

    def close(self) -> None:
        """Ends the thread after the call that it is in."""
        self._thread.shutdown(cancel_futures=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            wanted = [each for each in self._waiting if not each[1].done()]
            taken, self._waiting = wanted[: SIZES[-1]], wanted[SIZES[-1] :]
            if not taken:
                continue
            policy, requests = self.policy, [request for request, _ in taken]
            self.calls += 1
            try:
                decided = await loop.run_in_executor(self._thread, decide, policy, requests)
            except Exception as error:  # whatever it is, those who wait are told
                _tell(taken, [error] * len(taken), policy)
            else:
                _tell(taken, decided, policy)


def _tell(
    taken: Sequence[tuple[Request, "asyncio.Future[Answered]"]],
    results: Sequence[Decided | Exception | None],
    policy: Served,
) -> None:
    """Gives every request that is still waited for its result."""
    for (_, future), result in zip(taken, results, strict=True):
        if future.done():
            continue
        if result is None:
            future.set_exception(
                FloatingPointError(
                    "the policy came to no number for this observation: an entry of it lies far "
                    "outside of what the policy was trained on, or training diverged."
                )
            )
        elif isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(Answered(result, policy.checkpoint_name))


def decide(policy: Served, requests: Sequence[Request]) -> Sequence[Decided | None]:
    """Decisions about requests, at most as many as the largest call has rows. Samples are decided
    in calls of the largest size: whoever asks again gets the same to the bit, whatever else is
    asked meanwhile."""
    count = len(requests)
    sampled = any(request.samples is not None for request in requests)
    size = SIZES[-1] if sampled else next(size for size in SIZES if size >= count)
    filled = [*requests, *[requests[0]] * (size - count)]
    names = requests[0].rows
    batch = {name: np.concatenate([each.rows[name] for each in filled]) for name in names}
    seeds = np.array([each.seed for each in filled], np.uint32)
    return policy.decide_each(batch, seeds)[:count]


def compile_calls(policy: Served) -> None:
    """Compiles a policy's calls of all sizes, by deciding about zeros."""
    zeros = {
        name: np.zeros((1, *shape), dtype)
        for name, shape, dtype in policy.interface.spec.observation
    }
    for size in SIZES:
        decide(policy, [Request(zeros, 0)] * size)
