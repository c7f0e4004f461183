"""Training around a policy that is served elsewhere: runs that repeat and resume to the bit, a
server that is lost or restarted meanwhile, and the command line."""

import contextlib
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("websockets")
from exporl.acting.policy import load_policy
from exporl.cli.main import main
from exporl.envs.registry import make_task
from exporl.external.base import PolicyFailed
from exporl.external.connections import Patience
from exporl.external.remote import RemotePolicy
from exporl.files import checkpoint
from exporl.run.callbacks import Callback
from exporl.run.loop import train
from exporl.serve.batches import compile_calls
from exporl.serve.client import Client
from helpers.batches import same
from helpers.examples import FOLDER, code_lines, learnt_and_acted, run_example
from helpers.remote import Served, openpi_like
from helpers.runs import Heard, evaluations, newest, tiny
from helpers.serving import Running, serving

OLD = Path(__file__).parent / "data" / "old_run"
TASK = make_task("probe/delay")
ROUND = {
    "train.offline_steps": 0,
    "train.online_steps": 16,
    "train.update_after": 10,
    "log.save_every": 1000,
    "eval.every": 16,
}


class AtStep(Callback):
    """Does something after so many environment steps."""

    def __init__(self, steps, what):
        self.steps, self.what = steps, what

    def on_step(self, env_steps, steps):
        if env_steps == self.steps:
            self.what()


class Station(contextlib.ExitStack):
    """A server that can be stopped, and started again at the same address."""

    def __init__(self):
        super().__init__()
        self.running: Running = self.enter_context(serving(Served()))

    def restart(self, policy=None):
        self.close()
        policy = Served() if policy is None else policy
        self.running = self.enter_context(serving(policy, port=self.running.port))


@pytest.fixture
def station():
    with Station() as station:
        yield station


def assert_same_run(one, other):
    a, b = (checkpoint.load(newest(run))[0] for run in (one, other))
    assert a.keys() == b.keys() and all(same(a[part], b[part]) for part in a)
    assert newest(one).name == newest(other).name and evaluations(one) == evaluations(other)


def test_a_run_repeats_to_the_bit_whatever_becomes_of_its_server(station, tmp_path):
    """Restarted in the middle it is found again. Where it stays away a checkpoint is written, and
    the resumed run is the unbroken one."""
    config, address = tiny(**ROUND), station.running.address
    train(config, tmp_path / "whole", base=RemotePolicy(address), task=TASK)
    restart = AtStep(13, station.restart)
    train(config, tmp_path / "again", base=RemotePolicy(address), task=TASK, callbacks=[restart])
    assert_same_run(tmp_path / "whole", tmp_path / "again")

    policy = RemotePolicy(address)

    def leave():
        policy.connections.patience = Patience(0.1, 0.1)
        station.close()

    with (
        pytest.warns(UserWarning, match=f"server at {address} is lost"),
        pytest.raises(PolicyFailed, match=f"no policy server answers at {address}") as caught,
    ):
        train(config, tmp_path / "lost", base=policy, task=TASK, callbacks=[AtStep(8, leave)])
    assert newest(tmp_path / "lost").name == "checkpoint-000000008"
    assert "go on with: exporl train --resume" in " ".join(caught.value.__notes__)
    station.restart()
    train(config, tmp_path / "lost", base=RemotePolicy(address), task=TASK, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "lost")

    station.restart(Served(checkpoint_name="second"))
    with pytest.warns(UserWarning, match="answers from second now, and from first when the run"):
        load_policy(tmp_path / "lost", base=RemotePolicy(address)).act({"state": np.zeros(2)})
    station.restart(Served((-2.0, 2.0)))
    with pytest.raises(ValueError, match="is not the base policy that this run was started with"):
        load_policy(tmp_path / "lost", base=RemotePolicy(address))


def test_other_parameters_in_the_middle_of_a_run_are_told(station, tmp_path):
    newer = AtStep(4, lambda: station.running.server.exchange(Served(checkpoint_name="second")))
    policy = RemotePolicy(station.running.address)
    with pytest.warns(UserWarning, match="answers from second now, before from first: the base"):
        train(tiny(**ROUND), tmp_path / "run", base=policy, task=TASK, callbacks=[newer])
    kept = checkpoint.load(newest(tmp_path / "run"))[0]["learner"]["outside/version"]
    assert np.asarray(kept, np.uint8).tobytes() == b"second"


def test_a_server_without_seeds_whose_answers_are_equal(tmp_path):
    """It is asked for no more than one sample, and the run says that seeds decide nothing."""
    with openpi_like(lambda message, before: np.full((1, 1), 0.25)) as address:
        with pytest.raises(ValueError, match=r"--algo.num-base-samples 1 instead of 2"):
            train(tiny("best_of_n", **ROUND), tmp_path / "run", base=RemotePolicy(address))
        assert not (tmp_path / "run").exists()
        heard, one = Heard(), tiny("best_of_n", **ROUND, **{"algo.num_base_samples": 1})
        train(one, tmp_path / "run", heard, base=RemotePolicy(address))
    assert any("this run does not repeat to the bit" in said for said in heard.said)
    assert evaluations(tmp_path / "run")[-1]["policy"]["returns"] == [-0.25] * 4


def test_samples_of_a_trained_policy_do_not_depend_on_who_else_asks():
    """To the bit: they are decided in calls of one size."""
    seen = {"state": np.random.default_rng(0).uniform(-1, 1, (5, 2)).astype(np.float32)}
    over = threading.Event()

    def robot():
        with Client(running.address, deadline_s=60.0) as client:
            while not over.is_set():
                client.act({"state": [0.1, 0.2]})

    policy = load_policy(OLD)
    compile_calls(policy)
    with serving(policy) as running:
        alone = RemotePolicy(running.address, connections=1).sample(seen, 3, 7)
        robots = [threading.Thread(target=robot) for _ in range(3)]
        for thread in robots:
            thread.start()
        together = RemotePolicy(running.address).sample(seen, 3, 7)
        over.set()
        for thread in robots:
            thread.join()
    np.testing.assert_array_equal(together, alone)
    assert np.abs(alone).max() <= 1 and len(np.unique(alone)) > 1


@pytest.mark.slow
def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    """`exporl serve` in a process of its own; EXPO around it, evaluated and acted with."""
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "exporl.cli", "serve", str(OLD), "--port", "0"]
    options = [f"--{k.replace('_', '-')}={v}" for k, v in ROUND.items()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split(" at ")[1].split(";")[0]
            words = ["--task", "probe/bandit", "--preset", "tiny", "--data.demos", "2"]
            words += [*options, "--run-dir", "run", "--base", address]
            assert main(["check", "probe/bandit", "--policy", address]) == 0
            assert main(["train", "best_of_n", *words, "--algo.num-base-samples", "2"]) == 0
            assert main(["eval", "run", "--episodes", "2"]) == 2
            assert "names code that does not come with exporl" in capsys.readouterr().err
            assert main(["eval", "run", "--episodes", "2", "--trust"]) == 0
            seen = {"state": np.zeros(2, np.float32)}
            played = load_policy("run", trust=True).act(seen, seed=0, mode="base")
            assert played.shape == (1, 1) and abs(float(played[0, 0])) <= 1
        finally:
            server.kill()


@pytest.mark.slow
def test_the_example(tmp_path, monkeypatch, capsys):
    assert code_lines(FOLDER / "remote_policy.py") <= 40
    run_example("remote_policy.py", tmp_path, monkeypatch)
    assert "'algorithm': 'expo'" in capsys.readouterr().out
    learnt_and_acted(tmp_path / "runs" / "remote", least_updates=100)
