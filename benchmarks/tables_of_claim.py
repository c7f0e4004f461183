"""The parts of docs/results.md about claim.toml, from its collected results; `tables.py` writes
them. With few runs, or none, they say so."""

import dataclasses
import functools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from common import RESULTS
from published import table

from exporl.bench import tables as suite_tables
from exporl.bench.collected import read_collected
from exporl.bench.results import Result, Results
from exporl.bench.suite import Suite, read_suite
from exporl.bench.tables import NOTHING, SEED, Comparison, ratio_text
from exporl.stats.bootstrap import interval
from exporl.stats.over_seeds import over_seeds, success_over_seeds
from exporl.stats.reach import Ratio
from exporl.stats.scores import probability_of_improvement

SUITES = Path(__file__).parent
EXPO = "expo"
OURS = (EXPO, "expo-released", "expo-exact", "expo-diffusion")
"""Rows that are compared with rivals."""
HELPED = "-helped"
"""How the name of a rival's row ends that has what helps EXPO without being EXPO."""
BEST_OF_N = ("best-of-n", "best-of-n-helped")
NO_RUNS = "No run is there yet."
Half = Mapping[str, float]
"""Task -> the success rate at which half of the base policy's failures are gone."""


@functools.cache
def collected(name: str) -> Results:
    """The collected results of benchmarks/<name>.toml; none where there is no file of them."""
    suite, path = read_suite(SUITES / f"{name}.toml"), RESULTS / f"{name}.json"
    if path.is_file():
        return read_collected(suite, path)
    return Results(suite, (), (f"{len(suite.runs)} of {len(suite.runs)} runs are not there yet.",))


def state(results: Results, name: str) -> str:
    """How many runs are there, of which cells, made on what."""
    suite, made = results.suite, results.runs
    if not made:
        return f"{NO_RUNS} {len(suite.runs)} are asked for."
    about = json.loads((RESULTS / f"{name}.json").read_text())
    seconds = [sum(run.evaluations[-1][f"time/{part}_s"] for part in ("train", "eval"))
               for run in made]  # fmt: skip
    lines = [
        f"{len(made)} of {len(suite.runs)} runs are there, {sum(seconds) / 3600:.1f} hours of one "
        f"core, on: {'; '.join(about['machines'])}. Seeds made, of those asked for:",
        cells(results),
    ]
    lines += [f"- {problem}" for problem in results.problems if "not there yet" not in problem]
    return "\n\n".join(lines)


def cells(results: Results) -> str:
    """Seeds that are there, of those that the suite asks for, per algorithm and task."""
    suite = results.suite
    rows = []
    for label in suite.labels:
        counts = []
        for task in suite.scores:
            asked = sum(run.pair == (label, task) for run in suite.runs)
            counts.append(f"{len(results.of(label, task))}/{asked}" if asked else "")
        rows.append((label, *counts))
    return table(("", *map(short, suite.scores)), rows)


def short(task: str) -> str:
    """A task without its version."""
    return task.removesuffix("-v3")


def half_of(results: Results) -> Half:
    """Where half of the failures are gone that EXPO's base policy begins with, by its mean over
    seeds; tasks without a run of EXPO are left out."""
    starts = {
        task: [run.evaluations[0]["base"]["success_rate"] for run in results.of(EXPO, task)]
        for task in results.suite.scores
    }
    return {task: (1 + statistics.mean(rates)) / 2 for task, rates in starts.items() if rates}


def with_scores(results: Results, scores: Mapping[str, float]) -> Results:
    """The same runs, compared at other scores."""
    return dataclasses.replace(results, suite=dataclasses.replace(results.suite, scores=scores))


def against(results: Results, baselines: Sequence[str]) -> Results:
    """The same runs, compared with other baselines."""
    suite = dataclasses.replace(results.suite, baselines=tuple(baselines))
    return dataclasses.replace(results, suite=suite)


def groups(suite: Suite) -> dict[str, list[str]]:
    """What EXPO is compared with: the head of a column -> baselines."""
    rivals = [label for label in suite.baselines if label not in BEST_OF_N]
    return {
        "rivals as published": [each for each in rivals if not each.endswith(HELPED)],
        "rivals with what helps EXPO": [each for each in rivals if each.endswith(HELPED)],
        "best of n": [each for each in suite.baselines if each in BEST_OF_N],
        "all of them": list(suite.baselines),
    }


