"""Histograms as SVG."""

from collections.abc import Sequence

from exporl.report.numbers import short


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
            f'height="{tall:.1f}" fill="var(--c0)"><title>{short(low + i * step)} to'
            f" {short(low + (i + 1) * step)}: {count}</title></rect>"
        )
    parts.append(f'<line class="grid" x1="0" x2="{width}" y1="{base}" y2="{base}"/>')
    for x, anchor, value in ((0, "start", low), (width, "end", high)):
        parts.append(f'<text x="{x}" y="{height - 4}" text-anchor="{anchor}">{short(value)}</text>')
    return "".join(parts) + "</svg>"
