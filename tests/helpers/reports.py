"""Run directories as far as a report reads them, with results that are made up."""

import json
from pathlib import Path

from exporl.run.config import to_json
from exporl.run.directory import versions
from exporl.run.presets import preset_config


def outcome(successes: int, episodes: int = 20) -> dict:
    """The first episodes are successful."""
    return {
        "success": [True] * successes + [False] * (episodes - successes),
        "success_rate": successes / episodes,
    }


def fake_run(
    folder: Path,
    policy: list[int],
    base: list[int] | None,
    algorithm: str = "expo",
    seed: int = 0,
    task: str = "probe/bandit",
    episodes: int = 20,
) -> Path:
    """A run directory with given evaluation successes."""
    folder.mkdir()
    config = to_json(preset_config(algorithm, "tiny", task)) | {
        "seed": seed,
        "versions": versions(),
    }
    (folder / "config.json").write_text(json.dumps(config))
    lines = []
    for i, successes in enumerate(policy):
        line = {"env_steps": 1000 * i, "policy": outcome(successes, episodes)}
        line |= {"time/train_s": 10.0 * i}
        lines.append(line | ({"base": outcome(base[i], episodes)} if base else {}))
    (folder / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = [
        {"phase": "online", "env_steps": 500 * i, "critic/loss": 1 / (i + 1), "edit/picked": 0.5}
        for i in range(5)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    return folder
