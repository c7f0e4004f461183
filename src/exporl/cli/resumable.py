"""Runs that are not finished, for whoever asks to go on without saying with which."""

import json
from pathlib import Path
from typing import Any

from exporl.files.run_files import CONFIG, METRICS, SUMMARY

SHOWN = 10
"""Runs that are listed, the newest first."""


def resumable_runs(folder: Path) -> str:
    """Sentences that list the runs below a folder, and below its folders of seeds, that are not
    finished."""
    configs = [*folder.glob(f"*/{CONFIG}"), *folder.glob(f"*/*/{CONFIG}")]
    newest = sorted(configs, key=lambda path: path.stat().st_mtime, reverse=True)
    found = [line for path in newest if (line := _line(path.parent))]
    if not found:
        return f"There is no unfinished run below {folder}/."
    more = f"\n  and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"Not finished below {folder}/:\n" + "\n".join(found[:SHOWN]) + more


def _line(run: Path) -> str:
    """Where a run stands; "" where it is finished, or is no run that can be read."""
    try:
        wanted = json.loads((run / CONFIG).read_text())["train"]["online_steps"]
        if _finished(run, wanted):
            return ""
        steps = _steps(run)
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f"  {run}   step {steps:,} of {wanted:,}"


def _finished(run: Path, wanted: int) -> bool:
    path = run / SUMMARY
    summary: Any = json.loads(path.read_text()) if path.is_file() else {}
    return summary.get("after", {}).get("env_steps", -1) >= wanted


def _steps(run: Path) -> int:
    """Environment steps at the last line of metrics."""
    path = run / METRICS
    lines = path.read_text().splitlines() if path.is_file() else []
    whole = [json.loads(line) for line in lines[-1:] if line.endswith("}")]
    return int(whole[-1].get("env_steps", 0)) if whole else 0
