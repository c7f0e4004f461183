"""How learning goes on beside acting: in step with it here; in a thread of its own in
`parallel.background`."""

import contextlib
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from exporl.data.mixture import Mixture
from exporl.data.proposals import renew_proposals
from exporl.randomness import SAMPLE, run_rng
from exporl.run.config import RunConfig
from exporl.run.learner import Learner
from exporl.types import Batch, Metrics, Params, Phase


@runtime_checkable
class Learning(contextlib.AbstractContextManager, Protocol):
    """Makes the update calls that acting makes due. Entered before acting, left after it."""

    @property
    def lock(self) -> contextlib.AbstractContextManager:
        """Held by whoever changes what updates read, such as the replay."""
        ...

    def owe(self, calls: int) -> object:
        """So many update calls have become due: they are made now, or soon."""

    def acting(self) -> Params:
        """The acting parameters to use for the next step."""
        ...

    def settle(self) -> None:
        """Returns when all update calls due are made: the learner can be read."""

    def staleness(self) -> float | None:
        """Mean lag of the acting parameters in update calls since the last question; None where
        there is none by construction."""
        ...


class InStep:
    """Learning that makes every update call when it is owed, between two steps of acting."""

    def __init__(
        self,
        learner: Learner,
        source: Mixture,
        config: RunConfig[Any],
        phase: Phase,
        num_minibatches: int,
        made: Callable[[Metrics], None],
    ):
        """Ready to learn.

        Args:
            learner: what learns.
            source: where minibatches come from.
            config: their size and discount, whether they are drawn ahead, and the run's seed.
            phase: what is learnt.
            num_minibatches: of one update call.
            made: receives the metrics of every call, which are still on the device.
        """
        self.learner, self.source, self.num_minibatches = learner, source, num_minibatches
        self.phase: Phase = phase
        self.lock = contextlib.nullcontext()
        self.prefetched: Batch | None = None
        """The minibatches of the next call, where they are drawn already."""
        self._train, self._seed, self._made = config.train, config.seed, made

    def __enter__(self) -> "InStep":
        """Nothing to begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to end."""

    def owe(self, calls: int) -> Metrics | None:
        """Makes update calls; returns the metrics of the last one."""
        metrics = None
        for _ in range(calls):
            self._renew()
            batches, self.prefetched = self.prefetched, None
            metrics = self.learner.update(self.draw() if batches is None else batches, self.phase)
            # while the device is busy with the update
            if self.phase == "online" and self._train.prefetch:
                self.prefetched = self.draw()
            self._made(metrics)
        return metrics

    def acting(self) -> Params:
        """The newest acting parameters."""
        return self.learner.acting()

    def settle(self) -> None:
        """Nothing is due between two calls."""

    def staleness(self) -> None:
        """No lag."""

    def draw(self) -> Batch:
        """The minibatches of the next update call, on their way to the device."""
        train, rng = self._train, run_rng(self._seed, SAMPLE, self.learner.updates)
        batches = self.source.sample(
            rng, self.num_minibatches, train.batch_size, discount=train.discount
        )
        return self.learner.handed(batches, self.phase)

    def _renew(self) -> None:
        """Renews the base samples that the replays keep, where the algorithm reads them."""
        needs = self.learner.algorithm.needs
        if needs.proposals and self.phase != "pretrain":
            renew_proposals(
                [replay for replay, _ in self.source.sources],
                self.learner.propose,
                needs.refresh,
                self.learner.updates,
            )
