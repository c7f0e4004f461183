"""What a run's own evaluations say about the policy that is given away."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporl.report.findings import common, points
from exporl.report.reading import read_evaluations
from exporl.report.returns import difference_of_returns, interval, mean_return
from exporl.stats.intervals import paired_difference, wilson


@dataclasses.dataclass(frozen=True)
class Row:
    """Evaluation episodes of one policy."""

    who: str
    success: Sequence[bool]
    returns: Sequence[float]
    """Empty in runs of earlier versions."""

    @property
    def rate(self) -> float:
        """Share of episodes that were solved."""
        return sum(self.success) / len(self.success)

    def cells(self) -> tuple[str, str, str]:
        """Success and mean return with their 95% intervals, and the number of episodes."""
        low, high = wilson(sum(self.success), len(self.success))
        success = f"{self.rate:.2f} [{low:.2f}, {high:.2f}]"
        returns = interval(mean_return(self.returns)) if self.returns else "-"
        return success, returns, str(len(self.success))


@dataclasses.dataclass(frozen=True)
class Results:
    """Evaluations before and after the part of training that led to a checkpoint."""

    before_step: int
    step: int
    """Environment steps at the evaluation after it."""
    rows: tuple[Row, ...]
    """The base policy before and after it, and the policy after it, as far as they were
    evaluated. The last one is what is given away."""
    gain: str
    """The last row against the first, in a sentence; empty where they are the same one."""


def read_results(run_dir: Path, env_steps: int, *, part: str) -> Results | None:
    """The evaluations of a run that tell of its policy after so many environment steps.

    Args:
        run_dir: the run directory.
        env_steps: of the checkpoint that is given away.
        part: "policy", or "base" for its base policy alone.

    Returns:
        None where the run has no evaluation of that part up to there.
    """
    lines = [line for line in read_evaluations(run_dir)[0] if line["env_steps"] <= env_steps]
    lines = [line for line in lines if part in line]
    if not lines:
        return None
    first, last = lines[0], lines[-1]
    rows = [_row("base policy before", first, "base"), _row("base policy after", last, "base")]
    if part == "policy":
        rows.append(_row("policy after", last, "policy"))
    found = tuple(row for row in rows if row is not None)
    return Results(first["env_steps"], last["env_steps"], found, _gain(found))


def _row(who: str, line: dict[str, Any], name: str) -> Row | None:
    if name not in line:
        return None
    result = line[name]
    return Row(who, result["success"], result.get("returns", ()))


def _gain(rows: Sequence[Row]) -> str:
    if len(rows) < 2:
        return ""
    first, last = rows[0], rows[-1]
    after, before = common(last.success, first.success)
    returns = ""
    if last.returns and first.returns:
        of_returns = difference_of_returns(last.returns, first.returns)
        returns = f", return {interval(of_returns, '+')}"
    return (
        f"{last.who} - {first.who}: {points(paired_difference(after, before))} of success{returns},"
        f" on the same {len(after)} starts."
    )
