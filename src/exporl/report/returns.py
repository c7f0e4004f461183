"""Returns of evaluations, where the environment's own rewards are what is learnt from: in words and
as a part of the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from exporl.report.charts import Series, large_chart
from exporl.report.findings import common_steps, pooled
from exporl.report.markup import text
from exporl.report.run_data import COLORS, OTHER_COLOR, RunData
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


def return_section(runs: Sequence[RunData]) -> str:
    """The part of the page about returns; nothing where no run learns from them."""
    runs = [run for run in runs if run.pays_return and run.evals and _has_returns(run)]
    if not runs:
        return ""
    groups = [
        [run for run in runs if run.algorithm == algorithm]
        for algorithm in dict.fromkeys(run.algorithm for run in runs)
    ]
    series = [line for group in groups for line in _curves(group)]
    sentences = "".join(f"<p>{each}</p>" for group in groups for each in _findings(group))
    rows = "".join(_row(run) for run in runs)
    head = "<tr><th>run<th>algorithm<th>seed<th>base before<th>base after<th>policy after</tr>"
    return (
        "<h2>Return over environment steps</h2><p class='muted'>Sums of the environment's own "
        "rewards, which these runs learn from; brackets and bands are 95% bootstrap intervals, of "
        f"several seeds over seeds and episodes.</p>{sentences}"
        f"{large_chart(series, y_title='return (sum of rewards)')}"
        f'<div class="wide"><table>{head}{rows}</table></div>'
    )


def _has_returns(run: RunData) -> bool:
    return all("returns" in line["policy"] for line in run.evals)


def _curves(runs: Sequence[RunData]) -> list[Series]:
    """Policy and base of the seeds of one algorithm, each over all of them."""
    found = []
    for who, label in (("policy", runs[0].algorithm), ("base", "base")):
        members = [run for run in runs if who in run.evals[0]]
        if not members:
            continue
        steps = common_steps(members, who)
        means = [over_seeds(_returns_at(members, step, who)) for step in steps]
        owner = runs[0].algorithm.upper()
        owner += f", {len(runs)} seeds" if len(runs) > 1 else f" seed {runs[0].seed}"
        found.append(
            Series(
                owner if who == "policy" else f"base of {owner}",
                [float(step) for step in steps],
                [mean for mean, _, _ in means],
                COLORS.get(label, OTHER_COLOR),
                [low for _, low, _ in means],
                [high for _, _, high in means],
            )
        )
    return found


def _returns_at(runs: Sequence[RunData], step: int, who: str) -> list[list[float]]:
    return [
        line[who]["returns"]
        for run in runs
        for line in run.evals
        if line["env_steps"] == step and who in line
    ]


def _findings(runs: Sequence[RunData]) -> list[str]:
    """The policy against its base before training: over all seeds, and of each."""
    runs = [run for run in runs if "base" in run.evals[0] and run.algorithm != "bc"]
    if len(runs) < 2:
        return list(map(_finding, runs))
    sentence, _ = pooled(runs, "returns", _signed, "return ")
    return [*([sentence] if sentence else []), *map(_finding, runs)]


def _signed(found: tuple[float, float, float]) -> str:
    return interval(found, "+")


def _finding(run: RunData) -> str:
    """The policy of one run at the end against its base before training."""
    first, last = run.evals[0], run.evals[-1]
    after, before = last["policy"]["returns"], first["base"]["returns"]
    gain = interval(difference_of_returns(after, before), "+")
    same = min(len(after), len(before))
    return (
        f"<b>{text(run.algorithm.upper())}, seed {run.seed}</b>: return {gain} over its base"
        f" policy after {last['env_steps']:,} environment steps (same {same} starts)."
    )


def _row(run: RunData) -> str:
    first, last = run.evals[0], run.evals[-1]
    cells = [text(run.name), text(run.algorithm), str(run.seed)]
    for line, who in ((first, "base"), (last, "base"), (last, "policy")):
        cells.append(interval(mean_return(line[who]["returns"])) if who in line else "-")
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells) + "</tr>"
