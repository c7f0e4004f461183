"""Run directories as far as a report reads them, with results that are made up, and what a page
draws of them."""

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from exporl.run.config import to_json
from exporl.run.directory import versions
from exporl.run.presets import preset_config


@functools.cache
def _versions() -> dict[str, str]:
    return versions()


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
    **options: Any,
) -> Path:
    """A run directory with given evaluation successes; `options` of the configuration."""
    folder.mkdir(parents=True)
    config = to_json(preset_config(algorithm, "tiny", task)) | {
        "seed": seed,
        "versions": _versions(),
        **options,
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
    write_metrics(folder, metrics)
    return folder


def write_metrics(folder: Path, lines: list[dict]) -> None:
    """The lines of a run's metrics.jsonl."""
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def film_run(folder: Path, episodes: int = 2, who: tuple[str, ...] = ("policy", "base")) -> None:
    """Makes up the films of a run: their strips, and how the episodes went."""
    import io

    from PIL import Image

    (folder / "videos" / "c").mkdir(parents=True)
    strip, films = io.BytesIO(), []
    noise = np.random.default_rng(0).integers(0, 256, (12, 128, 3), np.uint8)
    Image.fromarray(noise).resize((1024, 96)).save(strip, "JPEG", quality=80)
    for name in who:
        for episode in range(episodes):
            file = f"c/{name}-{episode:02d}"
            (folder / "videos" / f"{file}.jpg").write_bytes(strip.getvalue())
            films.append({
                "who": name, "episode": episode, "success": episode == 0, "return": -3.5,
                "steps": 7, "file": f"{file}.mp4", "strip": f"{file}.jpg",
            })  # fmt: skip
    record = {"checkpoint": "checkpoint-000000020", "films": films}
    (folder / "videos" / "films.json").write_text(json.dumps(record))


def change_evaluations(folder: Path, change: Any) -> None:
    """Replaces every line of a run's eval.jsonl by what `change(number, line)` makes of it."""
    lines = [json.loads(line) for line in (folder / "eval.jsonl").read_text().splitlines()]
    lines = [change(i, line) for i, line in enumerate(lines)]
    (folder / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def drawn(page: str) -> dict[str, Any]:
    """What the script in a page draws."""
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1]
    )


def chart(page: str, title: str) -> dict[str, Any]:
    """The chart with a title, its lines by their names and with their own horizontal axes."""
    data = drawn(page)
    found = next(each for each in data["charts"] if each["title"].startswith(title))
    lines = {
        line["name"]: line | {"x": data["axes"][line["x"]]} for line in reversed(found["lines"])
    }
    return found | {"lines": lines}


def chart_titles(page: str) -> list[str]:
    """Titles of all charts."""
    return [each["title"] for each in drawn(page)["charts"]]
