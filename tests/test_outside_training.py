"""Training around a policy from outside: the same update as around a base policy of the library's,
nothing lost by being wrapped, and exact resumption, frozen or learning."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.acting.around import Seen, around
from exporl.acting.evaluate import evaluate
from exporl.acting.policy import load_policy
from exporl.algos import (
    BestOfNConfig,
    DsrlConfig,
    ExpoConfig,
    FqlConfig,
    ResidualConfig,
    make_algorithm,
)
from exporl.data.episodes import Normalizer
from exporl.envs.registry import make_task
from exporl.external import outside_base
from exporl.external.base import PolicyFailed
from exporl.files import checkpoint
from exporl.parallel.seeds import train_seeds
from exporl.policies import BaseConfig, make_base
from exporl.policies import base as policies
from exporl.randomness import env_seed
from exporl.run.build import build
from exporl.run.callbacks import Callback
from exporl.run.config import check, override, with_given
from exporl.run.loop import train
from exporl.run.outside_learning import OutsideLearning
from exporl.run.presets import around_a_policy, preset_config
from exporl.run.progress import Silent
from exporl.run.session import Evaluator, load_run
from exporl.run.stopping import Interrupted
from exporl.types import Spec
from helpers.batches import random_batch, same, to_device, to_host
from helpers.outside import Drawn, Learns, Still
from helpers.runs import evaluations, newest, tiny

SPEC = Spec((("state", (3,), "float32"),), action_dim=2, chunk_length=2)
VALUED = dataclasses.replace(SPEC, value_range=(-10.0, 0.0))
SIZES = {"hidden": (16,), "num_qs": 3, "num_base_samples": 2}
FLOW = BaseConfig("flow", num_steps=2, width=16, num_blocks=1, time_dim=8)
OUTSIDE = BaseConfig(policy="given")
TASK = dataclasses.replace(make_task("probe/delay"), normalize=True)


propose = jax.jit(policies.propose, static_argnames=("base", "num", "spec"))


class FlowOutside:
    """A flow of the library's, handed over as if it came from elsewhere."""

    def __init__(self, params):
        self.flow, self.params, self.asked = make_base(FLOW, SPEC), params, 0

    def sample(self, observations, num, seed):
        self.asked += 1
        key = jax.random.key(seed)
        made = propose(self.flow, self.params, observations, num, key, SPEC)
        return np.asarray(made)


def outside(policy, spec=SPEC, learns=False):
    base = outside_base(None, policy, spec, learns=learns, learning_rate=0.0)
    assert base is not None
    return base


def beside(policy, config, needs, learns=False):
    """What a learner does with a policy."""
    run = dataclasses.replace(tiny(), algo=config)
    record = make_base(OUTSIDE, SPEC)
    seen = Seen(SPEC, None)
    return OutsideLearning.of(run, outside(policy, learns=learns), record, seen, needs)


@pytest.mark.parametrize("hoist", [False, True])
def test_a_flow_from_outside_gives_the_update_of_the_same_flow_inside(hoist):
    """Both are given the same samples: the one because its replay keeps them, the other because it
    is asked for them. All that is left to differ is who imitates."""
    kept = ExpoConfig(**SIZES, num_edit_samples=2, backup="cached", hoist_sampling=False)
    fresh = dataclasses.replace(kept, backup="fresh", hoist_sampling=hoist)
    inside = make_algorithm("expo", kept, SPEC, make_base(FLOW, SPEC))
    around_it = make_algorithm("expo", fresh, SPEC, make_base(OUTSIDE, SPEC))
    assert around_it.needs.attached == 2 and not around_it.needs.proposals
    one_key, other_key, draw_key = jax.random.split(jax.random.key(0), 3)
    state = to_host(jax.jit(inside.init)(one_key))
    policy = FlowOutside(state.base.params)
    learning = beside(policy, fresh, around_it.needs)
    batches = learning.attach(random_batch(SPEC, 2, 8), "online", draw_key)
    assert policy.asked == 1 and batches.next_proposals.shape == (2, 8, 2, 2, 2)
    empty = jax.jit(around_it.init)(other_key)
    other = to_device(dataclasses.replace(state, base=empty.base, base_ema=empty.base_ema))
    one, _ = inside.update(to_device(state), to_device(batches), jax.random.key(1), phase="online")
    two, _ = around_it.update(other, to_device(batches), jax.random.key(1), phase="online")
    one, two = to_host(one), to_host(two)
    for name in ("critic", "target_critic", "edit", "log_temperature"):
        for a, b in zip(
            *map(jax.tree.leaves, (getattr(one, name), getattr(two, name))), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)
    assert not same(one.critic, state.critic) and jax.tree.leaves(two.base) == []


