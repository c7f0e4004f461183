"""Environments that fail, each in one of the ways that environments fail."""

import dataclasses
import sys

import gymnasium
import numpy as np

from exporl.envs.registry import make_task


class Unheard(BaseException):
    """An exception that no handler of exceptions expects."""


def raising(error):
    def fail(answer):
        raise error

    return fail


def leaving(status):
    def fail(answer):
        sys.exit(status)

    return fail


def giving(index, value):
    """The step's answer with one part replaced; with None, another answer altogether."""

    def change(answer):
        if index is None:
            return value
        return (*answer[:index], value, *answer[index + 1 :])

    return change


def state(*numbers, dtype=np.float32):
    return {"state": np.array(numbers, dtype)}


RAISED = {
    "OSError": (raising(OSError("bus lost")), "raised OSError: bus lost"),
    "BrokenPipeError": (raising(BrokenPipeError(32, "pipe")), "raised BrokenPipeError: .*pipe"),
    "TimeoutError": (raising(TimeoutError()), r"raised TimeoutError at environment|TimeoutError,"),
    "ValueError": (raising(ValueError("joint 3")), "raised ValueError: joint 3"),
    "KeyError": (raising(KeyError("camera")), "raised KeyError: 'camera'"),
    "RuntimeError": (raising(RuntimeError("unstable")), "raised RuntimeError: unstable"),
    "StopIteration": (raising(StopIteration("over")), "raised StopIteration: over"),
    "MemoryError": (raising(MemoryError("no room")), "raised MemoryError: no room"),
    "FloatingPointError": (raising(FloatingPointError("0/0")), "raised FloatingPointError: 0/0"),
    "SystemExit": (leaving(0), "raised SystemExit: 0"),
    "BaseException": (raising(Unheard("odd")), "raised Unheard: odd"),
}
GIVEN = {
    "NaN observed": (giving(0, state(np.nan, 0)), r"observation\['state'\] = nan at \[0\]"),
    "inf observed": (giving(0, state(0, np.inf)), r"observation\['state'\] = inf at \[1\]"),
    "1e30 observed": (giving(0, state(0, -1e30)), r"observation\['state'\] = -1e\+30"),
    "wrong shape": (giving(0, state(0, 0, 0)), r"observation\['state'\] of shape \(3,\).* \(2,\)"),
    "text observed": (giving(0, {"state": "no"}), r"observation\['state'\] = 'no', .* number"),
    "entry missing": (giving(0, {"stat": 0}), r"without 'state'; it has \['stat'\]"),
    "None observed": (giving(0, None), "the observation None instead of a dictionary of state"),
    "NaN paid": (giving(1, np.nan), "the reward = nan"),
    "inf paid": (giving(1, -np.inf), "the reward = -inf"),
    "1e30 paid": (giving(1, 1e30), r"the reward = 1e\+30; finite numbers up to 1e\+15"),
    "None paid": (giving(1, None), "the reward = None, which is not a number"),
    "text paid": (giving(1, "1.0"), "the reward = '1.0', which is not a number"),
    "two rewards": (giving(1, np.zeros(2)), r"a reward of shape \(2,\)"),
    "NaN flag": (giving(2, np.nan), "terminated = nan instead of True or False"),
    "None flag": (giving(3, None), "truncated = None instead of True or False"),
    "None info": (giving(4, None), "the info None instead of a dictionary"),
    "None": (giving(None, None), r"a NoneType instead of \(observation, reward"),
    "four values": (giving(None, (state(0, 0), 0.0, False, {})), "a tuple of 4 instead of"),
}
FAULTS = RAISED | GIVEN
"""Name -> (what becomes of a step's answer, what the message says)."""


class Faulty(gymnasium.Wrapper):
    """Fails in one step or reset of its life, counted from 1."""

    def __init__(self, env, fault, *, at_step=0, at_reset=0):
        super().__init__(env)
        self.fault, self.at_step, self.at_reset = fault, at_step, at_reset
        self.steps = self.resets = 0

    def step(self, action):
        self.steps += 1
        answer = self.env.step(action)
        return self.fault(answer) if self.steps == self.at_step else answer

    def reset(self, **options):
        self.resets += 1
        answer = self.env.reset(**options)
        return self.fault(answer) if self.resets == self.at_reset else answer


def faulty_task(config, fault, *, evaluating=False, **when):
    """The task of a configuration; the first environment that acts, or evaluates, is faulty."""
    task, made = make_task(config.task, config.reward), []

    def make_env():
        made.append(None)
        faulty = len(made) == (config.num_envs + 1 if evaluating else 1)
        return Faulty(task.make_env(), fault, **when) if faulty else task.make_env()

    return dataclasses.replace(task, make_env=make_env)
