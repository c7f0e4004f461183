"""Where the base samples of a TD backup come from: what the filter keeps and learns, what cached
backups read."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import ExpoConfig, expo
from exporl.algos.expo import ExpoState
from exporl.algos.expo_entry import make_expo
from exporl.algos.filtered import NOISE_CRITICS, FilteredExpo
from exporl.nets.critic import Critic
from exporl.ops.ensemble import random_members, take_members
from exporl.policies import BaseConfig, make_base
from exporl.policies.base import propose
from exporl.types import Spec
from helpers.batches import distance, random_batch, same, to_device, to_host

SPEC = Spec((("state", (3,), "float32"),), action_dim=2, chunk_length=2)
BASE = make_base(
    BaseConfig("flow", num_steps=2, width=16, num_blocks=1, time_dim=8, decay_steps=0), SPEC
)
HIDDEN, N = (16,), 3
CONFIG = ExpoConfig(
    num_base_samples=N, num_edit_samples=1, edit_scale=0.05, num_qs=4, num_min_qs=2, hidden=HIDDEN,
    tau=0.1, critic_learning_rate=1e-2, decay_steps=0, backup="filtered",
)  # fmt: skip
CACHED = {"backup": "cached", "num_edit_samples": 2}
ONE = random_batch(SPEC, 1, 64)
TWO = random_batch(SPEC, 2, 8)


@functools.cache
def algorithm(**changes):
    return expo(dataclasses.replace(CONFIG, **changes), SPEC, BASE)


@functools.cache
def filter_of(base, **changes):
    """The filter alone, over a base policy."""
    return FilteredExpo.create(make_expo(dataclasses.replace(CONFIG, **changes), SPEC, base)).filter


def without_filter(state):
    """The state of an algorithm that has none."""
    return ExpoState(
        **{field.name: getattr(state, field.name) for field in dataclasses.fields(ExpoState)}
    )


@pytest.fixture(scope="module")
def initial():
    """A state with a filter whose copy, and target critics, lag behind."""
    state = to_host(jax.jit(algorithm().init)(jax.random.key(0)))
    lag = functools.partial(jax.tree.map, lambda x: (0.8 * x).astype(x.dtype))
    slow = dataclasses.replace(state.filter, target=lag(state.filter.target))
    return dataclasses.replace(state, filter=slow, target_critic=lag(state.critic.params))


def run(state, batches, phase="online", **changes):
    """One update, in host memory; algorithms without a filter get none."""
    if changes.get("backup", "filtered") != "filtered":
        state = without_filter(state)
    return to_host(
        algorithm(**changes).update(to_device(state), batches, jax.random.key(1), phase=phase)
    )


def row(batches, i=0):
    return jax.tree.map(lambda x: jnp.asarray(x[i]), batches)


def echo(noise_shape):
    """A base policy whose action is the first noise that it is given."""
    first = (lambda noise: noise) if len(noise_shape) == 2 else (lambda noise: noise[..., 0, :, :])

    def decode(params, observation, noise):
        assert noise.shape[2:] == noise_shape
        return first(noise)

    return BASE._replace(decode=decode, noise_shape=noise_shape)


@jax.jit
def ranked(target, observation, key):
    """All draws [b, n, h, a] of the noise, and the least value [b, n] that the noise critics
    give them."""
    draws = jax.random.normal(jax.random.split(key, 3)[0], (64, N, 2, 2))
    features = observation["state"][:, None]
    return draws, Critic(HIDDEN, NOISE_CRITICS).apply(target, features, draws).min(axis=0)


@pytest.mark.parametrize(
    "noise_shape", [(2, 2), (1, 2, 2), (4, 2, 2)], ids=["flow", "one step", "diffusion"]
)
def test_the_filter_keeps_one_draw_and_decodes_it(initial, noise_shape):
    keep = jax.jit(filter_of(echo(noise_shape)).keep, static_argnames="greedy")
    target, batch, key = initial.filter.target, row(ONE), functools.partial(jax.random.key, 5)
    best = keep(None, target, batch.next_observation, key(), greedy=True)
    action = np.asarray(best.action)
    draws, q = (np.asarray(x) for x in ranked(target, batch.next_observation, key()))
    assert action.shape == (64, 1, 2, 2)
    np.testing.assert_array_equal(action[:, 0], draws[np.arange(64), q.argmax(axis=1)])
    np.testing.assert_array_equal(action[:, 0], best.noise)
    kept, drawn = keep(None, target, batch.next_observation, key(), greedy=False)
    np.testing.assert_array_equal(drawn[:, 0], kept)
    index = (draws == np.asarray(kept)[:, None]).all(axis=(2, 3))
    assert (index.sum(axis=1) == 1).all()
    # in the backup the best is only the likeliest
    chosen = index.argmax(axis=1)
    assert 0.3 < (chosen == q.argmax(axis=1)).mean() < 0.9
    score = np.exp((q - q.mean(axis=1, keepdims=True)) / q.std(axis=1, keepdims=True))
    p = score / score.sum(axis=1, keepdims=True)
    spread = np.sqrt((p**3).sum() - ((p**2).sum(axis=1) ** 2).sum())
    assert abs(p[np.arange(64), chosen].sum() - (p**2).sum()) < 4 * spread


def test_the_later_noise_of_a_diffusion_is_new(initial):
    base = echo((3, 2, 2))._replace(decode=lambda params, observation, noise: noise[..., 1, :, :])
    keep = jax.jit(functools.partial(filter_of(base).keep, greedy=False))
    kept, later = keep(None, initial.filter.target, row(ONE).next_observation, jax.random.key(5))
    assert abs(np.corrcoef(np.ravel(later), np.ravel(kept))[0, 1]) < 0.25
    np.testing.assert_allclose([np.mean(later), np.std(later)], [0, 1], atol=0.25)


def first_keys(key):
    """The keys of the first minibatch, in the order in which EXPO draws: (draw, step)."""
    draw_keys, keys = jax.random.split(jax.random.split(key, 3)[0], (2, 1))
    return draw_keys[0], keys[0]


def test_a_filtered_update_is_a_cached_update_on_what_was_kept(initial):
    batch, (draw_key, step_key) = row(ONE), first_keys(jax.random.key(1))

    @jax.jit
    def keep(state, key):
        keep_key = jax.random.split(key, 3)[2]
        observation = batch.next_observation
        return filter_of(BASE).keep(
            state.base.params, state.filter.target, observation, keep_key, greedy=False
        )

    kept, samples = keep(to_device(initial), draw_key)
    state, metrics = run(initial, ONE)
    other, _ = run(
        initial, with_proposals(ONE, np.asarray(samples)[None]), backup="cached", num_base_samples=1
    )
    assert distance(without_filter(state), other) < 1e-5
    # and the filter learns the value of the base sample, by the members that value
    members = random_members(jax.random.split(step_key, 3)[1], CONFIG.num_qs, CONFIG.num_min_qs)
    critics = take_members(initial.target_critic, members)
    features = batch.next_observation["state"]
    value = Critic(HIDDEN, 2).apply(critics, features[:, None], samples).min(axis=0)[:, 0]
    q = Critic(HIDDEN, NOISE_CRITICS).apply(initial.filter.model.params, features, kept)
    np.testing.assert_allclose(metrics["filter/loss"], np.square(q - value[None]).mean(), rtol=1e-4)
    assert not same(state.filter.model, initial.filter.model)
    slow = jax.tree.map(
        lambda new, old: 0.1 * new + 0.9 * old, state.filter.model.params, initial.filter.target
    )
    assert distance(state.filter.target, slow) < 1e-6


def test_the_filter_stands_still_in_imitation(initial):
    assert same(run(initial, TWO, "pretrain")[0].filter, initial.filter)


def test_the_filter_learns_which_noise_is_good():
    """The sign of the first entry decides the value of the action."""
    noise_filter, batch = filter_of(echo((2, 2)), num_base_samples=8), row(ONE)

    @jax.jit
    def learnt(state):
        def step(state, key):
            kept = noise_filter.keep(
                None, state.target, batch.next_observation, key, greedy=False
            ).noise
            features = batch.next_observation["state"]
            return noise_filter.learn(state, features, kept, jnp.sign(kept[:, 0, 0]))[0], None

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(0), 150))[0]

    keep = jax.jit(functools.partial(noise_filter.keep, greedy=True))
    start = jax.jit(noise_filter.init)(jax.random.key(3))
    share = [
        (
            np.asarray(keep(None, s.target, batch.observation, jax.random.key(9)).action)[
                :, 0, 0, 0
            ]
            > 0
        ).mean()
        for s in (start, learnt(start))
    ]
    assert share[0] < 0.85 and share[1] > 0.95


def test_acting_on_what_the_filter_keeps(initial):
    chosen, observation = algorithm(filter_acting=True, num_edit_samples=0), row(TWO).observation
    params, key = chosen.acting(initial), functools.partial(jax.random.key, 4)
    assert same(params["filter"], initial.filter.target)
    keep_key = jax.random.split(key(), 4)[3]
    keep = jax.jit(functools.partial(filter_of(BASE).keep, greedy=True))
    kept = keep(initial.base_ema, initial.filter.target, observation, keep_key)
    decision = chosen.act(params, observation, key())
    np.testing.assert_allclose(decision.action, kept.action[:, 0], atol=1e-6)
    assert (np.asarray(decision.info["index"]) == 0).all()
    assert "filter" not in algorithm().acting(initial)


def with_proposals(batches, proposals):
    """The batches, as a replay that keeps these samples gives them."""
    return batches.replace(extra={"next_proposals": proposals})


def proposals_of(state, batches, num):
    """What a fresh backup would draw for the first minibatch."""
    draw_key, _ = first_keys(jax.random.key(1))
    draw = jax.jit(lambda p, o, k: propose(BASE, p, o, num, jax.random.split(k)[0], SPEC))
    return np.asarray(draw(state.base.params, row(batches).next_observation, draw_key))[None]


def test_cached_samples_replace_fresh_ones(initial):
    given = with_proposals(ONE, proposals_of(initial, ONE, N))
    cached, cached_metrics = run(initial, given, **CACHED)
    fresh, metrics = run(initial, ONE, **CACHED | {"backup": "fresh"})
    assert distance(cached, fresh) < 1e-5 and distance(cached_metrics, metrics) < 1e-4
    other, _ = run(initial, with_proposals(given, -given.next_proposals), **CACHED)
    assert distance(other.critic.params, cached.critic.params) > 1e-4


def test_fresh_samples_ignore_cached_ones(initial):
    options = CACHED | {"backup": "fresh"}
    given = with_proposals(ONE, np.zeros((1, 64, N, 2, 2), np.float32))
    assert same(run(initial, given, **options), run(initial, ONE, **options))


def test_with_cached_samples_edits_and_values_are_fresh(initial):
    given = with_proposals(ONE, proposals_of(initial, ONE, N))
    state, _ = run(initial, given, **CACHED)
    shrink = functools.partial(jax.tree.map, lambda x: (0.5 * x).astype(x.dtype))
    base = dataclasses.replace(initial.base, params=shrink(initial.base.params))
    assert same(
        run(dataclasses.replace(initial, base=base), given, **CACHED)[0].critic, state.critic
    )
    edit = dataclasses.replace(initial.edit, params=shrink(initial.edit.params))
    for change in ({"edit": edit}, {"target_critic": shrink(initial.target_critic)}):
        assert not same(
            run(dataclasses.replace(initial, **change), given, **CACHED)[0].critic, state.critic
        )


def test_what_the_replay_is_to_keep(initial):
    chosen, observation = algorithm(**CACHED), row(TWO).observation
    assert (chosen.needs.proposals, chosen.needs.refresh) == (N, CONFIG.cache_refresh)
    assert (algorithm().needs.proposals, algorithm().needs.refresh) == (0, 0)
    state = without_filter(initial)
    expected = jax.jit(lambda p, o, k: propose(BASE, p, o, N, k, SPEC))(
        state.base.params, observation, jax.random.key(2)
    )
    np.testing.assert_allclose(
        chosen.propose(state, observation, jax.random.key(2)), expected, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
@pytest.mark.parametrize("backup", ["filtered", "cached"])
def test_shapes(kind, backup):
    spec = Spec(
        (("goal", (2,), "float32"), ("state", (3,), "float32")), action_dim=1, chunk_length=3
    )
    config = dataclasses.replace(CONFIG, backup=backup, filter_acting=backup == "filtered")
    some = expo(
        config,
        spec,
        make_base(BaseConfig(kind, num_steps=3, width=16, num_blocks=1, time_dim=8), spec),
    )
    state, batches = jax.eval_shape(some.init, jax.random.key(0)), random_batch(spec, 2, 5)
    if backup == "cached":
        batches = with_proposals(batches, np.zeros((2, 5, N, 3, 1), np.float32))
    for phase in some.needs.phases:
        after, _ = jax.eval_shape(
            functools.partial(some.update, phase=phase), state, batches, jax.random.key(0)
        )
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
            lambda x: (x.shape, x.dtype), state
        )
    decision = jax.eval_shape(
        some.act, some.acting(state), row(batches).observation, jax.random.key(0)
    )
    assert decision.action.shape == (5, 3, 1)


@pytest.mark.parametrize("backup", ["fresh", "cached"])
def test_filter_acting_without_a_filter(backup):
    with pytest.raises(
        ValueError,
        match=rf"filter_acting needs backup='filtered', got backup='{backup}': there is no",
    ):
        algorithm(backup=backup, filter_acting=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"hoist_sampling": True},
            "hoist_sampling=True needs candidates that stand still: the filter learns",
        ),
        (
            {"hoist_sampling": True, "backup": "cached"},
            "hoist_sampling=True has nothing to hoist with backup='cached'",
        ),
        ({"cache_refresh": 0, "backup": "cached"}, "cache_refresh must be at least 1, got 0"),
        (
            {"cache_refresh": 8},
            "cache_refresh=8 has no effect with backup='filtered': it needs backup='cached'",
        ),
        (
            {"cache_refresh": 8, "backup": "fresh"},
            "cache_refresh=8 has no effect with backup='fresh'",
        ),
    ],
)
def test_impossible_options(changes, message):
    with pytest.raises(ValueError, match=message):
        algorithm(**changes)


def test_a_misspelt_backup():
    config = dataclasses.replace(CONFIG)
    object.__setattr__(config, "backup", "stale")
    with pytest.raises(
        ValueError, match="backup must be one of fresh, filtered, cached; got 'stale'"
    ):
        expo(config, SPEC, BASE)


def test_the_exact_backup_is_the_default():
    assert ExpoConfig().backup == "fresh" and not ExpoConfig().filter_acting
