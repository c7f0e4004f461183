"""Recorded data in the units of a custom task: observations, actions, success, reward."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from exporl.data.convert import clip_actions
from exporl.data.episodes import Episode
from exporl.envs.task import Task
from exporl.units import SUCCESS_KEYS

Success = str | Callable[[float, bool, dict[str, Any]], bool]
"""Name of an info entry, or a function of (reward, terminated, info) of a step."""
SLACK = 1e-4
"""Share of the range that actions may lie beyond it, by rounding."""
ALREADY = 0.99
"""Actions that reach this magnitude and never 1 look as if they were scaled to [-1, 1]."""


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A custom task's `Task.adapt`."""

    entries: tuple[tuple[str, tuple[int, ...], str], ...]
    """(name, shape, dtype) of the task's observations."""
    bounds: tuple[np.ndarray, np.ndarray] | None
    """Of the environment's actions; None where files hold [-1, 1]."""
    own_reward: bool
    """Whether the task pays what the environment pays; otherwise success alone."""
    success: Success | None = None
    """The task's own rule, for recordings that do not say what succeeded."""

    def __call__(self, episode: Episode) -> Episode:
        """The episode in the task's types, action range and reward.

        Raises:
            ValueError: an entry that networks read is missing, or actions have another shape or
                lie outside the environment's bounds.
        """
        observations, notes = self._observations(episode)
        actions, scaled = self._actions(episode)
        successes, question = self._successes(episode)
        if question and self.own_reward:  # what is learnt from does not depend on it
            notes, question = [*notes, question], ""
        return dataclasses.replace(
            episode,
            observations=observations,
            actions=actions,
            rewards=episode.rewards if self.own_reward else successes.astype(np.float32),
            successes=successes,
            question=question,
            notes=(*episode.notes, *notes, *scaled),
        )

    def clip(self, episode: Episode) -> Episode:
        """The recorded episode with actions moved into the bounds that they are recorded in."""
        if self.bounds is None or episode.unit_actions:
            return clip_actions(episode)
        low, high = (bound.reshape(-1) for bound in self.bounds)
        if episode.actions.ndim != 2 or episode.actions.shape[1] != low.size:
            return episode  # which is refused for its shape
        return clip_actions(episode, low, high)

    def _observations(self, episode: Episode) -> tuple[dict[str, np.ndarray], list[str]]:
        observations, notes = {}, []
        for key, shape, dtype in self.entries:
            value = episode.observations.get(key)
            if value is None:
                if dtype != "uint8":
                    raise ValueError(
                        f"observation {key!r} is missing; found {sorted(episode.observations)}."
                    )
                black = np.zeros(shape, np.uint8)
                observations[key] = np.broadcast_to(black, (len(episode) + 1, *shape))
                notes.append(
                    f"observation {key!r} is not recorded; no network reads pictures, so black ones"
                    " stand in for it."
                )
                continue
            # what does not fit is named later
            keep = dtype == "uint8" or value[0].size != math.prod(shape)
            observations[key] = (
                value if keep else value.astype(np.float32).reshape(len(value), *shape)
            )
        return observations, notes

    def _actions(self, episode: Episode) -> tuple[np.ndarray, list[str]]:
        """In [-1, 1], and a sentence where they may have been so before."""
        actions = episode.actions
        if self.bounds is None or episode.unit_actions:
            return actions, []
        low, high = (bound.reshape(-1) for bound in self.bounds)
        if actions.reshape(len(actions), -1).shape[1] != low.size:
            raise ValueError(
                f"actions have shape {actions.shape}, the task needs ({len(actions)}, {low.size})."
            )
        actions = actions.reshape(len(actions), -1).astype(np.float64)
        slack = SLACK * (high - low)
        outside = (actions < low - slack) | (actions > high + slack)
        if outside.any():
            row, entry = map(int, np.argwhere(outside)[0])
            raise ValueError(
                f"actions row {row} has {actions[row, entry]:g} in entry {entry}, outside the "
                f"environment's bounds [{low[entry]:g}, {high[entry]:g}]. Clip it (`exporl data "
                "convert FILE NEW --task T --clip-actions` clips to these bounds), or say "
                "recorded_actions='unit' if the file holds [-1, 1]."
            )
        notes = []
        wider = bool((low < -1).any() and (high > 1).any())
        if wider and ALREADY <= np.abs(actions).max(initial=0) <= 1:
            notes.append(
                f"actions lie within [-1, 1] and reach its ends, but the environment's bounds are "
                f"[{low.min():g}, {high.max():g}]: if they were scaled before, say "
                "recorded_actions='unit', or they are scaled a second time."
            )
        return np.clip((actions - low) / (high - low) * 2 - 1, -1, 1).astype(np.float32), notes

    def _successes(self, episode: Episode) -> tuple[np.ndarray, str]:
        """Success in each step, by the file or else by the task's own rule, and the question where
        neither knows."""
        if not episode.question:
            return episode.successes, ""
        if not callable(self.success):
            keys = SUCCESS_KEYS if self.success is None else (self.success,)
            for key in keys:
                if key in episode.infos:
                    flags = episode.infos[key].reshape(len(episode.infos[key]), -1)
                    return np.any(flags[-len(episode) :] > 0, axis=1), ""
            missing = " or ".join(map(repr, keys))
            return episode.successes, f"{episode.question} The file's infos have no {missing}."
        steps, found = len(episode), []
        for step in range(steps):
            info = {key: v[step + len(v) - steps] for key, v in episode.infos.items()}
            ended = episode.terminated and step == steps - 1
            try:
                found.append(bool(self.success(float(episode.rewards[step]), ended, info)))
            except (Exception, SystemExit) as error:  # the user's function may raise anything
                return episode.successes, (
                    f"{episode.question} The task's success function raised "
                    f"{type(error).__name__}: {error} for the recorded step {step}, whose info has "
                    f"{sorted(info) or 'nothing'}."
                )
        return np.array(found, bool), ""


def clipping(task: Task | None) -> Callable[[Episode], Episode]:
    """Moves recorded actions into the bounds that they are recorded in: those of a custom task's
    environment, otherwise [-1, 1]."""
    if task is not None and isinstance(task.adapt, Recorded):
        return task.adapt.clip
    return clip_actions
