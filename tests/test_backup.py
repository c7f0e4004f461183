"""Where the base samples of a TD backup come from: what the filter keeps and learns, what cached
backups read."""

import dataclasses
import functools
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import ExpoConfig, expo
from exporl.algos.expo import ExpoState
from exporl.algos.expo_entry import make_expo
from exporl.algos.filtered import NOISE_CRITICS, FilteredExpo
from exporl.nets.critic import Critic
from exporl.policies import BaseConfig, make_base
from exporl.policies.base import propose
from exporl.types import Spec
from helpers.batches import distance, random_batch, same, to_device, to_host
from helpers.draws import certain, least_of_pairs, still

SPEC = Spec((("state", (3,), "float32"),), action_dim=2, chunk_length=2)
BASE = make_base(
    BaseConfig("flow", num_steps=2, width=16, num_blocks=1, time_dim=8, decay_steps=0), SPEC
)
HIDDEN, N = (16,), 3
CONFIG = ExpoConfig(
    num_base_samples=N, num_edit_samples=1, edit_scale=0.05, num_qs=4, num_min_qs=2, hidden=HIDDEN,
    tau=0.1, critic_learning_rate=1e-2, decay_steps=0, backup="filtered",
)  # fmt: skip
CACHED = {"backup": "cached", "num_edit_samples": 2, "num_min_qs": 4}
"""All critics vote: only samples and edits are left to chance."""
FRESH = CACHED | {"backup": "fresh", "base": still(BASE, N)}
ONE = random_batch(SPEC, 1, 64)
TWO = random_batch(SPEC, 2, 8)


@functools.cache
def algorithm(base=BASE, **changes):
    return expo(dataclasses.replace(CONFIG, **changes), SPEC, base)


@functools.cache
def functions():
    """EXPO's functions, under the filter."""
    return make_expo(CONFIG, SPEC, BASE)


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


def run(state, batches, phase="online", key=1, **changes):
    """One update, in host memory; algorithms without a filter get none."""
    if changes.get("backup", "filtered") != "filtered":
        state = without_filter(state)
    return to_host(
        algorithm(**changes).update(to_device(state), batches, jax.random.key(key), phase=phase)
    )


def with_certain_edits(state):
    """The state, with edits that are the same for every key."""
    params = certain(state.edit.params)
    return dataclasses.replace(state, edit=dataclasses.replace(state.edit, params=params))


def row(batches, i=0):
    return jax.tree.map(lambda x: jnp.asarray(x[i]), batches)


def echo(noise_shape):
    """A base policy whose action is the first noise that it is given."""
    first = (lambda noise: noise) if len(noise_shape) == 2 else (lambda noise: noise[..., 0, :, :])

    def decode(params, observation, noise):
        assert noise.shape[2:] == noise_shape
        return first(noise)

    return BASE._replace(decode=decode, noise_shape=noise_shape)


class Noting(Critic):
    """Critics that note the actions that they are asked about."""

    noted: ClassVar[list] = []

    @nn.nowrap
    def apply(self, params, features, action):
        self.noted.append(action)
        return super().apply(params, features, action)


@functools.cache
def keep_of(base, greedy):
    """`keep` over a base policy without parameters: also returns all draws [b, n, h, a] that it
    keeps one of."""
    noting = dataclasses.replace(filter_of(base), ranking_critic=Noting(HIDDEN, NOISE_CRITICS))

    def keep(target, observation, key):
        kept = noting.keep(None, target, observation, key, greedy=greedy)
        return kept, Noting.noted.pop()

    return jax.jit(keep)


