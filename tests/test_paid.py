"""Rewards of prior data that the task's environment never pays: told where the data is read, for
they would break what is known about values."""

import dataclasses

import numpy as np
import pytest

from exporl.cli.main import main
from exporl.data.episodes import faults, within
from exporl.data.formats import load_episodes, save_npz
from exporl.envs.check import check_task
from exporl.envs.registry import make_task
from exporl.run.loop import train
from exporl.run.prior import prior_episodes
from helpers.episodes import random_episode
from helpers.runs import tiny

BANDIT = make_task("probe/bandit")
STATED = dataclasses.replace(BANDIT, reward_range=(0.0, 1.0))
WRONG = "rewards row 0 is 7.5, outside [0, 1], which the task states (Task.reward_range)"


def recorded(path, *rewards):
    """Episodes of the bandit that were paid so much."""
    episodes = BANDIT.collect(len(rewards), 0.1, 0)
    save_npz(
        path,
        [
            dataclasses.replace(e, rewards=np.full(len(e), paid, np.float32))
            for e, paid in zip(episodes, rewards, strict=True)
        ],
    )
    return path


@pytest.mark.parametrize(
    ("reward", "inside"),
    [(0.0, True), (1.0, True), (-1e-7, True), (1.0000001, True), (1.001, False), (-1.0, False)],
)
def test_rounding_is_forgiven(reward, inside):
    assert within(reward, (0.0, 1.0)) == inside
    assert within(np.array([reward, 0.5]), (0.0, 1.0)).all() == inside


def test_an_episode_says_which_reward_and_what_its_rewards_are():
    episode = random_episode(3, rewards=np.array([0.5, -1.0, 2.0], np.float32))
    (said,) = faults(episode, paid=(0.0, 1.0))
    assert said.startswith("rewards row 1 is -1, outside [0, 1]")
    assert "go from -1 to 2" in said and "before Task.reward" in said
    assert list(faults(episode)) == list(faults(episode, paid=(-1.0, 2.0))) == []
    broken = dataclasses.replace(episode, rewards=np.array([0.5, np.nan, 0], np.float32))
    assert [fault.split(".")[0] for fault in faults(broken, paid=(0.0, 1.0))] == [
        "rewards row 1 holds NaN or infinity"
    ]


def test_training_refuses_it_before_anything_is_learnt(tmp_path):
    path = recorded(tmp_path / "d.npz", 0.5, 7.5)
    config = tiny(task="probe/bandit", **{"data.path": str(path), "data.demos": None})
    with pytest.raises(ValueError) as refused:
        train(config, tmp_path / "run", task=STATED)
    assert f"{path}, episode 1: {WRONG}" in str(refused.value)
    assert not (tmp_path / "run" / "config.json").exists()


def test_bad_episodes_can_be_left_out(tmp_path):
    path, said = recorded(tmp_path / "d.npz", 0.5, 7.5, 0.25), []
    config = tiny(task="probe/bandit", **{"data.path": str(path), "data.skip_bad": True})
    assert len(prior_episodes(config, tmp_path, STATED, said.append)) == 2
    assert any(WRONG in sentence for sentence in said)


def test_tasks_that_state_no_range_take_any_reward(tmp_path):
    path = recorded(tmp_path / "d.npz", 0.5, 7.5)
    assert BANDIT.reward_range is None
    assert len(load_episodes(path, spec=BANDIT.spec, paid=BANDIT.reward_range)) == 2


def test_data_that_a_run_collected_is_looked_at_as_well(tmp_path):
    (tmp_path / "run").mkdir()
    recorded(tmp_path / "run" / "demonstrations.npz", 7.5)
    with pytest.raises(ValueError, match=r"rewards row 0 is 7\.5"):
        prior_episodes(tiny(task="probe/bandit"), tmp_path / "run", STATED, print)


def test_check_and_validate_say_it(tmp_path, monkeypatch, capsys):
    path = recorded(tmp_path / "d.npz", 0.5, 7.5)
    found = {name: detail for name, status, detail in check_task(STATED, load_episodes(path))}
    assert any(WRONG in detail for detail in found.values())
    monkeypatch.setattr("exporl.envs.registry.make_task", lambda *_: STATED)
    assert main(["data", "validate", str(path), "--task", "probe/bandit"]) == 2
    assert f"{path}, episode 1: {WRONG}" in capsys.readouterr().out
