"""The loop with its faster settings: exact resumption of each, what prefetching draws, what is
logged."""

import jax
import numpy as np
import pytest

from exporl.data.columns import Columns
from exporl.files import checkpoint
from exporl.files.atomic import read_lines
from exporl.randomness import SAMPLE, run_rng
from exporl.run.config import override
from exporl.run.loop import train
from exporl.run.progress import Silent
from exporl.run.trainer import Trainer
from helpers.batches import same
from helpers.runs import evaluations, newest, run_all, tiny

CACHED = {"algo.backup": "cached", "algo.cache_refresh": 4}
FILTERED = {"algo.backup": "filtered", "algo.filter_acting": True, "precision": "bfloat16"}


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """A finished run with cached backups."""
    run = tmp_path_factory.mktemp("cached") / "run"
    train(tiny(**CACHED, **{"train.critic_pretrain_steps": 4, "num_envs": 2}), run)
    return run


def assert_same_checkpoint(a, b):
    """Every array of every part equal to the bit, the batch drawn ahead and the kept samples
    included."""
    (left, one), (right, two) = checkpoint.load(newest(a)), checkpoint.load(newest(b))
    assert {part: arrays.keys() for part, arrays in left.items()} == {
        p: arrays.keys() for p, arrays in right.items()
    }
    for part, arrays in left.items():
        for name, value in arrays.items():
            np.testing.assert_array_equal(value, right[part][name], err_msg=f"{part} {name}")
    for name in ("updates", "offline_steps", "critic_steps", "last_eval", "rollout", "data"):
        assert one[name] == two[name], name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "parts"),
    [(FILTERED, {"prefetched"}), ({"train.prefetch": False}, set())],
    ids=["filtered-bfloat16", "no-prefetch"],
)
def test_two_and_two_equals_four(tmp_path, changes, parts):
    config = tiny(**changes)
    train(config, tmp_path / "straight")
    train(override(config, {"train.online_steps": 12}), tmp_path / "halves")
    train(config, tmp_path / "halves", resume=True)
    assert_same_checkpoint(tmp_path / "straight", tmp_path / "halves")
    assert evaluations(tmp_path / "straight") == evaluations(tmp_path / "halves")
    assert (
        checkpoint.load(newest(tmp_path / "straight"))[0].keys()
        == {"learner", "replay", "rollout"} | parts
    )


@pytest.mark.slow
def test_resume_when_steps_were_added_since_the_batch_was_drawn(tmp_path):
    config = tiny(**{"train.update_every": 2, "train.utd_ratio": 1})
    train(config, tmp_path / "straight")
    train(override(config, {"train.online_steps": 13}), tmp_path / "halves")
    train(config, tmp_path / "halves", resume=True)
    assert_same_checkpoint(tmp_path / "straight", tmp_path / "halves")


@pytest.mark.slow
def test_two_and_two_equals_four_with_cached_backups(tmp_path, cached):
    """The samples kept for prior data are part of the run, and so is the order in which they are
    renewed."""
    config = tiny(**CACHED, **{"train.critic_pretrain_steps": 4, "num_envs": 2})
    train(override(config, {"train.online_steps": 12}), tmp_path / "halves")
    train(config, tmp_path / "halves", resume=True)
    assert_same_checkpoint(cached, tmp_path / "halves")
    parts, _ = checkpoint.load(newest(cached))
    assert parts.keys() == {"learner", "replay", "rollout", "prefetched", "prior"}
    assert parts["prior"].keys() == {"column/next_proposals", "column/proposed"}
    assert parts["prior"]["column/next_proposals"].any()
    assert parts["prefetched"]["extra/next_proposals"].shape == (2, 8, 2, 1, 1)


