"""A run directory: its files, its configuration, its summary."""

import contextlib
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from exporl.files.atomic import read_lines, write_text
from exporl.files.run_files import CONFIG, EVAL, METRICS, SUMMARY, read_config
from exporl.report.returns import return_summary
from exporl.run.config import RESUMABLE, RunConfig, check, differences, from_json, to_json


def load_config(run_dir: Path) -> RunConfig[Any]:
    """The configuration of a run.

    Raises:
        ValueError: not a run directory, or its config.json is damaged; names the option.
    """
    return from_json(
        {name: value for name, value in read_config(run_dir).items() if name != "versions"}
    )


def open_run(config: RunConfig[Any], run_dir: Path, *, resume: bool) -> None:
    """Makes the directory of a new run, or checks the one to resume; writes its config.json.

    Raises:
        ValueError: options out of range, nothing to resume, another configuration, or a place that
            cannot be written.
        FileExistsError: the directory already holds a run and `resume` is off.
    """
    path = run_dir / CONFIG
    if path.is_file():
        if not resume:
            raise FileExistsError(
                f"{run_dir} already holds a run. Continue it with `exporl train --resume "
                f"{run_dir}`, or choose another --run-dir."
            )
        check_same(load_config(run_dir), config)
    elif resume:
        raise ValueError(f"{run_dir} holds no run to resume: it has no {CONFIG}.")
    check(config)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(to_json(config) | {"versions": versions()}, indent=1))
    except OSError as error:
        raise ValueError(
            f"cannot write to run directory {run_dir}: {error.strerror}. Choose another --run-dir."
        ) from error


def finished(run_dir: Path, config: RunConfig[Any]) -> dict[str, Any] | None:
    """The summary of a run that has made all the environment steps of a configuration, otherwise
    None."""
    path = Path(run_dir) / SUMMARY
    summary = json.loads(path.read_text()) if path.is_file() else {}
    done = summary.get("after", {}).get("env_steps", -1)
    return summary if done >= config.train.online_steps else None


def summarize(run_dir: Path) -> dict[str, Any]:
    """Final and initial evaluation of a run, from its files."""
    config, lines = load_config(run_dir), read_lines(Path(run_dir) / EVAL)
    summary: dict[str, Any] = {
        "algorithm": config.algorithm,
        "task": config.task,
        "seed": config.seed,
    }
    speeds = [
        line["time/env_steps_per_s"]
        for line in read_lines(Path(run_dir) / METRICS)
        if "time/env_steps_per_s" in line
    ]
    summary["env_steps_per_s"] = float(np.median(speeds)) if speeds else None
    for name, line in (("before", lines[0]), ("after", lines[-1])) if lines else ():
        summary[name] = {"env_steps": line["env_steps"]}
        summary[name] |= {
            who: line[who]["success_rate"] for who in ("policy", "base") if who in line
        }
        if config.reward == "env":
            summary[name]["return"] = return_summary(line)
    return summary


def versions() -> dict[str, str]:
    """Versions of what matters for reproducing a run, and the git commit of the working directory
    if there is one."""
    result = {"python": platform.python_version(), "backend": jax.default_backend()}
    for package in ("exporl", "jax", "flax", "optax", "numpy", "gymnasium", "metaworld", "mujoco"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            result[package] = metadata.version(package)
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
        if found.returncode == 0:
            result["git"] = found.stdout.strip()
    return result


def check_same(old: RunConfig[Any], new: RunConfig[Any]) -> None:
    """Whether a run may be resumed with a configuration.

    Raises:
        ValueError: an option that shapes learning differs; names it with both values.
    """
    changed = {n: v for n, v in differences(old, new).items() if not n.startswith(RESUMABLE)}
    if old.algorithm != new.algorithm:
        raise ValueError(
            f"the run was started with {old.algorithm}, not {new.algorithm}. Start a new run "
            "for it."
        )
    if changed:
        name, (before, after) = next(iter(changed.items()))
        raise ValueError(
            f"a run goes on as it was started: {name} was {before!r}, now {after!r}. Leave it out, "
            "or start a new run. Only train.online_steps, eval.* and log.* may change."
        )
