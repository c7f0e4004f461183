"""A run never ends in silence and never loses what it has learnt, however an environment fails."""

import dataclasses
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from exporl.acting.asked import Asked
from exporl.acting.checked import Checked
from exporl.acting.evaluate import evaluate
from exporl.acting.failures import EnvironmentFailed, StoppedAtOnce
from exporl.acting.rollout import Rollout
from exporl.cli import train as command
from exporl.cli.main import main
from exporl.envs.registry import make_task
from exporl.files import checkpoint
from exporl.files.atomic import read_lines
from exporl.run.endings import resumption, what_is_kept
from exporl.run.loop import train
from exporl.run.stopping import Interrupted
from exporl.types import Decision
from helpers.faults import FAULTS, RAISED, Faulty, faulty_task, giving, raising
from helpers.runs import evaluations, newest, tiny

TASK = make_task("probe/delay")


def act(acting, observation, key, *, mode):
    return Decision(np.full((len(observation["state"]), 1, 1), 0.25, np.float32), {})


def probes(fault, count=2, **when):
    envs = [Checked(TASK.make_env(), TASK.spec, TASK.reward_range) for _ in range(count)]
    return [*envs[:-1], Checked(Faulty(TASK.make_env(), fault, **when), TASK.spec, None)]


def rollout(envs):
    sizes = {"chunk_length": 1, "action_dim": 1, "execute_length": 1}
    return Rollout(envs, act, reward=float, seed=5, **sizes)


def saved(actors):
    arrays, record = actors.state()
    return {name: np.array(value) for name, value in arrays.items()}, repr(record)


def assert_same_state(one, two):
    assert one[1] == two[1] and one[0].keys() == two[0].keys()
    for name, value in one[0].items():
        np.testing.assert_array_equal(value, two[0][name], err_msg=name)


@pytest.mark.parametrize("name", FAULTS)
def test_a_step_that_fails_in_training_says_where_and_leaves_all_as_it_was(name):
    """The other environment has made its step by then: it is as if it had not."""
    fault, says = FAULTS[name]
    actors = rollout(probes(fault, at_step=4))
    for _ in range(3):
        actors.step(None)
    before = saved(actors)
    place = r"at environment step 8 \(environment 1, episode 1, step 2 of it, seed \d+\)"
    with pytest.raises(EnvironmentFailed, match=f"^the environment's step .*({says}).*{place}"):
        actors.step(None)
    assert_same_state(before, saved(actors))


@pytest.mark.parametrize("name", FAULTS)
def test_a_step_that_fails_in_evaluation_says_where(name):
    fault, says = FAULTS[name]
    place = r"\(evaluation environment 1, episode 1, step 2 of it, seed \d+\)"
    with pytest.raises(EnvironmentFailed, match=f"^the environment's step .*({says}).*{place}"):
        evaluate(probes(fault, at_step=2), act, None, float, episodes=4, seed=1, execute_length=1)


@pytest.mark.parametrize("name", RAISED)
def test_a_reset_that_fails_says_where_and_leaves_all_as_it_was(name):
    fault, says = RAISED[name]
    with pytest.raises(EnvironmentFailed, match=f"environment's reset {says}.*step 0 .*episode 0"):
        rollout(probes(fault, at_reset=1))
    actors = rollout(probes(fault, at_reset=2))
    actors.step(None)
    before = saved(actors)
    place = r"at environment step 4 \(environment 1, episode 1, seed \d+\)"
    with pytest.raises(EnvironmentFailed, match=f"environment's reset {says}.*{place}"):
        actors.step(None)
    assert_same_state(before, saved(actors))
    with pytest.raises(EnvironmentFailed, match=r"reset .*\(evaluation environment 1, episode 3,"):
        evaluate(probes(fault, at_reset=2), act, None, float, episodes=4, seed=1, execute_length=1)


def test_a_first_observation_is_looked_at_as_well():
    nothing = giving(0, {"state": np.full(2, np.nan, np.float32)})
    with pytest.raises(EnvironmentFailed, match=r"reset gave observation\['state'\] = nan"):
        rollout(probes(nothing, at_reset=1))


def test_rewards_outside_what_the_task_states_are_refused():
    env = Checked(Faulty(TASK.make_env(), giving(1, 7.5), at_step=1), TASK.spec, (0.0, 1.0))
    with pytest.raises(EnvironmentFailed, match=r"gave the reward 7.5, outside \[0, 1\], which"):
        rollout([env]).step(None)


def test_rewards_and_flags_in_other_types_of_the_same_meaning_are_taken():
    class Numpy(gymnasium.Wrapper):
        def step(self, action):
            seen, _, _, truncated, info = self.env.step(action)
            return seen, np.float32(0.5), np.bool_(True), int(truncated), info

    ((_, step),) = rollout([Checked(Numpy(TASK.make_env()), TASK.spec, (0.0, 1.0))]).step(None)
    assert (step.reward, step.terminated, step.truncated) == (0.5, True, False)


def test_a_reward_that_the_task_turns_into_nothing_is_an_error_of_the_step():
    asked = Asked([Checked(TASK.make_env(), TASK.spec, None)], lambda paid: paid * np.nan)
    asked.reset(0, episode=0, seed=0)
    with pytest.raises(EnvironmentFailed, match=r"reward 0.0, which Task.reward turned into nan"):
        asked.step(0, np.zeros(1, np.float32))


