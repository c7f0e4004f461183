"""Many seeds of one configuration: one process per core, or all in one program.

Every seed is a run of its own in `<folder>/s<seed>`, the same as if it had been trained alone: it
can be evaluated, reported and resumed singly.
"""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from exporl.acting.failures import in_words
from exporl.data.formats import save_npz
from exporl.envs.registry import make_task
from exporl.envs.task import Task
from exporl.files.atomic import copy_file, refuse_link
from exporl.files.run_files import DEMONSTRATIONS, REPORT, SEEDS, seed_runs
from exporl.files.undo import clear_refused
from exporl.options import MOST_SEEDS
from exporl.outside import outside_names
from exporl.parallel.order import ordered, ordered_config
from exporl.parallel.processes import Ended, Job, run_processes
from exporl.parallel.seed_batch import SeedBatch
from exporl.report.page import write_report
from exporl.run.build import opened_base
from exporl.run.config import RunConfig, check, override, to_json
from exporl.run.directory import check_same, finished, load_config
from exporl.run.loop import train
from exporl.run.prior import check_file
from exporl.run.progress import Progress, Silent
from exporl.run.stopping import Interrupted, stop_on_signals
from exporl.speed.devices import first_devices

MODES = ("auto", "processes", "vmap")


@dataclasses.dataclass(frozen=True)
class SeedResult:
    """How one seed ended."""

    seed: int
    run_dir: Path
    summary: dict[str, Any] | None = None
    """What `train` returns; None if the seed did not finish."""
    error: str | None = None
    """Why it failed; None if it finished or was stopped."""


def train_seeds(
    config: RunConfig[Any],
    folder: Path,
    num_seeds: int,
    *,
    mode: str = "auto",
    progress: Callable[[str], Progress] | None = None,
    resume: bool = False,
    task: Task | None = None,
) -> list[SeedResult]:
    """Trains the seeds `config.seed`, `config.seed + 1`, ... of one configuration.

    A seed that fails does not disturb the others. The first SIGINT or SIGTERM stops all, saved.

    Args:
        config: what to do; `config.seed` is the first seed. `train.devices` share the seeds.
        folder: gets one run directory per seed, `s<seed>`, and report.html about all of them.
        num_seeds: how many.
        mode: "processes": one process per core, seeds wait for a free one; "vmap": all in one
            program, one batched call per step and update, for accelerators; "auto": "processes" on
            a CPU with one device, otherwise "vmap".
        progress: name of a seed -> what to report its progress to; nothing by default.
        resume: go on with seeds that were begun, and begin those that were not. Finished ones are
            not repeated.
        task: used instead of the one that `config.task` names. Other processes cannot be given it:
            its seeds train in one program (mode "vmap").

    Returns:
        One result per seed.

    Raises:
        ValueError: contradictory options, another configuration to resume, or too many devices.
        FileExistsError: the folder already holds one of the runs and `resume` is off.
        Interrupted: stopped by a signal, after saving.
    """
    devices, of_one = config.train.devices, override(config, {"train.devices": 1})
    mode = _chosen_mode(of_one, num_seeds, _mode_on(devices, num_seeds, mode), task)
    folder, begun = Path(folder), seed_runs(folder)
    configs = [dataclasses.replace(of_one, seed=config.seed + i) for i in range(num_seeds)]
    _check_begun(folder, begun, configs, resume)
    jobs = [Job(one, folder / f"s{one.seed}", one.seed in begun) for one in configs]
    results = {job.config.seed: _so_far(job) for job in jobs}
    waiting = [job for job in jobs if results[job.config.seed].summary is None]
    rows = [Silent() if progress is None else progress(f"s{job.config.seed}") for job in waiting]
    if waiting:
        together = functools.partial(run_together, task=task, devices=devices)
        run, stop = run_processes if mode == "processes" else together, threading.Event()
        with ordered(folder, config, num_seeds):
            run_dirs = [job.run_dir for job in jobs]
            _share_demonstrations(waiting[0].config, task, run_dirs, rows[0].say)
            with stop_on_signals(stop, rows[0].say):
                ended = run(waiting, rows, stop)
        results |= _outcomes(waiting, ended, num_seeds)
    reported = [result.run_dir for result in results.values() if result.summary is not None]
    if reported:
        write_report(reported, folder / REPORT)
    return list(results.values())


def _so_far(job: Job) -> SeedResult:
    """The result of a seed that finished before; without a summary where it did not."""
    return SeedResult(job.config.seed, job.run_dir, finished(job.run_dir, job.config))


def _outcomes(jobs: Sequence[Job], ended: Sequence[Ended], num_seeds: int) -> dict[int, SeedResult]:
    """Seed -> how it ended. What a refused run had begun is taken away.

    Raises:
        Interrupted: some were stopped by a signal.
    """
    results = {}
    for job, (summary, error) in zip(jobs, ended, strict=True):
        if error is not None:
            clear_refused(job.run_dir)
        results[job.config.seed] = SeedResult(job.config.seed, job.run_dir, summary, error)
    if stopped := sum(outcome == (None, None) for outcome in ended):
        raise Interrupted(f"stopped {stopped} of {num_seeds} seeds; everything is saved")
    return results


