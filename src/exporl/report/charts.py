"""SVG charts and the style of the HTML pages: self-contained, light and dark."""

import dataclasses
from collections.abc import Sequence

from exporl.report.markup import text

STYLE = """
:root{color-scheme:light dark;--fg:#111827;--bg:#fff;--muted:#6b7280;--line:#e5e7eb}
@media(prefers-color-scheme:dark){:root{--fg:#e5e7eb;--bg:#111418;--muted:#9ca3af;--line:#2b3138}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:1080px;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem}
h2{font-size:1.1rem;margin-top:2rem}.muted{color:var(--muted)}
svg{width:100%;height:auto}svg text{font-size:11px;fill:var(--muted)}.grid{stroke:var(--line)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
td,th{text-align:left;padding:.35rem .6rem;
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


def line_chart(
    series: Sequence[Series],
    *,
    width: int,
    height: int,
    y_range: tuple[float, float] | None = None,
    percent: bool = False,
) -> str:
    """An SVG line chart with axes, bands and a tooltip per point."""
    series = [s for s in series if s.x]
    left, right, top, bottom = 46, 12, 10, 26
    low, high = y_range or _limits([v for s in series for v in s.y])
    end = max((x for s in series for x in s.x), default=1) or 1

    def px(x: float) -> float:
        return left + (width - left - right) * x / end

    def py(y: float) -> float:
        return top + (height - top - bottom) * (1 - (y - low) / (high - low))

    show = _percent if percent else _short
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img">']
    for i in range(5):
        value = low + (high - low) * i / 4
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - right}" y1="{py(value):.1f}" '
            f'y2="{py(value):.1f}"/>'
        )
        parts.append(
            f'<text x="{left - 6}" y="{py(value) + 4:.1f}" text-anchor="end">{show(value)}</text>'
        )
        if i % 2 == 0:
            anchor = ("start", "", "middle", "", "end")[i]
            parts.append(
                f'<text x="{px(end * i / 4):.1f}" y="{height - 8}" '
                f'text-anchor="{anchor}">{_short(end * i / 4)}</text>'
            )
    for s in series:
        points = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in zip(s.x, s.y, strict=True))
        if s.low is not None and s.high is not None:
            upper = [f"{px(x):.1f},{py(y):.1f}" for x, y in zip(s.x, s.high, strict=True)]
            lower = [f"{px(x):.1f},{py(y):.1f}" for x, y in zip(s.x, s.low, strict=True)]
            parts.append(
                f'<polygon points="{" ".join(upper + lower[::-1])}" fill="{s.color}" '
                'opacity=".13"/>'
            )
        style = 'stroke-width="1" opacity=".45"' if s.thin else 'stroke-width="2.2"'
        parts.append(f'<polyline points="{points}" fill="none" stroke="{s.color}" {style}/>')
        if not s.thin:
            for x, y in zip(s.x, s.y, strict=True):
                label = f"{text(s.name)}: {show(y)} at {_short(x)}"
                circle = (
                    f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="{3 if len(s.x) < 40 else 1.2}" '
                    f'fill="{s.color}">'
                )
                parts.append(f"{circle}<title>{label}</title></circle>")
    return "".join(parts) + "</svg>"


def legend(series: Sequence[Series]) -> str:
    """The names and colours of lines, but for thin ones."""
    items = [
        f'<span><i style="background:{s.color}"></i>{text(s.name)}</span>'
        for s in series
        if not s.thin
    ]
    return f'<p class="legend">{"".join(items)}</p>'


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _limits(values: list[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.06 * (high - low) or max(abs(high), 1e-6) * 0.1
    return low - margin, high + margin


def _short(value: float | int) -> str:
    if abs(value) >= 1000:
        return f"{value / 1000:.3g}k"
    return f"{value:.3g}"


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
            f'height="{tall:.1f}" fill="#2563eb"><title>{_short(low + i * step)} to'
            f" {_short(low + (i + 1) * step)}: {count}</title></rect>"
        )
    parts.append(f'<line class="grid" x1="0" x2="{width}" y1="{base}" y2="{base}"/>')
    for x, anchor, value in ((0, "start", low), (width, "end", high)):
        parts.append(
            f'<text x="{x}" y="{height - 4}" text-anchor="{anchor}">{_short(value)}</text>'
        )
    return "".join(parts) + "</svg>"
