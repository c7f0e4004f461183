"""What a policy from outside is: any object that samples, in any framework; and such a policy as a
run uses it, with every answer checked."""

import contextlib
import hashlib
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from exporl.spec import Spec
from exporl.units import ActionUnits

GIVEN = "given"
"""What a configuration says in the place of a name where a policy was handed over in Python."""
HAND_OVER = (
    "the base policy of this run was handed over in Python, and is not part of it: hand it over "
    "again, with base=policy (train, load_run, load_policy)."
)
"""What to do where it is missing."""


class PolicyFailed(ValueError):
    """A policy from outside could not be sampled: it raised something, or answered in another
    shape, or what are no numbers. It learnt nothing meanwhile."""


class ImitationBatch(NamedTuple):
    """Rows to imitate, in host memory."""

    observation: dict[str, np.ndarray]
    """[b, ...] each, as the environment shows them: not normalised by the run."""
    action: Float[np.ndarray, "b h a"]
    """In [-1, 1]."""
    valid: Float[np.ndarray, "b h"]
    """1 where an action is to be imitated; 0 after the end of its episode, and in rows that are
    not imitated."""
    seed: int
    """Decides every draw of this step."""


@runtime_checkable
class OutsidePolicy(Protocol):
    """A policy that exporl did not train: nothing is inherited, the methods are enough.

    Optional beside `sample`, each found by its name:

    - `spec`: an `exporl.Spec` of the observation entries that it reads, of its actions and chunks;
      without it the policy takes what the task and the run have.
    - `actions`: "env" where answers are in the environment's own units instead of [-1, 1].
    - `ranges`, `control_hz`: values that it met in training, and actions per second; see
      `check_met`.
    - `imitate(batch: ImitationBatch) -> {name: number}`: one imitation step in its own framework;
      needs the next two.
    - `state() -> {name: array}` and `load(state)`: everything that imitation changes, optimisers
      included. Of a policy that does not learn, what it is told apart by.
    - `seeded`: False where the seed does not decide its draws. Such a run does not repeat itself.
    - `units`: an `exporl.units.ActionUnits`, the bounds that its actions were scaled from.
    - `version`: a name of its parameters, where they may change without exporl. A resumed run warns
      of another one.
    """

    def sample(
        self, observations: dict[str, np.ndarray], num: int, seed: int
    ) -> Float[np.ndarray, "b n h a"]:
        """`num` action chunks in [-1, 1] for every observation [b, ...], decided by the seed."""
        ...


