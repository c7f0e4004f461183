"""The five calls that training makes of an environment elsewhere: describe, reset, step,
observation, close. Needs NumPy alone."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from exporl.nested import Way, entry_at
from exporl.outside import is_outside, load_outside
from exporl.units import EXECUTED, SUCCESS_KEYS

PROTOCOL = 1
"""Version of the calls and their answers; both sides have the same."""


class ActorEnvironment:
    """A gymnasium environment, or anything with the same `reset`, `step`, `close` and spaces,
    answering calls. Answers are maps of plain values and arrays.

    Spaces are looked at, not imported: Boxes (shape, dtype, low, high), or Dicts and Tuples of them
    (`spaces`).
    """

    def __init__(
        self, env: Any, *, max_episode_steps: int | None = None, control_hz: float | None = None
    ):
        """Around an environment, which is not reset yet.

        Args:
            env: what is asked.
            max_episode_steps: time limit; by default that of the environment.
            control_hz: actions per second, if that is known; by default `env.control_hz`.

        Raises:
            ValueError: it has no time limit, or spaces that cannot be learnt from; names them.
        """
        self.env = env
        self._limit = max_episode_steps or min(_own_limits(env), default=None)
        if self._limit is None:
            raise ValueError(
                "the environment has no time limit: give --max-episode-steps N, or let it have an "
                "attribute max_episode_steps."
            )
        self._hz = control_hz if control_hz is not None else getattr(env, "control_hz", None)
        self._leaves = [("/".join(map(str, way)), way, leaf) for way, leaf in _leaves(env)]
        for name, _, leaf in self._leaves:
            _refuse_no_box(leaf, f"observation {name!r}" if name else "the observation")
        names = [name for name, _, _ in self._leaves]
        if len(set(names)) < len(names):
            raise ValueError(f"two entries of the observation have one name: {names}.")
        self._action = env.action_space
        _refuse_no_box(self._action, "the action space")
        self._seen: dict[str, np.ndarray] = {}
        self.steps = 0
        """Steps so far."""

    def describe(self) -> dict[str, Any]:
        """What the environment shows and takes: "observation" as (name, shape, dtype) of every
        entry, nested names joined by "/" and "" for a lone Box; "action" with "low", "high",
        "dtype"; "max_episode_steps"; "control_hz"; "protocol"."""
        space = self._action
        entries = [[name, list(leaf.shape), _dtype(leaf)] for name, _, leaf in self._leaves]
        bounds = {
            "low": np.broadcast_to(space.low, space.shape),
            "high": np.broadcast_to(space.high, space.shape),
        }
        return {
            "protocol": PROTOCOL,
            "observation": entries,
            "action": {**bounds, "dtype": _dtype(space)},
            "max_episode_steps": self._limit,
            "control_hz": self._hz,
        }

    def reset(self, seed: int | None) -> dict[str, Any]:
        """Begins an episode: "observation" and "info"."""
        answer = self.env.reset(seed=seed)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise ValueError("reset() must return (observation, info), as gymnasium has it.")
        return {"observation": self._shown(answer[0]), "info": _told(answer[1])}

    def step(self, action: Any) -> dict[str, Any]:
        """Plays an action in the environment's own units, clipped to its bounds: "observation",
        "reward", "terminated", "truncated", and "info" with what was executed: the environment's
        own "executed_action" where its info has one, else the clipped action.

        Raises:
            ValueError: the action is none for this environment; nothing was played.
        """
        played = self._playable(action)
        answer = self.env.step(played)
        if not (isinstance(answer, tuple) and len(answer) == 5):
            raise ValueError(
                "step() must return (observation, reward, terminated, truncated, info), as "
                "gymnasium has it."
            )
        observation, reward, terminated, truncated, info = answer
        self.steps += 1
        executed = info.get(EXECUTED, played) if isinstance(info, Mapping) else played
        return {
            "observation": self._shown(observation),
            "reward": reward,
            "terminated": terminated,
            "truncated": truncated,
            "info": {**_told(info), EXECUTED: np.asarray(executed)},
        }

    def observation(self) -> dict[str, Any]:
        """What is seen now, without acting: `env.observation()` where the environment has one, else
        what was seen last."""
        look = getattr(self.env, "observation", None)
        if inspect.ismethod(look) and not inspect.signature(look).parameters:
            return {"observation": self._shown(look())}
        return {"observation": self._seen}

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def _playable(self, action: Any) -> np.ndarray:
        space = self._action
        given = np.asarray(action)
        if given.dtype.kind not in "fiu" or given.shape != tuple(space.shape):
            raise ValueError(
                f"an action of type {given.dtype} and shape {given.shape} was sent; the "
                f"environment takes {space.dtype} of shape {tuple(space.shape)}."
            )
        if not np.isfinite(given).all():
            raise ValueError(f"an action with NaN or infinity was sent: {given.tolist()}.")
        return np.clip(given.astype(space.dtype), space.low, space.high)

    def _shown(self, observation: Any) -> dict[str, np.ndarray]:
        shown = {}
        for name, way, _ in self._leaves:
            value = entry_at(observation, way, name)
            shown[name] = np.array(value)  # a copy: many environments write into one array
        self._seen = shown
        return shown


def _told(info: Any) -> dict[str, bool]:
    """What is sent of an info."""
    found = info if isinstance(info, Mapping) else {}
    return {key: bool(found[key]) for key in SUCCESS_KEYS if key in found}


def _leaves(env: Any) -> Iterator[tuple[Way, Any]]:
    """Every space within the Dicts and Tuples of the observation's, and the way to it."""
    waiting: list[tuple[Way, Any]] = [((), env.observation_space)]
    while waiting:
        way, space = waiting.pop(0)
        parts = getattr(space, "spaces", None)
        if parts is None:
            yield way, space
            continue
        pairs = parts.items() if isinstance(parts, Mapping) else enumerate(parts)
        waiting = [((*way, key), part) for key, part in pairs] + waiting