def _mode_on(devices: int, num_seeds: int, mode: str) -> str:
    """The mode that was asked for; several devices need the one in which seeds share a program."""
    if devices == 1:
        return mode
    if mode == "processes":
        raise ValueError(
            f"train.devices={devices} share seeds of one program: choose the mode vmap, or leave "
            "devices out (every process has one)."
        )
    if devices > num_seeds:
        raise ValueError(
            f"train.devices={devices} for {num_seeds} seeds: a seed is on one device. Set it to at "
            f"most {num_seeds}."
        )
    first_devices(devices)
    return "vmap" if mode == "auto" else mode


def _chosen_mode(config: RunConfig[Any], num_seeds: int, mode: str, task: Task | None) -> str:
    """How the seeds are trained, once everything that was asked for is checked."""
    if not 1 <= num_seeds <= MOST_SEEDS:
        raise ValueError(f"the number of seeds must be in [1, {MOST_SEEDS}], got {num_seeds}.")
    if mode not in MODES:
        raise ValueError(f"the mode of seeds must be one of {', '.join(MODES)}; got {mode!r}.")
    if mode == "processes" and task is not None:
        raise ValueError(
            f"seeds in processes of their own cannot be given the task {task.name!r} itself: "
            "choose the mode vmap, or let config.task name the function that makes it, "
            "'module:function'."
        )
    if mode == "auto" and task is not None:
        mode = "vmap"
    if mode == "auto":
        mode = "processes" if jax.default_backend() == "cpu" else "vmap"
    if mode == "vmap" and config.train.asynchronous:
        raise ValueError(
            "train.asynchronous needs a program of its own per seed: choose the mode processes."
        )
    if mode == "vmap" and config.base.policy is not None:
        raise ValueError(
            f"a base policy from outside (base.policy={config.base.policy!r}) needs a program of "
            "its own per seed: choose the mode processes."
        )
    check(config)
    check(dataclasses.replace(config, seed=config.seed + num_seeds - 1))
    check_file(config)
    if task is None:
        make_task(config.task, config.reward)
    return mode


def _check_begun(
    folder: Path, begun: dict[int, Path], configs: Sequence[RunConfig[Any]], resume: bool
) -> None:
    """Whether runs that are there already may go on as asked."""
    order = (folder / SEEDS).exists()
    if (begun or order) and not resume:
        raise FileExistsError(
            f"{folder} already holds runs. Continue them with `exporl train --resume {folder}`, or "
            "choose another --run-dir."
        )
    named = set(outside_names(to_json(configs[0])).values())
    if order:
        then = ordered_config(folder, trust=named)
        check_same(then, dataclasses.replace(configs[0], seed=then.seed))
    for one in configs:
        if one.seed in begun:
            check_same(load_config(begun[one.seed], trust=named), one)


def run_together(
    jobs: Sequence[Job],
    rows: Sequence[Progress],
    stop: threading.Event,
    task: Task | None = None,
    devices: int = 1,
) -> list[Ended]:
    """Trains every job in a thread of this process; all their updates on a device are one batched
    call, and so is all acting.

    Args:
        jobs: what to train: configurations that differ in their seed only.
        rows: what each of them reports to.
        stop: set, it makes all of them stop after a checkpoint.
        task: used instead of the one that their configuration names.
        devices: they are dealt out to so many, in turn; each computes its own, by itself.
    """
    devices = min(devices, len(jobs))
    batches = [SeedBatch(len(jobs[first::devices]), stop) for first in range(devices)]
    places = first_devices(devices)
    ended: list[Ended] = [(None, None)] * len(jobs)

    def work(index: int) -> None:
        job, (row, device) = jobs[index], divmod(index, devices)
        batch = batches[device]
        try:
            share = functools.partial(batch.join, row)
            place = jax.default_device(places[device]) if devices > 1 else contextlib.nullcontext()
            with place:
                summary = train(
                    job.config,
                    job.run_dir,
                    rows[index],
                    resume=job.resume,
                    stop=batch.stop,
                    share=share,
                    task=task,
                )
            ended[index] = summary, None
        except Interrupted:
            pass
        except Exception as error:
            rows[index].say(f"seed {job.config.seed} failed: {in_words(error)}")
            ended[index] = None, in_words(error)
        finally:
            batch.leave()

    threads = [
        threading.Thread(target=work, args=(index,), daemon=True) for index in range(len(jobs))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():  # so that signals are handled while waiting
            thread.join(0.2)
    return ended


def _share_demonstrations(
    config: RunConfig[Any],
    task: Task | None,
    run_dirs: Sequence[Path],
    say: Callable[[str], None],
) -> None:
    """Collects the demonstrations once: they do not depend on the training seed. Before that, a
    base policy from outside that is missing or does not fit is told."""
    if config.base.policy is not None:
        opened_base(config, task or make_task(config.task, config.reward))
    if config.data.path is not None or config.data.demos == 0 or len(run_dirs) == 1:
        return
    paths = [run_dir / DEMONSTRATIONS for run_dir in run_dirs]
    source = next((path for path in paths if path.is_file()), paths[0])
    collect = (task or make_task(config.task, config.reward)).collect
    if not source.is_file():
        if collect is None:
            return
        say(f"collecting {config.data.collected} demonstrations for {len(run_dirs)} seeds")
        data = config.data
        episodes = collect(data.collected, data.demo_noise, data.demo_seed)
        source.parent.mkdir(parents=True, exist_ok=True)
        save_npz(source, episodes)
    for path in paths:
        refuse_link(path)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            copy_file(source, path)
