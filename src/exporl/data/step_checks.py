"""What a replay refuses to store, step by step and for whole episodes."""

import numpy as np

from exporl.spec import Spec, Step

_LARGEST = np.float64(np.finfo(np.float32).max)
"""Beyond it, what is finite in the environment would be stored as infinity."""


def check_step(spec: Spec, step: Step) -> None:
    """Refuses a step that does not fit.

    Raises:
        ValueError: wrong shape, NaN or infinity, or an action outside [-1, 1].
    """
    action = np.asarray(step.action)
    if action.shape != (spec.action_dim,):
        raise ValueError(f"action has shape {action.shape}, the task needs ({spec.action_dim},).")
    if not np.isfinite(action).all() or np.abs(action).max() > 1:
        raise ValueError(
            f"action {action} is not finite or outside [-1, 1]. Clip it where it is made."
        )
    if not abs(step.reward) <= _LARGEST:
        raise ValueError(f"reward is {step.reward}. Check the environment's reward.")
    for which, observation in (
        ("observation", step.observation),
        ("next_observation", step.next_observation),
    ):
        for name, shape, dtype in spec.observation:
            if name not in observation:
                raise ValueError(f"{which} lacks {name!r}; it has {sorted(observation)}.")
            value = np.asarray(observation[name])
            if value.shape != shape:
                raise ValueError(
                    f"{which}[{name!r}] has shape {value.shape}, the task needs {shape}."
                )
            if dtype == "uint8" and value.dtype != np.uint8:
                raise ValueError(
                    f"{which}[{name!r}] is {value.dtype}, the task needs uint8. Scale images to "
                    "0-255."
                )
            if not _storable(value):
                raise ValueError(
                    f"{which}[{name!r}] holds NaN or infinity (as float32). Check the environment's"
                    " sensors."
                )


def check_steps(
    spec: Spec,
    observations: dict[str, np.ndarray],
    actions: np.ndarray,
    rewards: np.ndarray,
    successes: np.ndarray,
) -> None:
    """`check_step` for every step of an episode: over whole arrays, and step by step only to name
    the culprit.

    Raises:
        ValueError: what `check_step` says, with the number of the step, or arrays of different
            lengths.
    """
    steps = len(actions)
    lengths = {
        name: len(observations[name]) - 1 for name, _, _ in spec.observation if name in observations
    }
    for name, length in {**lengths, "rewards": len(rewards), "successes": len(successes)}.items():
        if length != steps:
            raise ValueError(f"{name} covers {length} steps, the actions {steps}. They must agree.")
    if _fine(spec, observations, actions, rewards):
        return

    def at(t: int) -> dict[str, np.ndarray]:
        return {name: values[t] for name, values in observations.items()}

    for t in range(steps):
        try:
            check_step(spec, Step(at(t), actions[t], float(rewards[t]), False, False, at(t + 1)))
        except ValueError as error:
            raise ValueError(f"step {t}: {error}") from error


def _fine(
    spec: Spec, observations: dict[str, np.ndarray], actions: np.ndarray, rewards: np.ndarray
) -> bool:
    if actions.shape != (len(rewards), spec.action_dim) or not (np.abs(actions) <= 1).all():
        return False
    if not (np.abs(rewards) <= _LARGEST).all():
        return False
    for name, shape, dtype in spec.observation:
        value = observations.get(name)
        if value is None or value.shape[1:] != shape or not _storable(value):
            return False
        if dtype == "uint8" and value.dtype != np.uint8:
            return False
    return True


def _storable(value: np.ndarray) -> bool:
    return value.dtype.kind != "f" or bool((np.abs(value) <= _LARGEST).all())