def _dtype(space: Any) -> str:
    """A space's type of numbers, as NumPy writes it."""
    return str(np.dtype(space.dtype))


def _refuse_no_box(space: Any, what: str) -> None:
    if not all(hasattr(space, name) for name in ("shape", "dtype", "low", "high")):
        raise ValueError(f"{what} is {space}; it must be a Box, or Dicts of Boxes.")


def _own_limits(env: Any) -> Iterator[int]:
    """Time limits that an environment, or a wrapper around it, has of its own."""
    layer = env
    while layer is not None:
        for holder, name in (
            (getattr(layer, "spec", None), "max_episode_steps"),
            (layer, "max_episode_steps"),
            (layer, "_max_episode_steps"),
        ):
            value = getattr(holder, name, None)
            if isinstance(value, int | np.integer) and not isinstance(value, bool):
                yield int(value)
        layer = vars(layer).get("env")


def load_environment(name: str) -> Any:
    """The environment that `module:function` makes, looked for in the current directory first.

    Raises:
        ValueError: no such module or function, it fails, or it returns something else.
    """
    if not is_outside(name):
        raise ValueError(
            f"{name!r} is not module:function, such as my_robot:make_env for the function make_env "
            "in my_robot.py."
        )
    make = load_outside(name, "environment")
    if not callable(make):
        raise ValueError(f"{name} is {type(make).__name__}, not a function.")
    try:
        env = make()
    except (Exception, SystemExit) as error:  # it may exit as well
        raise ValueError(
            f"{name}() raised {type(error).__name__}: {error}. It must take no arguments and return"
            " an environment."
        ) from error
    needed = ("reset", "step", "close", "observation_space", "action_space")
    lacking = [each for each in needed if not hasattr(env, each)]
    if lacking:
        raise ValueError(
            f"{name}() returned {type(env).__name__}, which has no {', '.join(lacking)}: it must "
            "return an environment, as gymnasium has them."
        )
    return env
