"""The interface of a policy, from the task that it is trained on."""

from pathlib import Path

from exporl.acting.interface import Interface
from exporl.envs.registry import make_task
from exporl.envs.task import Task
from exporl.files.run_files import CONFIG, POLICY, STATISTICS, read_config
from exporl.outside import Trust, check_trust
from exporl.spec import Spec, state_spec


def interface_of(task: Task, spec: Spec, *, execute_length: int, normalized: bool) -> Interface:
    """What a policy for a task takes and gives.

    Args:
        task: what it is trained on.
        spec: the entries that its networks read, and its chunks.
        execute_length: actions played of each chunk.
        normalized: whether the run's statistics normalise observations.
    """
    return Interface(
        task=task.name,
        spec=spec,
        own_shapes=task.own_shapes,
        units=task.action_units,
        execute_length=execute_length,
        control_hz=task.control_hz,
        normalized=normalized,
    )


def interface_of_run(run_dir: Path, trust: Trust = False) -> Interface:
    """The interface of a run that was made before runs kept theirs: its task says it.

    Args:
        run_dir: the run directory.
        trust: whether a task of the form `module:function` may be loaded.

    Raises:
        ValueError: the task cannot be made here, or its config.json is not that of a run.
    """
    config = read_config(run_dir)
    try:
        name, data, chunk_length = config["task"], config["data"], config["chunk_length"]
        check_trust(run_dir, config, trust)
        task = make_task(name, config["reward"])
        has_data = data["path"] is not None or data["demos"] != 0
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{run_dir / CONFIG} is not the configuration of a run: {error}."
        ) from error
    except (ValueError, ModuleNotFoundError) as error:
        raise ValueError(
            f"{run_dir} has no {POLICY}, as runs of earlier versions have none, and its task "
            f"cannot be made here: {error} Evaluate it once where the task is (exporl eval "
            f"{run_dir}): that writes {POLICY}."
        ) from error
    whole = Spec(task.spec.observation, task.spec.action_dim, chunk_length)
    return interface_of(
        task,
        state_spec(whole),
        execute_length=config["execute_length"] or chunk_length,
        normalized=(run_dir / STATISTICS).is_file() or (task.normalize and has_data),
    )
