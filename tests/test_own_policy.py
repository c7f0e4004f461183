"""The benchmark of a policy from outside on changed robots: every row is a run that can begin, and
a changed robot is changed."""

import sys
from pathlib import Path

import pytest

from exporl.run.config import check

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import changed_robots
import own_policy


def test_every_row_is_a_run():
    for row in own_policy.ROWS:
        config = own_policy.configured("walker_heavy", row, 3, 600, Path("policies"))
        check(config)
        assert config.seed == 3 and config.reward == "env" and config.eval.every == 100
        assert config.task == "changed_robots:walker_heavy"
        named = config.base.policy
        assert (named is None) == (row == "rlpd")
        assert named in (None, "sb3:policies/sac-Walker2d-v3.zip")


def test_returns_are_compared_on_the_same_starts():
    run = {"robot": "cheetah_gears", "row": "expo", "seed": 0, "env_steps": [0, 100]}
    run |= {"policy": [[1.0, 2.0], [4.0, 8.0]], "base": [[2.0, 4.0], [2.0, 4.0]]}
    rows = own_policy.table([run]).splitlines()
    assert rows[2].startswith("| cheetah_gears | base alone | - | - | 3 |")
    assert rows[3] == "| cheetah_gears | expo | 1 | 100 | 6 | +3 [+2, +4] | 2.00 |"


def test_a_changed_robot_pays_and_never_succeeds():
    pytest.importorskip("mujoco", reason="MuJoCo is not installed: pip install 'exporl[adroit]'")
    task = changed_robots.cheetah_gears()
    env, known = task.make_env(), changed_robots.gymnasium.make("HalfCheetah-v5")
    ratio = env.unwrapped.model.actuator_gear[:, 0] / known.unwrapped.model.actuator_gear[:, 0]
    assert ratio == pytest.approx([0.6] * 6)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(env.action_space.sample())
    assert reward != 0 and info["success"] is False and task.max_episode_steps == 1000
