"""What a replay refuses: to store, step by step and for whole episodes, and to restore."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from exporl.data.episodes import LARGEST, Episode
from exporl.spec import Spec, Step

_OTHER_RUN = "The checkpoint was written by something else, or with other options."


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
    _check_reward(step.reward)
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
                    f"{which}[{name!r}] is {value.dtype}, the task needs uint8. "
                    "Scale images to 0-255."
                )
            if not _storable(value):
                raise ValueError(
                    f"{which}[{name!r}] holds NaN or infinity (as float32). "
                    "Check the environment's sensors."
                )


def check_rewards(rewards: np.ndarray) -> None:
    """Refuses rewards [t] of an episode that cannot be stored.

    Raises:
        ValueError: NaN or infinity, with the number of the step.
    """
    for t in np.flatnonzero(~(np.abs(rewards) <= LARGEST))[:1]:
        try:
            _check_reward(float(rewards[t]))
        except ValueError as error:
            raise ValueError(f"step {t}: {error}") from error


def _check_reward(reward: float | int | np.number) -> None:
    if not abs(reward) <= LARGEST:
        raise ValueError(f"reward is {reward}. Check the environment's reward.")


def at_step(observations: Mapping[str, np.ndarray], t: int) -> dict[str, np.ndarray]:
    """The t-th of an episode's observations [t + 1, ...]."""
    return {name: values[t] for name, values in observations.items()}


def check_steps(
    spec: Spec,
    observations: dict[str, np.ndarray],
    actions: np.ndarray,
    rewards: np.ndarray,
    successes: np.ndarray,
) -> None:
    """`check_step` for every step of an episode.

    Over whole arrays, and step by step only to name the culprit.

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
    for t in range(steps):
        try:
            seen, following = at_step(observations, t), at_step(observations, t + 1)
            check_step(spec, Step(seen, actions[t], float(rewards[t]), False, False, following))
        except ValueError as error:
            raise ValueError(f"step {t}: {error}") from error


def check_saved(state: Mapping[str, Any], arrays: Mapping[str, np.ndarray], capacity: int) -> None:
    """Refuses saved arrays that do not fit a replay's arrays, one for one.

    Args:
        state: the saved arrays, whose second axis has the rows used.
        arrays: those of the replay: [streams, capacity, ...] or [streams].
        capacity: rows that there are.

    Raises:
        ValueError: an array is missing, surplus, of another shape or too long.
    """
    for name in sorted(arrays.keys() - state.keys()):
        raise ValueError(f"saved replay lacks {name!r}, which this buffer keeps. {_OTHER_RUN}")
    for name in sorted(state.keys() - arrays.keys()):
        raise ValueError(
            f"saved replay has {name!r}, which this buffer does not keep. {_OTHER_RUN}"
        )
    for name, array in arrays.items():
        found = state[name].shape
        fits = array.shape if array.ndim == 1 else (array.shape[0], "rows", *array.shape[2:])
        if len(found) != len(fits) or any(
            need not in ("rows", have) for need, have in zip(fits, found, strict=True)
        ):
            needed = ", ".join(map(str, fits))
            raise ValueError(
                f"saved replay {name!r} has shape {found}, this buffer needs ({needed})."
            )
        if array.ndim > 1 and found[1] > capacity:
            raise ValueError(f"saved replay holds {found[1]} rows, the capacity is {capacity}.")


def _fine(
    spec: Spec, observations: dict[str, np.ndarray], actions: np.ndarray, rewards: np.ndarray
) -> bool:
    if actions.shape != (len(rewards), spec.action_dim) or not (np.abs(actions) <= 1).all():
        return False
    if not (np.abs(rewards) <= LARGEST).all():
        return False
    for name, shape, dtype in spec.observation:
        value = observations.get(name)
        if value is None or value.shape[1:] != shape or not _storable(value):
            return False
        if dtype == "uint8" and value.dtype != np.uint8:
            return False
    return True


def _storable(value: np.ndarray) -> bool:
    return value.dtype.kind != "f" or bool((np.abs(value) <= LARGEST).all())


def step_of(
    episode: Episode, observations: dict[str, np.ndarray], rewards: np.ndarray, t: int
) -> Step:
    """The t-th step of an episode, with these observations and rewards instead of its own."""
    last = t == len(episode) - 1
    return Step(
        observation=at_step(observations, t),
        action=episode.actions[t],
        reward=float(rewards[t]),
        terminated=last and episode.terminated,
        truncated=last and not episode.terminated,
        next_observation=at_step(observations, t + 1),
        success=bool(episode.successes[t]),
    )
