"""What a run says before it begins."""

import pytest

from exporl.algos import make_algorithm
from exporl.cli.train import with_options
from exporl.envs.probes import SPEC
from exporl.policies import make_base
from exporl.run.loop import train
from exporl.run.phases import check_phases, update_calls_due
from exporl.run.plan import never_happens, plan
from exporl.run.presets import PRESETS, preset_config
from exporl.run.progress import Silent
from helpers.runs import tiny


def said(config, seconds=None):
    base = make_base(config.base, SPEC)
    return plan(config, make_algorithm(config.algorithm, config.algo, SPEC, base), seconds)


def test_the_plan_tells_who_acts_until_when_and_how_much_is_learnt():
    online = {"train.online_steps": 2_000, "train.critic_warmup_steps": 500}
    assert said(tiny(**online, **{"train.update_every": 2})) == (
        "plan: 20 imitation steps; 2,000 environment steps: the base policy alone until step 500, "
        "then the policy; 998 update calls of 4 minibatches from step 6 on; how long is not known "
        "until a run of this kind has finished here"
    )
    guarded = said(tiny(**online, **{"train.guard": "success", "train.random_steps": 100}))
    assert (
        "random actions until step 100, the base policy alone until step 600, then whichever of "
        "base and policy does better" in guarded
    )
    imitated = said(tiny("bc", **{"train.online_steps": 0}))
    assert imitated.startswith("plan: 20 imitation steps; how long is not known until")
    nothing = {"train.online_steps": 0, "train.offline_steps": 0}
    assert said(tiny("bc", **nothing)) == "plan: nothing to learn"


@pytest.mark.parametrize(
    ("seconds", "words"), [(61.4, "61 s"), (240.0, "4 min"), (9000.0, "2.5 h")]
)
def test_the_plan_says_how_long_where_that_is_known(seconds, words):
    assert "as the last run" not in said(tiny()) and "not known" not in said(tiny(), seconds)
    ending = f"; about {words} in all, as the last run of this kind took here"
    assert said(tiny(), seconds).endswith(ending)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train.critic_warmup_steps": 24}, "the policy never acts in training: it begins after"),
        (
            {"train.update_after": 30},
            "nothing is learnt online: the first update is due after step 31",
        ),
    ],
)
def test_what_never_happens_is_said(options, words):
    assert never_happens(tiny()) == []
    (warning,) = never_happens(tiny(**options))
    assert warning.startswith(words) and "of 24 (train.online_steps)" in warning


@pytest.mark.parametrize(("algorithm", "name"), sorted(PRESETS))
def test_no_preset_acts_or_learns_never(algorithm, name):
    """Half of a run's steps at least are the policy's, and it learns in most of them."""
    config = preset_config(algorithm, name, "probe/bandit")
    train = config.train
    assert never_happens(config) == []
    if train.online_steps:
        assert train.random_steps + train.critic_warmup_steps <= train.online_steps / 2
        calls = update_calls_due(train, 0, train.online_steps)
        assert calls * train.update_every >= train.online_steps / 2


def test_without_prior_data_the_message_says_how_to_learn_from_scratch_and_that_works():
    config = tiny(task="probe/bandit", **{"data.demos": 0})
    base = make_base(config.base, SPEC)
    algorithm = make_algorithm(config.algorithm, config.algo, SPEC, base)
    with pytest.raises(ValueError, match="no prior data") as refused:
        check_phases(config, algorithm, has_data=False)
    advice = str(refused.value).partition("from scratch: ")[2].rstrip(".").split()
    assert "--data.prior-ratio" in advice and "--train.offline-steps" in advice
    check_phases(with_options(config, advice), algorithm, has_data=False)


@pytest.mark.slow
def test_a_run_says_its_plan_and_what_never_happens(tmp_path):
    class Told(Silent):
        def __init__(self):
            self.lines = []

        def say(self, message):
            self.lines.append(message)

    told = Told()
    config = tiny(**{"train.online_steps": 4, "eval.episodes": 1, "eval.num_envs": 1})
    train(config, tmp_path / "run", told)
    assert any(
        line.startswith("plan: 20 imitation steps; 4 environment steps") for line in told.lines
    )
    assert any("the policy never acts in training" in line for line in told.lines)
