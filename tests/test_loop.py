"""How the loop is put together: what callbacks are told, who closes the environments, how far the
critic's loss is from `train`, what counts as training time, how often data is checked."""

import dataclasses
import re
import runpy
import time
import traceback
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest

import exporl
from exporl import Callback, train
from exporl.acting.rollout import Actors, Rollout, close_all
from exporl.data import episodes, formats
from exporl.envs.registry import make_task
from exporl.files import checkpoint
from exporl.files.atomic import read_lines
from exporl.parallel.background import BackgroundLearning
from exporl.run.learning import InStep, Learning
from exporl.run.progress import Silent
from exporl.run.session import load_run
from exporl.run.stopwatch import Stopwatch
from exporl.run.trainer import Trainer
from exporl.types import Decision
from helpers.compiling import a_little_optimized
from helpers.examples import learnt_and_acted
from helpers.runs import newest, tiny

SOURCE = Path(exporl.__file__).parent
ROOT = Path(__file__).parent.parent


class Diary(Callback):
    """Everything that a callback is told, in order."""

    def __init__(self):
        self.entries: list[tuple[str, object]] = []

    def on_step(self, env_steps, steps):
        self.entries.append(("step", (env_steps, [env for env, _ in steps])))

    def on_log_line(self, line):
        self.entries.append(("line", dict(line)))

    def on_evaluation(self, record):
        self.entries.append(("evaluation", dict(record)))

    def on_checkpoint(self, path):
        self.entries.append(("checkpoint", path.name))

    def told(self, kind):
        return [what for name, what in self.entries if name == kind]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"train.asynchronous": True}], ids=["in step", "beside"])
def test_a_callback_is_told_what_the_files_say(tmp_path, changes):
    diary = Diary()
    config = tiny(num_envs=2, **{"train.critic_pretrain_steps": 4, **changes})
    train(config, tmp_path / "run", callbacks=[diary])
    assert diary.told("line") == read_lines(tmp_path / "run" / "metrics.jsonl")
    assert diary.told("evaluation") == read_lines(tmp_path / "run" / "eval.jsonl")
    assert diary.told("step") == [(n, [0, 1]) for n in range(2, 25, 2)]
    assert diary.told("checkpoint")[-1] == newest(tmp_path / "run").name
    kinds = [name for name, _ in diary.entries]
    assert kinds[-4:] == ["step", "line", "evaluation", "checkpoint"]


@pytest.mark.slow
def test_every_method_is_optional_and_all_callbacks_are_told(tmp_path):
    class Lines(Callback):
        def __init__(self):
            self.count = 0

        def on_log_line(self, line):
            self.count += 1

    one, two = Lines(), Lines()
    train(tiny("bc"), tmp_path / "run", callbacks=[one, two])
    lines = len(read_lines(tmp_path / "run" / "metrics.jsonl"))
    assert one.count == two.count == lines > 0


@pytest.mark.slow
def test_the_example_stops_a_run_that_is_good_enough(tmp_path, monkeypatch, capsys):
    path = ROOT / "examples" / "callback.py"
    code = [line for line in path.read_text().split('"""')[2].splitlines() if line.strip()]
    assert len(code) <= 30
    monkeypatch.chdir(tmp_path)
    with a_little_optimized():
        runpy.run_path(str(path), run_name="__main__")
    assert re.search(r"everything is saved; [1-9]\d* episodes failed", capsys.readouterr().out)
    lines = read_lines(tmp_path / "runs" / "watched" / "eval.jsonl")
    rates = [line["policy"]["success_rate"] for line in lines]
    assert rates[-1] >= 0.9 > max(rates[:-1])
    learnt_and_acted(tmp_path / "runs" / "watched", least_updates=500)


@pytest.mark.slow
def test_callbacks_change_nothing(tmp_path):
    train(tiny(), tmp_path / "alone")
    train(tiny(), tmp_path / "watched", callbacks=[Diary()])
    left, one = checkpoint.load(newest(tmp_path / "alone"))
    right, two = checkpoint.load(newest(tmp_path / "watched"))
    assert one["rollout"] == two["rollout"] and one["updates"] == two["updates"]
    for part, arrays in left.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, right[part][name], err_msg=name)