class OutsideBase:
    """A policy from outside as a run uses it.

    Answers are checked and kept within [-1, 1]. One caller is served at a time: acting and learning
    may be two threads.
    """

    def __init__(
        self,
        policy: OutsidePolicy,
        name: str,
        spec: Spec,
        *,
        learns: bool = False,
        units: ActionUnits | None = None,
    ):
        """Asks the policy for nothing yet.

        Args:
            policy: the policy.
            name: for messages.
            spec: what the task shows, and the chunks of the run.
            learns: whether it goes on imitating.
            units: of the environment's own actions; None: they are in [-1, 1].
        """
        self.policy, self.name, self.spec, self.learns = policy, name, spec, learns
        self._units = units if getattr(policy, "actions", "unit") == "env" else None
        own: Spec | None = getattr(policy, "spec", None)
        shown = [entry for entry, _, _ in spec.observation]
        self.reads = tuple(shown if own is None else (entry for entry, _, _ in own.observation))
        """Observation entries that the policy is given."""
        self._lock = threading.Lock()
        self._kept: np.ndarray | None = None

    @property
    def seeded(self) -> bool:
        """Whether the seed decides every draw."""
        return getattr(self.policy, "seeded", True)

    @property
    def steady(self) -> str | None:
        """What repeats its answers as long as it is the same: the name of the policy's parameters,
        empty where it has none. None: answers do not repeat, or it learns."""
        if self.learns or not self.seeded:
            return None
        return getattr(self.policy, "version", None) or ""

    def sample(
        self, observations: Mapping[str, np.ndarray], num: int, seed: int
    ) -> Float[np.ndarray, "b {num} h a"]:
        """`num` action chunks for every observation [b, ...].

        Raises:
            PolicyFailed: the policy raised something, which is named, or answered in another shape,
                or NaN or infinity; says which.
        """
        if not self.learns and self._kept is None:  # as it was when the run began
            self._kept = self.fingerprint()
        # its own copies: it may change them, and the networks are shown the same observations
        given = {name: np.array(observations[name]) for name in self.reads}
        rows = len(given[self.reads[0]])
        with self._lock, self._named("sample", PolicyFailed):
            answer = self.policy.sample(given, num, seed)
        if np.iscomplexobj(answer):
            raise PolicyFailed(f"{self.name} answered complex numbers; actions are real ones.")
        actions = self.in_unit(answer)
        wanted = (rows, num, self.spec.chunk_length, self.spec.action_dim)
        if actions.shape != wanted:
            raise PolicyFailed(
                f"{self.name} answered in the shape {actions.shape}; {wanted} is needed: "
                "[observations, samples, actions of a chunk, dimensions of an action]."
            )
        if not np.isfinite(actions).all():
            raise PolicyFailed(
                f"{self.name} answered NaN or infinity in {int((~np.isfinite(actions)).sum())} of "
                f"{actions.size} numbers. Check its weights, and the observations it was given; "
                "mend it, then go on."
            )
        return np.clip(actions, -1.0, 1.0)

    def in_unit(self, answer: Any) -> Float[np.ndarray, "..."]:
        """What the policy answered, in [-1, 1] where it is between the environment's bounds."""
        actions = np.asarray(answer, np.float32)
        if self._units is None or actions.shape[-1:] != (self.spec.action_dim,):
            return actions
        return self._units.scaled(actions).astype(np.float32)

    def imitate(self, batch: ImitationBatch) -> dict[str, float]:
        """One imitation step of the policy; its metrics.

        Raises:
            ValueError: it raised something, which is named.
            FloatingPointError: a metric is NaN or infinite.
        """
        read = {name: np.array(batch.observation[name]) for name in self.reads}
        imitate: Callable[[ImitationBatch], Mapping[str, Any]] = self.policy.imitate  # pyright: ignore[reportAttributeAccessIssue]
        own = batch._replace(
            observation=read, action=np.array(batch.action), valid=np.array(batch.valid)
        )
        with self._lock, self._named("imitate"):
            made = imitate(own)
        metrics = {name: float(value) for name, value in made.items()}
        for name, value in metrics.items():
            if not np.isfinite(value):
                raise FloatingPointError(
                    f"{name} of {self.name} is {value}: its imitation diverged. Start anew with a "
                    "lower base.learning_rate."
                )
        return metrics

    @contextlib.contextmanager
    def _named(self, method: str, kind: type[ValueError] = ValueError) -> Iterator[None]:
        """While it lasts, what the policy's own code raises is an error of a kind that names it;
        leaving the program is one as well."""
        try:
            yield
        except PolicyFailed:  # it says itself what failed
            raise
        except (Exception, SystemExit) as error:
            raise kind(
                f"{self.name}: {method} raised {type(error).__name__}: {error}. Mend that policy, "
                "then go on."
            ) from error

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps of the policy: its state where it learns, else what it is told
        apart by, [32] bytes, or [0] where it says nothing of itself."""
        if self.learns:
            return {f"state/{name}": value for name, value in self.state().items()}
        if self._kept is None:  # it stays as it is
            self._kept = self.fingerprint()
        version = self._version()
        return {"fingerprint": self._kept} | ({"version": version} if len(version) else {})

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restores `arrays()`.

        Raises:
            ValueError: they are of another policy.
        """
        if not self.learns:
            saved = arrays.get("fingerprint")
            if saved is None or not np.array_equal(saved, self.fingerprint()):
                raise ValueError(
                    f"{self.name} is not the base policy that this run was started with: its "
                    "weights are others. Restore them, or start a new run."
                )
            before, now = arrays.get("version"), self._version()
            if before is not None and not np.array_equal(before, now):
                warnings.warn(
                    f"{self.name} answers from {_text(now) or 'something unnamed'} now, and from "
                    f"{_text(before)} when the run was saved: the base policy is another one than "
                    "the critic knows, and the run is not repeated to the bit.",
                    stacklevel=2,
                )
            return
        state = {name.removeprefix("state/"): np.array(value) for name, value in arrays.items()}
        try:
            with self._lock:
                self.policy.load(state)  # pyright: ignore[reportAttributeAccessIssue]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise ValueError(
                f"{self.name} cannot go on from what was saved of it ({type(error).__name__}: "
                f"{error}). Restore the code that it was made with, or start a new run."
            ) from error

    def fingerprint(self) -> np.ndarray:
        """SHA-256 of the policy's state, uint8 [32]; [0] where it has none."""
        state = self.state()
        digest = hashlib.sha256()
        for name in sorted(state):
            value = np.ascontiguousarray(state[name])
            digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
            digest.update(value.tobytes())
        return np.frombuffer(digest.digest() if state else b"", np.uint8)

    def _version(self) -> np.ndarray:
        """The name of the policy's parameters, uint8; [0] where it has none."""
        name: str | None = getattr(self.policy, "version", None)
        return np.frombuffer((name or "").encode(), np.uint8)

    def state(self) -> dict[str, np.ndarray]:
        """The policy's own state; empty where it has none."""
        state: Callable[[], Mapping[str, Any]] | None = getattr(self.policy, "state", None)
        with self._lock if state else contextlib.nullcontext():
            return {} if state is None else {k: np.asarray(v) for k, v in state().items()}


def _text(name: np.ndarray) -> str:
    """A name that was kept as bytes."""
    return np.asarray(name, np.uint8).tobytes().decode(errors="replace")
