"""Robots that are not quite the ones that a policy was trained on, as tasks.

    cd benchmarks && exporl train expo --task changed_robots:cheetah_gears --base sb3:FILE.zip ...

A changed robot is a function that makes the environment, changes `env.unwrapped.model`, and returns
it as a task: the way for any robot of your own. They pay what the environment pays
(`--reward env`), and nothing counts as success.
"""

import functools
from typing import Any, Literal

import gymnasium

from exporl import Task, custom_task

Part = Literal["actuator_gear", "body_mass"]
"""Arrays of a MuJoCo model: torque per unit of action; kg."""


def changed(name: str, part: Part, factor: float) -> gymnasium.Env:
    """A MuJoCo environment of gymnasium with one part of its model times a factor."""
    env = gymnasium.make(name)
    model: Any = env.unwrapped
    getattr(model.model, part)[:] *= factor
    return env


def never(reward: float, terminated: bool, info: dict[str, Any]) -> bool:
    """Nothing counts as success: walking has no end."""
    return False


def changed_task(name: str, part: Part, factor: float) -> Task:
    """It as a task that pays what the environment pays."""
    make = functools.partial(changed, name, part, factor)
    return custom_task(make, name=name, reward="env", success=never, normalize=False)


def cheetah_gears() -> Task:
    """HalfCheetah whose actuators are 0.6 times as strong."""
    return changed_task("HalfCheetah-v5", "actuator_gear", 0.6)


def cheetah_heavy() -> Task:
    """HalfCheetah that is 1.5 times as heavy."""
    return changed_task("HalfCheetah-v5", "body_mass", 1.5)


def walker_gears() -> Task:
    """Walker2d whose actuators are 0.6 times as strong."""
    return changed_task("Walker2d-v5", "actuator_gear", 0.6)


def walker_heavy() -> Task:
    """Walker2d that is 1.5 times as heavy."""
    return changed_task("Walker2d-v5", "body_mass", 1.5)
