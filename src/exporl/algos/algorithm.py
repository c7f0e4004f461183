"""What an algorithm is to this library: a record of pure functions, and the entry that makes it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
from jaxtyping import Array, Float

from exporl.options import check_options
from exporl.policies import BasePolicy
from exporl.types import (
    Batch,
    Decision,
    KeyArray,
    Metrics,
    Mode,
    Observation,
    Params,
    Phase,
    Precision,
    Spec,
)

ALL_PHASES: frozenset[Phase] = frozenset({"pretrain", "critic_pretrain", "online"})
ConfigT = TypeVar("ConfigT")
Proposals = Float[Array, "b n h a"]
"""Base samples for every observation."""
Preset = Mapping[str, tuple[Any, str]]
"""Dotted option -> (value, where it comes from)."""


class Needs(NamedTuple):
    """What an algorithm needs of the loop that runs it."""

    phases: frozenset[Phase] = ALL_PHASES
    """The phases that `update` supports."""
    columns: tuple[str, ...] = ()
    """Names of the replay columns that it reads from `Batch.extra`, besides the base samples."""
    proposals: int = 0
    """Base samples that the replay keeps per next observation, in `Batch.next_proposals`."""
    refresh: int = 0
    """Observations whose samples are renewed per update call."""
    attached: int = 0
    """Base samples that the loop makes for every row of the minibatches that it draws, in
    `Batch.next_proposals`."""
    alone: Mode = "base"
    """How the base policy acts alone while learning: "base", or "sample" where that differs."""


@runtime_checkable
class Act(Protocol):
    """How an algorithm acts."""

    def __call__(
        self,
        acting: Params,
        observation: Observation,
        key: KeyArray,
        *,
        mode: Mode = "explore",
        proposals: Proposals | None = None,
    ) -> Decision:
        """Action chunks for observations [b, ...].

        Args:
            acting: what `Algorithm.acting` returned.
            observation: the entries that networks read, each [b, ...].
            key: decides every draw.
            mode: "base" is the base policy alone, "unedited" the best of several of its samples;
                "sample" is asked for by `Needs.alone` only.
            proposals: base samples made elsewhere, instead of samples drawn here.

        Raises:
            ValueError: mode "base" or "unedited", or proposals, without a base policy.
        """
        ...


class Algorithm(NamedTuple):
    """A learning algorithm as a record of pure functions; all of its state is one pytree."""

    init: Callable[[KeyArray], Any]
    """key -> state."""
    update: Any
    """(state, batches [u, b, ...], key, *, phase) -> (state, metrics). Compiled; state is
    donated."""
    acting: Callable[[Any], Params]
    """state -> the part of it that acting needs: what is shipped to actors."""
    act: Act
    """Compiled, once per mode."""
    propose: Any = None
    """(state, observation [b, ...], key) -> base samples [b, n, h, a], for the replay to keep.
    Compiled; None where there is no base policy."""
    needs: Needs = Needs()
    """What the loop has to provide."""
    has_base: bool = False
    """Whether there is a base policy, which can act alone."""


@runtime_checkable
class Functions(Protocol):
    """The functions of an algorithm as methods: `compiled` makes the record of them."""

    def init(self, key: KeyArray) -> Any:
        """The state before the first update."""
        ...

    def update(
        self, state: Any, batches: Batch, key: KeyArray, *, phase: Phase = "online"
    ) -> tuple[Any, Metrics]:
        """One update call."""
        ...

    def acting(self, state: Any) -> Params:
        """What acting needs of the state."""
        ...

    def act(
        self,
        acting: Params,
        observation: Observation,
        key: KeyArray,
        *,
        mode: Mode = "explore",
        proposals: Proposals | None = None,
    ) -> Decision:
        """Action chunks for observations."""
        ...


def compiled(
    functions: Functions,
    needs: Needs,
    *,
    has_base: bool,
    propose: Callable[[Any, Observation, KeyArray], Proposals] | None = None,
) -> Algorithm:
    """The record of an algorithm, its functions compiled; `update` overwrites its state."""
    return Algorithm(
        init=functions.init,
        update=jax.jit(functions.update, static_argnames="phase", donate_argnames="state"),
        acting=functions.acting,
        act=jax.jit(functions.act, static_argnames="mode"),
        propose=propose and jax.jit(propose),
        needs=needs,
        has_base=has_base,
    )


class Measurements(NamedTuple):
    """What a machine was found to do best, for options that say "auto"."""

    hoisting_pays: Callable[[int], bool]
    """Base samples per row -> whether drawing those of all minibatches in one call is faster."""


def _as_they_are(config: ConfigT, measured: Measurements) -> ConfigT:
    """Options that leave nothing to be decided."""
    return config


@dataclasses.dataclass(frozen=True)
class Entry(Generic[ConfigT]):
    """An algorithm as it is registered. Your own goes by the name `module:attribute`."""

    name: str
    """For people; the key in `ALGORITHMS`."""
    config: type[ConfigT]
    """The frozen dataclass of its options, with their ranges (`exporl.options`)."""
    make: Callable[[ConfigT, Spec, BasePolicy | None, Precision], Algorithm]
    """(options, the task's shapes, base policy, precision of sampling and ranking) -> algorithm."""
    check: Callable[[ConfigT], None] = check_options
    """Checks everything about the options, and raises ValueError."""
    resolve: Callable[[ConfigT, Measurements], ConfigT] = _as_they_are
    """The options with "auto" decided. Asks for a measurement only where it decides something."""
    presets: Mapping[str, Preset] = dataclasses.field(default_factory=dict)
    """Name -> preset."""
    metrics: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name of a metric of `update` -> what it is, for reports and documents. Those of the base
    policy's loss are described by the base policy."""
