"""A suite file: which algorithms run on which tasks with which seeds. Nothing here needs JAX;
`bench/grid.py` checks what the names stand for."""

import dataclasses
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporl.bench.search_file import Search, read_search
from exporl.options import MOST_SEEDS, SEEDS, Interval
from exporl.plain import dotted
from exporl.suggest import closest

FOLDER = Path("runs/bench")
"""Where a suite's runs go, in a folder of its name, unless it says where."""
MEASURES = ("success", "return")
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What an algorithm of a suite may be called: it names a folder."""
OWN = {"task": "[tasks]", "algorithm": "algorithm", "preset": "preset", "seed": "seeds"}
"""Options of a run that a suite gives in another way."""
SUITE_KEYS = ("folder", "seeds", "preset", "score", "measure", "window", "baselines")
ALGORITHM_KEYS = ("algorithm", "preset", "seeds", "seconds_per_step", "options", "on", "tasks")
TASK_KEYS = ("score", "seconds_per_step", "options")


@dataclasses.dataclass(frozen=True)
class AskedRun:
    """One run of a suite, as its file asks for it."""

    label: str
    """What the algorithm is called in the suite."""
    task: str
    seed: int
    algorithm: str
    preset: str
    options: Mapping[str, Any]
    """Dotted options that differ from the preset."""
    seconds_per_step: float | None
    """What the file says about its speed."""
    run_dir: Path

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.label} on {self.task}, seed {self.seed}"

    @property
    def pair(self) -> tuple[str, str]:
        """Algorithm and task: what runs of several seeds share."""
        return self.label, self.task

    def plain(self) -> dict[str, Any]:
        """What is asked for, without the seed, as JSON has it."""
        options = {name: _plain(value) for name, value in sorted(self.options.items())}
        return {"algorithm": self.algorithm, "preset": self.preset, "options": options}


@dataclasses.dataclass(frozen=True)
class Suite:
    """Everything a suite file says."""

    path: Path
    folder: Path
    runs: tuple[AskedRun, ...]
    """Every seed of everything before the next seed of anything."""
    scores: Mapping[str, float]
    """Task -> the score that counts as reached, in the order of the file."""
    labels: tuple[str, ...]
    """The algorithms, in the order of the file."""
    baselines: tuple[str, ...]
    """Algorithms that the others are compared with."""
    measure: str
    """What a score is: "success", a rate, or "return", a mean."""
    window: int
    """Evaluations that are averaged before a curve is compared with a score."""
    search: Search | None = None
    """What of its one algorithm is searched; `runs` are those of every trial, then."""

    @property
    def compared(self) -> tuple[str, ...]:
        """The algorithms that are no baselines."""
        return tuple(label for label in self.labels if label not in self.baselines)


def read_suite(path: Path) -> Suite:
    """Reads a suite file.

    Raises:
        ValueError: it cannot be read, is no TOML, or has entries that are unknown, missing or of
            the wrong type: all of them, a line each.
    """
    try:
        data = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ValueError(f"the suite {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}.") from error
    reader = _Reader(data)
    suite = reader.suite(path)
    if suite is None or reader.problems:
        problems = dict.fromkeys(reader.problems)
        raise ValueError("\n".join((f"{path} cannot be run:", *problems)))
    return suite


class _Reader:
    """Reads a suite and keeps everything that is wrong with it."""

    def __init__(self, data: Mapping[str, Any]):
        self.data, self.problems = data, list[str]()

    def suite(self, path: Path) -> Suite | None:
        """The suite; None where nothing can be made of it."""
        data = self.data
        self._known(data, (*SUITE_KEYS, "options", "algorithms", "tasks", "search"), "")
        folder = Path(self._value(data, "folder", str, "", str(FOLDER / path.stem)))
        algorithms, tasks = self._tables("algorithms"), self._tables("tasks")
        self._check_labels(algorithms, tasks)
        for task, table in tasks.items():
            self._known(table, TASK_KEYS, f"tasks.{task}.")
        scores = {task: self._score(task, table) for task, table in tasks.items()}
        runs = tuple(self._runs(folder, algorithms, tasks))
        baselines = self._baselines(tuple(algorithms))
        measure = self._value(data, "measure", str, "", MEASURES[0])
        if measure not in MEASURES:
            self.problems.append(f"unknown measure {measure!r}. {closest(measure, MEASURES)}")
        window = self._value(data, "window", int, "", 1)
        if window < 1:
            self.problems.append(f"window must be at least 1 evaluation, got {window}.")
        self._check_folders(runs)
        labels, search = tuple(algorithms), self._search(tuple(algorithms))
        if not runs:
            return None
        return Suite(path, folder, runs, scores, labels, baselines, measure, window, search)

    def _search(self, labels: tuple[str, ...]) -> Search | None:
        """What is searched, if anything is."""
        if "search" not in self.data:
            return None
        if len(labels) > 1:
            self.problems.append(
                f"a search is about one algorithm, and there are {len(labels)}: leave one of "
                f"{', '.join(labels)} in [algorithms], and give each a suite of its own."
            )
        return read_search(self.data["search"], self.problems)

    def _tables(self, key: str) -> dict[str, dict[str, Any]]:
        found = self.data.get(key, {})
        if isinstance(found, dict) and found and all(isinstance(v, dict) for v in found.values()):
            return found
        example = "[algorithms.expo]" if key == "algorithms" else '[tasks."metaworld/push-v3"]'
        self.problems.append(f"it needs at least one table {example}.")
        return {}

    def _known(self, table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
        for key in table:
            if key not in known:
                self.problems.append(f"unknown entry {where + key!r}. {closest(key, known)}")

    def _value(
        self, table: Mapping[str, Any], key: str, kind: Any, where: str, default: Any
    ) -> Any:
        """A value of a kind; the default where it is missing or of another."""
        value = table.get(key, default)
        if kind is float and type(value) is int:
            return float(value)
        if value is None or type(value) is kind:
            return value
        self.problems.append(f"{where}{key} must be a {kind.__name__}, got {value!r}.")
        return default

    def _check_labels(
        self, algorithms: Mapping[str, Mapping[str, Any]], tasks: Mapping[str, Any]
    ) -> None:
        for label, table in algorithms.items():
            self._known(table, ALGORITHM_KEYS, f"algorithms.{label}.")
            if not LABEL.fullmatch(label):
                self.problems.append(
                    f"an algorithm is called {label!r}: use letters, digits, '.', '_' and '-' "
                    "only, and say algorithm = ... in its table."
                )
            for key, kind in (("on", dict), ("tasks", list)):
                for task in self._value(table, key, kind, f"algorithms.{label}.", kind()):
                    if str(task) not in tasks:
                        self.problems.append(
                            f"algorithms.{label}.{key} names {task!r}, which is no task of the "
                            f"suite. {closest(str(task), tasks)}"
                        )

    def _score(self, task: str, table: Mapping[str, Any]) -> float:
        """The score that counts as reached on a task."""
        common = self._value(self.data, "score", float, "", None)
        score = self._value(table, "score", float, f"tasks.{task}.", common)
        if score is None:
            self.problems.append(
                f"{task} has no score that counts as reached: give score = 0.8, for all tasks at "
                "the top or in the task's table."
            )
            return 0.0
        return score

    def _seeds(self, table: Mapping[str, Any], where: str, default: list[int]) -> list[int]:
        """Seeds: a list, or how many from 0."""
        given = table.get("seeds", default)
        seeds = list(range(min(given, MOST_SEEDS + 1))) if type(given) is int else given
        if isinstance(seeds, list) and 0 < len(seeds) <= MOST_SEEDS and _are_seeds(seeds):
            return seeds
        self.problems.append(
            f"{where}seeds must be a number of seeds, at most {MOST_SEEDS}, or a list of different "
            f"ones in {SEEDS}, got {given!r}."
        )
        return default

    def _baselines(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """What is named as baselines, or all but the first algorithm."""
        given = self._value(self.data, "baselines", list, "", list(labels[1:]))
        for label in given:
            if label not in labels:
                self.problems.append(
                    f"baselines names {label!r}, which is no algorithm of the suite. "
                    f"{closest(str(label), labels)}"
                )
        return tuple(label for label in labels if label in given)

    def _options(self, table: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
        """Dotted options of a table; those that a suite gives in another way are refused."""
        found = dict(dotted(self._value(table, key, dict, where, {})))
        for name, value in found.items():
            if not all(isinstance(each, bool | int | float | str) for each in _listed(value)):
                self.problems.append(
                    f"{where}{key} has {name} = {value}: no option is such a value."
                )
        for name in sorted(set(found) & set(OWN)):
            self.problems.append(f"{where}{key} has {name!r}: a suite says {OWN[name]} instead.")
        return found

    def _runs(
        self,
        folder: Path,
        algorithms: Mapping[str, Mapping[str, Any]],
        tasks: Mapping[str, Mapping[str, Any]],
    ) -> Iterator[AskedRun]:
        """All runs: options of all, of the task, of the algorithm, of the algorithm on the task;
        what comes later wins."""
        common = self._options(self.data, "options", "")
        preset = self._value(self.data, "preset", str, "", "small")
        default = self._seeds(self.data, "", [0, 1, 2])
        of_task = {
            task: self._options(table, "options", f"tasks.{task}.") for task, table in tasks.items()
        }
        drafts: list[tuple[int, AskedRun]] = []
        for label, table in algorithms.items():
            where = f"algorithms.{label}."
            own, seeds = self._options(table, "options", where), self._seeds(table, where, default)
            name = self._value(table, "algorithm", str, where, label)
            chosen = self._value(table, "preset", str, where, preset)
            speed = self._value(table, "seconds_per_step", float, where, None)
            there = self._value(table, "on", dict, where, {})
            alone = self._value(table, "tasks", list, where, list(tasks))
            for task, task_table in tasks.items():
                if task not in alone:
                    continue
                pair = self._options(there, task, where + "on.")
                options = {**common, **of_task[task], **own, **pair}
                place = folder / f"{label}-{re.sub('[/:]', '-', task)}"
                given = self._value(task_table, "seconds_per_step", float, f"tasks.{task}.", None)
                drafts += [
                    (
                        turn,
                        AskedRun(
                            label,
                            task,
                            seed,
                            name,
                            chosen,
                            options,
                            given if speed is None else speed,
                            place / f"s{seed}",
                        ),
                    )
                    for turn, seed in enumerate(seeds)
                ]
        yield from (run for _, run in sorted(drafts, key=_turn))

    def _check_folders(self, runs: Sequence[AskedRun]) -> None:
        owners: dict[Path, AskedRun] = {}
        for run in runs:
            other = owners.setdefault(run.run_dir, run)
            if other is not run:
                self.problems.append(
                    f"{other.name} and {run.name} would share {run.run_dir}: call one of the "
                    "algorithms differently."
                )


def _are_seeds(values: list[Any]) -> bool:
    """Whether all are seeds, and no two the same."""
    allowed = Interval.parse(SEEDS)
    whole = all(type(value) is int and value in allowed for value in values)
    return whole and len(set(values)) == len(values)


def _turn(draft: tuple[int, AskedRun]) -> int:
    return draft[0]


def _listed(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
