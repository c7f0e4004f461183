"""The tables of docs/algorithms/expo.md about the preset `stable`; `tables.py` writes them."""

import statistics
from collections.abc import Sequence
from typing import Any

from published import result, table

STABLE_STEPS = (0, 1_000, 2_000, 4_000, 6_000)
STABLE_LINES = {
    "deployed": ("new", "policy"),
    "with edits": ("edits-act", "unguarded"),
    "without edits": ("new", "unedited"),
    "base alone": ("new", "base"),
}
"""What a line says -> the row of the study, and who of it."""


def stable() -> str:
    """The preset `stable` on the tasks of its study: mean success in % over seeds."""
    results = result("stable")["results"]
    tasks = dict.fromkeys(r["task"] for r in results if r["row"] == "new")

    def mean(runs: Sequence[dict[str, Any]], who: str, step: int) -> str:
        rates = [r[who][r["env_steps"].index(step)] for r in runs if step in r["env_steps"]]
        return f"{100 * statistics.mean(rates):.0f}" if rates else ""

    rows: list[Sequence[str]] = []
    for task in tasks:
        for line, (row, who) in STABLE_LINES.items():
            runs = [r for r in results if (r["task"], r["row"]) == (task, row)]
            rates = [mean(runs, who, step) for step in STABLE_STEPS]
            rows.append((task, str(len(runs)), line, *rates))
    return table(("task", "seeds", "", *(f"{step:,}" for step in STABLE_STEPS)), rows)


def deployed_edits() -> str:
    """Ways of deploying edits on finished runs: mean success in % and that of every seed."""
    results = result("deployed_edits")["results"]
    tasks = tuple(dict.fromkeys(r["task"] for r in results))

    def success(way: str, task: str) -> str:
        runs = sorted(
            (r["seed"], r["success"]) for r in results if (r["task"], r["way"]) == (task, way)
        )
        rates = [100 * rate for _, rate in runs]
        return f"{statistics.mean(rates):.0f} ({', '.join(f'{rate:.0f}' for rate in rates)})"

    ways = dict.fromkeys(r["way"] for r in results)
    return table(
        ("deployed", *tasks), ((way, *(success(way, task) for task in tasks)) for way in ways)
    )


ABLATION_STEPS = (0, 1_000, 2_000, 4_000)
ABLATIONS = {
    "demo": "preset `demo`, cached backups",
    "all-data": "the base imitates all episodes",
    "shorter": "shorter successes weigh more",
    "recent": "recent successes weigh more",
    "slow-base": "the base follows as slowly as released",
    "no-bounds": "no pessimistic start, no bounds",
    "no-guard": "no guard",
    "no-edits": "no edits (best of n)",
    "noise-edits": "edits stay noise: nothing is learnt",
    "careful-edits": "edits climb the minimum over the critics",
    "small-edits": "edits of half the size",
    "large-edits": "edits of twice the size",
    "fast-base": "the base follows as fast as on other tasks",
    "fast-base-all-data": "the same, and imitates all episodes",
    "updates-8": "update-to-data ratio 8 (3)",
    "discount-98": "discount .98 (.99)",
    "critics-10": "10 critics (4)",
    "wide-critics": "critics of width 256 (128)",
    "prior-25": "a quarter of prior data (half)",
}
"""Row of the study -> what it changes."""
EDITS_ACT = ("fast-base", "careful-edits", "small-edits", "large-edits")
"""Rows whose deployed policy has edits."""
PLAYED = {
    "random_base": "a base sample",
    "random_edit": "an edit",
    "random_noise": "a random edit",
    "best_q_of_base": "the best base sample by Q",
    "best_q": "the best candidate by Q",
    "best_of_all": "the best of all, known afterwards",
}
"""Key of a ranking's success -> what was played."""


def ablations() -> str:
    """Rows of the study that change one part of the preset: the deployed policy's mean success in
    %, and by how much every seed differs from the preset at the last of these steps. Rows that ran
    with edits that act are told as the preset deploys: without."""
    results = result("stable")["results"]
    preset = {(r["task"], r["seed"]): r for r in results if r["row"] == "new"}

    def at(run: dict[str, Any], step: int) -> float | None:
        if step not in run["env_steps"]:
            return None
        number = run["env_steps"].index(step)
        edits_act = run["row"] in EDITS_ACT and run["deployed"][number] == "explore"
        return 100 * run["unedited" if edits_act else "policy"][number]

    rows: list[Sequence[str]] = []
    for task in dict.fromkeys(task for task, _ in preset):
        for row in ("new", *ABLATIONS):
            runs = [r for r in results if (r["task"], r["row"]) == (task, row)]
            if row != "new" and not runs:
                continue
            cells = []
            for step in ABLATION_STEPS:
                rates = [rate for run in runs if (rate := at(run, step)) is not None]
                cells.append(f"{statistics.mean(rates):.0f}" if rates else "")
            last = max(step for step in ABLATION_STEPS if all(step in r["env_steps"] for r in runs))
            changed = [] if row == "new" else runs
            pairs = [(at(run, last), at(preset[task, run["seed"]], last)) for run in changed]
            more = [
                f"{own - its:+.0f}" for own, its in pairs if own is not None and its is not None
            ]
            said = ABLATIONS.get(row, "the preset")
            rows.append((task, said, str(len(runs)), *cells, " ".join(more)))
    compared = {task for task, said, *_ in rows if said != "the preset"}
    heads = ("task", "", "seeds", *(f"{step:,}" for step in ABLATION_STEPS), "by seed")
    return table(heads, (row for row in rows if row[0] in compared))


def ranking() -> str:
    """How Q ranks candidates, and what came of them when they were played: means over seeds."""
    results = result("ranking")["results"]
    task_of = {r["run"]: r["run"].rsplit("-edits-act-", 1)[0] for r in results}
    heads = ("task", "seeds", "rank correlation", "Q: edit - random edit", *PLAYED.values())
    rows: list[Sequence[str]] = []
    for task in dict.fromkeys(task_of.values()):
        group = [r for r in results if task_of[r["run"]] == task]
        correlation = statistics.mean(r["rank_correlation"] for r in group)
        over_noise = statistics.mean(r["edit/over_noise"] for r in group)
        success = [
            f"{100 * statistics.mean(r['success'][name] for r in group):.0f}" for name in PLAYED
        ]
        rows.append((task, str(len(group)), f"{correlation:.2f}", f"{over_noise:.2f}", *success))
    return table(heads, rows)