def draws(tmp_path, **changes):
    """For every online update of a run: is its batch what would be drawn now, and what was drawn
    after the last?"""
    trainer = Trainer(tiny(**changes), tmp_path, Silent(), False)
    train_options, update, found, ahead = trainer.config.train, trainer.learner.update, [], []

    def draw():
        rng = run_rng(trainer.config.seed, SAMPLE, trainer.learner.updates)
        return trainer.mixture.sample(
            rng, train_options.utd_ratio, train_options.batch_size, discount=train_options.discount
        )

    def spy(batches, phase):
        if phase == "online":
            found.append((same(batches, draw()), bool(ahead) and same(batches, ahead[-1])))
        metrics = update(batches, phase)
        if phase == "online":
            ahead.append(draw())
        return metrics

    trainer.learner.update = spy
    run_all(trainer)
    return np.array(found).T


def test_prefetched_rows_leave_out_the_newest_step(tmp_path):
    now, ahead = draws(tmp_path)
    assert len(now) == 20 and now[0] and not now[1:].any()
    assert ahead[1:].all()


def test_without_prefetching_rows_are_drawn_after_the_step(tmp_path):
    now, ahead = draws(tmp_path, **{"train.prefetch": False})
    assert now.all() and not ahead.any()


@pytest.mark.slow
def test_every_next_observation_that_is_learnt_from_has_samples(tmp_path):
    trainer = Trainer(tiny(**CACHED, **{"train.online_steps": 16}), tmp_path, Silent(), False)
    update, seen = trainer.learner.update, []

    def spy(batches, phase):
        if phase == "online":
            seen.append(np.asarray(batches.next_proposals))
        return update(batches, phase)

    trainer.learner.update = spy
    run_all(trainer)
    assert all(np.abs(samples).min() > 0 for samples in seen) and len(seen) == 12


@pytest.mark.slow
def test_staleness_is_logged(tmp_path, cached):
    lines = [line for line in read_lines(cached / "metrics.jsonl") if line["phase"] == "online"]
    assert all(line["backup/staleness"] > 1 for line in lines[1:])
    assert len({line["backup/staleness"] for line in lines}) > 1
    config = tiny(**{"algo.backup": "cached", "train.online_steps": 12, "train.update_after": 7})
    train(config, tmp_path / "renewed")
    lines = [
        line
        for line in read_lines(tmp_path / "renewed" / "metrics.jsonl")
        if line["phase"] == "online"
    ]
    # none yet; all renewed at every update
    assert [line.get("backup/staleness") for line in lines] == [None, 1]


@pytest.mark.slow
def test_the_loss_of_the_filter_is_logged(tmp_path):
    train(tiny(**FILTERED), tmp_path / "run")
    lines = [
        line for line in read_lines(tmp_path / "run" / "metrics.jsonl") if line["phase"] == "online"
    ]
    assert all(line["filter/loss"] > 0 and "backup/staleness" not in line for line in lines)


def test_an_update_without_samples_to_read_is_refused(tmp_path):
    trainer = Trainer(tiny(**CACHED), tmp_path, Silent(), False)
    algorithm = trainer.learner.algorithm
    trainer.learner.algorithm = algorithm._replace(needs=algorithm.needs._replace(proposals=0))
    for replay in (trainer.online_replay, trainer.prior):
        replay.columns = Columns({}, replay.num_streams, replay.capacity)
    with pytest.raises(
        ValueError, match=r"num_base_samples=2 samples .* got 0\. Give the replay num_proposals=2"
    ):
        run_all(trainer)


def test_samples_of_another_size_are_refused(tmp_path):
    trainer = Trainer(tiny(**CACHED), tmp_path, Silent(), False)
    trainer.learner.propose = lambda observation, index: jax.numpy.zeros((4, 2, 1, 1))
    batch = trainer.prior.sample(np.random.default_rng(0), 4, discount=0.9)
    batch = jax.tree.map(
        lambda x: x[None],
        batch.replace(extra={"next_proposals": np.zeros((4, 3, 1, 1), np.float32)}),
    )
    with pytest.raises(
        ValueError, match=r"num_base_samples=2 samples per next observation .* got 3"
    ):
        trainer.learner.update(batch, "critic_pretrain")