def test_acting_ranks_what_the_policy_proposes():
    """Observations reach the policy as they are, and the networks normalised."""
    config = BestOfNConfig(**SIZES, hoist_sampling=False)
    inside = make_algorithm("best_of_n", config, SPEC, make_base(OUTSIDE, SPEC))
    policy = FlowOutside(jax.jit(make_base(FLOW, SPEC).init)(jax.random.key(1)))
    normalizer = Normalizer({"state": np.ones(3, np.float32)}, {"state": np.full(3, 2.0, "f4")})
    wrapped = around(inside, outside(policy), Seen(SPEC, normalizer))
    acting = inside.acting(jax.jit(inside.init)(jax.random.key(0)))
    seen = {"state": np.eye(3, dtype="f4")}
    chosen = wrapped.act(acting, seen, jax.random.key(2), mode="evaluate")
    again = wrapped.act(acting, seen, jax.random.key(2), mode="evaluate")
    other = wrapped.act(acting, seen, jax.random.key(3), mode="evaluate")
    assert same(chosen.action, again.action) and not same(chosen.action, other.action)
    given = np.asarray(wrapped.propose(None, seen, jax.random.key(2)))
    by_hand = inside.act(
        acting, normalizer(seen), jax.random.key(2), mode="evaluate", proposals=given
    )
    assert same(chosen.action, by_hand.action)


@pytest.mark.parametrize(
    ("base_weight", "weights"),
    [
        ("uniform", [1, 1, 1, 1]),
        # lengths 10, 11, 12, 13: in standard deviations -1.3416, -.4472, .4472, 1.3416
        ("shorter", [2.432599, 0.994548, 0.406613, 0.166240]),
    ],
)
def test_rows_are_imitated_as_the_library_imitates_them(base_weight, weights):
    config = ExpoConfig(
        **SIZES,
        num_edit_samples=2,
        base_data="successes",
        base_weight=base_weight,
        base_updates=2,
    )
    algorithm = make_algorithm("expo", config, SPEC, make_base(OUTSIDE, SPEC))
    heard = []

    class Listens(FlowOutside):
        def imitate(self, batch):
            heard.append(batch)
            return {"base/loss": 1.5}

        def state(self):
            return {}

        def load(self, state):
            pass

    learning = beside(Listens(None), config, algorithm.needs, learns=True)
    lengths = np.broadcast_to(np.arange(10, 18, dtype="f4"), (3, 8))
    batches = random_batch(SPEC, 3, 8).replace(extra={"episode_length": lengths})
    assert float(learning.imitate(batches, "online", 0, 5)["base/loss"]) == 1.5
    assert len(heard) == 2 and heard[0].seed != heard[1].seed
    np.testing.assert_array_equal(heard[1].action, batches.action[2])
    np.testing.assert_allclose(heard[1].valid[:, 0], [*weights, 0, 0, 0, 0], rtol=1e-5)
    learning.imitate(batches, "pretrain", 0, 6)
    assert len(heard) == 5 and learning.imitate(batches, "critic_pretrain", 0, 7) == {}
    assert beside(Drawn(), config, algorithm.needs).imitate(batches, "online", 0, 0) == {}


def test_who_needs_the_noise_of_a_base_refuses_one_from_outside():
    record = make_base(OUTSIDE, SPEC)
    for options, message in (
        ({"backup": "filtered"}, "backup='filtered' chooses among the noise"),
        ({"min_noise_scale": 0.0}, "min_noise_scale=0.0 scales the noise"),
        ({"deploy_noise_scale": 0.0}, "deploy_noise_scale=0.0 scales the noise"),
    ):
        with pytest.raises(ValueError, match=message):
            make_algorithm("expo", ExpoConfig(**options), SPEC, record)
    own_samples = {
        "fql": FqlConfig(hidden=(16,)),
        "dsrl": DsrlConfig(hidden=(16,)),
        "residual": ResidualConfig(hidden=(16,)),
    }
    for name, config in own_samples.items():
        algorithm = make_algorithm(name, config, SPEC, record)
        with pytest.raises(ValueError, match="this algorithm draws its own samples"):
            around(algorithm, outside(Drawn()), Seen(SPEC, None))
    with pytest.raises(ValueError, match="its samples are handed over"):
        record.decode({}, {}, jnp.zeros(1))
    with pytest.raises(ValueError, match=r"base.learns=True means something for a policy from"):
        make_base(BaseConfig(learns=True), SPEC)


