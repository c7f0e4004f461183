"""Returns of evaluations, where the environment's own rewards are what is learnt from: in words and
as a part of the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from exporl.report.curves import Colors, all_lines
from exporl.report.figures import Chart, Figures
from exporl.report.findings import pooled, told
from exporl.report.labels import by_label
from exporl.report.markup import table, text
from exporl.report.run_data import RunData
from exporl.stats.intervals import paired_difference
from exporl.stats.over_seeds import over_seeds

Evaluation = Mapping[str, Any]
"""Who -> outcomes of their episodes, "returns" among them: a line of eval.jsonl."""


def number(value: float, sign: str = "") -> str:
    """A return in a few digits: -1,579, 12.3, 0.0345; with its sign where `sign` is "+"."""
    if abs(value) >= 1000:
        return f"{value:{sign},.0f}"
    return f"{value:{sign}.3g}"


def interval(found: tuple[float, float, float], sign: str = "") -> str:
    """A mean with its interval: -272 [-401, -149]."""
    mean, low, high = (number(value, sign) for value in found)
    return f"{mean} [{low}, {high}]"


def mean_return(returns: Sequence[float]) -> tuple[float, float, float]:
    """The mean of returns with its 95% bootstrap interval."""
    return paired_difference(returns, [0.0] * len(returns))


def difference_of_returns(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95% interval of a - b, paired on the starts that both have."""
    num = min(len(a), len(b))
    return paired_difference(a[:num], b[:num])


def return_words(line: Evaluation) -> str:
    """What an evaluation says about returns: everyone's mean, and the policy against its base."""
    found = {who: line[who]["returns"] for who in ("policy", "base") if who in line}
    means = (f"{who} {number(sum(all_) / len(all_))}" for who, all_ in found.items())
    text = f"return {', '.join(means)}"
    if len(found) < 2:
        return text
    gain = difference_of_returns(found["policy"], found["base"])
    return f"{text}, policy - base {interval(gain, '+')}"


def return_summary(line: Evaluation) -> dict[str, Any]:
    """The same as numbers: means, and [mean, low, high] of policy - base."""
    found = {who: line[who]["returns"] for who in ("policy", "base") if who in line}
    summary: dict[str, Any] = {who: sum(all_) / len(all_) for who, all_ in found.items()}
    if len(found) == 2:
        gain = difference_of_returns(found["policy"], found["base"])
        summary["policy - base"] = list(gain)
    return summary


def return_section(runs: Sequence[RunData], colors: Colors, figures: Figures) -> str:
    """The part of the page about returns; nothing where no run learns from them."""
    runs = [run for run in runs if run.pays_return and run.evals and _has_returns(run)]
    if not runs:
        return ""
    lines = all_lines(runs, colors, "returns", over_seeds)
    chart = Chart("Return over environment steps", "return (sum of rewards)", lines, large=True)
    sentences = "".join(map(_findings, by_label(runs)))
    head = ("run", "algorithm", "seed", "base before", "base after", "policy after")
    return (
        "<h2>Return over environment steps</h2><p class='muted'>Sums of the environment's own "
        "rewards, which these runs learn from; brackets and bands are 95% bootstrap intervals, of "
        f"several seeds over seeds and episodes.</p>{sentences}{figures.add(chart)}"
        f"{table(head, list(map(_row, runs)))}"
    )


def _has_returns(run: RunData) -> bool:
    return all("returns" in line["policy"] for line in run.evals)


def _findings(runs: Sequence[RunData]) -> str:
    """The policy against its base before training: over all seeds, and of each."""
    runs = [run for run in runs if "base" in run.evals[0] and run.algorithm != "bc"]
    sentence, _ = pooled(runs, "returns", _signed, "return ") if len(runs) > 1 else ("", [])
    return told([sentence] if sentence else [], list(map(_finding, runs)))


def _signed(found: tuple[float, float, float]) -> str:
    return interval(found, "+")


def _finding(run: RunData) -> str:
    """The policy of one run at the end against its base before training."""
    first, last = run.evals[0], run.evals[-1]
    after, before = last["policy"]["returns"], first["base"]["returns"]
    gain = interval(difference_of_returns(after, before), "+")
    same = min(len(after), len(before))
    return (
        f"<b>{text(run.label)}, seed {run.seed}</b>: return {gain} over its base"
        f" policy after {last['env_steps']:,} environment steps (same {same} starts)."
    )


def _row(run: RunData) -> list[str]:
    first, last = run.evals[0], run.evals[-1]
    cells = [text(run.name), text(run.label), str(run.seed)]
    for line, who in ((first, "base"), (last, "base"), (last, "policy")):
        cells.append(interval(mean_return(line[who]["returns"])) if who in line else "-")
    return cells
