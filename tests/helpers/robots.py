"""A robot of arithmetic as an environment: for `exporl actor` without gymnasium, and the same for
this process with it. Needs NumPy alone."""

import contextlib
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

LOW, HIGH = np.array([-2.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32)
STEPS = 4
KILL = "EXPORL_TEST_KILL"
"""Environment variable: a file; the actor that removes it dies in its next second step."""


class Arm:
    """Moves by what it is told; success is a place in reach."""

    max_episode_steps = STEPS
    control_hz = 20.0
    share = 1.0
    """How much of an action is executed."""
    observation_space: Any = SimpleNamespace(
        spaces={
            "pose": SimpleNamespace(
                spaces={"q": SimpleNamespace(shape=(2,), dtype="float64", low=-9.0, high=9.0)}
            ),
            "force": SimpleNamespace(shape=(1, 2), dtype="float32", low=-9.0, high=9.0),
        }
    )
    action_space: Any = SimpleNamespace(shape=(2,), dtype="float32", low=LOW, high=HIGH)

    def reset(self, *, seed=None, options=None):
        self.place = np.random.default_rng(seed).normal(size=2)
        self.force = np.zeros((1, 2), np.float32)
        self.steps = 0
        return self._seen(), {}

    def step(self, action):
        assert action.dtype == np.float32 and action.shape == (2,)
        self.steps += 1
        fault = Path(os.environ.get(KILL, "/nowhere"))
        if self.steps == 2:
            with contextlib.suppress(FileNotFoundError):  # none, or the other actor's
                fault.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        done = self.share * action
        self.place = self.place + 0.1 * done
        self.force[0] = done
        info = {"success": bool(self.place[0] < 0)}
        if self.share < 1:
            info["executed_action"] = done
        return self._seen(), np.float32(info["success"]), info["success"], False, info

    def observation(self):
        return self._seen()

    def close(self):
        pass

    def _seen(self):
        return {"pose": {"q": self.place}, "force": self.force}


class Weak(Arm):
    """Executes half of what it is told, and says so."""

    share = 0.5


class Far(Arm):
    """Begins out of reach: every episode has all of its steps."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place += 100
        return self._seen(), {}


class Broken(Arm):
    """Raises in its first step."""

    def step(self, action):
        raise RuntimeError("motor 3 is hot")


class Stuck(Arm):
    """Raises in every reset."""

    def reset(self, *, seed=None, options=None):
        raise OSError("the gripper is stuck")


class Other(Arm):
    """Shows something else."""

    observation_space = SimpleNamespace(shape=(3,), dtype="float32", low=-1.0, high=1.0)


def here(robot=Arm):
    """The same as a gymnasium environment."""
    import gymnasium
    from gymnasium.spaces import Box, Dict

    class Here(gymnasium.Env):
        max_episode_steps = STEPS
        action_space = Box(LOW, HIGH, dtype=np.float32)
        observation_space = Dict(
            [
                ("pose", Dict({"q": Box(-9, 9, (2,), np.float64)})),
                ("force", Box(-9, 9, (1, 2), np.float32)),
            ]
        )

        def __init__(self):
            self._robot = robot()

        def reset(self, *, seed=None, options=None):
            return self._robot.reset(seed=seed)

        def step(self, action):
            return self._robot.step(action)

    return Here()
