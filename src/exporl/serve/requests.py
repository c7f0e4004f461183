"""What a client asks for, and the answer: entries of one observation, and extras whose names begin
with `expo/`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from exporl.acting.interface import Interface
from exporl.serve.messages import MessageError
from exporl.suggest import closest
from exporl.units import ActionUnits

PREFIX = "expo/"
"""Of entries that openpi does not know."""
SEED = f"{PREFIX}seed"
"""In an observation: decides every draw of its answer."""
SEEDS = 2**32


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
        if isinstance(name, str) and name.startswith(PREFIX) and name != SEED:
            raise MessageError(f"unknown entry {name!r}. {closest(name, [SEED])}")
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
    return Request(rows, _seed(message[SEED]) if SEED in message else seed)


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


def _seed(value: Any) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not 0 <= value < SEEDS:
        raise MessageError(f"{SEED!r} must be a whole number in [0, 2**32), got {value!r:.60}.")
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
            "extras": [SEED],
        },
    }
