"""What a report needs of one run, from its files."""

import dataclasses
from pathlib import Path
from typing import Any

from exporl.files.atomic import read_lines
from exporl.files.run_files import CONFIG, EVAL, METRICS, read_config

COLORS = {"expo": "#2563eb", "base": "#d97706", "rlpd": "#6b7280", "bc": "#059669"}
OTHER_COLOR = "#7c3aed"


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

    @property
    def pays_return(self) -> bool:
        """Whether it learns from the environment's own rewards: success is then not all that it is
        about."""
        return self.config.get("reward") == "env"


def read_run(run_dir: Path) -> RunData:
    """Reads a run's files.

    Raises:
        ValueError: not a run directory, or its config.json is damaged.
    """
    run_dir = Path(run_dir)
    config = read_config(run_dir)
    for name in ("algorithm", "task", "seed"):
        if name not in config:
            raise ValueError(
                f"{run_dir / CONFIG} lacks {name!r}: it is not the configuration of a run."
            )
    return RunData(
        run_dir.name, config["algorithm"], config["task"], config["seed"], config,
        read_lines(run_dir / EVAL), read_lines(run_dir / METRICS),
    )  # fmt: skip