def test_presets_leave_out_what_a_trained_policy_does_not_need():
    stable = around_a_policy(preset_config("expo", "stable", "probe/delay"))
    assert stable.train.offline_steps == 0 and stable.algo.min_noise_scale == 1
    base = make_base(OUTSIDE, SPEC)
    assert make_algorithm("expo", stable.algo, VALUED, base).needs.proposals == 4
    check(override(stable, {"base.policy": "my_robot:to_policy"}))
    assert around_a_policy(preset_config("rlpd", "tiny", "probe/delay")).train.offline_steps == 0


class StopAt(Callback):
    """Stops a run after so many environment steps."""

    def __init__(self, steps):
        self.steps, self.stop = steps, threading.Event()

    def on_step(self, env_steps, steps):
        if env_steps >= self.steps:
            self.stop.set()


def learnt(run):
    return checkpoint.load(newest(run))[0]


def assert_same_run(one, other):
    assert newest(one).name == newest(other).name
    a, b = learnt(one), learnt(other)
    assert a.keys() == b.keys() and all(same(a[part], b[part]) for part in a)
    assert evaluations(one) == evaluations(other)


def stopped_and_resumed(config, run, steps, make):
    at = StopAt(steps)
    with pytest.raises(Interrupted):
        train(config, run, base=make(), task=TASK, callbacks=[at], stop=at.stop)
    train(config, run, base=make(), task=TASK, resume=True)


ROUND = {"train.offline_steps": 0, "train.online_steps": 16, "log.save_every": 8, "eval.every": 16}


def test_a_frozen_policy_loses_nothing_by_being_wrapped(tmp_path):
    """The base policy alone, evaluated by a run, is the policy played by hand, to the bit; the run
    resumes to the bit as well."""
    config = tiny(**ROUND, **{"eval.num_envs": 1})
    train(config, tmp_path / "whole", base=Still(), task=TASK)
    stopped_and_resumed(config, tmp_path / "resumed", 11, Still)
    assert_same_run(tmp_path / "whole", tmp_path / "resumed")
    by_hand, env, policy = [], TASK.make_env(), Still()
    for episode in range(config.eval.episodes):
        seen, _ = env.reset(seed=env_seed(config.eval.seed, episode))
        total, over = 0.0, False
        while not over:
            rows = {name: value[None] for name, value in seen.items()}
            seen, reward, terminated, truncated, _ = env.step(policy.sample(rows, 1, 0)[0, 0, 0])
            total, over = total + reward, terminated or truncated
        by_hand.append(total)
    session = load_run(tmp_path / "whole", task=TASK, base=Still())
    assert session.evaluate(base=True).returns == by_hand
    unedited = evaluate(
        [session.parts.make_env()], session.algorithm.act, session.learner.acting(), float,
        mode="unedited", episodes=4, seed=config.eval.seed, execute_length=1,
    )  # fmt: skip
    assert unedited.returns == by_hand
    one = override(tiny("best_of_n", **ROUND), {"algo.num_base_samples": 1, "eval.num_envs": 1})
    train(one, tmp_path / "one", base=Still(), task=TASK)
    assert evaluations(tmp_path / "one")[-1]["policy"]["returns"] == by_hand
    alone = load_policy(tmp_path / "whole", base=Still())
    seen = {"state": np.array([[0.0, 0.0], [1.0, 0.5]], np.float32)}
    each = alone.decide_each(alone.interface.batch(seen)[0], np.array([5, 6], np.uint32))
    for row, decision in enumerate(each):
        one = alone.decide({"state": seen["state"][row]}, seed=5 + row)
        assert decision is not None and same(decision.action, one.action)
        assert same(decision.info, dict(one.info))
    played = alone.act(seen, seed=3, mode="base")[:, 0]
    np.testing.assert_array_equal(played, Still().sample(seen, 1, 0)[:, 0, 0])
    with pytest.raises(ValueError, match="handed over in Python"):
        load_policy(tmp_path / "whole")
    with pytest.raises(ValueError, match="handed over in Python"):
        train(config, tmp_path / "whole", task=TASK, resume=True)


@pytest.mark.slow
class Counted(Drawn):
    """Counts the questions to the policy alone: those for one sample."""

    def __init__(self, seeded=True):
        self.asked, self.seeded, self.version = [], seeded, "first"

    def sample(self, observations, num, seed):
        self.asked.append(num)
        return super().sample(observations, num, seed)


