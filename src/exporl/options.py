"""Options: their ranges are written beside their defaults, and checked here, before anything is
made or collected.

A range is metadata of the field, an interval as in mathematics:

    tau: float = option(0.005, within="(0, 1]")

is `dataclasses.field(default=0.005, metadata={"within": "(0, 1]"})`. What concerns several options
at once is for the `check` of an algorithm, and for that of a run.
"""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

from exporl.outside import OutsideName, is_outside
from exporl.plain import ABSENT


class Interval(NamedTuple):
    """Finite numbers between two bounds; ( and ) leave theirs out: "(0, 1]", "[1, inf)"."""

    low: float
    high: float
    has_low: bool
    has_high: bool

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """The interval that a text describes."""
        low, high = text[1:-1].split(",")
        return cls(float(low), float(high), text[0] == "[", text[-1] == "]")

    def __contains__(self, value: object) -> bool:
        """Whether a number, as the float32 that is computed with, lies inside. NaN and infinity
        never do."""
        if not isinstance(value, int | float):
            return False
        if isinstance(value, float):
            value = _single(value)
            if not math.isfinite(value):
                return False
        above = value > self.low or (self.has_low and value == self.low)
        below = value < self.high or (self.has_high and value == self.high)
        return above and below

    def __str__(self) -> str:
        """What a number inside must be."""
        if math.isfinite(self.high):
            left, right = "(["[self.has_low], ")]"[self.has_high]
            return f"be in {left}{_bound(self.low)}, {_bound(self.high)}{right}"
        if self.low == -math.inf:
            return "be finite"
        if self.low == 0:
            return "not be negative" if self.has_low else "be positive"
        return f"be {'at least' if self.has_low else 'above'} {_bound(self.low)}"


def _bound(value: float) -> str:
    """Without an exponent where it is a whole number."""
    return str(int(value)) if value.is_integer() else f"{value:g}"


_SMALLEST, _LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127
"""Of the float32 numbers that processors do not round to 0 or to infinity."""
LARGEST_SEED = 2**32 - 1
SEEDS = f"[0, {LARGEST_SEED}]"
"""Seeds that lead to different draws."""
MOST_EPISODES = 1_000_000
"""Episodes that are collected, or made in an evaluation, at a time."""
MOST_SEEDS = 10_000
"""Runs of one folder of seeds, or of an algorithm on a task of a suite."""


def _single(value: float) -> float:
    if abs(value) < _SMALLEST:
        return 0.0
    return math.copysign(math.inf, value) if abs(value) > _LARGEST else value


def option(default: Any, within: str, advice: str = "", absent: Any = dataclasses.MISSING) -> Any:
    """A field of an options class with a range.

    Args:
        default: its default.
        within: the range.
        advice: what else to do, said where a value is refused.
        absent: the value that a run of an earlier version, without the option, has.
    """
    metadata = {"within": within, "advice": advice}
    if absent is not dataclasses.MISSING:
        metadata[ABSENT] = absent
    return dataclasses.field(default=default, metadata=metadata)


def sizes(*default: int, of: str = "layer size") -> Any:
    """A field that lists at least one positive size.

    Args:
        *default: its default.
        of: what is listed, for the error message.
    """
    return dataclasses.field(default=default, metadata={"sizes": of})


def check_options(config: object, prefix: str = "") -> None:
    """Checks every option against its choices and its range.

    Args:
        config: the options.
        prefix: what their names begin with, for messages: "train.".

    Raises:
        ValueError: naming the option, its value and the values that are possible.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(typing.cast(Any, config)):
        value = getattr(config, field.name)
        if value is None and field.default is None:
            continue
        _check_choice(prefix + field.name, value, hints[field.name])
        _check_range(prefix + field.name, value, field.metadata)


def check_members(num_qs: int, num_min_qs: int) -> None:
    """Checks how many critics of an ensemble vote.

    Raises:
        ValueError: more than there are, or none.
    """
    if not 1 <= num_min_qs <= num_qs:
        raise ValueError(f"num_min_qs must be between 1 and num_qs={num_qs}, got {num_min_qs}.")


def _check_range(name: str, value: object, metadata: Mapping[str, Any]) -> None:
    if "sizes" in metadata:
        listed = value if isinstance(value, tuple) else ()
        if not listed or min(listed) < 1:
            what = metadata["sizes"]
            raise ValueError(f"{name} must list at least one positive {what}, got {value}.")
    if "within" in metadata and not isinstance(value, str):
        interval = Interval.parse(metadata["within"])
        for number in value if isinstance(value, tuple) else (value,):
            if number not in interval:
                advice = f"; {metadata['advice']}" if metadata.get("advice") else ""
                raise ValueError(f"{name} must {interval}, got {_as_computed(number)}{advice}.")


def _as_computed(value: object) -> str:
    """A number, and what float32 makes of it where that is something else."""
    if isinstance(value, float) and math.isfinite(value) and _single(value) != value:
        return f"{value} ({_single(value):g} as float32)"
    return str(value)


def _check_choice(name: str, value: object, hint: object) -> None:
    parts = (hint, *typing.get_args(hint))
    literals = [part for part in parts if typing.get_origin(part) is typing.Literal]
    choices = [choice for literal in literals for choice in typing.get_args(literal)]
    if not choices or not isinstance(value, str) or value in choices:
        return
    if OutsideName in parts and is_outside(value):
        return
    raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}.")
