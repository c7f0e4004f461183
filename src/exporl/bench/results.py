"""What the finished runs of a suite have to say, from their files. Nothing here needs JAX."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporl.bench.prints import CODE, COMMIT, read_print
from exporl.bench.suite import AskedRun, Suite
from exporl.files.reading import read_object
from exporl.files.run_files import SUMMARY
from exporl.report.reading import is_finished, read_configuration, read_evaluations

WHO = ("policy", "base", "unguarded", "unedited")
"""Who may have been evaluated."""


SCORES = {"success": "success_rate", "return": "return_mean"}
"""Measure -> what an evaluation calls it."""


def score_of(line: Mapping[str, Any], measure: str) -> float | None:
    """The policy's score at one evaluation; None where it has none by this measure."""
    value = line["policy"].get(SCORES[measure])
    return float(value) if isinstance(value, float | int) else None


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished run."""

    asked: AskedRun
    evaluations: Sequence[Mapping[str, Any]]
    """The lines of its eval.jsonl, in order of their steps."""
    starts: int
    """The seed of its evaluation starts."""
    code: frozenset[str]
    """Every version of the code that it was made with."""

    @property
    def steps(self) -> list[float]:
        """Environment steps of its evaluations."""
        return [float(line["env_steps"]) for line in self.evaluations]

    def scores(self, measure: str) -> list[float]:
        """The policy's score at each evaluation.

        Raises:
            ValueError: an evaluation has none by this measure.
        """
        found = [score_of(line, measure) for line in self.evaluations]
        known = [score for score in found if score is not None]
        if len(known) < len(found):
            raise ValueError(f"{self.asked.run_dir} has evaluations without {SCORES[measure]}.")
        return known

    def episodes(self, measure: str) -> list[float]:
        """The policy's score in each episode of the last evaluation; they start alike in all
        runs."""
        name = {"success": "success", "return": "returns"}[measure]
        return [float(value) for value in self.evaluations[-1]["policy"].get(name, [])]


@dataclasses.dataclass(frozen=True)
class Results:
    """All that can be said about a suite by now."""

    suite: Suite
    runs: tuple[Result, ...]
    problems: tuple[str, ...]
    """What is left out and why, and what else to know: a sentence each."""

    def of(self, label: str, task: str) -> list[Result]:
        """The finished runs of one algorithm on one task."""
        return [run for run in self.runs if run.asked.pair == (label, task)]


def read_results(suite: Suite) -> Results:
    """Reads the runs of a suite.

    Runs that are not finished, or that were made with other options than the file has now, are left
    out and named.
    """
    runs, problems, unfinished = [], [], 0
    for asked in suite.runs:
        if not is_finished(asked.run_dir):
            unfinished += 1
            continue
        try:
            found = _read(suite, asked)
            found.scores(suite.measure)
        except ValueError as error:
            problems.append(f"{asked.name} is left out: {error}")
        else:
            runs.append(found)
    if unfinished:
        problems.insert(
            0, f"{unfinished} of {len(suite.runs)} runs are not finished and are left out."
        )
    codes = frozenset[str]().union(*(run.code for run in runs))
    if len(codes) > 1:
        problems.append(
            f"These runs were made with {len(codes)} versions of the code (fingerprints in "
            f"{suite.folder}): {', '.join(sorted(codes))}."
        )
    return Results(suite, tuple(runs), tuple(problems))


def seconds_of(run_dir: Path) -> float | None:
    """Seconds that a finished run took, training and evaluation; None where it does not say."""
    try:
        trained = read_object(run_dir / SUMMARY).get("train_s")
    except ValueError:
        return None
    if not isinstance(trained, float | int):
        return None
    lines, _ = read_evaluations(run_dir)
    return float(trained) + sum(float(line.get("time/eval_s", 0.0)) for line in lines)


def _read(suite: Suite, asked: AskedRun) -> Result:
    """A finished run.

    Raises:
        ValueError: it is damaged, or was made with other options than are asked for.
    """
    made = read_print(suite.folder, asked.run_dir)
    found = None if made is None else _difference(made["asked"], asked.plain())
    if found is not None:
        raise ValueError(f"it was made with {found}. `exporl bench {suite.path}` says what to do.")
    config = read_configuration(asked.run_dir)
    lines, problems = read_evaluations(asked.run_dir)
    if problems:
        raise ValueError(problems[0])
    if not lines:
        raise ValueError("it has no evaluations.")
    rising = {line["env_steps"]: line for line in lines}  # without online steps there are two at 0
    starts = int(config.get("eval", {}).get("seed", 0))
    return Result(asked, [rising[step] for step in sorted(rising)], starts, frozenset(_codes(made)))


def _codes(made: Mapping[str, Any] | None) -> Iterator[str]:
    """Each code of a fingerprint in one word."""
    if made is None:
        yield "code that nobody noted"
        return
    for each in ({name: made[name] for name in CODE}, *made["earlier"]):
        packages = {**each["versions"], **each["outside"]}
        named = (f"{name} {what}" for name, what in sorted(packages.items()) if name != COMMIT)
        yield f"source {each['source']} ({', '.join(named)})"


def _difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first thing that is asked for differently, with both values; what is logged does not
    matter."""
    for name in ("algorithm", "preset"):
        if then.get(name) != now[name]:
            return f"{name} {then.get(name)!r}, and {now[name]!r} is asked for now"
    before, after = then.get("options", {}), now["options"]
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name) and not name.startswith("log."):
            return f"{name} = {_given(before, name)}, and {_given(after, name)} is asked for now"
    return None


def _given(options: Mapping[str, Any], name: str) -> str:
    return repr(options[name]) if name in options else "the preset's value"


def long_form(results: Results) -> Iterator[tuple[Any, ...]]:
    """One row per run, evaluation and who was evaluated, under `LONG_FORM`."""
    for run in results.runs:
        for line in run.evaluations:
            for who in WHO:
                if who in line:
                    found = line[who]
                    yield (
                        run.asked.label,
                        run.asked.task,
                        run.asked.seed,
                        line["env_steps"],
                        who,
                        len(found["success"]),
                        found["success_rate"],
                        found.get("return_mean"),
                        line.get("time/train_s"),
                    )


LONG_FORM = (
    "algorithm",
    "task",
    "seed",
    "env_steps",
    "who",
    "episodes",
    "success_rate",
    "return_mean",
    "train_s",
)
"""The columns of the long form."""
