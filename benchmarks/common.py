"""What the benchmarks share: the machine's name, and results as small JSON files."""

import json
import os
import platform
from pathlib import Path
from typing import Any

from exporl.run.directory import versions

RESULTS = Path(__file__).parent / "results"
LOOP_PARTS = ("act", "env", "sample", "transfer", "update", "log", "other")
"""What the time of a whole training loop is divided into."""


def machine() -> dict[str, Any]:
    """Processor, cores and versions."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        names = [
            line.split(":")[1].strip()
            for line in information.read_text().splitlines()
            if "model name" in line
        ]
        processor = names[0] if names else processor
    return {"processor": processor, "cores": len(os.sched_getaffinity(0)), **versions()}


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Writes benchmarks/results/<name>.json with the machine that made it."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
    return path
