"""SVG charts and the style of the HTML pages: self-contained, light and dark."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from exporl.report.axes import percent, round_ticks, short
from exporl.report.markup import text

STEPS = "environment steps"
FEW_POINTS = 40
"""Points of a line up to which each is drawn so that it can be pointed at."""
REACH = 14
"""Radius around a point that a finger may miss it by."""

STYLE = """
:root{color-scheme:light dark;--fg:#111827;--bg:#fff;--muted:#6b7280;--line:#e5e7eb}
@media(prefers-color-scheme:dark){:root{--fg:#e5e7eb;--bg:#111418;--muted:#9ca3af;--line:#2b3138}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:1080px;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem}
h2{font-size:1.1rem;margin-top:2rem}.muted{color:var(--muted)}
svg{width:100%;height:auto;display:block}svg text{font-size:12px;fill:var(--muted)}
svg .title{font-size:13px}.grid{stroke:var(--line)}
.reach{fill-opacity:0}.point .said{display:none;fill:var(--fg);paint-order:stroke;
stroke:var(--bg);stroke-width:4px}
.point:hover .said,.point:focus .said{display:block}.point{outline:none}
.wide{overflow-x:auto}.wide svg{min-width:600px;max-width:900px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
td,th{text-align:left;padding:.35rem .6rem;white-space:nowrap;
border-bottom:1px solid var(--line)}th{font-weight:600;color:var(--muted)}
.legend span{margin-right:1.2rem;font-size:13px;white-space:nowrap;display:inline-block}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}
.grid-of-charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:1rem}
h3{font-size:1rem;margin:1.2rem 0 .4rem}
figure{margin:0}figcaption{font-size:12px}figcaption p{margin:0}figcaption i{display:inline-block;
width:.7em;height:.7em;border-radius:2px;margin-right:.4em}pre{overflow:auto;font-size:12px}
"""


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    x: list[float]
    y: list[float]
    color: str
    low: list[float] | None = None
    high: list[float] | None = None
    thin: bool = False


@dataclasses.dataclass(frozen=True)
class _Frame:
    """Where numbers lie in a chart."""

    width: int
    height: int
    x_ticks: list[float]
    y_ticks: list[float]
    left: int = 58
    """Left of the axis: its title and numbers."""
    right: int = 16
    top: int = 12
    bottom: int = 40

    def px(self, x: float | int) -> float:
        """The place of a number of the horizontal axis."""
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return self.left + (self.width - self.left - self.right) * ((x - low) / (high - low))

    def py(self, y: float | int) -> float:
        """The place of a number of the vertical axis."""
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return self.top + (self.height - self.top - self.bottom) * ((high - y) / (high - low))

    def points(self, x: Sequence[float], y: Sequence[float]) -> list[str]:
        """Places of points, as SVG writes them."""
        return [f"{self.px(a):.1f},{self.py(b):.1f}" for a, b in zip(x, y, strict=True)]


def line_chart(
    series: Sequence[Series],
    *,
    width: int,
    height: int,
    y_title: str,
    x_title: str = STEPS,
    y_range: tuple[float, float] | None = None,
    in_percent: bool = False,
) -> str:
    """An SVG line chart: axes with round numbers and titles, bands, and beside a point that is
    pointed at, tapped or focused what it says.

    Args:
        series: the lines; those without points are left out.
        width: of its own units; it is drawn as wide as there is room.
        height: likewise.
        y_title: what the vertical axis shows, with its unit.
        x_title: the same of the horizontal axis.
        y_range: ends of the vertical axis; by default what fits.
        in_percent: the values are shares, shown in percent.
    """
    series = [s for s in series if s.x]
    ends = [v for s in series for values in (s.y, s.low or (), s.high or ()) for v in values]
    low, high = y_range or (min(ends, default=0.0), max(ends, default=1.0))
    last = max((x for s in series for x in s.x), default=1.0)
    frame = _Frame(width, height, round_ticks(0.0, last or 1.0), round_ticks(low, high))
    show = percent if in_percent else short
    name = f"{y_title} over {x_title}"
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{text(name)}">']
    parts += _axes(frame, show, x_title, y_title)
    for s in series:
        parts += _line(frame, s)
    parts += [point for s in series if not s.thin for point in _points(frame, s, show)]
    return "".join(parts) + "</svg>"


def _axes(frame: _Frame, show: Callable[[float], str], x_title: str, y_title: str) -> Iterator[str]:
    """Grid, numbers and titles."""
    foot, end = frame.height - frame.bottom, frame.width - frame.right
    for value in frame.y_ticks:
        y = frame.py(value)
        yield f'<line class="grid" x1="{frame.left}" x2="{end}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _label(frame.left - 6, y + 4, "end", show(value))
    for i, value in enumerate(frame.x_ticks):
        anchor = "end" if i == len(frame.x_ticks) - 1 else "middle"
        yield _label(frame.px(value), foot + 16, anchor, short(value))
    yield _label((frame.left + end) / 2, frame.height - 6, "middle", text(x_title), "title")
    middle = (frame.top + foot) / 2
    yield (
        f'<text class="title" transform="translate(13 {middle:.0f}) rotate(-90)" '
        f'text-anchor="middle">{text(y_title)}</text>'
    )


def _label(x: float | int, y: float | int, anchor: str, words: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def _line(frame: _Frame, s: Series) -> Iterator[str]:
    """A line and its band."""
    if s.low is not None and s.high is not None:
        around = frame.points(s.x, s.high) + frame.points(s.x, s.low)[::-1]
        yield f'<polygon points="{" ".join(around)}" fill="{s.color}" opacity=".13"/>'
    style = 'stroke-width="1" opacity=".45"' if s.thin else 'stroke-width="2.2"'
    line = " ".join(frame.points(s.x, s.y))
    yield f'<polyline points="{line}" fill="none" stroke="{s.color}" {style}/>'


def _points(frame: _Frame, s: Series, show: Callable[[float], str]) -> Iterator[str]:
    """Points with what they say. A finger, and the keyboard, reach a wide circle around each."""
    few = len(s.x) <= FEW_POINTS
    focus = ' tabindex="0"' if few else ""
    for x, y in zip(s.x, s.y, strict=True):
        at, up, said = frame.px(x), frame.py(y), f"{text(s.name)}: {show(y)} at {short(x)}"
        anchor = "end" if at > frame.width / 2 else "start"
        circle = f'cx="{at:.1f}" cy="{up:.1f}" fill="{s.color}"'
        said_up = up - 10 if up > 30 else up + 20
        yield (
            f'<g class="point"{focus}><title>{said}</title>'
            f'<circle class="reach" r="{REACH}" {circle}/>'
            f'<circle r="{3 if few else 1.2}" {circle}/>'
            f"{_label(at, said_up, anchor, said, 'said') if few else ''}</g>"
        )


def large_chart(series: Sequence[Series], **options: Any) -> str:
    """The chart that a page is about, with its legend; a sentence where there is no line to draw.
    On a narrow screen it can be pushed aside, so that its numbers stay as large as the text around.

    Args:
        series: the lines.
        **options: of `line_chart`.
    """
    if not drawable(series):
        return "<p class='muted'>One evaluation so far: its numbers are in the table.</p>"
    chart = line_chart(series, width=760, height=320, **options)
    return f'<div class="wide">{chart}</div>{legend(series)}'


def drawable(series: Sequence[Series]) -> bool:
    """Whether there is a line to draw: one of several points."""
    return any(len(s.x) > 1 for s in series)


def legend(series: Sequence[Series]) -> str:
    """The names and colours of lines, but for thin ones."""
    items = [
        f'<span><i style="background:{s.color}"></i>{text(s.name)}</span>'
        for s in series
        if not s.thin
    ]
    return f'<p class="legend">{"".join(items)}</p>'


def histogram(
    values: Sequence[float | int],
    *,
    width: int,
    height: int,
    bins: int = 30,
    limits: tuple[float | int, float | int] | None = None,
) -> str:
    """An SVG histogram with a labelled range, counts as tooltips; `limits` default to the smallest
    and largest value."""
    low, high = limits or (min(values, default=0.0), max(values, default=1.0))
    step = (high - low) / bins if high > low else 1.0
    counts = [0] * bins
    for value in values:
        counts[min(max(int((value - low) / step), 0), bins - 1)] += 1
    top, base, wide = max(counts) or 1, height - 18, width / bins
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img">']
    for i, count in enumerate(counts):
        tall = (base - 4) * count / top
        parts.append(
            f'<rect x="{i * wide:.1f}" y="{base - tall:.1f}" width="{max(wide - 1, 0.5):.1f}" '
            f'height="{tall:.1f}" fill="#2563eb"><title>{short(low + i * step)} to'
            f" {short(low + (i + 1) * step)}: {count}</title></rect>"
        )
    parts.append(f'<line class="grid" x1="0" x2="{width}" y1="{base}" y2="{base}"/>')
    for x, anchor, value in ((0, "start", low), (width, "end", high)):
        parts.append(f'<text x="{x}" y="{height - 4}" text-anchor="{anchor}">{short(value)}</text>')
    return "".join(parts) + "</svg>"