def ends(runs: Sequence[Result]) -> list[list[bool]]:
    """Every episode of the last evaluation of each run."""
    return [list(run.evaluations[-1]["policy"]["success"]) for run in runs]


def rate(found: tuple[float, float, float]) -> str:
    """A success rate with its interval, in %."""
    mean, low, high = (100 * each for each in found)
    return f"{mean:.0f} [{low:.0f}, {high:.0f}]"


def tasks(results: Results) -> str:
    """Per task a table of everything that ran on it."""
    half, parts = half_of(results), []
    found, halfway = Comparison(results), Comparison(with_scores(results, half))
    for task in found.tasks:
        score = results.suite.scores[task]
        heads = ["", "seeds", "base before", "at the end"]
        for at in (score, half[task]) if task in half else (score,):
            heads += [f"reached {at:.2f}", f"steps to {at:.2f}"]
        rows = []
        for label in results.suite.labels:
            runs = results.of(label, task)
            if not runs:
                continue
            first = [run.evaluations[0] for run in runs]
            bases = [line["base"]["success_rate"] for line in first if "base" in line]
            row = [
                label,
                f"{len(runs)}",
                f"{100 * statistics.mean(bases):.0f}" if bases else NOTHING,
                rate(success_over_seeds(ends(runs))),
                *reached(found, label, task),
            ]
            rows.append([*row, *(reached(halfway, label, task) if task in half else ())])
        parts.append(f"### {short(task)}\n\n{table(heads, rows)}")
    return "\n\n".join(parts) or NO_RUNS


def reached(found: Comparison, label: str, task: str) -> tuple[str, str]:
    """How many runs reached the score, and their mean steps."""
    reaches = found.reaches(label, task)
    return f"{sum(not each.censored for each in reaches)}", found.steps(label, task)


def ratios(results: Results) -> str:
    """Steps of the best baseline divided by EXPO's, per task and over all."""
    half, rows = half_of(results), []
    heads = ("", "task", "score", *groups(results.suite))
    for label in OURS:
        where = [task for task in results.suite.scores if results.of(label, task)]
        for task in where:
            for scored in (results, with_scores(results, half)):
                if task in scored.suite.scores:
                    score = f"{scored.suite.scores[task]:.2f}"
                    rows.append((label, short(task), score, *compared(scored, label, [task])))
        if where:
            score = f"{results.suite.scores[where[0]]:.2f}"
            rows.append((label, "all", score, *compared(results, label, where)))
            scored = with_scores(results, half)
            inside = [task for task in where if task in half]
            rows.append((label, "all", "half of the failures", *compared(scored, label, inside)))
    return table(heads, rows) if rows else NO_RUNS


def compared(results: Results, label: str, where: Sequence[str]) -> list[str]:
    """The ratio to the best baseline of every group, with its name where it is one task."""
    texts = []
    for baselines in groups(results.suite).values():
        ratio = Comparison(against(results, baselines)).ratio(label, where)
        name = f" {ratio.baselines[0]}" if ratio is not None and len(where) == 1 else ""
        texts.append(ratio_said(results, label, where, ratio) + name)
    return texts


def ratio_said(results: Results, label: str, where: Sequence[str], ratio: Ratio | None) -> str:
    """A ratio; without the interval where one seed says nothing about the spread."""
    text = ratio_text(ratio)
    if ratio is None or spread_known(results, label, where, ratio):
        return text
    return f"{text.partition(' [')[0]} (one seed)"


def spread_known(results: Results, label: str, where: Sequence[str], ratio: Ratio) -> bool:
    """Whether there are two seeds or more of everything that a ratio is about."""
    own = [len(results.of(label, task)) for task in where]
    others = [len(results.of(other, task)) for task in where for other in set(ratio.baselines)]
    return min(own + [count for count in others if count]) > 1


def overall(results: Results) -> str:
    """The tables over all tasks and at the end, as `exporl bench --table` has them."""
    made = {each.title: each for each in suite_tables.tables(results)} if results.runs else {}
    parts = [
        f"{table(made[title].head, made[title].rows)}\n\n{made[title].note}"
        for title in ("Over all tasks", "At the end, on the same starts")
        if title in made
    ]
    return "\n\n".join(parts) or NO_RUNS


