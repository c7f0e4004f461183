"""Training in environments that actors on other machines play: what it gives is what the same
environments give here, and whoever is lost is replaced."""

import shutil
import threading

import numpy as np
import pytest

pytest.importorskip("websockets")

from exporl.acting.failures import EnvironmentFailed
from exporl.actor.joining import EnvironmentBroke
from exporl.distributed.place import Deadlines
from exporl.distributed.pool import ActorPool
from exporl.distributed.remote_actors import remote_actors
from exporl.distributed.remote_env import remote_task
from exporl.envs.custom import custom_task
from exporl.files import checkpoint
from exporl.files.atomic import read_lines
from exporl.run.callbacks import Callback
from exporl.run.loop import train
from exporl.run.stopping import Interrupted
from helpers.joining import actor_process, actor_threads
from helpers.robots import HIGH, KILL, LOW, STEPS, Arm, Broken, Far, Weak, here
from helpers.runs import evaluations, tiny
from helpers.serving import until

SCRATCH = {
    "data.demos": 0,
    "data.prior_ratio": 0.0,
    "train.random_steps": 4,
    "train.online_steps": 16,
    "eval.every": 1000,
    "eval.num_envs": 1,
    "eval.episodes": 2,
    "log.save_every": 4,
}


def config_of(**changes):
    return tiny("rlpd", "remote/arm", **SCRATCH | changes)


class Steps(Callback):
    """Keeps the steps of a run, and does something after one of them."""

    def __init__(self, after=0, do=lambda: None):
        self.steps, self._after, self._do = [], after, do

    def on_step(self, env_steps, steps):
        self.steps += steps
        if steps and env_steps == self._after:
            self._do()

    def columns(self, stream=0):
        """Every number of the steps of a stream."""
        found = [step for env, step in self.steps if env == stream]
        return {
            "action": np.stack([step.action for step in found]),
            "q": np.stack([step.observation["pose/q"] for step in found]),
            "force": np.stack([step.next_observation["force"] for step in found]),
            "reward": np.array([step.reward for step in found]),
            "ends": np.array([(step.terminated, step.truncated) for step in found]),
        }


def joined(pool, config, run_dir, steps, **options):
    pool.wait_until_full()
    task = remote_task(pool, config.task, config.reward)
    made = remote_actors(pool)
    return train(config, run_dir, task=task, actors=made, callbacks=[steps], **options)


def saved(run_dir, part="learner"):
    """A part of the newest checkpoint."""
    found = checkpoint.find_newest(run_dir / "checkpoints", only=(part,))
    assert found is not None
    return found.parts[part]


def lengths(replay, stream=0):
    """Steps of every episode of a stream that has ended, in their order."""
    ends = np.flatnonzero(replay["terminated"][stream] | replay["truncated"][stream])
    return np.diff(np.cumsum(replay["is_step"][stream])[ends], prepend=0).tolist()


@pytest.mark.slow
def test_training_through_an_actor_without_jax_is_training_here_to_the_bit(tmp_path):
    there, at_home, config = Steps(), Steps(), config_of()
    with ActorPool(1, port=0) as pool:
        actor = actor_process(pool.address)
        joined(pool, config, tmp_path / "there", there)
    _, said = actor.communicate(timeout=60)
    assert actor.returncode == 0 and "the training has ended, after " in said
    train(config, tmp_path / "here", task=custom_task(here), callbacks=[at_home])
    mine, theirs = there.columns(), at_home.columns()
    for name in theirs:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    assert len(mine["action"]) == 16 and mine["ends"].any()
    one, other = saved(tmp_path / "there"), saved(tmp_path / "here")
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert evaluations(tmp_path / "there") == evaluations(tmp_path / "here")


def test_the_replay_holds_what_was_executed(tmp_path):
    """A robot that does half of what it is told, from a bound that is not 0."""
    steps = Steps()
    with ActorPool(1, port=0) as pool, actor_threads(pool, Weak()) as raised:
        joined(pool, config_of(**{"train.online_steps": 8}), tmp_path / "run", steps)
    assert raised == []
    columns = steps.columns()
    own = LOW + (columns["action"].astype(np.float64) + 1) / 2 * (HIGH - LOW)
    np.testing.assert_allclose(own, columns["force"], atol=1e-5, err_msg="executed")
    assert (own[:, 1] <= HIGH[1] / 2).all() and (own[:, 0] >= LOW[0] / 2).all()


class Killing(Steps):
    """Kills one of two actors, begins another one, and lets the run end only with it."""

    def __init__(self, pool, fault):
        super().__init__()
        self._pool, self._fault = pool, fault
        self.begun = [actor_process(pool.address, "Far", **{KILL: str(fault)}) for _ in range(2)]
        self.alone = 0
        """Steps that one actor made alone."""

    def on_step(self, env_steps, steps):
        super().on_step(env_steps, steps)
        self.alone += len(steps) == 1
        if env_steps == 6:
            self._fault.touch()
        if self.alone == 2 and len(self.begun) == 2:
            self.begun.append(actor_process(self._pool.address, "Far"))
            until(lambda: all(place.present for place in self._pool.places))


