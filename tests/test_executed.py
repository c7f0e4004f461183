"""Actions that an environment says it executed, where they are not those that it was given."""

import functools
import threading

import numpy as np
import pytest

from exporl.acting.checked import Checked, UnusableValue
from exporl.envs.custom import custom_task
from exporl.run.callbacks import Callback
from exporl.run.loop import train
from exporl.run.stopping import Interrupted
from helpers.robots import Arm, Weak, here
from helpers.runs import tiny


class Odd(Arm):
    """Says something of what it executed."""

    said: object = None

    def step(self, action):
        *answer, info = super().step(action)
        return *answer, {**info, "executed_action": self.said}


def test_it_comes_in_the_units_of_the_task():
    """From [-2, 1] x [0, 5]; half of 0 and 2.5 is 0 and 1.25."""
    env = custom_task(functools.partial(here, Weak)).make_env()
    env.reset(seed=0)
    given = np.array([1 / 3, 0.0], np.float32)
    executed = env.step(given)[4]["executed_action"]
    assert executed.dtype == np.float32
    np.testing.assert_allclose(executed, [1 / 3, -0.5], atol=1e-6)


def test_what_was_given_is_kept_to_the_bit_where_nothing_else_was_executed():
    class Same(Arm):
        def step(self, action):
            *answer, info = super().step(action)
            return *answer, {**info, "executed_action": action}

    env = custom_task(functools.partial(here, Same)).make_env()
    env.reset(seed=0)
    for given in np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32):
        np.testing.assert_array_equal(env.step(given)[4]["executed_action"], given)


@pytest.mark.parametrize(
    ("said", "error", "sentence"),
    [
        ("left", ValueError, r"'executed_action' in the info of step\(\) is no array of numbers"),
        (np.zeros(3), ValueError, r"has shape \(3,\), an action has \(2,\)"),
        (np.array([np.nan, 1]), UnusableValue, r"info\['executed_action'\] = nan"),
    ],
)
def test_what_is_no_action_is_named(said, error, sentence):
    Odd.said = said
    task = custom_task(functools.partial(here, Odd))
    env = Checked(task.make_env(), task.spec, task.reward_range)
    env.reset(seed=0)
    with pytest.raises(error, match=sentence):
        env.step(np.zeros(2, np.float32))


class Stop(Callback):
    """Keeps the actions of a run, and stops it after some steps."""

    def __init__(self, after=None):
        self.actions, self.stop, self._after = [], threading.Event(), after

    def on_step(self, env_steps, steps):
        self.actions += [step.action for _, step in steps]
        if env_steps == self._after:
            self.stop.set()


def test_a_run_that_is_resumed_gives_its_environment_what_it_was_given(tmp_path):
    """Within an episode: its actions are repeated as they were given, not as they were
    executed."""
    scratch = {"data.demos": 0, "data.prior_ratio": 0.0, "train.online_steps": 9}
    scratch |= {"eval.every": 100, "eval.episodes": 1, "eval.num_envs": 1, "train.random_steps": 4}
    config = tiny("rlpd", "robot", **scratch)
    task = custom_task(functools.partial(here, Weak))
    whole, first, then = Stop(), Stop(after=3), Stop()
    train(config, tmp_path / "whole", task=task, callbacks=[whole])
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run", task=task, callbacks=[first], stop=first.stop)
    train(config, tmp_path / "run", task=task, callbacks=[then], resume=True)
    assert (len(first.actions), len(then.actions)) == (3, 6)
    np.testing.assert_array_equal(first.actions + then.actions, whole.actions)
