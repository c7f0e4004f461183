"""What runs are called that differ only by their seed, and which options tell the others apart."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporl.report.markup import table, text
from exporl.report.run_data import RunData

NOT_TOLD = ("task", "seed", "versions", "preset", "train.online_steps", "eval.", "log.")
"""Options that do not make runs different: they may change in a resumption, or are said anyway."""
MOST_NAMED = 2
"""Options in a name at most; where it takes more, the page's table of differences has them."""


def options_of(run: RunData) -> dict[str, str]:
    """Every option of a run by its dotted name, as text."""
    return dict(_flat(run.config, ""))


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _learning_options(run: RunData) -> tuple[tuple[str, str], ...]:
    found = options_of(run)
    path = found.get("data.path", "")  # seeds have copies of their own
    found["data.path"] = path.replace("\\", "/").rpartition("/")[2]
    return tuple(each for each in sorted(found.items()) if not each[0].startswith(NOT_TOLD))


def labelled(runs: Sequence[RunData], given: Mapping[Path, str] | None = None) -> list[RunData]:
    """The same runs, each with the name of all that were made with its options on its task: the
    algorithm, and where that is not enough the options that differ.

    Args:
        runs: in their order.
        given: names of the folders of runs that have one already.
    """
    names: dict[tuple[str, str, tuple[tuple[str, str], ...]], str] = {}
    for task, algorithm in dict.fromkeys((run.task, run.algorithm) for run in runs):
        members = [run for run in runs if (run.task, run.algorithm) == (task, algorithm)]
        kinds = list(dict.fromkeys(map(_learning_options, members)))
        for kind, words in zip(kinds, _words(kinds), strict=True):
            names[task, algorithm, kind] = f"{algorithm.upper()}{words}"
    own = [names[run.task, run.algorithm, _learning_options(run)] for run in runs]
    known = given or {}
    return [
        dataclasses.replace(run, label=known.get(run.folder, name))
        for run, name in zip(runs, own, strict=True)
    ]


def _words(kinds: Sequence[tuple[tuple[str, str], ...]]) -> list[str]:
    """What follows the algorithm's name for each kind of options; nothing where there is one."""
    if len(kinds) == 1:
        return [""]
    options = [dict(kind) for kind in kinds]
    every = dict.fromkeys(name for kind in options for name in kind)
    differing = [name for name in every if len({kind.get(name) for kind in options}) > 1]
    telling = next(
        ([name] for name in differing if len({kind.get(name) for kind in options}) == len(kinds)),
        differing,
    )
    if len(telling) > MOST_NAMED:
        return [f" {chr(ord('A') + i % 26)}{i // 26 or ''}" for i in range(len(kinds))]
    return [
        " ({})".format(
            ", ".join(f"{name.rpartition('.')[2]} {kind.get(name, '-')}" for name in telling)
        )
        for kind in options
    ]


def by_label(runs: Sequence[RunData]) -> list[list[RunData]]:
    """Runs of the same name together, in their order."""
    names = dict.fromkeys(run.label for run in runs)
    return [[run for run in runs if run.label == name] for name in names]


def differences(runs: Sequence[RunData]) -> str:
    """A table of the options in which runs differ; nothing where they do not."""
    groups = by_label(runs)
    options = [[options_of(run) for run in group] for group in groups]
    every = dict.fromkeys(name for group in options for each in group for name in each)
    rows = []
    for name in every:
        values = [dict.fromkeys(each.get(name, "-") for each in group) for group in options]
        if name != "seed" and len({value for of_group in values for value in of_group}) > 1:
            rows.append([text(name), *(text(", ".join(of_group)) for of_group in values)])
    if not rows:
        return ""
    head = ("option", *(group[0].label for group in groups))
    return f"<h2>What differs between runs</h2>{table(head, rows)}"
