"""What a report needs of one run, from its files."""

import dataclasses
from pathlib import Path
from typing import Any

from exporl.report.films import Films, read_films
from exporl.report.reading import (
    changes,
    read_configuration,
    read_evaluations,
    read_glossary,
    read_metrics,
)


class NothingToReport(ValueError):
    """None of the runs has an evaluation yet."""


@dataclasses.dataclass(frozen=True)
class RunData:
    """What a report needs of one run."""

    name: str
    algorithm: str
    task: str
    seed: int
    config: dict[str, Any]
    evals: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    glossary: dict[str, str]
    """Metric -> what it is; empty for runs of earlier versions."""
    problems: list[str] = dataclasses.field(default_factory=list)
    """What is wrong with its files: a sentence each."""
    films: Films = dataclasses.field(default_factory=Films)
    """Of its last evaluation that was filmed."""
    folder: Path = Path()
    label: str = ""
    """What the page calls runs like this one, of all seeds: see `labels.labelled`."""

    @property
    def pays_return(self) -> bool:
        """Whether it learns from the environment's own rewards: success is then not all that it is
        about."""
        return self.config.get("reward") == "env"


def read_run(run_dir: Path) -> RunData:
    """Reads a run's files, and what can be read of those that are damaged.

    Raises:
        ValueError: not a run directory, or its config.json is damaged.
    """
    run_dir = Path(run_dir)
    config = read_configuration(run_dir)
    (evals, of_evals), (metrics, of_metrics) = read_evaluations(run_dir), read_metrics(run_dir)
    glossary, of_glossary = read_glossary(run_dir)
    films, of_films = read_films(run_dir)
    problems = [*of_evals, *of_metrics, *of_glossary, *of_films, *changes(run_dir, config)]
    return RunData(
        name=run_dir.name,
        algorithm=config["algorithm"],
        task=config["task"],
        seed=config["seed"],
        config=config,
        evals=evals,
        metrics=metrics,
        glossary=glossary,
        problems=problems,
        films=films,
        folder=run_dir,
        label=config["algorithm"].upper(),
    )