noise_values = jax.jit(Critic(HIDDEN, NOISE_CRITICS).apply)
every_critic = jax.jit(Critic(HIDDEN, CONFIG.num_qs).apply)
edit_means = jax.jit(lambda params, *inputs: functions().edit.apply(params, *inputs).mean)


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise_shape", [(2, 2), (1, 2, 2), (4, 2, 2)], ids=["flow", "one step", "diffusion"]
)
def test_the_filter_keeps_one_draw_and_decodes_it(initial, noise_shape):
    target, observation, key = (
        initial.filter.target,
        row(ONE).next_observation,
        functools.partial(jax.random.key, 5),
    )
    features = observation["state"][:, None]
    best, draws = to_host(keep_of(echo(noise_shape), greedy=True)(target, observation, key()))
    assert draws.shape == (64, N, 2, 2) and best.action.shape == (64, 1, 2, 2)
    np.testing.assert_allclose([draws.mean(), draws.std()], [0, 1], atol=0.14)
    q = np.asarray(noise_values(target, features, draws)).min(axis=0)
    np.testing.assert_array_equal(best.action[:, 0], draws[np.arange(64), q.argmax(axis=1)])
    np.testing.assert_array_equal(best.action[:, 0], best.noise)
    (kept, drawn), draws = to_host(
        keep_of(echo(noise_shape), greedy=False)(target, observation, key())
    )
    q = np.asarray(noise_values(target, features, draws)).min(axis=0)
    np.testing.assert_array_equal(drawn[:, 0], kept)
    index = (draws == kept[:, None]).all(axis=(2, 3))
    assert (index.sum(axis=1) == 1).all()
    # in the backup the best is only the likeliest
    chosen = index.argmax(axis=1)
    assert 0.3 < (chosen == q.argmax(axis=1)).mean() < 0.9
    score = np.exp((q - q.mean(axis=1, keepdims=True)) / q.std(axis=1, keepdims=True))
    p = score / score.sum(axis=1, keepdims=True)
    spread = np.sqrt((p**3).sum() - ((p**2).sum(axis=1) ** 2).sum())
    assert abs(p[np.arange(64), chosen].sum() - (p**2).sum()) < 4 * spread


@pytest.mark.slow
def test_the_later_noise_of_a_diffusion_is_new(initial):
    base = echo((3, 2, 2))._replace(decode=lambda params, observation, noise: noise[..., 1, :, :])
    keep = jax.jit(functools.partial(filter_of(base).keep, greedy=False))
    kept, later = keep(None, initial.filter.target, row(ONE).next_observation, jax.random.key(5))
    assert abs(np.corrcoef(np.ravel(later), np.ravel(kept))[0, 1]) < 0.25
    np.testing.assert_allclose([np.mean(later), np.std(later)], [0, 1], atol=0.25)


DECODED = []


def decode_and_tell(params, observation, noise):
    """`decode`, which appends (noise, action) to `DECODED`."""
    action = BASE.decode(params, observation, noise)
    jax.debug.callback(lambda *arrays: DECODED.append(to_host(arrays)), noise, action)
    return action


TELLING = BASE._replace(decode=decode_and_tell)


def told(state, batches, key):
    """One filtered update: (state, metrics, noise kept [b, h, a], base sample [b, h, a])."""
    DECODED.clear()
    after, metrics = run(state, batches, key=key, base=TELLING)
    jax.effects_barrier()
    ((noise, sample),) = DECODED
    return after, metrics, noise[:, 0], sample[:, 0]


def candidate_values(state, features, sample):
    """[pairs, b, 2] of a base sample and its certain edit: the least value to each pair of the
    target critics."""
    mean = edit_means(state.edit.params, features, sample)
    edit = np.clip(sample + CONFIG.edit_scale * np.tanh(mean), -1, 1)
    actions = np.stack([sample, edit], axis=1)
    return least_of_pairs(every_critic(state.target_critic, features[:, None], actions))


@jax.jit
def decoded(state, features, noise):
    """What the live base policy makes of noise."""
    return BASE.decode(state.base.params, {"state": features}, noise)


@pytest.mark.slow
def test_a_filtered_update_backs_up_from_what_was_kept(initial):
    """A pair of the target critics chooses between the sample and its edit, another one values; the
    filter learns what that one thinks of the sample."""
    start, batch = with_certain_edits(initial), row(ONE)
    features = batch.next_observation["state"]
    for seed in range(5):
        state, metrics, noise, sample = told(start, ONE, seed)
        np.testing.assert_allclose(sample, decoded(start, features, noise), atol=1e-5)
        least = candidate_values(start, features, sample)
        chosen = np.take_along_axis(least[None], least.argmax(axis=2)[:, None, :, None], axis=3)
        targets = np.asarray(batch.reward) + np.asarray(batch.discount) * chosen[..., 0]
        noted = np.asarray(noise_values(start.filter.model.params, features, noise))
        errors = np.square(noted[:, None] - least[..., 0]).mean(axis=(0, 2))
        found = [metrics[f"critic/target_{name}"] for name in ("mean", "min", "max")]
        summary = np.stack([targets.mean(axis=2), targets.min(axis=2), targets.max(axis=2)], axis=2)
        explained = np.isclose(summary, found, atol=1e-5).all(axis=2)
        explained &= np.isclose(errors, metrics["filter/loss"], rtol=1e-4)
        assert explained.any()
    # the critics learn that target, on the observations of the batch
    ((choosing, valuing), *_) = np.argwhere(explained)
    critic, slow, _ = jax.jit(functions().critic_trainer.step)(
        start.critic, start.target_critic, batch, batch.observation["state"],
        jnp.asarray(targets[choosing, valuing]),
    )  # fmt: skip
    assert distance((state.critic, state.target_critic), (critic, slow)) < 1e-5
    assert not same(state.base, start.base) and not same(state.edit, start.edit)
    assert not same(state.filter.model, start.filter.model)
    slow = jax.tree.map(
        lambda new, old: 0.1 * new + 0.9 * old, state.filter.model.params, start.filter.target
    )
    assert distance(state.filter.target, slow) < 1e-6


