"""The benchmark of a policy from outside on changed robots: every row is a run that can begin, and
a changed robot is changed."""

import sys
from pathlib import Path

import pytest

from exporl.files.atomic import append_line
from exporl.run.config import check, override

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import changed_robots
import own_policy
import own_policy_settings


def test_every_row_is_a_run():
    for row in own_policy.ROWS:
        config = own_policy.configured("walker_heavy", row, 3, 600, Path("policies"))
        check(config)
        assert config.seed == 3 and config.reward == "env" and config.eval.every == 100
        assert config.task == "changed_robots:walker_heavy"
        named = config.base.policy
        assert (named is None) == (row == "rlpd")
        assert named in (None, "sb3:policies/sac-Walker2d-v3.zip")


def test_every_setting_is_a_run():
    short = own_policy_settings.SHORT
    for row, changed in own_policy_settings.SETTINGS.values():
        config = own_policy.configured("cheetah_gears", row, 0, 600, Path("policies"))
        check(override(config, short | changed))
    assert len(set(map(own_policy_settings.folder, own_policy_settings.SETTINGS))) == len(
        own_policy_settings.SETTINGS
    )


def test_a_setting_says_what_its_run_has_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(own_policy_settings, "FOLDER", tmp_path)
    assert own_policy_settings.evaluations("quick, calm") == []
    (tmp_path / "quick-calm").mkdir()
    for step in (0, 2_500):
        line = {"env_steps": step, "policy": {"return_mean": 3.0 + step}, "time/train_s": step / 10}
        append_line(tmp_path / "quick-calm" / "eval.jsonl", line)
    assert own_policy_settings.measured("quick, calm") == {
        "row": "expo",
        "setting": "quick, calm",
        "env_steps": [0, 2_500],
        "return": [3.0, 2_503.0],
        "train_s": 250.0,
    }


def test_settings_are_listed_as_far_as_they_went():
    one = {"row": "expo", "setting": "quick", "env_steps": [0, 2_500], "return": [1.0, 1_234.5]}
    other = {"row": "rlpd", "setting": "rlpd", "env_steps": [0, 5_000], "return": [0.0, 99.6]}
    assert own_policy_settings.table([one, other]).splitlines() == [
        "| algorithm | setting | after 2,500 | after 5,000 |",
        "|---|---|---|---|",
        "| expo | quick | 1,234 | - |",
        "| rlpd | rlpd | - | 100 |",
    ]


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
