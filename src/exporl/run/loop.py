"""Training a run from its configuration."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporl.envs.registry import make_task
from exporl.envs.task import Task
from exporl.files.lock import locked
from exporl.run.actors import MakeActors
from exporl.run.build import Share
from exporl.run.callbacks import Callback
from exporl.run.config import RunConfig, with_given
from exporl.run.directory import conclude, opening
from exporl.run.endings import telling_what_is_kept
from exporl.run.pace import remember_pace
from exporl.run.prior import check_file
from exporl.run.progress import Progress, Silent
from exporl.run.stopping import stop_on_signals
from exporl.run.trainer import Trainer


def train(
    config: RunConfig[Any],
    run_dir: Path,
    progress: Progress | None = None,
    *,
    resume: bool = False,
    stop: threading.Event | None = None,
    share: Share = None,
    task: Task | None = None,
    callbacks: Sequence[Callback] = (),
    base: Any = None,
    actors: MakeActors | None = None,
) -> dict[str, Any]:
    """Trains a run from its configuration; the one loop for every algorithm and task.

    Args:
        config: what to do.
        run_dir: where everything goes: config.json, metrics.jsonl, eval.jsonl, checkpoints,
            summary.json, report.html.
        progress: what to report to; nothing by default.
        resume: go on from the newest checkpoint in `run_dir`.
        stop: stops the run as a signal does, once set.
        share: gives the run another algorithm record that computes the same (many seeds in one).
        task: used instead of the one that `config.task` names; other processes find it by that.
        callbacks: are told of steps, log lines, evaluations and checkpoints.
        base: a policy from outside (`external.OutsidePolicy`) as base policy, instead of what
            `config.base.policy` names; needed again to resume the run.
        actors: makes the actors where `train.actors` asks for some: `distributed.ray_actors`.

    Returns:
        The summary that is also written to summary.json.

    Raises:
        ValueError: contradictory options, unusable data, or a resumption with another
            configuration; or another process trains in the directory.
        FileExistsError: the directory already holds a run and `resume` is off.
        EnvironmentFailed: an environment raised or gave something unusable; said after saving.
        PolicyFailed: a base policy from outside could not be sampled; said after saving.
        FloatingPointError: training diverged.
        Interrupted: stopped by a signal, after saving.
    """
    run_dir, config = Path(run_dir), with_given(config, base)
    task = task or make_task(config.task, config.reward)
    check_file(config)
    with locked(run_dir):
        with opening(config, run_dir, resume=resume):
            said = progress or Silent()
            trainer = Trainer(
                config, run_dir, said, resume, stop, share, task, callbacks, base, actors
            )
        stopping = stop_on_signals(trainer.stop, trainer.progress.say)
        with trainer, stopping, telling_what_is_kept(config, run_dir):
            trainer.pretrain()
            trainer.pretrain_critic()
            trainer.online()
            seconds = {"train_s": trainer.clock.seconds, "first_update_s": trainer.first_update_s}
            summary = conclude(run_dir, seconds)
        remember_pace(config, run_dir)
    return summary
