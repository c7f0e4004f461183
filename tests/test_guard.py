"""The guard between base policy and policy: its record by hand, its choices by counting, its
runs."""

import numpy as np
import pytest

from exporl.acting.guard import Guard, Outcome
from exporl.files import checkpoint
from exporl.run.config import override
from exporl.run.loop import train
from exporl.run.progress import Silent
from exporl.run.session import load_run
from exporl.run.trainer import Trainer
from helpers.runs import evaluations, newest, run_all, tiny


def outcome(arm, success=False, total=0.0):
    return Outcome(env_steps=1, success=success, length=1, total_reward=total, arm=arm)


def test_the_record_by_hand():
    seen = [outcome("base", True), outcome("base"), *[outcome("explore", True)] * 2]
    guard = Guard(memory=1.0, prior=2.0)
    # pooled (3 + 1) / (4 + 2); base (1 + 2 * 2/3) / (2 + 2); policy (2 + 2 * 2/3) / (2 + 2)
    assert guard.estimates(seen) == pytest.approx({"base": 7 / 12, "explore": 10 / 12})
    assert guard.deployed(seen) == "explore"
    forgetful = Guard(memory=0.5, prior=2.0)  # weights 1/8, 1/4, 1/2, 1 of 15/8
    pooled = (1 / 8 + 1 / 2 + 1 + 1) / (15 / 8 + 2)
    expected = {"base": (1 / 8 + 2 * pooled) / (3 / 8 + 2), "explore": (1.5 + 2 * pooled) / 3.5}
    assert forgetful.estimates(seen) == pytest.approx(expected)


def test_returns_by_hand():
    seen = [outcome("base", total=-10.0), outcome("explore", total=-4.0)]
    guard = Guard("return", memory=1.0, prior=2.0)
    assert guard.estimates(seen) == pytest.approx({"base": -24 / 3, "explore": -18 / 3})
    assert guard.deployed(seen) == "explore"


@pytest.mark.parametrize("measure", ["success", "return"])
def test_nothing_known_deploys_the_base_and_tries_both(measure):
    guard = Guard(measure, tries=0)
    assert guard.deployed([]) == "base"
    chosen = [guard.choose([], np.random.default_rng(i)) for i in range(400)]
    if measure == "success":
        assert 140 < chosen.count("base") < 260
    assert guard.deployed([outcome("random", True)] * 5) == "base"


def test_the_base_is_deployed_where_it_is_likely_to_be_better():
    """Beta posteriors by hand: no forgetting, four episodes each, pooled 5/10.

    base (3 + 2 * .5) / 6 = 2/3, policy (1 + 2 * .5) / 6 = 1/3, each of variance 2/9 / 7: ahead by
    (1/3) / sqrt(4/63) = 1.32 deviations, a probability of .907.
    """
    seen = [outcome("base", i < 3) for i in range(4)] + [
        outcome("explore", i < 1) for i in range(4)
    ]
    assert Guard(memory=1.0, sure=0.90).deployed(seen) == "base"
    assert Guard(memory=1.0, sure=0.91).deployed(seen) == "explore"


def test_one_failure_does_not_condemn_a_policy():
    seen = [outcome("base", i < 7) for i in range(10)] + [outcome("explore")]
    assert Guard().estimates(seen)["base"] > Guard().estimates(seen)["explore"]
    assert Guard().deployed(seen) == "explore"
    assert Guard().deployed(seen + [outcome("explore")] * 3) == "base"


def test_the_policy_is_tried_before_the_records_choose():
    """Five episodes, whatever comes of them; from then on, so bad a record seldom is chosen."""
    seen = [outcome("base", True)] * 10
    for failed in range(5):
        rngs = [np.random.default_rng(i) for i in range(50)]
        record = [*seen, *[outcome("explore")] * failed]
        assert {Guard().choose(record, rng) for rng in rngs} == {"explore"}
    record = [*seen, *[outcome("explore")] * 5]
    chosen = [Guard().choose(record, np.random.default_rng(i)) for i in range(50)]
    assert chosen.count("base") > 40
    assert Guard().deployed(record) == "base"