def gains(results: Results) -> str:
    """What EXPO's gain is made of: the base policy that improves online, and the choice around
    it."""
    rows = []
    for task in results.suite.scores:
        runs = results.of(EXPO, task)
        if not runs:
            continue
        before, base, policy = (
            100 * statistics.mean(run.evaluations[at][who]["success_rate"] for run in runs)
            for at, who in ((0, "base"), (-1, "base"), (-1, "policy"))
        )
        more = over_seeds([paired(run) for run in runs])
        points = " to ".join(f"{100 * each:+.0f}" for each in more[1:])
        rows.append((
            short(task), f"{len(runs)}", f"{before:.0f}", f"{base:.0f}", f"{policy:.0f}",
            f"{100 * more[0]:+.0f} [{points}]",
        ))  # fmt: skip
    heads = ("task", "seeds", "base before", "base at the end", "EXPO at the end", "EXPO - base")
    return table(heads, rows) if rows else NO_RUNS


def paired(run: Result) -> list[float]:
    """Policy minus base in every episode of the last evaluation, which start alike."""
    last = run.evaluations[-1]
    pairs = zip(last["policy"]["success"], last["base"]["success"], strict=True)
    return [float(policy) - float(base) for policy, base in pairs]


def sentences(results: Results) -> str:
    """Per task whether EXPO is ahead of the best of all baselines, in words that its interval
    allows; tasks where it is not come first."""
    half = half_of(results)
    said = [sentence(results, half, task) for task in half]
    found = [each for each in said if each is not None]
    if not found:
        return "Nothing can be compared yet: no task has runs of EXPO and of a baseline."
    order = sorted(found, key=_not_ahead_first)
    ahead = sum(each[0] for each in order)
    head = f"EXPO is shown to be ahead of the best baseline on {ahead} of {len(order)} tasks."
    return "\n".join((head, "", *(f"- {text}" for _, text in order)))


def _not_ahead_first(said: tuple[bool, str]) -> bool:
    return said[0]


def sentence(results: Results, half: Half, task: str) -> tuple[bool, str] | None:
    """Whether EXPO is shown to be ahead on a task, and what is to be said; None where there is
    nothing to compare it with."""
    found = Comparison(results)
    if not [each for each in found.baselines(task) if found.online(each, task)]:
        return None
    for scored in (results, with_scores(results, half)):
        score = scored.suite.scores[task]
        ratio = Comparison(scored).ratio(EXPO, [task])
        if ratio is not None:
            ahead, words = verdict(scored, task, ratio)
            return ahead, f"{short(task)}: {words} to reach {score:.2f}; {at_the_end(found, task)}."
    scores = f"{results.suite.scores[task]:.2f} or {half[task]:.2f}"
    return False, f"{short(task)}: nobody reached {scores}; {at_the_end(found, task)}."


def verdict(results: Results, task: str, ratio: Ratio) -> tuple[bool, str]:
    """Whether a ratio shows EXPO ahead, and how it is said."""
    other, text = ratio.baselines[0], ratio_said(results, EXPO, [task], ratio)
    if not spread_known(results, EXPO, [task], ratio):
        return False, f"one seed shows no difference from {other}, ratio {text}"
    if ratio.low > 1 and not ratio.own_censored:  # censored, it would need even more steps
        return True, f"EXPO needs fewer steps than {other}, ratio {text}"
    if ratio.high < 1 and not ratio.baseline_censored:
        return False, f"**EXPO is behind {other}**, ratio {text}"
    return False, f"no difference from {other} is shown, ratio {text}"


def at_the_end(found: Comparison, task: str) -> str:
    """How EXPO ends beside the baseline that ends highest."""
    means = {other: found.final(other, task).mean() for other in found.baselines(task)}
    best, own = max(means, key=lambda other: means[other]), found.final(EXPO, task)
    strata = [own, found.final(best, task)]
    text = f"at the end {100 * own.mean():.0f}% against {100 * means[best]:.0f}% of {best}"
    if min(map(len, strata)) < 2:
        return text
    better = interval(strata, probability_of_improvement, np.random.default_rng(SEED))
    return text + ", probability of improvement {:.2f} [{:.2f}, {:.2f}]".format(*better)


CLAIM_PARTS: dict[str, Callable[[], str]] = {
    "claim state": lambda: state(collected("claim"), "claim"),
    "claim sentences": lambda: sentences(collected("claim")),
    "claim ratios": lambda: ratios(collected("claim")),
    "claim overall": lambda: overall(collected("claim")),
    "claim gains": lambda: gains(collected("claim")),
    "claim tasks": lambda: tasks(collected("claim")),
}
