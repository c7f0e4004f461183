"""Learning in a thread of its own while the caller acts, held to the update-to-data ratio.

What was learnt then depends on timing, so a run is not repeatable to the bit; the number of updates
is the same.
"""

import threading
import time
from collections.abc import Callable
from fractions import Fraction

import jax
import jax.numpy as jnp

from exporl.types import Params

DEADLINE_S = 600.0
"""No wait without any progress is longer: compiling the largest update takes about a minute."""
AHEAD = 2
"""Update calls that acting may leave to be made: one that runs, one that waits."""


class Limiter:
    """Keeps `samples_per_insert * inserts - samples`, the error, between two bounds by making two
    threads wait.

    One thread inserts, one samples. An insert raises the error, a sample lowers it by 1.
    """

    def __init__(
        self,
        samples_per_insert: Fraction,
        *,
        min_error: int,
        max_error: int,
        deadline_s: float,
        inserts: int = 0,
        samples: int = 0,
    ):
        """A limiter that has already seen some inserts and samples.

        Raises:
            ValueError: between the bounds there is no room for one sample and one insert: both
                threads could wait for each other for ever; or the error begins above its bound.
        """
        if max_error - min_error < 1 + samples_per_insert:
            raise ValueError(
                "max_error - min_error must be at least 1 + samples_per_insert = "
                f"{float(1 + samples_per_insert):g}, got {max_error} - {min_error}: acting and"
                " learning would wait for each other for ever."
            )
        self.samples_per_insert, self.min_error, self.max_error = (
            samples_per_insert,
            min_error,
            max_error,
        )
        self.inserts, self.samples, self.deadline_s = inserts, samples, deadline_s
        if self.error > max_error:
            raise ValueError(
                f"max_error must be at least {float(self.error):g}, the error that {inserts} "
                f"inserts and {samples} samples begin with, got {max_error}."
            )
        self._changed, self._closed, self._paused, self._changes = (
            threading.Condition(),
            False,
            False,
            0,
        )

    @property
    def error(self) -> Fraction:
        """Samples that are owed; negative if there were more than that."""
        return self.samples_per_insert * self.inserts - self.samples

    def insert(self, num: int = 1) -> bool:
        """Waits, one insert after the other, until it may be made and counts it; False once closed.

        Raises:
            TimeoutError: no sample was made for `deadline_s` seconds.
        """
        for _ in range(num):
            if not self._wait(self._may_insert, "acting waits for learning"):
                return False
            self._count(inserts=1)
        return True

    def may_sample(self) -> bool:
        """Waits until a sample may be made; False once closed.

        Raises:
            TimeoutError: nothing was inserted for `deadline_s` seconds, not counting time after
                `settle`.
        """
        return self._wait(self._owes_a_sample, "learning waits for acting")

    def sample(self, num: int = 1) -> None:
        """Counts samples that were made."""
        self._count(samples=num)

    def settle(self) -> bool:
        """Waits until no sample is owed, so that the sampling thread rests until the next insert;
        False once closed.

        Raises:
            TimeoutError: no sample was made for `deadline_s` seconds.
        """
        rested = self._wait(self._owes_nothing, "a pause waits for learning")
        with self._changed:
            self._paused = True
        return rested

    def close(self) -> None:
        """Ends all waiting, now and later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _may_insert(self) -> bool:
        return self.error + self.samples_per_insert <= self.max_error

    def _owes_a_sample(self) -> bool:
        return self.error - 1 >= self.min_error

    def _owes_nothing(self) -> bool:
        return not self._owes_a_sample()

    def _count(self, inserts: int = 0, samples: int = 0) -> None:
        with self._changed:
            self.inserts, self.samples = self.inserts + inserts, self.samples + samples
            self._paused, self._changes = False, self._changes + 1
            self._changed.notify_all()

    def _wait(self, ready: Callable[[], bool], what: str) -> bool:
        with self._changed:
            seen, end = self._changes, time.monotonic() + self.deadline_s
            while not (self._closed or ready()):
                if self._paused or self._changes != seen:
                    seen, end = self._changes, time.monotonic() + self.deadline_s
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError(
                        f"{what}: nothing happened for {self.deadline_s:g} s, with {self.samples} "
                        f"of {self.inserts * self.samples_per_insert} update calls made. The other"
                        " side hangs."
                    )
                self._changed.wait(min(left, 1.0))
            return not self._closed


@jax.jit
def _copy(params: Params) -> Params:
    return jax.tree.map(jnp.copy, params)


class BackgroundLearning:
    """Updates in a second thread, as a context. The caller acts with the newest published
    parameters.

    `lock` must be held by whoever changes what the update reads, such as the replay.
    """

    def __init__(
        self,
        update: Callable[[], object],
        acting: Callable[[], Params],
        deadline_s: float = DEADLINE_S,
    ):
        """Not learning yet: that begins when the context is entered.

        Args:
            update: makes one update call and returns something of it that can be waited for.
            acting: the learner's acting parameters. They are copied: the next update overwrites
                them.
            deadline_s: longest wait without any progress.
        """
        self.lock, self._update, self._acting = threading.Lock(), update, acting
        self._limiter = Limiter(Fraction(1), min_error=0, max_error=AHEAD, deadline_s=deadline_s)
        self._error: BaseException | None = None
        self._published, self._lags = (_copy(acting()), 0), []
        self._thread = threading.Thread(target=self._learn, name="learning", daemon=True)

    def __enter__(self) -> "BackgroundLearning":
        """Starts learning."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Ends learning after the update call that is being made."""
        self._limiter.close()
        self._thread.join(self._limiter.deadline_s)

    def acting(self) -> Params:
        """The newest acting parameters; notes how many update calls they are behind those of a run
        in step."""
        params, version = self._published
        self._lags.append(self._limiter.inserts - version)
        return params

    def staleness(self) -> float:
        """Mean lag, in update calls, of the parameters asked for since the last call; 0 if there
        were none."""
        lags, self._lags = self._lags, []
        return sum(lags) / max(len(lags), 1)

    def owe(self, calls: int) -> None:
        """Update calls have become due. Waits while learning is more than `AHEAD` of them behind.

        Raises:
            TimeoutError: learning does not go on.
            BaseException: whatever learning failed with.
        """
        self._check(self._limiter.insert(calls))

    def settle(self) -> None:
        """Waits until every update call due is made. Learning then rests until the next step.

        Raises:
            TimeoutError: learning does not go on.
            BaseException: whatever learning failed with.
        """
        self._check(self._limiter.settle())

    def _check(self, going: bool) -> None:
        if self._error is not None:
            raise self._error
        if not going:
            raise RuntimeError("learning was closed while acting went on.")

    def _learn(self) -> None:
        try:
            while self._limiter.may_sample():
                with self.lock:
                    made = self._update()
                jax.block_until_ready(made)
                params = jax.block_until_ready(_copy(self._acting()))
                self._limiter.sample()
                self._published = params, self._limiter.samples
        except BaseException as error:
            self._error = error
            self._limiter.close()
