"""The parts of docs/results.md about ablations.toml and base_starts.toml, and about a run at the
paper's size; `tables.py` writes them."""

import statistics
from collections.abc import Callable

from published import result, table
from tables_of_claim import NO_RUNS, collected, paired, rate, short, state

from exporl.bench.results import Result, Results
from exporl.bench.tables import NOTHING
from exporl.stats.intervals import wilson
from exporl.stats.scores import area_under_curve

PRESET = "preset"
CHANGED = {
    PRESET: "the preset `stable`, edits deployed",
    "base-target": "on the fly only when acting: the TD target values a base sample",
    "no-edits": "no edits",
    "noise-edits": "edits are noise of the same scale",
    "frozen-base": "the base stays as imitation left it",
    "released-entropy": "the release's entropy target",
    "prior-dropped": "demonstrations are dropped online",
    "samples-1": "1 base sample and its edit (4)",
    "samples-8": "8 and their edits",
    "samples-16": "16 and their edits",
    "edit-scale-05": "edits of at most .05 (.1)",
    "edit-scale-30": "edits of at most .3",
    "demos-10": "10 demonstrations (20)",
    "demos-50": "50 demonstrations",
    "updates-1": "1 update a step (3)",
    "updates-4": "4 updates a step",
    "updates-10": "10 updates a step",
}
"""Row of the suite -> what it changes."""
PAPER_STEPS = 100_000


def ablations(results: Results) -> str:
    """Per task and row: who ends where, and how far each seed is from the preset."""
    rows = []
    for task in results.suite.scores:
        preset = {run.asked.seed: run for run in results.of(PRESET, task)}
        for label in results.suite.labels:
            runs = results.of(label, task)
            if not runs:
                continue
            more = [
                f"{100 * (last(run, 'policy') - last(preset[run.asked.seed], 'policy')):+.0f}"
                for run in runs
                if label != PRESET and run.asked.seed in preset
            ]
            over = [area_under_curve(run.steps, run.scores("success")) for run in runs]
            rows.append((
                short(task), CHANGED[label], f"{len(runs)}", mean(runs, "policy"),
                f"{100 * statistics.mean(over):.0f}", mean(runs, "unedited"), mean(runs, "base"),
                " ".join(more),
            ))  # fmt: skip
    heads = (
        "task", "", "seeds", "at the end", "mean over training", "without edits", "base alone",
        "by seed",
    )  # fmt: skip
    return table(heads, rows) if rows else NO_RUNS


def last(run: Result, who: str) -> float:
    """The success rate of the last evaluation."""
    return float(run.evaluations[-1][who]["success_rate"])


def mean(runs: list[Result], who: str) -> str:
    """The mean over seeds at the end, in %, of those who were evaluated in all runs."""
    if not all(who in run.evaluations[-1] for run in runs):
        return NOTHING
    return f"{100 * statistics.mean(last(run, who) for run in runs):.0f}"


def base_gain(results: Results) -> str:
    """How much of the gain over the base policy's start is the base improving online: with the base
    as it is, and frozen."""
    rows = []
    for task in results.suite.scores:
        for label in (PRESET, "frozen-base"):
            runs = results.of(label, task)
            if runs:
                before = statistics.mean(run.evaluations[0]["base"]["success_rate"] for run in runs)
                more = statistics.mean(statistics.mean(paired(run)) for run in runs)
                rows.append((
                    short(task), CHANGED[label], f"{100 * before:.0f}", mean(runs, "base"),
                    mean(runs, "policy"), f"{100 * more:+.0f}",
                ))  # fmt: skip
    heads = ("task", "", "base before", "base at the end", "EXPO at the end", "EXPO - base")
    return table(heads, rows) if rows else NO_RUNS


def base_starts(results: Results) -> str:
    """Success of the base policy before anything is learnt online, by the noise of its
    demonstrations."""
    rows = []
    for task in results.suite.scores:
        for label in reversed(results.suite.labels):
            for run in results.of(label, task):
                solved = run.evaluations[-1]["base"]["success"]
                noise = f".{label.removeprefix('noise-')}"
                ends = wilson(sum(solved), len(solved))
                rows.append((short(task), noise, rate((sum(solved) / len(solved), *ends))))
    if not rows:
        return NO_RUNS
    return "\n\n".join((table(("task", "noise", "success, %"), rows), *results.problems))


def paper_size() -> str:
    """Hours of a run at the paper's size, by what was measured of its parts."""
    measured = result("throughput-cpu")["updates"]
    hours = {
        each["mode"]: PAPER_STEPS / each["env_steps_per_s"] / 3600
        for each in measured
        if (each["preset"], each["base"]) == ("paper", "diffusion")
    }
    lift = [r for r in result("stable")["results"] if r["task"] == "robomimic/lift"]
    small = lift[0]["train_s"] / lift[0]["env_steps"][-1]
    return (
        f"On a CPU of two cores {PAPER_STEPS:,} steps take {hours['float32']:,.0f} hours of "
        f"learning alone with exact backups, {hours['float32 cached']:,.0f} with cached ones "
        "(`benchmarks/throughput.py`). No GPU was measured. Simulator and learning with a CPU's "
        f"sizes took {1e3 * small:.0f} ms a step on one core (`benchmarks/stable.py`): where a GPU "
        f"makes the paper's updates in that time, {PAPER_STEPS * small / 3600:.1f} hours are to be "
        "expected, and the evaluations."
    )


ABLATION_PARTS: dict[str, Callable[[], str]] = {
    "base starts": lambda: base_starts(collected("base_starts")),
    "ablations state": lambda: state(collected("ablations"), "ablations"),
    "ablations of the study": lambda: ablations(collected("ablations")),
    "ablations base": lambda: base_gain(collected("ablations")),
    "paper size": paper_size,
}
