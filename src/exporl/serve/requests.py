"""What a client asks for, and the answer: entries of one observation, and extras whose names begin
with `expo/`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from exporl.acting.interface import Interface
from exporl.serve.client import SAMPLES, SEED
from exporl.serve.messages import MessageError
from exporl.suggest import closest
from exporl.units import ActionUnits

PREFIX = "expo/"
"""Of entries that openpi does not know."""
EXTRAS = (SEED, SAMPLES)
"""Entries of an observation: what decides every draw of its answer, and how many decisions are
asked for."""
SEEDS = 2**32
MOST_SAMPLES = 64
"""Decisions of one request."""


@runtime_checkable
class Decided(Protocol):
    """What a policy decided about one observation, as `exporl.Decision`."""

    @property
    def action(self) -> Any:
        """[h, *shape]."""
        ...

    @property
    def info(self) -> Mapping[str, Any]:
        """By name, a number each."""
        ...


@runtime_checkable
class Served(Protocol):
    """What is served: `exporl.Policy`."""

    @property
    def interface(self) -> Interface:
        """What it takes and gives."""
        ...

    @property
    def checkpoint_name(self) -> str:
        """Where its parameters come from."""
        ...

    @property
    def candidates(self) -> int | None:
        """Actions that it ranks per observation."""
        ...

    def decide_each(
        self, batch: dict[str, np.ndarray], seeds: np.ndarray
    ) -> Sequence[Decided | None]:
        """One decision per row of a batch [b, ...] and seed [b]; None: it came to no number."""
        ...


class Request(NamedTuple):
    """One observation to decide about."""

    rows: dict[str, np.ndarray]
    """Every entry that the policy reads, [1, ...]."""
    seed: int
    samples: int | None = None
    """Decisions that are asked for; None: one, answered without an axis of samples."""

    def each(self) -> list["Request"]:
        """A request per decision, the seeds counted on from `seed`."""
        return [self._replace(seed=(self.seed + i) % SEEDS) for i in range(self.samples or 1)]


def read_request(interface: Interface, message: Any, seed: int) -> Request:
    """What a message asks for.

    Args:
        interface: what the policy reads.
        message: as `messages.unpacked` has it.
        seed: where the message says none.

    Raises:
        ValueError: it is no observation of this policy; names the entry that is wrong.
    """
    if not isinstance(message, dict):
        raise MessageError(
            f"an observation is a map of entries, and this is a {type(message).__name__}."
        )
    for name in message:
        if isinstance(name, str) and name.startswith(PREFIX) and name not in EXTRAS:
            raise MessageError(f"unknown entry {name!r}. {closest(name, EXTRAS)}")
    for name, _, _ in interface.spec.observation:
        if name in message:
            _check_numbers(name, message[name])
    with np.errstate(over="ignore", invalid="ignore"):  # too large for float32: told below
        rows, many = interface.batch(message)
    if many:
        raise MessageError(
            "the entries hold many observations, and a message asks about one: leave the leading "
            "axis out, and open a connection per robot."
        )
    seed = _whole(SEED, message[SEED], 0, SEEDS) if SEED in message else seed
    if SAMPLES not in message:
        return Request(rows, seed)
    return Request(rows, seed, _whole(SAMPLES, message[SAMPLES], 1, MOST_SAMPLES + 1))


def _check_numbers(name: str, value: Any) -> None:
    try:
        kind = np.asarray(value).dtype.kind
    except (ValueError, TypeError, OverflowError) as error:
        raise MessageError(f"observation {name!r} is not an array of numbers: {error}.") from error
    if kind not in "biuf":
        raise MessageError(
            f"observation {name!r} is not an array of numbers: it is {_kind(value)}."
        )


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray | np.generic):
        return f"of type {value.dtype}"
    return f"a {type(value).__name__}"


def _whole(name: str, value: Any, least: int, end: int) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not least <= value < end:
        limit = "2**32" if end == SEEDS else end
        raise MessageError(
            f"{name!r} must be a whole number in [{least}, {limit}), got {value!r:.60}."
        )
    return int(value)


def answer(interface: Interface, decided: Decided, seed: int, checkpoint: str) -> dict[str, Any]:
    """The answer to a request: the actions to play, and what there is to say about the choice.

    Numbers are plain, not arrays: openpi's `ActionChunkBroker` takes arrays for chunks.
    """
    said = {f"{PREFIX}{name}": np.asarray(each).item() for name, each in decided.info.items()}
    edited = f"{PREFIX}edited"
    if edited in said:
        said[edited] = bool(said[edited])
    return {
        "actions": np.asarray(decided.action)[: interface.execute_length],
        SEED: seed,
        f"{PREFIX}checkpoint": checkpoint,
        **said,
    }


def answer_many(
    interface: Interface, decided: Sequence[Decided], seed: int, checkpoint: str
) -> dict[str, Any]:
    """The answer to a request for n decisions: actions [n, h, *shape], and [n] of everything that
    there is to say about each."""
    each = [answer(interface, one, seed, checkpoint) for one in decided]
    stacked = {name: np.array([one[name] for one in each]) for name in each[0]}
    return {**stacked, SEED: seed, f"{PREFIX}checkpoint": checkpoint}


def metadata(policy: Served, statistics: str | None) -> dict[str, Any]:
    """What a server says of its policy before anything is asked.

    Args:
        policy: what is served.
        statistics: SHA-256 of the file of statistics that observations are normalised with; None:
            they are not normalised.
    """
    interface = policy.interface
    spec = interface.spec
    a = spec.action_dim
    units = interface.units or ActionUnits((-1.0,) * a, (1.0,) * a, (a,), "float32")
    observation = {
        name: {"shape": list(interface.own_shapes.get(name, shape)), "dtype": dtype}
        for name, shape, dtype in spec.observation
    }
    return {
        "action_horizon": interface.execute_length,
        "expo": {
            "task": interface.task,
            "checkpoint": policy.checkpoint_name,
            "observation": observation,
            "action": {
                name: list(each) if isinstance(each, tuple) else each
                for name, each in dataclasses.asdict(units).items()
            },
            "chunk_length": spec.chunk_length,
            "execute_length": interface.execute_length,
            "control_hz": interface.control_hz,
            "candidates": policy.candidates,
            "statistics_sha256": statistics,
            "extras": list(EXTRAS),
            "most_samples": MOST_SAMPLES,
        },
    }