def failing(tmp_path, config, fault, **when):
    with pytest.raises(EnvironmentFailed) as caught:
        train(config, tmp_path / "run", task=faulty_task(config, fault, **when))
    return " ".join(caught.value.__notes__)


TWO = tiny("bc", num_envs=2, **{"log.save_every": 1000})


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run whose environments never fail."""
    path = tmp_path_factory.mktemp("straight")
    train(TWO, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("evaluating", "at_step", "saved_at"),
    [(False, 9, 16), (True, 11, 12)],
    ids=["training", "evaluation"],
)
def test_nothing_is_lost_where_an_environment_fails(
    tmp_path, straight, evaluating, at_step, saved_at
):
    """The resumed run is what it would have been, to the bit."""
    fault = raising(BrokenPipeError("the simulator left"))
    note = failing(tmp_path, TWO, fault, evaluating=evaluating, at_step=at_step)
    _, record = checkpoint.load(newest(tmp_path / "run"))
    assert record["rollout"]["env_steps"] == saved_at
    assert f"{newest(tmp_path / 'run').name}; go on with: exporl train --resume" in note
    train(TWO, tmp_path / "run", resume=True)
    left, one = checkpoint.load(newest(tmp_path / "run"))
    right, two = checkpoint.load(newest(straight))
    assert one["rollout"] == two["rollout"] and one["updates"] == two["updates"]
    for part, arrays in left.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, right[part][name], err_msg=name)
    assert evaluations(tmp_path / "run") == evaluations(straight)


@pytest.mark.slow
def test_nothing_is_lost_where_learning_goes_on_beside(tmp_path):
    config = tiny("bc", **{"train.asynchronous": True})
    failing(tmp_path, config, raising(OSError("bus lost")), at_step=18)
    _, record = checkpoint.load(newest(tmp_path / "run"))
    assert record["rollout"]["env_steps"] == 17 and record["updates"] == 1 + 17 - 4


def test_a_failure_before_anything_is_learnt_says_that_there_is_nothing(tmp_path):
    config = tiny("bc", **{"train.offline_steps": 0})
    note = failing(tmp_path, config, raising(KeyError("x")), evaluating=True, at_step=1)
    assert "checkpoint-000000000; go on with" in note


def test_the_command_that_goes_on_can_be_typed_as_it_stands():
    """With trust where the run names code of the user's own, and quoted."""
    own = dataclasses.replace(tiny("bc"), task="my_module:my_task")
    assert resumption(own, Path("runs/one")) == "exporl train --resume runs/one --trust"
    remote = dataclasses.replace(tiny("bc"), task="remote/arm")
    assert resumption(remote, Path("run")) == "exporl train --resume run --listen HOST:PORT"
    assert resumption(tiny("bc"), Path("my run")) == "exporl train --resume 'my run'"
    assert what_is_kept(own, Path("nowhere")).startswith("No checkpoint was written before")


def test_what_cannot_be_saved_is_said(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "checkpoints")

    monkeypatch.setattr("exporl.files.checkpoint.write_bytes", full)
    config = tiny("bc", **{"train.offline_steps": 0})
    note = failing(tmp_path, config, raising(KeyError("x")), at_step=3)
    assert "since the last checkpoint is lost: [Errno 28] No space left on device" in note
    assert "No checkpoint was written before" in note


def test_an_environment_that_cannot_be_closed_does_not_hide_what_failed(tmp_path, monkeypatch):
    def stuck(env):
        raise OSError("the window does not close")

    monkeypatch.setattr(Faulty, "close", stuck)
    failing(tmp_path, tiny("bc"), raising(ValueError("the true reason")), at_step=3)


def test_stopping_a_wait_for_an_environment_saves_everything(tmp_path):
    config = tiny("bc")
    task = faulty_task(config, raising(StoppedAtOnce()), at_step=8)
    waited = r"waiting for the environment's step at environment step 8 .*everything is saved"
    with pytest.raises(Interrupted, match=waited):
        train(config, tmp_path / "run", task=task)
    _, record = checkpoint.load(newest(tmp_path / "run"))
    assert record["rollout"]["env_steps"] == 7


@pytest.mark.parametrize("name", ["BrokenPipeError", "SystemExit"])
def test_the_command_ends_with_the_reason_and_a_status(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    fault, _ = FAULTS[name]

    def failing_train(config, run_dir, progress, *, resume, task, actors):
        config = tiny("bc", **{"train.offline_steps": 0})
        return train(config, run_dir, task=faulty_task(config, fault, at_step=5))

    monkeypatch.setattr(command, "train", failing_train)
    assert main(["train", "bc", "--task", "probe/delay", "--run-dir", "run"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the environment's step raised") and "resume run" in said


def test_nan_in_an_evaluation_is_not_the_policys_fault(tmp_path):
    config = tiny("bc", **{"train.online_steps": 0})
    task = faulty_task(
        config, giving(0, {"state": np.full(2, np.nan, np.float32)}), evaluating=True, at_step=1
    )
    with pytest.raises(EnvironmentFailed, match=r"gave observation\['state'\] = nan"):
        train(config, tmp_path / "run", task=task)
    assert read_lines(tmp_path / "run" / "eval.jsonl") == []
