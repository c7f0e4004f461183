"""A survey of a data file in words: plain text for the terminal."""

from collections.abc import Sequence

import numpy as np

from exporl.data.episodes import kinds
from exporl.data.inspect import SATURATED, Moments, Survey

_BARS = " ▁▂▃▄▅▆▇█"
ROWS = 40
"""Dimensions listed one by one; of more, the first so many."""
MOST = 10
"""Kinds of notes and of faults."""


def bars(
    values: Sequence[float | int] | np.ndarray, low: float | int, high: float | int, bins: int = 24
) -> str:
    """A histogram over [low, high] in one line of text; the ends include what lies beyond."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    step = (high - low) / bins if high > low else 1.0
    index = np.clip((values - low) / step, 0, bins - 1).astype(int)
    counts = np.bincount(index, minlength=bins) if len(values) else np.zeros(bins)
    top = max(counts.max(), 1)
    return "".join(_BARS[int(np.ceil(8 * count / top))] for count in counts)


def describe(found: Survey, title: str) -> str:
    """Everything `exporl data inspect` prints."""
    lines = [title]
    if found.names:
        lines += _episodes(found) + _actions(found) + _observations(found)
    lines += _troubles(found)
    return "\n".join(lines)


def _episodes(found: Survey) -> list[str]:
    count, steps = len(found.names), sum(found.lengths)
    good = sum(found.successes)
    ends = f"{sum(found.terminated):,} terminated, {count - sum(found.terminated):,} cut off"
    lengths, returns = np.array(found.lengths, np.float64), np.array(found.returns)
    return [
        f"  episodes   {count:,}, {steps:,} steps; {ends}",
        f"  success    {good:,} of {count:,} ({100 * good / count:.0f}%)" + _unknown(found),
        f"  length     {_range(lengths)}  |{bars(lengths, lengths.min(), lengths.max())}|",
        f"  return     {_range(returns)}  |{bars(returns, returns.min(), returns.max())}|",
    ]


def _unknown(found: Survey) -> str:
    """What is not known about success, after the number."""
    if found.asked:
        return f"; not recorded in {found.asked:,}, whose rewards do not tell it, see the notes"
    if found.lost:
        return (
            f"; {found.lost:,} more in last steps that had to be left out: the observations after "
            "them are not in the file"
        )
    if any(found.successes) or found.rewarded:
        return ""
    return "; no rewards in this file: --task T applies the task's own rule"


def _range(values: np.ndarray) -> str:
    middle = f"mean {_number(values.mean())}, median {_number(np.median(values))}"
    return f"{_number(values.min())} to {_number(values.max())}, {middle}"


def _actions(found: Survey) -> list[str]:
    actions, sample = found.actions, found.sample.rows()
    assert actions is not None
    low, high = min(-1.0, actions.minimum.min()), max(1.0, actions.maximum.max())
    lines = [
        (
            f"  actions    {actions.dims} dimensions; saturated: |action| >= {SATURATED}; "
            f"|bars| from {_number(low)} to {_number(high)}"
        ),
        f"    {'':>5} {'min':>9} {'max':>9} {'mean':>9} {'std':>9} {'saturated':>9} {'outside':>8}",
    ]
    for i in range(min(actions.dims, ROWS)):
        numbers = [actions.minimum[i], actions.maximum[i], actions.mean[i], actions.std[i]]
        shares = [
            100 * part[i] / max(actions.count[i], 1) for part in (found.saturated, found.outside)
        ]
        lines.append(
            f"    {i:>5} {' '.join(f'{_number(n):>9}' for n in numbers)} {shares[0]:>8.1f}% "
            f"{shares[1]:>7.1f}%  |{bars(sample[:, i], low, high)}|"
        )
    return lines + _more(actions)


def _observations(found: Survey) -> list[str]:
    lines = []
    for name, values in found.observations.items():
        kind = f"{values.dtype} {list(values.shape)}"
        constant = int(values.constant.sum())
        notes = (
            f", {constant} of {values.dims} dimensions never change"
            if constant and len(values.shape) <= 1
            else ""
        )
        lines.append(f"  observation {name!r}: {kind}{notes}")
        lines.append(f"    {'':>5} {'min':>9} {'max':>9} {'mean':>9} {'std':>9}")
        lines += _dimensions(values)
        lines += _more(values)
    if found.infos:
        lines.append(
            "  also       " + ", ".join(f"{name} {kind}" for name, kind in found.infos.items())
        )
    return lines


def _dimensions(values: Moments) -> list[str]:
    """One line per dimension; neighbours that never change and are equal share one."""
    lines, i, constant = [], 0, values.constant
    while i < min(values.dims, ROWS):
        last = i
        while (
            constant[i]
            and last + 1 < values.dims
            and constant[last + 1]
            and values.mean[last + 1] == values.mean[i]
        ):
            last += 1
        numbers = " ".join(
            f"{_number(n[i]):>9}" for n in (values.minimum, values.maximum, values.mean, values.std)
        )
        label = "all" if len(values.shape) > 1 else str(i) if last == i else f"{i}-{last}"
        lines.append(
            f"    {label:>5} {numbers}"
            if last == i
            else f"    {label:>5} always {_number(values.mean[i])}"
        )
        i = last + 1
    return lines


def _more(values: Moments) -> list[str]:
    lines = [f"    ... and {values.dims - ROWS} more"] if values.dims > ROWS else []
    return lines + (
        [f"    {values.not_finite:,} values are NaN or infinite"] if values.not_finite else []
    )


def _troubles(found: Survey) -> list[str]:
    lines = []
    if found.duplicates:
        pairs = ", ".join(f"{name} = {first}" for name, first in found.duplicates[:3])
        more = f", and {len(found.duplicates) - 3:,} more" if len(found.duplicates) > 3 else ""
        lines.append(f"  duplicates {len(found.duplicates):,}: {pairs}{more}")
    else:
        lines.append("  duplicates none")
    for example, count, name in kinds(found.notes)[:MOST]:
        where = "" if name == "file" else f"{count:,} x, first in {name}: "
        lines.append(f"  note       {where}{example}")
    if not found.faults:
        return [*lines, "  faults     none"]
    lines.append(
        f"  faults     {len(found.faults):,} in {len(found.damaged):,} of {found.records:,} "
        "episodes"
    )
    for example, count, name in kinds(found.faults)[:MOST]:
        lines.append(f"    {count:>5,} x, first in {name}: {example}")
    return lines


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value)}"
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.3e}"
