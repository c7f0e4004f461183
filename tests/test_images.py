"""Images beside states: stored once as uint8, kept by replay and evaluation, never sent to networks
that read states."""

import dataclasses
import itertools

import numpy as np
import pytest

from exporl.data.episodes import Episode
from exporl.data.replay import Replay
from exporl.envs import make_task
from exporl.envs.probes import IMAGE_SPEC, SPEC
from exporl.run.loop import train
from exporl.run.progress import Silent
from exporl.run.session import load_run
from exporl.run.trainer import Trainer
from exporl.spec import state_spec
from exporl.types import Spec, Step
from helpers.runs import tiny


def frames(value):
    return {"image": np.full((8, 8, 3), value, np.uint8), "state": np.array([value, 0], np.float32)}


def test_states_of_a_spec():
    assert state_spec(IMAGE_SPEC) == state_spec(SPEC) == SPEC
    chunks = dataclasses.replace(IMAGE_SPEC, chunk_length=4)
    assert state_spec(chunks).chunk_length == 4
    only = Spec((("front", (8, 8, 3), "uint8"), ("depth", (8, 8, 1), "float32")), action_dim=1)
    with pytest.raises(
        ValueError,
        match=r"only front uint8\[8, 8, 3\], depth float32\[8, 8, 1\].* Add a low-dimensional",
    ):
        state_spec(only)


def test_every_frame_is_stored_once_and_read_out_only_where_it_is_wanted():
    replay = Replay(IMAGE_SPEC, 100)
    values = [[0, 1, 2, 3], [10, 11, 12], [20, 21]]
    for episode in values:
        for before, after in itertools.pairwise(episode):
            replay.add(
                Step(frames(before), np.zeros(1), 0.0, after == episode[-1], False, frames(after))
            )
    stored = replay.state()["observation/image"]
    assert stored.dtype == np.uint8
    assert stored[0, :, 0, 0, 0].tolist()[: sum(map(len, values))] == [
        v for episode in values for v in episode
    ]
    batch = replay.sample(np.random.default_rng(0), 64, discount=0.9)
    for observation in (batch.observation, batch.next_observation):
        np.testing.assert_array_equal(observation["image"][:, 0, 0, 0], observation["state"][:, 0])
    np.testing.assert_array_equal(
        batch.next_observation["state"][:, 0], batch.observation["state"][:, 0] + 1
    )
    replay.sampled = ("state",)
    batch = replay.sample(np.random.default_rng(0), 64, discount=0.9)
    assert set(batch.observation) == set(batch.next_observation) == {"state"}
    again = Replay(IMAGE_SPEC, 100)
    again.load(replay.state())
    np.testing.assert_array_equal(again.state()["observation/image"], stored)


def test_the_image_probe_shows_its_first_action():
    env = make_task("probe/image").make_env()
    observation, _ = env.reset(seed=0)
    assert observation["image"].dtype == np.uint8 and (observation["image"] == 128).all()
    shown = [
        env.reset(seed=0) and int(env.step(np.array([a], np.float32))[0]["image"][0, 0, 0])
        for a in (-1, 0.5, 1)
    ]
    assert shown == [0, 191, 255]
    assert env.step(np.array([0.0], np.float32))[1:3] == (-0.5, True)


@pytest.mark.slow
def test_a_run_with_images_end_to_end(tmp_path):
    """Imitation, acting, learning, evaluation and resumption; the images change nothing that is
    learnt."""
    config = tiny("expo", "probe/image", **{"eval.every": 24})
    train(config, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert run.evaluate().lengths == [2] * 4
    trainer = Trainer(config, tmp_path / "run", Silent(), True)
    assert trainer.parts.network_spec == state_spec(trainer.parts.spec) != trainer.parts.spec
    assert set(
        trainer.mixture.sample(np.random.default_rng(0), 1, 8, discount=0.9).observation
    ) == {"state"}
    stored = trainer.online_replay.state()["observation/image"]
    assert stored.dtype == np.uint8 and len(np.unique(stored)) > 3
    assert (
        trainer.prior is not None and trainer.prior.state()["observation/image"].shape[1] == 6 * 3
    )
    train(tiny("expo", "probe/delay", **{"eval.every": 24}), tmp_path / "plain")
    plain = load_run(tmp_path / "plain")
    for name, array in plain.learner.arrays().items():
        np.testing.assert_array_equal(array, run.learner.arrays()[name], err_msg=name)


def test_a_task_of_images_alone_is_refused(tmp_path):
    task = make_task("probe/image")
    assert task.collect is not None
    alone = dataclasses.replace(
        task,
        spec=Spec((("image", (8, 8, 3), "uint8"),), 1),
        collect=lambda n, noise, seed: [
            Episode(
                {"image": e.observations["image"]}, e.actions, e.rewards, e.successes, e.terminated
            )
            for e in task.collect(n, noise, seed)
        ],
    )
    with pytest.raises(
        ValueError,
        match=r"the observation holds only image uint8\[8, 8, 3\].* images alone cannot be learnt",
    ):
        train(tiny(), tmp_path / "run", task=alone)
    assert not (tmp_path / "run" / "config.json").exists()