def test_an_error_of_a_callback_ends_the_run_and_keeps_the_checkpoint(tmp_path):
    class Broken(Callback):
        def on_evaluation(self, record):
            if record["env_steps"] == 24:
                raise OSError("the disk of the callback is full")

    with pytest.raises(OSError, match="the disk of the callback is full"):
        train(tiny(), tmp_path / "run", callbacks=[Broken()])
    _, record = checkpoint.load(newest(tmp_path / "run"))
    assert record["rollout"]["env_steps"] == 12
    train(tiny(), tmp_path / "run", resume=True)


class Counted(gymnasium.Wrapper):
    """Notes itself in a list while it is open."""

    def __init__(self, env, alive, fails_at=None):
        super().__init__(env)
        self.alive, self.fails_at, self.steps = alive, fails_at, 0
        alive.append(self)

    def step(self, action):
        self.steps += 1
        if self.steps == self.fails_at:
            raise RuntimeError("the simulator broke")
        return self.env.step(action)

    def close(self):
        self.alive.remove(self)
        super().close()


def counted_task(config, alive, **options):
    task = make_task(config.task, config.reward)
    return dataclasses.replace(task, make_env=lambda: Counted(task.make_env(), alive, **options))


def test_environments_are_closed_at_the_end_of_a_run_and_of_an_evaluation(tmp_path):
    config, alive, most = tiny(num_envs=2), [], []

    class Watch(Callback):
        def on_step(self, env_steps, steps):
            most.append(len(alive))

    task = counted_task(config, alive)
    train(config, tmp_path / "run", task=task, callbacks=[Watch()])
    assert max(most) == 2 + 2 and alive == [], "two to act in, two to evaluate in"
    run = load_run(tmp_path / "run", task=task)
    run.evaluate(episodes=3)
    assert alive == []


def test_environments_are_closed_when_one_of_them_breaks(tmp_path):
    config, alive = tiny(num_envs=2), []
    task = counted_task(config, alive, fails_at=7)
    with pytest.raises(RuntimeError, match="the simulator broke"):
        train(config, tmp_path / "run", task=task)
    assert alive == []


@pytest.mark.slow
def test_environments_are_closed_when_a_run_cannot_be_resumed(tmp_path):
    config, alive = tiny(), []
    train(config, tmp_path / "a")
    train(tiny(**{"data.demo_seed": 1}), tmp_path / "b")
    demonstrations = (tmp_path / "b" / "demonstrations.npz").read_bytes()
    (tmp_path / "a" / "demonstrations.npz").write_bytes(demonstrations)
    with pytest.raises(ValueError, match="prior data is not what this run was started with"):
        train(config, tmp_path / "a", resume=True, task=counted_task(config, alive))
    assert alive == []


def test_environments_are_closed_when_not_all_of_them_can_be_made(tmp_path):
    config, alive = tiny(num_envs=3), []
    task = make_task(config.task, config.reward)

    def make_env():
        if len(alive) == 2:
            raise ValueError("no licence for a third one")
        return Counted(task.make_env(), alive)

    with pytest.raises(ValueError, match="no licence for a third one"):
        train(config, tmp_path / "run", task=dataclasses.replace(task, make_env=make_env))
    assert alive == []


def test_one_environment_that_cannot_be_closed_leaves_no_other_one_open():
    class Stuck(gymnasium.Env):
        def close(self):
            raise OSError("the window does not close")

    alive: list = []
    envs = [Counted(gymnasium.Env(), alive), Stuck(), Counted(gymnasium.Env(), alive)]
    with pytest.raises(OSError, match="the window does not close"):
        close_all(envs)
    assert alive == []


