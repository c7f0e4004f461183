"""How a run ends that does not reach its end: what it has learnt is saved where it can be, and
whoever reads the error is told what there is to go on from."""

import contextlib
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from exporl.acting.failures import EnvironmentFailed, StoppedAtOnce
from exporl.envs.registry import REMOTE
from exporl.external.base import PolicyFailed
from exporl.files import checkpoint
from exporl.files.run_files import CHECKPOINTS
from exporl.outside import outside_names
from exporl.run.config import RunConfig, to_json
from exporl.run.stopping import Interrupted


@contextlib.contextmanager
def saving_where_others_fail(save: Callable[[], None]) -> Iterator[None]:
    """While it lasts, a checkpoint is written before the failure of an environment, or of a base
    policy from outside that could not be sampled, goes on its way. `save` may be called where the
    learner's thread has ended with that failure.

    Actors stand as before the step that failed, and evaluations change nothing: the checkpoint is
    the one that a run stopped there would have written. Where the samples of an update were asked
    for, the update calls that were due at this step are left out.

    Raises:
        EnvironmentFailed, PolicyFailed: as it was, with a note where nothing could be saved.
        Interrupted: a second signal ended the wait for an environment; everything is saved.
    """
    try:
        yield
    except (EnvironmentFailed, PolicyFailed) as failed:
        try:
            save()
        except (OSError, ValueError, ArithmeticError, MemoryError) as error:
            failed.add_note(f"What was learnt since the last checkpoint is lost: {error}")
        raise
    except StoppedAtOnce as stopped:
        if not stopped.inside:
            raise
        save()
        raise Interrupted(
            f"stopped while waiting for {stopped.inside}; everything is saved"
        ) from stopped


@contextlib.contextmanager
def telling_what_is_kept(config: RunConfig[Any], run_dir: Path) -> Iterator[None]:
    """While it lasts, every error but a clean stop gets a note: the checkpoint that there is, and
    the command that goes on from it."""
    try:
        yield
    except Interrupted:
        raise
    except BaseException as error:
        error.add_note(what_is_kept(config, run_dir))
        raise


def what_is_kept(config: RunConfig[Any], run_dir: Path) -> str:
    """The newest intact checkpoint of a run and how to go on from it, in words."""
    try:
        found = checkpoint.find_newest(run_dir / CHECKPOINTS, only=("learner",))
    except (ValueError, OSError) as error:
        return f"Nothing to go on from: {error}"
    if found is None:
        return "No checkpoint was written before: there is nothing to go on from."
    return f"The last checkpoint is {found.name}; go on with: {resumption(config, run_dir)}"


def resumption(config: RunConfig[Any], folder: Path) -> str:
    """The command that goes on with a run or a folder of seeds, which may name code of the user's
    own."""
    more = " --trust" if outside_names(to_json(config)) else ""
    more += " --listen HOST:PORT" if config.task.startswith(REMOTE) else ""
    return f"exporl train --resume {shlex.quote(str(folder))}{more}"
