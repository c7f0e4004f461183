"""The table [search] of a suite file: which options are searched, and how. Nothing here needs JAX
or Optuna; `bench/space.py` checks what the names stand for."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from exporl.options import SEEDS, Interval
from exporl.suggest import closest

SAMPLERS = ("tpe", "random")
PRUNINGS = ("median", "none")
OBJECTIVES = ("final", "mean")
KEYS = ("trials", "sampler", "seed", "pruning", "startup", "warmup", "objective", "space")
RANGE_KEYS = ("low", "high", "log")


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included."""

    low: float
    high: float
    log: bool = False
    """Whether their logarithms are spread evenly."""
    whole: bool = False
    """Whole numbers only."""

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that stand for all when they are checked."""
        return (self.low, self.high)

    def plain(self) -> Any:
        """What the file says, as JSON has it."""
        return {"low": self.low, "high": self.high, "log": self.log}


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values, in no order."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """All values."""
        return self.values

    def plain(self) -> Any:
        """What the file says, as JSON has it."""
        return [list(value) if isinstance(value, tuple) else value for value in self.values]


Entry = Range | Choice


@dataclasses.dataclass(frozen=True)
class Search:
    """What a suite searches."""

    space: Mapping[str, Entry]
    """Dotted option -> its values, in the order of the file."""
    trials: int = 20
    """Configurations that are tried; those that failed do not count."""
    sampler: str = SAMPLERS[0]
    """How they are chosen: "tpe", by a model of the values so far, or "random"."""
    seed: int = 0
    """Of the sampler."""
    pruning: str = PRUNINGS[0]
    """Whether a trial ends early: "median", where its best value so far is below the median of
    finished trials at the same evaluation, or "none"."""
    startup: int = 10
    """Trials that are chosen at random, and that have to be finished before any is pruned."""
    warmup: int = 1
    """Evaluations of a trial after which it may be pruned; the first one comes before any step."""
    objective: str = OBJECTIVES[0]
    """The value of a run: "final", the mean of its last `window` evaluations, or "mean", over its
    training."""

    def plain(self) -> dict[str, Any]:
        """All but the number of trials, as JSON has it: what must stay the same."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["space"] = {name: entry.plain() for name, entry in self.space.items()}
        del values["trials"]
        return values


def read_search(table: Any, problems: list[str]) -> Search | None:
    """The search that a suite's table asks for; None where nothing can be made of it.

    Args:
        table: what the file has.
        problems: gets everything that is wrong with it, a sentence each.
    """
    if not isinstance(table, dict):
        problems.append(f"search must be a table, got {table!r}.")
        return None
    for key in table:
        if key not in KEYS:
            problems.append(f"unknown entry 'search.{key}'. {closest(key, KEYS)}")
    given: dict[str, Any] = {}
    for key, known in (("sampler", SAMPLERS), ("pruning", PRUNINGS), ("objective", OBJECTIVES)):
        _take(table, key, given, problems, _one_of(known), f"one of {', '.join(known)}")
    for key, within in (("trials", "[1, 100000]"), ("startup", "[1, inf)"), ("warmup", "[0, inf)")):
        what = f"a whole number, and {Interval.parse(within)}"
        _take(table, key, given, problems, _whole_in(within), what)
    _take(table, "seed", given, problems, _whole_in(SEEDS), f"a whole number in {SEEDS}")
    space = table.get("space")
    if not isinstance(space, dict) or not space:
        problems.append(
            "search needs a table [search.space] with options: "
            "algo.tau = { low = 1e-3, high = 1e-2, log = true }, or base.num_steps = [5, 10]."
        )
        return None
    found = {name: _entry(name, value, problems) for name, value in _entries(space, "")}
    return Search({name: entry for name, entry in found.items() if entry is not None}, **given)


def _take(
    table: Mapping[str, Any],
    key: str,
    given: dict[str, Any],
    problems: list[str],
    fits: Callable[[Any], bool],
    what: str,
) -> None:
    """A value of the table, where there is a proper one."""
    if key not in table:
        return
    if fits(table[key]):
        given[key] = table[key]
    else:
        problems.append(f"search.{key} must be {what}, got {table[key]!r}.")


def _one_of(known: Sequence[str]) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        return isinstance(value, str) and value in known

    return fits


def _whole_in(within: str) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        return type(value) is int and value in Interval.parse(within)

    return fits


def _entries(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted names with their lists, ranges, and whatever else stands there."""
    for key, value in table.items():
        if isinstance(value, dict) and not set(value) & set(RANGE_KEYS):
            yield from _entries(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _entry(name: str, value: Any, problems: list[str]) -> Entry | None:
    where = f"search.space.{name}"
    if isinstance(value, list):
        values = tuple(tuple(each) if isinstance(each, list) else each for each in value)
        if len(values) < 2 or len({repr(each) for each in values}) < len(values):
            problems.append(f"{where} must list at least two different values, got {value!r}.")
            return None
        return Choice(values)
    if not isinstance(value, dict):
        problems.append(
            f"{where} must be a list of values or {{ low = ..., high = ... }}, got {value!r}."
        )
        return None
    unknown = [key for key in value if key not in RANGE_KEYS]
    for key in unknown:
        problems.append(f"unknown entry '{where}.{key}'. {closest(key, RANGE_KEYS)}")
    low: Any = value.get("low")
    high: Any = value.get("high")
    log = value.get("log", False)
    if not (_is_finite(low) and _is_finite(high) and low < high and isinstance(log, bool)):
        problems.append(
            f"{where} must have low < high, and log = true or false where it says so, got {value}."
        )
    elif log and low <= 0:
        problems.append(f"{where} has log = true: low must be positive, got {low}.")
    elif not unknown:
        return Range(low, high, log, type(low) is int and type(high) is int)
    return None


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