class Reached(Exception):
    """The critic's loss was called."""


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["expo", "rlpd"])
def test_the_way_from_train_to_the_critics_loss_is_short(tmp_path, monkeypatch, algorithm):
    """At most nine functions of the library lie between them, three of them above the
    algorithm."""

    def loss(q, target):
        raise Reached

    monkeypatch.setattr("exporl.algos.common.critic_loss", loss)
    changes: dict = {"algo.hidden": (13,)}  # no run before this one has made such an update
    changes |= {"train.offline_steps": 0} if algorithm == "expo" else {}
    with pytest.raises(Reached) as caught:
        train(tiny(algorithm, **changes), tmp_path / "run", share=lambda found: found)
    frames = [
        frame
        for frame in traceback.extract_tb(caught.tb)
        if Path(frame.filename).is_relative_to(SOURCE)
    ]
    assert frames[0].name == "train" and frames[-1].name == "loss"
    between = [f"{Path(f.filename).stem}.{f.name}" for f in frames[1:-1]]
    assert len(between) <= 9, between
    assert between[:3] == ["trainer.online", "learning.owe", "learner.update"]
    assert between[3] == f"{algorithm}.update"


@pytest.mark.slow
def test_evaluation_is_no_training_time(tmp_path):
    config = tiny(**{"eval.episodes": 2, "eval.num_envs": 1})
    task = make_task(config.task, config.reward)
    made = []

    class Slow(gymnasium.Wrapper):
        def reset(self, **options):
            time.sleep(0.1)
            return self.env.reset(**options)

    def make_env():  # the first one is acted in
        made.append(None)
        return task.make_env() if len(made) == 1 else Slow(task.make_env())

    began = time.perf_counter()
    summary = train(config, tmp_path / "run", task=dataclasses.replace(task, make_env=make_env))
    seconds = time.perf_counter() - began
    lines = read_lines(tmp_path / "run" / "eval.jsonl")
    slept = sum(line["time/eval_s"] for line in lines)
    assert len(lines) == 3 and slept >= 3 * 4 * 0.1, "two starts each of the policy and its base"
    assert summary["train_s"] <= seconds - slept


def test_a_stopwatch_goes_on_where_it_was(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = Stopwatch()
    now[0] += 3
    with pytest.raises(KeyError), clock.paused():
        now[0] += 100
        assert clock.seconds == 3
        raise KeyError
    now[0] += 1
    assert clock.seconds == 4
    clock.restart(50.0)
    now[0] += 2
    assert clock.seconds == 52


def test_what_learns_and_what_acts_keeps_to_the_protocols(tmp_path):
    trainer = Trainer(tiny(), tmp_path, Silent(), False)
    assert isinstance(trainer.actors, Actors) and isinstance(trainer.actors, Rollout)
    assert isinstance(trainer.in_step, InStep) and isinstance(trainer.in_step, Learning)
    assert isinstance(BackgroundLearning(lambda: None, trainer.learner.acting), Learning)
    assert isinstance(Diary(), Callback) and not isinstance(object(), Callback)
    trainer.close()


def test_every_episode_is_checked_once_before_it_is_stored(tmp_path, monkeypatch):
    """Collected, then read from the run's own file: neither is looked through a second time."""
    checked = []
    faults = episodes.faults

    def counting(episode, spec=None, paid=None):
        checked.append((len(episode), spec is not None))
        return faults(episode, spec, paid)

    monkeypatch.setattr(episodes, "faults", counting)
    monkeypatch.setattr(formats, "faults", counting)
    monkeypatch.setattr("exporl.data.replay.check_steps", lambda *_: pytest.fail("a second time"))
    for _ in ("collected", "read"):
        checked.clear()
        Trainer(tiny(), tmp_path, Silent(), False).close()
        assert checked == [(2, True)] * 6


def keyed(acting, observation, key, *, mode):
    """Acts by its key alone."""
    rows = len(observation["state"])
    return Decision(jax.random.uniform(key, (rows, 1, 1), minval=-1.0), {})


def test_actors_of_one_run_act_differently_and_the_first_one_as_if_alone():
    task = make_task("probe/delay")

    def actions(mode, **options):
        rollout = Rollout(
            [task.make_env()], keyed, reward=float, chunk_length=1, action_dim=1,
            execute_length=1, seed=5, **options,
        )  # fmt: skip
        return [float(rollout.step(None, mode)[0][1].action[0]) for _ in range(4)]

    for mode in ("policy", "random"):
        alone, first, second, third = actions(mode), *(actions(mode, actor=i) for i in range(3))
        assert alone == first
        assert len({*first, *second, *third}) == 12
