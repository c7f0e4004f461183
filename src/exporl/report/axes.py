"""Axes of charts: round numbers, as few as can be read."""

import math

MOST_TICKS = 6
"""Ticks of an axis at most."""
_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
"""What a step between ticks may be, times a power of ten."""


_LARGEST, _SMALLEST = 1e300, 1e-300
"""Beyond them there is no arithmetic with ticks."""
_NOISE = 1e-12
"""Share of the numbers themselves up to which a difference between them is rounding."""


def round_ticks(low: float | int, high: float | int) -> list[float]:
    """Round numbers at equal distances, from at most `low` to at least `high`.

    Where both are the same, 0 is on the axis as well, and 1 where both are 0: nothing is made to
    look like a change.
    """
    low, high = (_drawable(end) for end in (low, high))
    if high - low <= _NOISE * max(abs(low), abs(high)):
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        high = 1.0
    step = _step((high - low) / (MOST_TICKS - 1))
    first, last = math.floor(low / step + _ROUNDING), math.ceil(high / step - _ROUNDING)
    return [_without_noise(step * i, step) for i in range(first, last + 1)]


def _drawable(end: float | int) -> float:
    if abs(end) < _SMALLEST:
        return 0.0
    return min(max(float(end), -_LARGEST), _LARGEST)


_ROUNDING = 1e-9
"""Share of a step by which a number may miss a tick."""


def _step(least: float) -> float:
    """The smallest round number that is at least so much, and that few enough ticks fit."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * each for each in _ROUND if power * each >= least * (1 - _ROUNDING))


def _without_noise(value: float | int, step: float) -> float:
    """0.30000000000000004 is 0.3."""
    return round(value, max(0, 2 - math.floor(math.log10(step)))) + 0.0


def percent(share: float | int) -> str:
    """A share in percent."""
    return f"{100 * share:.0f}%"


def short(value: float | int) -> str:
    """A number in few characters: 20k, 1.5M, 0.25, 1e-05."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if limit <= abs(value) < 1e12:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"
