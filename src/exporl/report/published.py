"""Learning curves that the paper has published, for the tasks that it has in common with this
library: digitised from its figures (`assets/README.md`)."""

import csv
import io
from collections.abc import Mapping, Sequence

from exporl.report.document import asset
from exporl.report.figures import Line
from exporl.report.run_data import RunData

TASKS = {
    "robomimic/lift": ("lift",),
    "robomimic/can": ("can",),
    "robomimic/square": ("square",),
    "mimicgen/threading_d0": ("threading",),
    "mimicgen/stack_d0": ("stack",),
    "adroit/pen": ("pen",),
    "adroit/door": ("door",),
    "adroit/relocate": ("relocate",),
    "antmaze/d4rl-medium": ("antmaze-medium-play", "antmaze-medium-diverse"),
    "antmaze/d4rl-large": ("antmaze-large-play", "antmaze-large-diverse"),
}
"""Task -> what the figures call it; data sets apart, where they differ by those alone."""
SETTINGS = {True: "offline_to_online", False: "online_with_prior_data"}
"""Whether a critic is trained before acting begins -> what the figures call it."""
NOTES = {
    "adroit": "There the paper counts the share of time steps solved, which is less than success.",
    "mimicgen": "Which of MimicGen's variants the paper used is not said; D0 is taken.",
}


def _pretrains(run: RunData) -> bool:
    train = run.config.get("train")
    steps = train.get("critic_pretrain_steps") if isinstance(train, Mapping) else 0
    return isinstance(steps, int) and steps > 0


def published_lines(runs: Sequence[RunData], colors: Mapping[str, int]) -> list[Line]:
    """The curves of the runs' task and settings; none where nothing is published."""
    tasks = TASKS.get(runs[0].task, ()) if runs else ()
    settings = {SETTINGS[_pretrains(run)] for run in runs}
    curves: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for row in csv.DictReader(io.StringIO(asset("published.csv"))) if tasks else ():
        if row["task"] in tasks and row["setting"] in settings:
            told = [row["task"]] * (len(tasks) > 1) + [row["setting"]] * (len(settings) > 1)
            point = float(row["env_steps"]), float(row["score"])
            curves.setdefault((row["algorithm"], *told), []).append(point)
    lines = []
    for (algorithm, *told), points in curves.items():
        name = ", ".join([algorithm, *told, "published (digitised)"]).replace("_", " ")
        x, y = (list(each) for each in zip(*sorted(points), strict=True))
        lines.append(Line(name, x, y, colors.get(algorithm, "published"), kind="published", dash=2))
    return lines


def published_note(task: str) -> str:
    """What to know about the published curves of a task; nothing where there are none."""
    if task not in TASKS:
        return ""
    note = NOTES.get(task.partition("/")[0], "")
    return (
        "<p class='muted'>Dotted: the curves of the EXPO paper (arXiv 2507.07986), digitised from "
        f"its figures to about 0.02, for its data and its network sizes. {note}</p>"
    )
