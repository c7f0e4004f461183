"""Charts as plain data: what `assets/report.js` draws with uPlot."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from exporl.report.markup import text

Numbers = Sequence[float | int]
STEPS = "environment steps"
COLORS = 8
"""Colours of lines; more lines take them again."""
BASE_COLOR = "base"
"""Of base policies, in every chart."""
_LARGEST, _SMALLEST = 1e30, 1e-30
"""Beyond them axes have no ticks."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a chart, or a cloud of points."""

    name: str
    x: Numbers
    y: Numbers
    color: int | str = 0
    low: Numbers | None = None
    high: Numbers | None = None
    """Ends of intervals."""
    seconds: Numbers | None = None
    """Training time at each point: another horizontal axis."""
    group: str = ""
    """What it can be hidden with: the name of an algorithm as the page has it."""
    run: str = ""
    """Likewise: the name of a run."""
    kind: str = ""
    """Likewise: "base", "seeds", "published", "unedited" or "unguarded"."""
    thin: bool = False
    dash: int = 0
    """0: drawn through; 1, 2, ...: kinds of dashes."""


@dataclasses.dataclass(frozen=True)
class Chart:
    """Lines and their axes."""

    title: str
    """Said to those who cannot see it."""
    y_title: str
    lines: Sequence[Line]
    x_title: str = STEPS
    percent: bool = False
    """Values are shares."""
    y_range: tuple[float, float] | None = None
    """By default what fits."""
    large: bool = False
    points: bool = False
    """Clouds of points, and the diagonal."""
    spans: Sequence[tuple[float, float]] = ()
    """Parts of the horizontal axis that are shaded."""
    zero: bool = False
    """A line at 0."""


class Figures:
    """Collects the charts of a page."""

    def __init__(self) -> None:
        self._charts: list[dict[str, Any]] = []
        self._axes: dict[tuple[float | int, ...], int] = {}

    def add(self, chart: Chart) -> str:
        """The place of a chart in the page, with its legend; a sentence where there is no line to
        draw: one of several points."""
        lines = [line for line in chart.lines if len(line.x)]
        if not chart.points and not any(len(line.x) > 1 for line in lines):
            if not chart.large:
                return ""
            return "<p class='muted'>One evaluation so far: its numbers are in the table.</p>"
        kept = dataclasses.asdict(dataclasses.replace(chart, lines=()))
        kept["lines"] = [self._line(line) for line in lines]
        self._charts.append(kept)
        size = "large" if chart.large else "small"
        return (
            f'<div class="chart {size}" data-chart="{len(self._charts) - 1}" tabindex="0" '
            f'role="img" aria-label="{text(chart.title)}"></div>'
        )

    def data(self) -> dict[str, Any]:
        """All charts, and the horizontal axes that their lines share."""
        return {"charts": self._charts, "axes": [list(axis) for axis in self._axes]}

    def _line(self, line: Line) -> dict[str, Any]:
        kept: dict[str, Any] = {
            field.name: getattr(line, field.name)
            for field in dataclasses.fields(line)
            if getattr(line, field.name) not in (None, "", False)
        }
        for name in ("y", "low", "high", "seconds"):
            if name in kept:
                kept[name] = _shortened(kept[name])
        axis = tuple(_shortened(line.x))
        return kept | {"x": self._axes.setdefault(axis, len(self._axes)), "color": line.color}


def _shortened(values: Numbers) -> list[float | int]:
    """Numbers in six digits, within what can be drawn."""
    found: list[float | int] = []
    for value in values:
        size = min(abs(value), _LARGEST)
        number = 0.0 if size < _SMALLEST else float(f"{math.copysign(size, value):.6g}")
        found.append(int(number) if number.is_integer() and size < 1e15 else number)
    return found