def test_a_policy_that_stays_as_it_is_is_evaluated_alone_once(tmp_path):
    """Not so one whose draws do not repeat, or that has got other parameters."""
    config = with_given(tiny(**ROUND), Counted())
    run = build(config, tmp_path / "a", Silent().say, base=Counted(), task=TASK)
    with Evaluator(run) as evaluator:
        first = evaluator.during_training("explore", guarded=False)["base"]
        once = run.base.policy.asked.count(1)
        assert evaluator.during_training("explore", guarded=False)["base"] == first
        assert run.base.policy.asked.count(1) == once > 0
        run.base.policy.version = "second"
        evaluator.during_training("explore", guarded=False)
        assert run.base.policy.asked.count(1) == 2 * once
    run = build(config, tmp_path / "b", Silent().say, base=Counted(seeded=False), task=TASK)
    with Evaluator(run) as evaluator:
        for _ in range(2):
            evaluator.during_training("explore", guarded=False)
    assert run.base.policy.asked.count(1) == 2 * once


def test_a_learning_policy_goes_on_exactly(tmp_path):
    options = {"base.learns": True, "algo.backup": "cached", "algo.cache_refresh": 8}
    config = tiny(**ROUND, **options, **{"algo.base_updates": 2})
    config = override(config, {"train.offline_steps": 120, "log.save_every": 60})
    whole = Learns()
    train(config, tmp_path / "whole", base=whole, task=TASK)
    stopped_and_resumed(config, tmp_path / "resumed", 11, Learns)
    assert_same_run(tmp_path / "whole", tmp_path / "resumed")
    saved = learnt(tmp_path / "whole")["learner"]
    assert int(saved["outside/state/steps"]) == whole.steps > 120
    assert load_run(tmp_path / "whole", task=TASK, base=Learns()).evaluate(base=True).returns


def test_a_frozen_policy_has_nothing_to_imitate(tmp_path):
    with pytest.raises(ValueError, match=r"train.offline_steps=20 imitation steps have nothing to"):
        train(tiny(), tmp_path / "run", base=Still())
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"the base policy does not fit. answers:"):
        train(tiny(**ROUND), tmp_path / "run", base=np.tanh)


class Breaks(Drawn):
    """Draws, until it is asked about so many observations at a time once too often."""

    def __init__(self, rows, times):
        self.rows, self.left = rows, times

    def sample(self, observations, num, seed):
        self.left -= len(observations["state"]) == self.rows
        if self.left < 0:
            raise OSError("the link is lost")
        return super().sample(observations, num, seed)


def test_a_policy_that_fails_while_acting_loses_nothing(tmp_path):
    """The checkpoint is written first, and the resumed run is the unbroken one, to the bit."""
    config = tiny(**{**ROUND, "log.save_every": 1000})
    train(config, tmp_path / "whole", base=Drawn(), task=TASK)
    with pytest.raises(PolicyFailed, match="sample raised OSError: the link is lost") as caught:
        train(config, tmp_path / "broken", base=Breaks(1, 11), task=TASK)
    name = newest(tmp_path / "broken").name
    assert 0 < int(name.rsplit("-", 1)[1]) < 16
    assert f"The last checkpoint is {name}; go on with" in " ".join(caught.value.__notes__)
    train(config, tmp_path / "broken", base=Drawn(), task=TASK, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_a_policy_that_fails_in_an_update_leaves_a_checkpoint_to_go_on_from(tmp_path):
    config = tiny(**{**ROUND, "log.save_every": 1000})
    with pytest.raises(PolicyFailed, match="the link is lost"):
        train(config, tmp_path / "run", base=Breaks(16, 3), task=TASK)
    assert 0 < int(newest(tmp_path / "run").name.rsplit("-", 1)[1]) < 16
    train(config, tmp_path / "run", base=Drawn(), task=TASK, resume=True)
    assert newest(tmp_path / "run").name == "checkpoint-000000016"


def test_seeds_around_a_policy_are_processes(tmp_path):
    config = override(tiny(), {"base.policy": "my_robot:to_policy"})
    with pytest.raises(ValueError, match="needs a program of its own per seed"):
        train_seeds(config, tmp_path / "seeds", 2, mode="vmap")


class Looks:
    """Acts by the brightness of the picture."""

    def sample(self, observations, num, seed):
        light = observations["image"].astype(np.float32).mean(axis=(1, 2, 3)) / 255
        return np.repeat(light[:, None, None, None], num, axis=1)


@pytest.mark.slow
def test_a_policy_may_read_pictures_that_the_networks_do_not(tmp_path):
    config = tiny(task="probe/image", **ROUND)
    train(config, tmp_path / "run", base=Looks())
    policy = load_policy(tmp_path / "run", base=Looks())
    seen = {"state": np.zeros(2, np.float32), "image": np.full((8, 8, 3), 51, np.uint8)}
    np.testing.assert_allclose(policy.act(seen, seed=0, mode="base"), [[0.2]], atol=1e-6)
    with pytest.raises(ValueError, match="the observation lacks 'image'"):
        policy.act({"state": np.zeros(2, np.float32)})
