"""Whether a policy meets here what it met in training: values of observations and actions, and the
control rate. What differs is a warning: only the returns tell whether it matters."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from exporl.data.episodes import Episode
from exporl.envs.check import Finding
from exporl.external.base import OutsideBase

ACTION = "action"
"""The name of the actions among a policy's `ranges`."""
MOST = 10_000
"""Steps of recorded data that are looked at, from its first episodes on."""
SHARE, MOSTLY = 0.1, 0.5
"""Shares from which values outside are a warning: of all numbers of an entry, and of one of
them."""
MARGIN, ROUNDING = 1e-3, 1e-6
"""How far beyond a range a value may lie: parts of the range, and of its ends."""
SAME = 0.01
"""Two rates that differ by a smaller share are the same."""


def check_met(
    base: OutsideBase,
    observations: Mapping[str, np.ndarray],
    episodes: Sequence[Episode] = (),
    rates: Mapping[str, float] | None = None,
) -> Iterator[Finding]:
    """Findings about what a policy says of its training; none where it says nothing.

    Args:
        base: the policy. Its `ranges`, {name: (low, high)}, are the least and greatest values that
            it met, of entries [...] and of "action"; its `control_hz` are actions per second.
        observations: some that the task shows, [b, ...] each.
        episodes: recorded data, in the task's units; looked at instead, where there is any.
        rates: "the task", "the data" -> actions per second, where they are known.
    """
    ranges = getattr(base.policy, "ranges", None)
    if ranges:
        values, origin = _values(observations, episodes)
        yield _statistics(base, ranges, values, origin)
    hz = getattr(base.policy, "control_hz", None)
    if hz and rates:
        yield _rate(hz, rates)


def _values(
    observations: Mapping[str, np.ndarray], episodes: Sequence[Episode]
) -> tuple[dict[str, np.ndarray], str]:
    """Values [n, ...] by name, and where they are from, in words."""
    taken: list[Episode] = []
    while len(taken) < len(episodes) and sum(map(len, taken)) < MOST:
        taken.append(episodes[len(taken)])
    if not taken:
        some = {name: np.asarray(value) for name, value in observations.items()}
        return some, f"{len(next(iter(some.values())))} observations of the task"
    seen = {n: np.concatenate([e.observations[n] for e in taken]) for n in taken[0].observations}
    seen[ACTION] = np.concatenate([episode.actions for episode in taken])
    return seen, f"{sum(map(len, taken)):,} steps of the data"


def _statistics(
    base: OutsideBase,
    ranges: Mapping[str, Sequence[Any]],
    values: Mapping[str, np.ndarray],
    origin: str,
) -> Finding:
    shares, wrong = [], []
    for name, ends in ranges.items():
        if name not in values:
            if name != ACTION:  # those are known of recorded data alone
                wrong.append(f"ranges names {name!r}, which the task does not show.")
            continue
        here = values[name]
        try:
            low, high = (np.broadcast_to(np.float64(end), here.shape[1:]) for end in ends)
        except ValueError:
            shapes = [list(np.shape(end)) for end in ends]
            wrong.append(
                f"the ends of {name!r} in ranges have the shapes {shapes[0]} and "
                f"{shapes[1]}, the entry has {list(here.shape[1:])}."
            )
            continue
        if name == ACTION:
            low, high = base.in_unit(np.stack([low, high]))
        outside = _outside(here, low, high)
        shares.append(f"{name} {100 * outside.mean():.0f}%")
        each = outside.reshape(len(outside), -1).mean(0)
        if outside.mean() > SHARE or each.max(initial=0) > MOSTLY:
            worst = int(each.argmax())
            column = here.reshape(len(here), -1)[:, worst]
            first, last = low.reshape(-1)[worst], high.reshape(-1)[worst]
            wrong.append(
                f"Number {worst} of {name!r} is {column.min():.3g} to {column.max():.3g} here, and "
                f"was {first:.3g} to {last:.3g} in the policy's training: other units, another "
                "order, or another robot?"
            )
    said = f"outside the policy's own range, of {origin}: {', '.join(shares) or 'nothing known'}"
    if not wrong:
        return Finding("statistics", "pass", said)
    return Finding("statistics", "warn", f"{said}. {' '.join(wrong)}")


def _outside(
    values: np.ndarray, low: Float[np.ndarray, "..."], high: Float[np.ndarray, "..."]
) -> Bool[np.ndarray, "n ..."]:
    """Which values [n, ...] lie outside [low, high], by more than rounding."""
    margin = MARGIN * (high - low) + ROUNDING * np.maximum(np.abs(low), np.abs(high))
    return (values < low - margin) | (values > high + margin)


def _rate(hz: float, known: Mapping[str, float]) -> Finding:
    listed = f"the policy {hz:g} Hz, " + ", ".join(f"{n} {rate:g} Hz" for n, rate in known.items())
    if all(abs(rate - hz) <= SAME * hz for rate in known.values()):
        return Finding("rate", "pass", listed)
    return Finding(
        "rate",
        "warn",
        f"{listed}: its actions were meant for other stretches of time. Let the environment repeat "
        "or skip steps, or use a policy of its rate.",
    )
