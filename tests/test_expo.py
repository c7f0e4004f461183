"""EXPO: what each option and phase does to the state, and the update against independent
computations."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import ExpoConfig, expo, make_algorithm
from exporl.algos.edit_metrics import choice_metrics
from exporl.algos.expo_entry import make_expo
from exporl.nets.critic import Critic
from exporl.ops.gaussian import tanh_sample
from exporl.ops.selection import Candidates
from exporl.policies import BaseConfig, make_base
from exporl.policies.base import propose
from exporl.types import Spec
from helpers.batches import distance, random_batch, same, to_device, to_host
from helpers.draws import certain, least_of_pairs, still

SPEC = Spec((("state", (3,), "float32"),), action_dim=2, chunk_length=2)
BASE = BaseConfig(
    kind="flow", num_steps=2, width=16, num_blocks=1, time_dim=8, learning_rate=1e-3, decay_steps=0
)
HIDDEN = (16,)
CONFIG = ExpoConfig(
    num_base_samples=3, num_edit_samples=2, edit_scale=0.05, num_qs=4, num_min_qs=2, hidden=HIDDEN,
    tau=0.1, base_tau=0.2, critic_learning_rate=1e-3, edit_learning_rate=1e-3,
    temperature_learning_rate=1e-2, decay_steps=0,
)  # fmt: skip
MODELS = ("base", "base_ema", "edit", "critic", "target_critic", "log_temperature")
BATCHES = random_batch(SPEC, 2, 8)
STILL = still(make_base(BASE, SPEC), CONFIG.num_base_samples)
"""The base policy, whose samples are the same for every key."""


@functools.cache
def algorithm(base=None, **changes):
    return expo(dataclasses.replace(CONFIG, **changes), SPEC, base or make_base(BASE, SPEC))


@functools.cache
def functions(**changes):
    """The functions that the algorithm is made of."""
    return make_expo(dataclasses.replace(CONFIG, **changes), SPEC, make_base(BASE, SPEC))


@pytest.fixture(scope="module")
def initial():
    """The state of every algorithm here at step 0; `start` makes one to donate."""
    state = to_host(jax.jit(algorithm().init)(jax.random.key(0)))
    # At step 0 copies equal their originals: an average that lags behind tells them apart.
    return dataclasses.replace(
        state,
        base_ema=jax.tree.map(lambda x: (0.9 * x).astype(x.dtype), state.base.params),
        target_critic=jax.tree.map(lambda x: (0.8 * x).astype(x.dtype), state.critic.params),
    )


def run(initial, batches=BATCHES, key=1, phase="online", **changes):
    """One update from the initial state: (state, metrics) in host memory."""
    return to_host(
        algorithm(**changes).update(to_device(initial), batches, jax.random.key(key), phase=phase)
    )


@pytest.fixture(scope="module")
def updated(initial):
    return {phase: run(initial, phase=phase) for phase in ("pretrain", "critic_pretrain", "online")}


def act(params, observation, seed=0, mode="explore", **changes):
    """The action chunks of one decision."""
    decision = algorithm(**changes).act(params, observation, jax.random.key(seed), mode=mode)
    return np.asarray(decision.action)


every_critic = jax.jit(Critic(HIDDEN, CONFIG.num_qs).apply)


def row(batches, i):
    return jax.tree.map(lambda x: jnp.asarray(x[i]), batches)


still_samples = jax.jit(
    lambda params, observation: propose(STILL, params, observation, 3, jax.random.key(0), SPEC)
)
edit_means = jax.jit(lambda params, *inputs: functions().edit.apply(params, *inputs).mean)


def with_certain_edits(state):
    """The state, with edits that are the same for every key."""
    params = certain(state.edit.params)
    return dataclasses.replace(state, edit=dataclasses.replace(state.edit, params=params))


def certainly_edited(state, features, action):
    """What the certain edits of a state make of actions."""
    mean = edit_means(state.edit.params, features, action)
    return np.clip(action + CONFIG.edit_scale * np.tanh(mean), -1, 1)


def best_candidates(state, critics, observation, samples, num_edits):
    """By every pair of critics: (candidates [b, c, h, a], their least values [pairs, b, c])."""
    features, samples = observation["state"][:, None], np.asarray(samples)
    edits = certainly_edited(state, features, samples[:, :num_edits])
    actions = np.concatenate([samples, edits], axis=1) if num_edits else samples
    return actions, least_of_pairs(every_critic(critics, features, actions))


def explain(decision, actions, least) -> int:
    """The pair of critics to which the decision took the best candidate, and says so."""
    index, rows = least.argmax(axis=2), np.arange(len(actions))
    pairs = [
        pair
        for pair, best in enumerate(least.max(axis=2))
        if np.allclose(decision.info["q"], best, atol=1e-5)
        and np.array_equal(decision.info["index"], index[pair])
    ]
    assert pairs, "no pair of the target critics ranks a candidate of that place and value highest"
    pair = pairs[0]
    np.testing.assert_array_equal(decision.info["edited"], index[pair] >= 3)
    np.testing.assert_allclose(decision.action, actions[rows, index[pair]], atol=1e-5)
    return pair


@pytest.mark.slow
@pytest.mark.parametrize("num_edits", [0, 2])
def test_it_acts_by_the_best_of_samples_and_edits(initial, num_edits):
    """Of its averaged base policy, to a random pair of its target critics. The decision says which
    it is, whether an edit, and its value to that pair."""
    state, observation = with_certain_edits(initial), row(BATCHES, 0).observation
    chosen = algorithm(STILL, num_edit_samples=num_edits)
    samples = still_samples(state.base_ema, observation)
    actions, least = best_candidates(state, state.target_critic, observation, samples, num_edits)
    decide = functools.partial(chosen.act, chosen.acting(state), observation)
    decisions = [decide(jax.random.key(seed)) for seed in range(16)]
    # a given pair is missed by 16 draws in one of 18 runs, three of six in one of 3000
    assert len({explain(decision, actions, least) for decision in decisions}) > 3
    edited = np.mean([decision.info["edited"] for decision in decisions])
    assert 0 < edited < 1 if num_edits else edited == 0


@pytest.mark.slow
@pytest.mark.parametrize("num_edits", [0, 2])
def test_it_learns_from_the_best_of_samples_and_edits(initial, num_edits):
    """Of its live base policy: a random pair of its target critics chooses, another one values."""
    # the smallest and the largest of two targets are the targets
    two = random_batch(SPEC, 1, 2).replace(discount=np.array([[0.9, 0.6]], np.float32))
    batch, start = row(two, 0), with_certain_edits(initial)
    samples = still_samples(start.base.params, batch.next_observation)
    _, least = best_candidates(
        start, start.target_critic, batch.next_observation, samples, num_edits
    )
    chosen = np.take_along_axis(least[None], least.argmax(axis=2)[:, None, :, None], axis=3)[..., 0]
    targets = np.sort(np.asarray(batch.reward) + np.asarray(batch.discount) * chosen, axis=2)
    explanations = []
    for seed in range(10):
        state, metrics = run(start, two, seed, base=STILL, num_edit_samples=num_edits)
        found = [metrics["critic/target_min"], metrics["critic/target_max"]]
        explanations.append(np.argwhere(np.isclose(targets, found, atol=1e-5).all(axis=2)))
        assert len(explanations[-1])
    choosing, valuing = zip(*(explained.T for explained in explanations), strict=True)
    assert len({int(pair[0]) for pair in valuing}) > 2
    assert any((a != b).all() for a, b in zip(choosing, valuing, strict=True))
    if num_edits == 0:
        assert same(state.edit, start.edit) and same(state.log_temperature, start.log_temperature)
        assert not [name for name in metrics if name.startswith("edit/")]


@pytest.mark.slow
def test_hoisted_sampling_gives_the_same_state(initial, updated):
    state, metrics = run(initial, hoist_sampling=True)
    assert distance(state, updated["online"][0]) < 1e-5
    assert distance(metrics, updated["online"][1]) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "moved"),
    [
        ("pretrain", {"base", "base_ema"}),
        ("critic_pretrain", {"edit", "critic", "target_critic", "log_temperature"}),
        ("online", set(MODELS)),
    ],
)
def test_phases(initial, updated, phase, moved):
    state, metrics = updated[phase]
    assert phase in algorithm().needs.phases
    assert {
        name for name in MODELS if not same(getattr(state, name), getattr(initial, name))
    } == moved
    assert same(state.base_ema, state.base.params) == (phase == "pretrain")
    assert ("base/loss" in metrics) == (phase != "critic_pretrain")
    assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["pretrain", "critic_pretrain", "online"])
def test_the_state_keeps_its_structure(initial, phase):
    start = to_device(initial)
    shapes = jax.tree.map(lambda x: x.aval, start)
    end, _ = algorithm().update(start, BATCHES, jax.random.key(1), phase=phase)
    assert jax.tree.map(lambda x: x.aval, end) == shapes


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["pretrain", "critic_pretrain", "online"])
def test_the_key_decides_everything(initial, updated, phase):
    assert same(run(initial, phase=phase), updated[phase])
    other, _ = run(initial, phase=phase, key=2)
    name = "base" if phase == "pretrain" else "critic"
    assert not same(getattr(other, name), getattr(updated[phase][0], name))


def test_states_can_be_donated():
    state = jax.jit(algorithm().init)(jax.random.key(0))
    for phase in ("pretrain", "online", "critic_pretrain"):
        leaves = jax.tree.leaves(state)
        assert len({leaf.unsafe_buffer_pointer() for leaf in leaves if leaf.size}) == len(leaves)
        state, _ = algorithm().update(state, BATCHES, jax.random.key(1), phase=phase)
        assert phase != "online" or all(leaf.is_deleted() for leaf in leaves)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.slow
def test_the_averages_follow_slowly(initial):
    state, _ = run(initial, batches=random_batch(SPEC, 1, 2), base=STILL, num_edit_samples=0)
    expected = jax.tree.map(
        lambda new, old: 0.1 * new + 0.9 * old, state.critic.params, initial.target_critic
    )
    assert distance(state.target_critic, expected) < 1e-6
    expected = jax.tree.map(
        lambda new, old: 0.2 * new + 0.8 * old, state.base.params, initial.base_ema
    )
    assert distance(state.base_ema, expected) < 1e-6
    assert distance(state.target_critic, initial.target_critic) > 1e-4
    assert distance(state.base_ema, initial.base_ema) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("soft", "entropy"), [(True, True), (True, False), (False, False)])
def test_target(initial, soft, entropy):
    """One subset of the target critics chooses, the other values; soft choices may pay for their
    log probability."""
    softness, temperature, members, value_members = 3.0, 0.7, np.array([1, 3]), np.array([0, 2])
    options = {"selection": "soft", "softness": softness, "backup_entropy": entropy} if soft else {}
    batch = row(random_batch(SPEC, 1, 64), 0)
    actions = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (64, 5, 2, 2)).astype(np.float32))
    features = batch.next_observation["state"]
    candidates = Candidates(features, actions[:, :3], actions[:, 3:])
    target, choice = jax.jit(functions(**options).target)(
        initial.target_critic, jnp.float32(temperature), batch, candidates, jnp.asarray(members),
        jnp.asarray(value_members), jax.random.key(0),
    )  # fmt: skip
    q, rows = (
        np.asarray(every_critic(initial.target_critic, features[:, None], actions)),
        np.arange(64),
    )
    ranked = q[members].min(axis=0)
    log_probs = softness * ranked - np.log(np.exp(softness * ranked).sum(axis=1, keepdims=True))
    index = np.asarray(choice.index)
    assert (index == ranked.argmax(axis=1)).all() == (not soft)
    np.testing.assert_allclose(choice.log_prob, soft * log_probs[rows, index], atol=1e-5)
    value = (
        q[value_members].min(axis=0)[rows, index] - entropy * temperature * log_probs[rows, index]
    )
    np.testing.assert_allclose(target, batch.reward + batch.discount * value, atol=1e-5)
    metrics = jax.jit(choice_metrics)(choice, candidates)
    np.testing.assert_allclose(metrics["edit/picked"], (index >= 3).mean(), atol=1e-6)
    advantage = (ranked[:, 3:].max(axis=1) - ranked[:, :3].max(axis=1)).mean()
    np.testing.assert_allclose(metrics["edit/advantage"], advantage, atol=1e-5)


@pytest.mark.slow
def test_edit_loss(initial):
    """Edits of the batch's own actions, the mean over all critics, and the density of the scaled
    edit."""
    expo, batch = functions(entropy_scale=0.25), row(BATCHES, 0)
    features = batch.observation["state"]
    eps = jnp.asarray(np.random.default_rng(0).standard_normal((8, 2, 2)).astype(np.float32))

    @jax.jit
    def both(state):
        loss = expo.edit_loss(state.edit.params, state.critic.params, jnp.float32(0.6), batch, eps)
        return loss, expo.draw_edits(expo.edit, state.edit.params, features, batch.action, eps)

    (loss, metrics), (action, unit, log_prob) = both(initial)
    q = np.asarray(every_critic(initial.critic.params, features, action)).mean(axis=0)
    mean, log_std = jax.jit(expo.edit.apply)(initial.edit.params, features, batch.action)
    _, unscaled = tanh_sample(mean, log_std, eps)
    np.testing.assert_allclose(log_prob, unscaled - 4 * np.log(CONFIG.edit_scale), rtol=1e-5)
    log_prob = np.asarray(log_prob)
    np.testing.assert_allclose(loss, (0.25 * 0.6 * log_prob - q).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["edit/entropy"], -log_prob.mean(), rtol=1e-5)
    np.testing.assert_allclose(
        metrics["edit/magnitude"], CONFIG.edit_scale * np.abs(unit).mean(), rtol=1e-5
    )
    np.testing.assert_allclose(metrics["edit/saturated"], (np.abs(unit) > 0.95).mean(), rtol=1e-5)


@pytest.mark.slow
def test_edits_learn_from_the_last_minibatch(initial):
    """As they were, under the critics as they are now."""
    # a low temperature keeps the entropy, which depends on the draw, from swamping the value
    cold = dataclasses.replace(initial.log_temperature, params=np.float32(np.log(0.01)))
    start = dataclasses.replace(with_certain_edits(initial), log_temperature=cold)
    state, metrics = run(start)

    def value(critics, number):
        batch = row(BATCHES, number)
        features, action = batch.observation["state"][:, None], batch.action[:, None]
        return every_critic(critics, features, certainly_edited(start, features, action)).mean()

    found = -metrics["edit/loss"] - 0.01 * metrics["edit/entropy"]
    np.testing.assert_allclose(found, value(state.critic.params, -1), atol=2e-6)
    old = [value(critics, -1) for critics in (start.critic.params, state.target_critic)]
    assert np.abs(np.array([*old, value(state.critic.params, 0)]) - found).min() > 1e-4


@pytest.mark.slow
def test_the_base_learns_from_the_last_minibatch(initial, updated):
    """As it was, and from nothing else."""
    state, metrics = updated["online"]
    half = jax.tree.map(lambda x: (0.5 * x).astype(x.dtype), initial)
    others = BATCHES.replace(
        reward=-BATCHES.reward,
        next_observation={"state": -BATCHES.next_observation["state"]},
        action=BATCHES.action * np.array([-1, 1], np.float32)[:, None, None, None],
    )
    other, other_metrics = run(dataclasses.replace(half, base=initial.base), others)
    assert same(other.base, state.base) and other_metrics["base/loss"] == metrics["base/loss"]
    assert not same(other.critic, state.critic)
    last = BATCHES.replace(action=BATCHES.action - others.action)
    for start, batches in (
        (dataclasses.replace(initial, base=half.base), BATCHES),
        (initial, last),
    ):
        assert run(start, batches)[1]["base/loss"] != metrics["base/loss"]


@pytest.mark.slow
def test_clip_edits(initial):
    state = jnp.zeros((64, 3))
    action = np.random.default_rng(0).uniform(-1, 1, (64, 2, 2)).astype(np.float32)
    eps = np.random.default_rng(1).standard_normal((64, 2, 2)).astype(np.float32)

    def edits(**changes):
        expo = functions(edit_scale=0.7, **changes)
        return jax.jit(functools.partial(expo.draw_edits, expo.edit))(
            initial.edit.params, state, jnp.asarray(action), jnp.asarray(eps)
        )

    free, unit, log_prob = (np.asarray(x) for x in edits(clip_edits=False))
    clipped, same_unit, same_log_prob = edits()
    np.testing.assert_allclose(free, action + 0.7 * unit, atol=1e-6)
    assert np.abs(free).max() > 1 and np.abs(unit).max() <= 1
    np.testing.assert_allclose(clipped, np.clip(free, -1, 1), atol=1e-6)
    assert np.abs(clipped).max() <= 1
    np.testing.assert_allclose(same_unit, unit, atol=1e-6)
    np.testing.assert_allclose(same_log_prob, log_prob, rtol=1e-5)


@pytest.mark.slow
def test_candidates_are_base_samples_then_their_edits(initial):
    observation = row(BATCHES, 0).observation

    @jax.jit
    def draw(state, key):
        propose_key, edit_key = jax.random.split(key)
        proposals = functions().propose(state.base.params, observation, propose_key)
        return proposals, functions().candidates(
            state.edit.params, observation, proposals, edit_key
        )

    proposals, candidates = draw(initial, jax.random.key(0))
    np.testing.assert_array_equal(candidates.base, proposals)
    np.testing.assert_array_equal(candidates.features, observation["state"])
    actions = np.asarray(candidates.action)
    assert actions.shape == (8, 5, 2, 2)
    edits = np.abs(actions[:, 3:] - actions[:, :2])
    assert 0 < edits.max() <= CONFIG.edit_scale + 1e-6 and np.abs(actions).max() <= 1
    assert np.abs(actions[:, 3] - actions[:, 1]).max() > CONFIG.edit_scale


def edit_for(initial, updates, **changes):
    """Temperature and entropy over a number of updates."""
    state, history = to_device(initial), []
    for i in range(updates):
        state, metrics = algorithm(**changes).update(
            state, BATCHES, jax.random.key(i), phase="online"
        )
        history.append(
            {name: metrics[f"edit/{name}"] for name in ("temperature", "entropy", "target_entropy")}
        )
    return {name: np.array([float(h[name]) for h in history]) for name in history[0]}


@pytest.mark.slow
def test_an_attainable_entropy_target_lowers_the_temperature(initial):
    history = edit_for(initial, 200)
    assert history["temperature"][0] == 1 and history["temperature"][-1] < 0.5
    np.testing.assert_allclose(history["target_entropy"], -0.5 * 4 + 4 * np.log(0.05), rtol=1e-6)


OTHER = {
    "base_data": "successes",
    "acting_base": "live",
    "edit_dropout": 0.5,
    "target_entropy": "released",
}
"""One algorithm for the tests of several options, because compiling is what takes the time."""


@pytest.mark.slow
def test_the_released_entropy_target_drives_the_temperature_up(initial):
    history = edit_for(initial, 200, **OTHER)
    assert (np.diff(history["temperature"]) > 0).all() and history["temperature"][-1] > 2
    assert (history["target_entropy"] == -2).all() and (history["entropy"] < -2).all()


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["pretrain", "online"])
def test_base_data(initial, phase):
    failures = (BATCHES.success == 0)[..., None, None]
    changed = {
        "failures": dataclasses.replace(
            BATCHES, action=np.where(failures, -BATCHES.action, BATCHES.action)
        ),
        "successes": dataclasses.replace(
            BATCHES, action=np.where(failures, BATCHES.action, -BATCHES.action)
        ),
    }
    state, _ = run(initial, phase=phase, **OTHER)
    for rows, batches in changed.items():
        assert same(run(initial, batches=batches, phase=phase, **OTHER)[0].base, state.base) == (
            rows == "failures"
        )
        assert not same(
            run(initial, batches=batches, phase=phase)[0].base, run(initial, phase=phase)[0].base
        )


@pytest.mark.slow
def test_acting_base(initial):
    assert same(algorithm().acting(initial)["base"], initial.base_ema)
    assert same(algorithm(**OTHER).acting(initial)["base"], initial.base.params)
    for params in (algorithm().acting(initial), algorithm(**OTHER).acting(initial)):
        assert same(params["edit"], initial.edit.params) and same(
            params["critic"], initial.target_critic
        )


@pytest.mark.slow
def test_edit_dropout_is_for_training_only(initial, updated):
    params, observation = algorithm().acting(initial), row(BATCHES, 0).observation
    for mode in ("explore", "evaluate"):
        actions = [act(params, observation, mode=mode, **changes) for changes in ({}, OTHER)]
        np.testing.assert_allclose(*actions, atol=1e-6)
    state, _ = run(initial, **OTHER)
    assert distance(state.critic, updated["online"][0].critic) < 1e-5
    assert distance(state.edit.params, updated["online"][0].edit.params) > 1e-4


@pytest.mark.slow
def test_the_base_alone_ignores_edits_and_critics(initial):
    params, observation = algorithm().acting(initial), row(BATCHES, 0).observation
    assert algorithm().has_base
    act_base = functools.partial(act, mode="base")
    action = act_base(params, observation, 0)
    assert action.shape == (8, 2, 2) and np.abs(action).max() <= 1
    nothing = params | jax.tree.map(
        np.zeros_like, {"edit": params["edit"], "critic": params["critic"]}
    )
    np.testing.assert_array_equal(action, act_base(nothing, observation, 0))
    assert not np.array_equal(action, act_base(params, observation, 1))
    other = params | jax.tree.map(np.zeros_like, {"base": params["base"]})
    assert not np.array_equal(action, act_base(other, observation, 0))


@pytest.mark.slow
def test_proposals_made_elsewhere(initial):
    """They replace the base samples, which are then not asked for; their edits are drawn anew."""
    state, observation = with_certain_edits(initial), row(BATCHES, 0).observation
    given = np.random.default_rng(0).uniform(-1, 1, (8, 3, 2, 2)).astype(np.float32)
    params = algorithm(STILL).acting(state)
    params["base"] = jax.tree.map(np.zeros_like, params["base"])
    decide = functools.partial(algorithm(STILL).act, observation=observation, proposals=given)
    actions, least = best_candidates(state, state.target_critic, observation, given, 2)
    moves = []
    for seed in range(6):
        explain(decide(params, key=jax.random.key(seed)), actions, least)
        drawn = decide(params | {"edit": initial.edit.params}, key=jax.random.key(seed))
        rows = np.flatnonzero(drawn.info["edited"])
        edited = given[rows, np.asarray(drawn.info["index"])[rows] - 3]
        moves += list(np.asarray(drawn.action)[rows] - edited)
    assert len(np.unique(moves, axis=0)) == len(moves) > 6
    assert np.abs(moves).max() <= CONFIG.edit_scale + 1e-6
    alone = decide(params, key=jax.random.key(0), mode="base")
    np.testing.assert_array_equal(alone.action, given[:, 0])
    assert alone.info == {}


@pytest.mark.slow
def test_smallest_sizes():
    """One observation, one candidate, one critic, one action dimension; a chunk of three keeps
    its axis."""
    spec = Spec((("state", (1,), "float32"),), action_dim=1, chunk_length=3)
    config = dataclasses.replace(
        CONFIG, num_base_samples=1, num_edit_samples=1, num_qs=1, num_min_qs=1
    )
    tiny = expo(config, spec, make_base(dataclasses.replace(BASE, kind="diffusion"), spec))
    shapes = jax.eval_shape(tiny.init, jax.random.key(0))
    start = jax.tree.map(lambda x: jnp.asarray(np.full(x.shape, 0.01, x.dtype)), shapes)
    state, metrics = tiny.update(start, random_batch(spec, 1, 1), jax.random.key(1), phase="online")
    # the only row is online data
    assert {name for name, value in metrics.items() if not np.isfinite(value)} == {"critic/q_prior"}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    decision = tiny.act(tiny.acting(state), {"state": jnp.ones((1, 1))}, jax.random.key(2))
    action = np.asarray(decision.action)
    assert action.shape == (1, 3, 1) and np.abs(action).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "chunk_length", "action_dim"), [("flow", 1, 7), ("diffusion", 3, 2)]
)
def test_shapes(kind, chunk_length, action_dim):
    spec = Spec((("goal", (2,), "float32"), ("state", (3,), "float32")), action_dim, chunk_length)
    some = expo(CONFIG, spec, make_base(dataclasses.replace(BASE, kind=kind), spec))
    state, key, batches = (
        jax.eval_shape(some.init, jax.random.key(0)),
        jax.random.key(0),
        random_batch(spec, 2, 5),
    )
    for phase in some.needs.phases:
        after, metrics = jax.eval_shape(
            functools.partial(some.update, phase=phase), state, batches, key
        )
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
            lambda x: (x.shape, x.dtype), state
        )
        assert all(metric.shape == () for metric in metrics.values())
    for mode in ("explore", "evaluate", "base"):
        act = functools.partial(some.act, mode=mode)
        decision = jax.eval_shape(act, some.acting(state), row(batches, 0).observation, key)
        assert decision.action.shape == (5, chunk_length, action_dim)
        assert {value.shape for value in decision.info.values()} <= {(5,)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_min_qs": 0}, r"num_min_qs must be between 1 and num_qs=4, got 0"),
        ({"num_min_qs": 5}, r"num_min_qs must be between 1 and num_qs=4, got 5"),
        (
            {"num_edit_samples": 4},
            r"num_edit_samples must be between 0 and num_base_samples=3 .*, got 4: every edit",
        ),
        ({"num_edit_samples": -1}, r"num_edit_samples must be between 0 .*, got -1"),
        ({"num_base_samples": 0, "num_edit_samples": 0}, r"num_base_samples=0 \(at least 1\)"),
        (
            {"edit_scale": 0.0},
            r"edit_scale must be in \(0, 2\], got 0.0; for no edits set num_edit_samples=0",
        ),
        ({"edit_scale": 2.5}, r"edit_scale must be in \(0, 2\], got 2.5"),
        ({"backup_entropy": True}, r"backup_entropy needs selection='soft'"),
        (
            {"softness": 2.0},
            r"softness=2.0 has no effect with selection='argmax': it needs selection='soft'",
        ),
        (
            {"target_policy": "base", "backup": "filtered"},
            r"target_policy='base' needs backup='fresh' or 'cached'",
        ),
        ({"edit_dropout": 1.0}, r"edit_dropout must be in \[0, 1\), got 1.0"),
        ({"tau": 0.0}, r"tau must be in \(0, 1\], got 0.0"),
        ({"base_tau": 1.5}, r"base_tau must be in \(0, 1\], got 1.5"),
        ({"initial_temperature": 0.0}, r"initial_temperature must be positive, got 0.0"),
        ({"hidden": ()}, r"hidden must list at least one positive layer size, got \(\)"),
        ({"hidden": (16, 0)}, r"hidden must list at least one positive layer size, got \(16, 0\)"),
        ({"critic_learning_rate": -1e-3}, r"critic_learning_rate must not be negative, got -0.001"),
        ({"edit_learning_rate": float("nan")}, r"edit_learning_rate must not be negative, got nan"),
        (
            {"temperature_learning_rate": -1.0},
            r"temperature_learning_rate must not be negative, got -1.0",
        ),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(ValueError, match=message):
        algorithm(**changes)


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("selection", "argmax, soft"),
        ("base_data", "all, successes"),
        ("acting_base", "ema, live"),
        ("target_entropy", "attainable, released"),
    ],
)
def test_misspelt_choices(name, choices):
    config = dataclasses.replace(CONFIG)
    object.__setattr__(config, name, "best")
    with pytest.raises(ValueError, match=rf"{name} must be one of {choices}; got 'best'"):
        expo(config, SPEC, make_base(BASE, SPEC))


def test_make_algorithm():
    base = make_base(BASE, SPEC)
    assert make_algorithm("expo", CONFIG, SPEC, base).needs.phases == {
        "pretrain",
        "critic_pretrain",
        "online",
    }
    with pytest.raises(ValueError, match=r"unknown algorithm 'exppo'\. Did you mean 'expo'"):
        make_algorithm("exppo", CONFIG, SPEC, base)
    with pytest.raises(ValueError, match="rlpd needs a RlpdConfig, got a ExpoConfig"):
        make_algorithm("rlpd", CONFIG, SPEC, None)


@pytest.mark.slow
def test_unedited_is_the_best_of_the_base_samples(initial):
    """Edits stay out of acting in mode "unedited", and at evaluation where they only explore."""
    params, observation = algorithm().acting(initial), row(BATCHES, 0).observation
    best = act(params, observation, mode="evaluate", num_edit_samples=0)
    np.testing.assert_array_equal(act(params, observation, mode="unedited"), best)
    exploring = {"edits_act": "explore"}
    np.testing.assert_array_equal(act(params, observation, mode="evaluate", **exploring), best)
    edited = act(params, observation, mode="explore")
    np.testing.assert_array_equal(act(params, observation, mode="explore", **exploring), edited)
    assert not np.array_equal(edited, best)


@pytest.mark.slow
def test_the_first_samples_come_from_less_noise(initial):
    """At scale 0 the first sample is the same for every key; the last one is a plain sample."""
    params, observation = initial.base.params, row(BATCHES, 0).observation
    some, all_plain = (jax.jit(functions(min_noise_scale=x).propose) for x in (0.0, 1.0))
    one, other, plain = (
        np.asarray(draw(params, observation, jax.random.key(k)))
        for draw, k in ((some, 0), (some, 1), (all_plain, 0))
    )
    np.testing.assert_array_equal(one[:, 0], other[:, 0])
    np.testing.assert_allclose(one[:, -1], plain[:, -1], atol=1e-6)
    assert np.abs(one[:, 1] - other[:, 1]).max() > 1e-3
    with pytest.raises(ValueError, match=r"min_noise_scale=0.0 needs backup='fresh' or 'cached'"):
        algorithm(min_noise_scale=0.0, backup="filtered")


@pytest.mark.slow
def test_noise_is_narrowed_outside_training_alone(initial):
    """At 0 the base policy alone is the same for every key, and so are all candidates; while
    learning both act as before. Proposals that are given, of another scale, are not taken."""
    params, observation = algorithm().acting(initial), row(BATCHES, 0).observation
    given = np.zeros((8, 8, 1, 2), np.float32)

    def decided(mode, seed=0, proposals=None, scale=0.0):
        chosen = algorithm(deploy_noise_scale=scale)
        key = jax.random.key(seed)
        decision = chosen.act(params, observation, key, mode=mode, proposals=proposals)
        return np.asarray(decision.action)

    central = decided("base")
    np.testing.assert_array_equal(central, decided("base", seed=1))
    np.testing.assert_array_equal(central, decided("base", proposals=given))
    np.testing.assert_allclose(central, decided("unedited", seed=2), atol=1e-6)
    narrow = jax.jit(functions(min_noise_scale=0.0).propose)
    narrowed = narrow(params["base"], observation, jax.random.key(3))
    np.testing.assert_allclose(central, narrowed[:, 0], atol=1e-6)
    np.testing.assert_array_equal(decided("base", scale=1.0, proposals=given), given[:, 0])
    for mode in ("sample", "explore"):
        np.testing.assert_array_equal(decided(mode), decided(mode, scale=1.0))
        assert np.abs(decided(mode) - central).max() > 1e-3
    np.testing.assert_array_equal(decided("sample"), decided("base", scale=1.0))
    assert algorithm().needs.alone == "base"
    assert algorithm(deploy_noise_scale=0.0).needs.alone == "sample"
    with pytest.raises(ValueError, match=r"deploy_noise_scale=0.5 has no effect with filter_act"):
        algorithm(deploy_noise_scale=0.5, backup="filtered", filter_acting=True)


@pytest.mark.slow
def test_base_updates_counts_imitation_steps(initial):
    """One per minibatch at most; the critics and edits learn as before."""
    once, twice, more = (run(initial, base_updates=num)[0] for num in (1, 2, 5))
    counts = [
        max(int(leaf) for leaf in jax.tree.leaves(state.base.opt_state) if leaf.ndim == 0)
        for state in (once, twice, more)
    ]
    assert counts == [1, 2, 2]
    assert same(once.critic, twice.critic) and same(once.edit, twice.edit)
    assert distance(twice.base.params, once.base.params) > 0
    frozen = run(initial, base_updates=0)[0]
    assert same(frozen.base, initial.base) and same(frozen.base_ema, initial.base_ema)
    assert same(frozen.critic, once.critic) and same(frozen.edit, once.edit)


@pytest.mark.slow
def test_the_target_may_value_a_base_sample(initial):
    """The last of the base samples, whatever Q says: nothing is chosen. Acting chooses as ever."""
    two = random_batch(SPEC, 1, 2).replace(discount=np.array([[0.9, 0.6]], np.float32))
    batch, start = row(two, 0), with_certain_edits(initial)
    samples = still_samples(start.base.params, batch.next_observation)
    _, least = best_candidates(start, start.target_critic, batch.next_observation, samples, 0)
    targets = np.asarray(batch.reward) + np.asarray(batch.discount) * least[:, :, -1]
    for seed in range(4):
        _, metrics = run(start, two, seed, base=STILL, target_policy="base")
        found = sorted([metrics["critic/target_min"], metrics["critic/target_max"]])
        assert np.isclose(np.sort(targets, axis=1), found, atol=1e-5).all(axis=1).any()
        assert "edit/picked" not in metrics and "edit/loss" in metrics
    params, observation = algorithm().acting(initial), row(BATCHES, 0).observation
    np.testing.assert_array_equal(
        act(params, observation, target_policy="base"), act(params, observation)
    )


@pytest.mark.slow
def test_edits_towards_the_minimum(initial):
    batch, eps = row(BATCHES, 0), jnp.zeros((8, 2, 2))
    given = initial.edit.params, initial.critic.params, jnp.float32(0.3), batch, eps
    (mean, _), (least, _) = (functions(edit_value=how).edit_loss(*given) for how in ("mean", "min"))
    edits = functions().draw_edits(
        functions().edit, initial.edit.params, batch.observation["state"], batch.action, eps
    )
    q = every_critic(initial.critic.params, batch.observation["state"], edits.action)
    np.testing.assert_allclose(least - mean, (q.mean(axis=0) - q.min(axis=0)).mean(), rtol=1e-4)


def test_what_is_imitated():
    imitation = functions(base_data="successes").imitation
    batch = row(BATCHES, 0)
    np.testing.assert_array_equal(imitation.weight(batch), batch.success)
    none = batch.replace(success=jnp.zeros(8))
    np.testing.assert_array_equal(imitation.weight(none), batch.prior)
    np.testing.assert_array_equal(imitation.weight(none.replace(prior=jnp.zeros(8))), np.ones(8))
    np.testing.assert_array_equal(functions().imitation.weight(none), np.ones(8))
