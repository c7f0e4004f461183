"""Whether a policy from outside meets here what it met in training: a warning, never a refusal."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from exporl.cli.main import main
from exporl.data.formats.lerobot import recorded_hz
from exporl.external import OutsideBase
from exporl.external.fit import check_fit, refuse_misfit
from exporl.external.met import check_met
from exporl.run.build import build
from exporl.spec import Spec
from exporl.units import ActionUnits
from helpers.episodes import random_episode
from helpers.outside import Drawn
from helpers.runs import tiny

SPEC = Spec((("state", (3,), "float32"),), action_dim=2)


class Met(Drawn):
    """Says what it met in training."""

    def __init__(self, low=-9.0, high=9.0, hz=None, **more):
        self.ranges = {"state": (np.full(3, low), np.full(3, high)), **more}
        self.control_hz = hz

    def sample(self, observations, num, seed):
        return np.repeat(super().sample(observations, num, seed), 2, axis=-1)


EPISODES = [random_episode(20, seed=seed) for seed in range(3)]
SEEN = {"state": EPISODES[0].observations["state"][:4]}


def found(policy, episodes=EPISODES, units=None, rates=None):
    base = OutsideBase(policy, "the base policy", SPEC, units=units)
    return {f.name: f for f in check_met(base, SEEN, episodes, rates)}


def test_what_lies_within_the_ranges_passes():
    actions = (-np.ones(2), np.ones(2))
    statistics = found(Met(action=actions))["statistics"]
    assert statistics.status == "pass"
    expected = "outside the policy's own range, of 60 steps of the data: state 0%, action 0%"
    assert statistics.detail == expected
    assert "4 observations of the task" in found(Met(), episodes=())["statistics"].detail
    assert found(Drawn()) == {}


def test_shares_are_counted_by_entry_and_by_number():
    state = np.concatenate([episode.observations["state"] for episode in EPISODES])
    share = (np.abs(state) > 0.5).mean()
    statistics = found(Met(-0.5, 0.5))["statistics"]
    assert statistics.status == "warn" and f"state {100 * share:.0f}%" in statistics.detail
    shifted = [np.array([-9.0, -9.0, 20.0]), np.array([9.0, 9.0, 40.0])]
    wide = Met()
    wide.ranges = {"state": shifted}
    detail = found(wide)["statistics"].detail
    low, high = state[:, 2].min(), state[:, 2].max()
    assert f"Number 2 of 'state' is {low:.3g} to {high:.3g} here, and was 20 to 40" in detail
    assert "state 33%" in detail


def test_one_number_of_many_is_enough():
    """A joint in degrees among many in radians."""
    episodes = [
        dataclasses.replace(e, observations={"state": np.zeros((21, 30), np.float32)})
        for e in EPISODES
    ]
    episodes[0].observations["state"][:, 7] = 90
    episodes[1].observations["state"][:, 7] = 80
    policy = Met()
    policy.ranges = {"state": (-1.0, 1.0)}
    detail = found(policy, episodes)["statistics"].detail
    assert "state 2%" in detail and "Number 7 of 'state' is 0 to 90" in detail


def test_actions_are_compared_in_the_units_that_the_policy_answers_in():
    units = ActionUnits((0.0, 0.0), (512.0, 512.0), (2,), "float32")
    policy = Met(action=(np.zeros(2), np.full(2, 512.0)))
    policy.actions = "env"
    assert found(policy, units=units)["statistics"].status == "pass"
    policy.ranges["action"] = (np.zeros(2), np.full(2, 256.0))
    statistics = found(policy, units=units)["statistics"]
    assert statistics.status == "warn" and "was -1 to 0 in the policy's training" in (
        statistics.detail
    )


def test_ranges_that_cannot_be_compared_are_named():
    policy = Met(stat=(0.0, 1.0))
    policy.ranges["state"] = (np.zeros(4), np.ones(4))
    detail = found(policy)["statistics"].detail
    assert "ranges names 'stat', which the task does not show" in detail
    assert "the ends of 'state' in ranges have the shapes [4] and [4], the entry has [3]" in detail


def test_rates_are_compared_where_both_are_known(tmp_path):
    rates = {"the task": 20.0}
    assert "rate" not in found(Met(), rates=rates)
    assert "rate" not in found(Met(hz=10.0))
    same = found(Met(hz=20.1), rates=rates)["rate"]
    assert same.status == "pass" and same.detail == "the policy 20.1 Hz, the task 20 Hz"
    other = found(Met(hz=20.0), rates={"the task": 20.0, "the data": 50.0})["rate"]
    assert other.status == "warn" and "the policy 20 Hz, the task 20 Hz, the data 50 Hz: its" in (
        other.detail
    )
    assert recorded_hz(tmp_path) is None
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text(json.dumps({"fps": 50}))
    assert recorded_hz(tmp_path) == 50.0


def test_a_warning_refuses_nothing():
    base = OutsideBase(Met(-0.1, 0.1), "the base policy", SPEC)
    assert [f.name for f in check_fit(base, SEEN, EPISODES) if f.status == "fail"] == []
    heard = []
    refuse_misfit(base, SEEN, EPISODES, heard.append)
    (warning,) = heard
    assert warning.startswith("Warning: the base policy, statistics: outside the policy's own")


MODULE = """
import numpy as np

class To:
    ranges = {"state": (5.0, 6.0)}
    control_hz = 10.0

    def sample(self, observations, num, seed):
        shape = (len(observations["state"]), num, 1, 1)
        return np.random.default_rng(seed).uniform(-1, 1, shape)

policy = To()
"""


@pytest.fixture
def robot(tmp_path, monkeypatch):
    """A module of the user's own, `met_robot`."""
    (tmp_path / "met_robot.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield "met_robot"
    sys.modules.pop("met_robot", None)


def test_check_and_training_warn_before_the_first_step(robot, tmp_path, capsys):
    assert main(["check", "probe/delay", "--demos", "0", "--base", f"{robot}:policy"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "base: statistics" in said and "warn" in said and "keeps its promises" in said
    heard = []
    changes = {"base.policy": f"{robot}:policy", "train.offline_steps": 0}
    build(tiny(**changes), tmp_path / "run", heard.append)
    warnings = [line for line in heard if line.startswith("Warning: base policy")]
    assert len(warnings) == 1 and "steps of the data: state" in warnings[0]
