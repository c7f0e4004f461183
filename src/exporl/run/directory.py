"""A run directory: its files, its configuration, its summary."""

import contextlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from exporl.external.base import GIVEN, HAND_OVER
from exporl.files.atomic import write_text
from exporl.files.leftovers import tidy
from exporl.files.reading import read_object
from exporl.files.run_files import CONFIG, REPORT, RESUMABLE, SUMMARY, read_config, refuse_links
from exporl.files.undo import nothing_left_on_error
from exporl.outside import Trust, check_trust, outside_names
from exporl.report.page import write_report
from exporl.report.reading import (
    changes,
    read_configuration,
    read_evaluations,
    read_metrics,
)
from exporl.report.returns import return_summary
from exporl.run.config import RunConfig, check, differences, from_json, to_json

TIMES = ("train_s", "first_update_s")
"""What a summary holds beside what follows from a run's files."""


def load_config(run_dir: Path, *, trust: Trust = False, task: bool = True) -> RunConfig[Any]:
    """The configuration of a run.

    Args:
        run_dir: the run directory.
        trust: whether code that the run names, `module:attribute`, may be loaded: all of it, or
            these names. The algorithm's is loaded here, for its options.
        task: whether the task is going to be loaded by its name as well.

    Raises:
        ValueError: not a run directory, its config.json is damaged (names the option), or it names
            code that is not trusted.
    """
    data = {name: value for name, value in read_config(run_dir).items() if name != "versions"}
    check_trust(run_dir, data, trust, task=task)
    try:
        return from_json(data)
    except ValueError as error:
        raise ValueError(f"{Path(run_dir) / CONFIG}: {error}") from error


@contextlib.contextmanager
def opening(config: RunConfig[Any], run_dir: Path, *, resume: bool) -> Iterator[None]:
    """While a run is being built: what is there stays as it was until all of it is accepted.

    Nothing is left of a new run that is refused; the config.json of a resumed one is written when
    everything else is done.

    Raises as `open_run` does, and:
        ValueError: a place that cannot be written.
    """
    open_run(config, run_dir, resume=resume)
    if resume:
        yield
        write_config(config, run_dir)
        return
    with nothing_left_on_error(run_dir):
        write_config(config, run_dir)
        yield


def open_run(config: RunConfig[Any], run_dir: Path, *, resume: bool) -> None:
    """Checks the place of a new run, or the run to resume. Writes nothing.

    Code that both the configuration and the run name is trusted: the caller has named it.

    Raises:
        ValueError: options out of range, nothing to resume, or another configuration.
        FileExistsError: the directory already holds a run and `resume` is off.
    """
    path = run_dir / CONFIG
    refuse_links(run_dir)
    if path.is_file():
        if not resume:
            raise FileExistsError(
                f"{run_dir} already holds a run. Continue it with `exporl train --resume "
                f"{run_dir}`, or choose another --run-dir."
            )
        named = set(outside_names(to_json(config)).values())
        check_same(load_config(run_dir, trust=named), config)
    elif resume:
        raise ValueError(f"{run_dir} holds no run to resume: it has no {CONFIG}.")
    check(config)


def write_config(config: RunConfig[Any], run_dir: Path) -> None:
    """Writes a run's config.json.

    Raises:
        ValueError: a place that cannot be written.
    """
    about = versions() | {"machine": machine()}
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        tidy(run_dir)
        write_text(run_dir / CONFIG, json.dumps(to_json(config) | {"versions": about}, indent=1))
    except OSError as error:
        raise ValueError(
            f"cannot write to run directory {run_dir}: {error.strerror}. Choose another --run-dir."
        ) from error


def finished(run_dir: Path, config: RunConfig[Any]) -> dict[str, Any] | None:
    """The summary of a run that has made all the environment steps of a configuration, otherwise
    None: also where it is damaged or does not follow from the run's files, for resuming the run
    writes it again."""
    with contextlib.suppress(ValueError):
        summary = read_object(Path(run_dir) / SUMMARY)
        after, made = summary.get("after"), json.loads(json.dumps(summarize(run_dir)))
        done = after.get("env_steps") if isinstance(after, dict) else None
        enough = isinstance(done, int) and done >= config.train.online_steps
        follows = {name: v for name, v in summary.items() if name not in TIMES} == made
        return summary if enough and follows else None
    return None


def summarize(run_dir: Path) -> dict[str, Any]:
    """Final and initial evaluation of a run, from what can be read of its files; "problems" says
    what cannot."""
    run_dir = Path(run_dir)
    config, (lines, problems) = read_configuration(run_dir), read_evaluations(run_dir)
    metrics, more = read_metrics(run_dir)
    problems += more + changes(run_dir, config)
    summary: dict[str, Any] = {name: config[name] for name in ("algorithm", "task", "seed")}
    speeds = [line["time/env_steps_per_s"] for line in metrics if "time/env_steps_per_s" in line]
    summary["env_steps_per_s"] = float(np.median(speeds)) if speeds else None
    for name, line in (("before", lines[0]), ("after", lines[-1])) if lines else ():
        summary[name] = {"env_steps": line["env_steps"]}
        summary[name] |= {
            who: line[who]["success_rate"] for who in ("policy", "base") if who in line
        }
        if config.get("reward") == "env":
            summary[name]["return"] = return_summary(line)
    return summary | ({"problems": problems} if problems else {})


def conclude(run_dir: Path, seconds: Mapping[str, float | None]) -> dict[str, Any]:
    """Writes summary and report of a run that has done everything; returns the summary.

    Args:
        run_dir: its directory.
        seconds: what took how long, for the summary.
    """
    summary = summarize(run_dir) | dict(seconds)
    write_text(run_dir / SUMMARY, json.dumps(summary, indent=1))
    write_report([run_dir], run_dir / REPORT)
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


def machine() -> str:
    """The processor, its cores, and the device that computes, in words."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # where Linux says more
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        processor = next(named, processor)
    cores, device = os.cpu_count() or 1, jax.devices()[0]
    words = f"{processor}, {cores} core{'s' if cores > 1 else ''}"
    return words if device.platform == "cpu" else f"{words}, {device.device_kind}"


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
    if changed.get("base.policy") == (GIVEN, None):
        raise ValueError(HAND_OVER)
    if changed:
        name, (before, after) = next(iter(changed.items()))
        raise ValueError(
            f"a run goes on as it was started: {name} was {before!r}, now {after!r}. Leave it out, "
            "or start a new run. Only train.online_steps, train.devices, data.storage, "
            "data.scratch, eval.* and log.* may change."
        )