@pytest.mark.slow
def test_an_actor_that_is_killed_is_replaced_and_counted(tmp_path):
    said = []
    with ActorPool(2, port=0, say=said.append) as pool:
        steps = Killing(pool, tmp_path / "fault")
        config = config_of(num_envs=2, **{"train.online_steps": 40})
        joined(pool, config, tmp_path / "run", steps)
        assert (pool.restarts, pool.lost_steps) == (1, 1)
    errors = [actor.communicate(timeout=60)[1] for actor in steps.begun]
    assert sorted(actor.returncode for actor in steps.begun) == [-9, 0, 0], errors
    assert sum("was lost: its connection was closed" in each for each in said) == 1
    both = [len(steps.columns(stream)["action"]) for stream in (0, 1)]
    assert sum(both) >= 40 and steps.alone >= 2 and abs(both[0] - both[1]) == steps.alone
    replay = saved(tmp_path / "run", "replay")
    ended = lengths(replay, 0) + lengths(replay, 1)
    assert sorted(ended)[:2] == [1, STEPS], "cut before the step in which it died"
    assert not replay["terminated"].any(), "and no end that is learnt from as one"
    last = read_lines(tmp_path / "run" / "metrics.jsonl")[-1]
    names = ("actors/number", "actors/restarts", "actors/lost_steps")
    assert [last[name] for name in names] == [2, 1, 1]


def test_nobody_takes_a_lost_place_in_time(tmp_path):
    """The run ends after a checkpoint, and goes on with another actor."""
    config, steps = config_of(), Steps()
    short = Deadlines(join_s=0.3)
    run = tmp_path / "run"
    with ActorPool(1, port=0, deadlines=short) as pool, actor_threads(pool, Arm()):
        place = pool.places[0]
        until(lambda: place.present)
        steps = Steps(6, lambda: place.tell_the_end())
        with pytest.raises(
            EnvironmentFailed, match=r"no actor took the place of actor 0, .* 0.3 s"
        ):
            joined(pool, config, run, steps)
    assert len(steps.steps) == 6
    found = checkpoint.find_newest(run / "checkpoints", only=("learner",))
    assert found is not None and found.record["rollout"]["env_steps"] == 6
    again = Steps()
    with ActorPool(1, port=0) as pool, actor_threads(pool, Arm()) as raised:
        joined(pool, config, run, again, resume=True)
    assert raised == [] and len(again.steps) == 10


def test_a_run_whose_process_was_killed_goes_on_with_the_same_robot(tmp_path):
    """From its files as they are in the middle of an episode, two steps after a checkpoint."""
    config, run, killed = config_of(**{"log.save_every": 3}), tmp_path / "run", tmp_path / "killed"
    first = Steps(5, lambda: shutil.copytree(run, killed))
    with ActorPool(1, port=0) as pool, actor_threads(pool, Far()):
        joined(pool, config, run, first)
    with ActorPool(1, port=0) as pool, actor_threads(pool, Far()) as raised:
        joined(pool, config, killed, again := Steps(), resume=True)
    assert raised == [] and len(again.steps) == 16 - 3
    replay = saved(killed, "replay")
    assert lengths(replay)[:2] == [3, STEPS], "the open episode ends, and a new one begins"
    np.testing.assert_array_equal(replay["action"][0, :3], first.columns()["action"][:3])
    assert (again.steps[0][1].observation["force"] == 0).all()


def test_an_environment_that_always_raises_ends_the_run(tmp_path):
    robots = [Broken() for _ in range(3)]
    with (
        ActorPool(1, port=0) as pool,
        actor_threads(pool, *robots) as raised,
        pytest.raises(EnvironmentFailed, match=r"actor 0 was lost: .* motor 3 is hot"),
    ):
        joined(pool, config_of(), tmp_path / "run", Steps())
    assert [type(error) for error in raised] == [EnvironmentBroke] * 3
    assert all("motor 3 is hot. The training was told." in str(error) for error in raised)


def test_an_evaluation_that_loses_an_actor_is_begun_again(tmp_path):
    """Before the first step; the other actor has the place then."""
    with ActorPool(1, port=0) as pool, actor_threads(pool, Broken(), Arm()) as raised:
        until(lambda: pool.places[0].present)
        joined(pool, config_of(), tmp_path / "run", steps := Steps())
        assert pool.restarts == len(raised) and len(steps.steps) == 16


def test_evaluations_take_the_actors_and_end_their_episodes_as_truncated(tmp_path):
    steps, robot = Steps(), Arm()
    config = config_of(**{"eval.every": 2, "train.online_steps": 6})
    with ActorPool(1, port=0) as pool, actor_threads(pool, robot) as raised:
        joined(pool, config, tmp_path / "run", steps)
        assert pool.restarts == 0
    assert raised == [] and len(evaluations(tmp_path / "run")) == 4
    seen = [step.observation["force"] for _, step in steps.steps]
    assert [(force == 0).all() for force in seen[::2]] == [True] * 3, "a new episode after each"


def test_a_run_that_waits_for_an_actor_stops_when_it_is_asked_to(tmp_path):
    stop = threading.Event()
    with ActorPool(1, port=0) as pool, actor_threads(pool, Arm()):
        place = pool.places[0]
        until(lambda: place.present)

        def end():
            place.tell_the_end()
            stop.set()

        with pytest.raises(Interrupted, match="after 6 environment steps; everything is saved"):
            joined(pool, config_of(), tmp_path / "run", Steps(6, end), stop=stop)