def test_returns_that_are_all_the_same_deploy_the_better():
    seen = [outcome("base", total=-3.0)] * 5
    assert Guard("return").deployed([*seen, outcome("explore", total=-3.0)]) == "explore"
    assert Guard("return").deployed([*seen, *[outcome("explore", total=-9.0)] * 5]) == "base"


@pytest.mark.parametrize("measure", ["success", "return"])
def test_the_better_arm_acts_most_and_a_change_is_noticed(measure):
    """Success .9 against .2; after 150 episodes the other way round."""
    guard, rng, seen = Guard(measure), np.random.default_rng(0), []
    for episode in range(300):
        arm = guard.choose(seen, np.random.default_rng((1, episode)))
        good = "explore" if episode < 150 else "base"
        solved = rng.uniform() < (0.9 if arm == good else 0.2)
        seen.append(outcome(arm, bool(solved), float(solved) - 1))
    shares = [np.mean([o.arm == "explore" for o in seen[i : i + 75]]) for i in (75, 225)]
    assert shares[0] > 0.75 and shares[1] < 0.25
    assert guard.deployed(seen[:150]) == "explore" and guard.deployed(seen) == "base"


def guarded(**changes):
    return tiny(**{"train.guard": "return", "num_envs": 2, "train.online_steps": 40, **changes})


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "alone"), [(1.0, "base"), (0.25, "sample")])
def test_who_begins_an_episode_ends_it_and_the_warm_up_is_the_base(tmp_path, scale, alone):
    config = guarded(**{"algo.deploy_noise_scale": scale})
    trainer = Trainer(config, tmp_path, Silent(), False)
    rollout, seen = trainer.actors, []
    act = rollout._act

    def spy(*args, mode, **rest):
        seen.append((rollout.env_steps, mode))
        return act(*args, mode=mode, **rest)

    rollout._act = spy
    run_all(trainer)
    arms = [each.arm for each in rollout.outcomes]
    assert set(arms) == {"base", "explore"} and len(arms) == 20  # two steps an episode
    assert all(mode == alone for steps, mode in seen if steps < 6)
    assert {mode for steps, mode in seen if steps >= 6} == {alone, "explore"}


@pytest.mark.slow
def test_two_and_two_equals_four_with_a_guard(tmp_path):
    train(guarded(), tmp_path / "whole")
    train(override(guarded(), {"train.online_steps": 18}), tmp_path / "halves")
    train(guarded(), tmp_path / "halves", resume=True)
    whole, record = checkpoint.load(newest(tmp_path / "whole"))
    parts, other = checkpoint.load(newest(tmp_path / "halves"))
    assert record["rollout"] == other["rollout"] and record["deployed"] == other["deployed"]
    for part, arrays in whole.items():
        for name, value in arrays.items():
            np.testing.assert_array_equal(parts[part][name], value, err_msg=f"{part} {name}")


@pytest.mark.slow
def test_the_deployed_policy_is_evaluated_and_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(Guard, "deployed", lambda self, outcomes: "base")
    train(guarded(**{"eval.unedited": True}), tmp_path / "run")
    for line in evaluations(tmp_path / "run"):
        assert line["deployed"] == "base" and line["policy"] == line["base"]
        assert {"unguarded", "unedited"} <= line.keys()
    last, run = evaluations(tmp_path / "run")[-1], load_run(tmp_path / "run")
    assert run.deployed == "base"
    assert run.evaluate().returns == last["base"]["returns"]
    assert run.evaluate(mode="evaluate").returns == last["unguarded"]["returns"]


@pytest.mark.slow
def test_evaluations_at_chosen_steps(tmp_path):
    config = tiny(**{"eval.at": (5, 10, 11), "train.online_steps": 20})
    train(config, tmp_path / "run")
    assert [line["env_steps"] for line in evaluations(tmp_path / "run")] == [0, 5, 10, 11, 20]


@pytest.mark.slow
def test_a_guard_needs_a_base_policy(tmp_path):
    with pytest.raises(ValueError, match=r"rlpd has no base policy to choose instead: train.guard"):
        train(tiny("rlpd", **{"train.guard": "success"}), tmp_path / "run")


def test_outcomes_written_before_there_was_a_guard():
    assert Outcome(12, True, 3, -2.0).arm == "explore"