@pytest.mark.slow
def test_the_filter_stands_still_in_imitation(initial):
    assert same(run(initial, TWO, "pretrain")[0].filter, initial.filter)


@pytest.mark.slow
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


@pytest.mark.slow
def test_acting_on_what_the_filter_keeps(initial):
    """No other filter keeps, of the same draws, what this one thinks better of."""
    double = BASE._replace(decode=lambda params, observation, noise: 2 * noise)
    chosen = algorithm(double, filter_acting=True, num_edit_samples=0)
    params, observation = chosen.acting(initial), row(TWO).observation
    assert same(params["filter"], initial.filter.target)
    rng, num = np.random.default_rng(0), 100
    others = jax.tree.map(
        lambda x: (x + rng.standard_normal((num, *x.shape))).astype(x.dtype), params["filter"]
    )

    @jax.jit
    @jax.vmap
    def decide(params):
        return chosen.act(params, observation, jax.random.key(4))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def values(filter_params, noise):
        critic = Critic(HIDDEN, NOISE_CRITICS)
        return critic.apply(filter_params, observation["state"][:, None], noise).min(axis=0)

    decision = decide(jax.tree.map(lambda x: jnp.stack([x] * num), params) | {"filter": others})
    kept = np.swapaxes(np.asarray(decision.action) / 2, 0, 1)
    assert all(len(np.unique(noise, axis=0)) == N for noise in kept)
    thought = np.asarray(values(others, kept))
    own = np.einsum("fbf->fb", thought)
    np.testing.assert_allclose(own, thought.max(axis=2), atol=1e-5)
    assert (np.asarray(decision.info["index"]) == 0).all()
    assert "filter" not in algorithm().acting(initial)


def with_proposals(batches, proposals):
    """The batches, as a replay that keeps these samples gives them."""
    return batches.replace(extra={"next_proposals": proposals})


@pytest.mark.slow
def test_cached_samples_replace_fresh_ones(initial):
    start, observation = with_certain_edits(initial), row(ONE).next_observation
    drawn = jax.jit(algorithm(**FRESH).propose)(start, observation, jax.random.key(0))
    given = with_proposals(ONE, np.asarray(drawn)[None])
    fresh, metrics = run(start, ONE, **FRESH)
    cached, cached_metrics = run(start, given, **CACHED)
    for name in ("critic", "target_critic"):
        assert distance(getattr(cached, name), getattr(fresh, name)) < 1e-5
    for name in metrics:
        if name.startswith("critic/") or name in ("edit/picked", "edit/advantage"):
            np.testing.assert_allclose(cached_metrics[name], metrics[name], atol=1e-4)
    other, _ = run(start, with_proposals(given, -given.next_proposals), **CACHED)
    assert distance(other.critic.params, cached.critic.params) > 1e-4


@pytest.mark.slow
def test_fresh_samples_ignore_cached_ones(initial):
    given = with_proposals(ONE, np.zeros((1, 64, N, 2, 2), np.float32))
    assert same(run(initial, given, **FRESH), run(initial, ONE, **FRESH))


@pytest.mark.slow
def test_with_cached_samples_edits_and_values_are_fresh(initial):
    samples = np.random.default_rng(0).uniform(-1, 1, (1, 64, N, 2, 2)).astype(np.float32)

    def critics(state, key=1):
        return run(state, with_proposals(ONE, samples), key=key, **CACHED)[0].critic

    shrink = functools.partial(jax.tree.map, lambda x: (0.5 * x).astype(x.dtype))
    base = dataclasses.replace(initial.base, params=shrink(initial.base.params))
    assert same(critics(dataclasses.replace(initial, base=base)), critics(initial))
    edit = dataclasses.replace(initial.edit, params=shrink(initial.edit.params))
    for change in ({"edit": edit}, {"target_critic": shrink(initial.target_critic)}):
        assert not same(critics(dataclasses.replace(initial, **change)), critics(initial))
    # the edits are drawn anew, and nothing but them
    assert not same(critics(initial, key=2), critics(initial))
    certainly = with_certain_edits(initial)
    assert distance(critics(certainly, key=2), critics(certainly)) < 1e-5


@pytest.mark.slow
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


@pytest.mark.slow
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
