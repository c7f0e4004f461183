"""The loop: exact resumption, evaluation that changes nothing, phases, refusals, and what a run
leaves behind."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from exporl.envs.registry import make_task
from exporl.files import checkpoint
from exporl.files.atomic import read_lines
from exporl.files.run_files import CHECKPOINTS
from exporl.run.config import override
from exporl.run.directory import load_config
from exporl.run.loop import train
from exporl.run.phases import acting_mode, update_calls_due
from exporl.run.progress import Silent
from exporl.run.session import load_run
from exporl.run.stopping import Interrupted
from exporl.run.trainer import Trainer
from helpers.runs import evaluations, newest, tiny


def assert_same_run(a: Path, b: Path) -> None:
    """Every saved array equal to the bit, every counter equal."""
    assert newest(a).name == newest(b).name
    for part in ("learner", "replay", "rollout"):
        left, right = (
            load_file(newest(a) / f"{part}.safetensors"),
            load_file(newest(b) / f"{part}.safetensors"),
        )
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=f"{part} {name}")
    (_, one), (_, two) = checkpoint.load(newest(a)), checkpoint.load(newest(b))
    for name in ("updates", "offline_steps", "critic_steps", "last_eval", "rollout", "data"):
        assert one[name] == two[name], name


ALONE = {"eval.num_envs": 1}
"""Evaluated in as many environments as trained in: fewer programs to compile."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        ("expo", {}),
        ("expo", {"chunk_length": 3, "num_envs": 2, "train.critic_pretrain_steps": 8}),
        ("best_of_n", ALONE),
        ("idql", ALONE),
        ("fql", ALONE),
        ("calql", {}),
        ("qc", ALONE),
        ("dsrl", ALONE),
        ("dac", {"base.kind": "diffusion"} | ALONE),
        ("qsm", {"base.kind": "diffusion"} | ALONE),
        ("qam", ALONE),
        ("residual", {"algo.ramp_calls": 4} | ALONE),
        ("rlpd", {}),
        ("bc", {}),
    ],
    ids=[
        "expo",
        "expo-chunks-2-envs",
        "best_of_n",
        "idql",
        "fql",
        "calql",
        "qc",
        "dsrl",
        "dac",
        "qsm",
        "qam",
        "residual",
        "rlpd",
        "bc",
    ],
)
def test_two_and_two_equals_four(tmp_path, algorithm, changes):
    """12 steps, saved and resumed for 12 more, equals 24 steps: parameters, replay, environments,
    counters."""
    config = tiny(algorithm, **changes)
    train(config, tmp_path / "straight")
    train(override(config, {"train.online_steps": 12}), tmp_path / "halves")
    train(config, tmp_path / "halves", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "halves")
    assert evaluations(tmp_path / "straight") == evaluations(tmp_path / "halves")


@pytest.mark.slow
def test_resume_inside_an_episode_and_a_chunk(tmp_path):
    pytest.importorskip("metaworld")
    config = tiny(
        task="metaworld/reach-v3",
        chunk_length=3,
        **{
            "data.demos": 1,
            "train.online_steps": 20,
            "log.save_every": 7,
            "eval.every": 1000,
            "eval.episodes": 1,
            "log.keep": 10,
        },
    )
    train(config, tmp_path / "straight")
    train(override(config, {"train.online_steps": 7}), tmp_path / "parts")
    train(config, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "parts")


class StopAfter(Silent):
    """Asks the process to stop, as Ctrl-C does, after so many advances."""

    def __init__(self, advances: int):
        self.left = advances

    def advance(self, steps: int, note: str) -> None:
        self.left -= steps > 0
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("advances", [1, 9, 14])
def test_interrupted_run_goes_on_exactly(tmp_path, advances):
    config = tiny()
    train(config, tmp_path / "straight")
    with pytest.raises(Interrupted, match="everything is saved"):
        train(config, tmp_path / "stopped", StopAfter(advances))
    train(config, tmp_path / "stopped", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "stopped")
    assert evaluations(tmp_path / "straight") == evaluations(tmp_path / "stopped")


@pytest.mark.slow
def test_killed_run_goes_on_exactly(tmp_path):
    """SIGKILL at an arbitrary moment: the newest checkpoint is intact and the rest is made
    again."""
    config = tiny(**{"log.save_every": 4, "train.online_steps": 40})
    train(config, tmp_path / "straight")
    script = f"""
        import os, signal
        from pathlib import Path
        from exporl.run.directory import load_config
        from exporl.run.progress import Silent
        from exporl.run.loop import train
        class Kill(Silent):
            steps = 0
            def advance(self, steps, note):
                self.steps += steps
                if self.steps >= 20 + 17:
                    os.kill(os.getpid(), signal.SIGKILL)
        straight, killed = {str(tmp_path / "straight")!r}, {str(tmp_path / "killed")!r}
        train(load_config(Path(straight)), Path(killed), Kill())
    """
    # as in conftest: else rounding differs
    same_programs = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    killed = subprocess.run(command, check=False, capture_output=True, env=same_programs)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    train(config, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "killed")
    assert evaluations(tmp_path / "straight") == evaluations(tmp_path / "killed")


@pytest.mark.slow
def test_damaged_checkpoint_falls_back_to_the_previous(tmp_path):
    config = tiny()
    train(config, tmp_path / "straight")
    train(config, tmp_path / "damaged")
    victim = newest(tmp_path / "damaged") / "learner.safetensors"
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    said = []
    progress = Silent()
    progress.say = said.append
    train(config, tmp_path / "damaged", progress, resume=True)
    assert any("learner.safetensors was altered" in line for line in said)
    assert_same_run(tmp_path / "straight", tmp_path / "damaged")


@pytest.mark.slow
def test_evaluating_more_often_changes_nothing(tmp_path):
    config = tiny()
    train(config, tmp_path / "seldom")
    train(
        override(config, {"eval.every": 2, "eval.episodes": 7, "eval.num_envs": 3, "eval.seed": 5}),
        tmp_path / "often",
    )
    for part in ("learner", "replay", "rollout"):
        left = load_file(newest(tmp_path / "seldom") / f"{part}.safetensors")
        right = load_file(newest(tmp_path / "often") / f"{part}.safetensors")
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=f"{part} {name}")
    assert len(evaluations(tmp_path / "often")) > len(evaluations(tmp_path / "seldom"))


@pytest.mark.slow
def test_seeds_differ_and_repeat(tmp_path):
    runs = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tiny(seed=seed), tmp_path / name)
        runs[name] = load_file(newest(tmp_path / name) / "learner.safetensors")
    leaf = next(
        name for name in runs["a"] if "critic" in name and "kernel" in name and "target" not in name
    )
    np.testing.assert_array_equal(runs["a"][leaf], runs["b"][leaf])
    assert (runs["a"][leaf] != runs["c"][leaf]).any()


def test_run_directory(tmp_path):
    summary = train(tiny(), tmp_path / "run")
    run = tmp_path / "run"
    assert load_config(run) == tiny()
    written = json.loads((run / "config.json").read_text())
    assert {"exporl", "jax", "python", "backend"} <= written["versions"].keys()
    lines = read_lines(run / "metrics.jsonl")
    assert [line["env_steps"] for line in lines if line["phase"] == "online"] == [6, 12, 18, 24]
    assert {
        "critic/loss",
        "edit/temperature",
        "edit/max_entropy",
        "critic/q_prior",
        "critic/q_online",
        "base/loss",
    } <= set(lines[-1])
    evals = read_lines(run / "eval.jsonl")
    assert [line["env_steps"] for line in evals] == [0, 12, 24]
    assert len(evals[0]["policy"]["success"]) == len(evals[0]["base"]["success"]) == 4
    assert summary["after"]["env_steps"] == 24
    assert 'type="application/json"' in (run / "report.html").read_text()
    assert len(list((run / CHECKPOINTS).iterdir())) == 2


def test_modes_follow_the_counters():
    train = tiny(**{"train.random_steps": 5, "train.critic_warmup_steps": 10}).train
    assert [acting_mode(train, step) for step in (0, 4, 5, 14, 15)] == [
        "random",
        "random",
        "base",
        "base",
        "policy",
    ]
    train = tiny(**{"train.update_after": 4, "train.update_every": 3}).train
    assert [step for step in range(16) if update_calls_due(train, step, step + 1)] == [6, 9, 12, 15]
    assert update_calls_due(train, 0, 16) == 4


def test_same_data_for_base_and_policy_starts(tmp_path):
    train(tiny(task="probe/bandit"), tmp_path / "run")
    run = load_run(tmp_path / "run")
    one, two = run.evaluate(episodes=5, seed=3), run.evaluate(episodes=5, seed=3)
    assert one == two
    assert run.evaluate(base=True, episodes=5, seed=3).lengths == [1] * 5


def test_existing_run_is_refused_and_untouched(tmp_path):
    train(tiny(), tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match=r"already holds a run.*--resume"):
        train(tiny(), tmp_path / "run")
    assert before == {
        path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()
    }


def test_resume_with_another_configuration_is_refused(tmp_path):
    train(tiny(), tmp_path / "run")
    with pytest.raises(ValueError, match=r"algo.edit_scale was 0.1, now 0.3"):
        train(tiny(**{"algo.edit_scale": 0.3}), tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match=r"started with expo, not rlpd"):
        train(tiny("rlpd"), tmp_path / "run", resume=True)
    assert load_config(tmp_path / "run") == tiny()


@pytest.mark.slow
def test_resume_needs_a_run_and_the_same_data(tmp_path):
    with pytest.raises(ValueError, match="no run to resume"):
        train(tiny(), tmp_path / "nothing", resume=True)
    train(tiny(), tmp_path / "a")
    train(tiny(**{"data.demo_seed": 1}), tmp_path / "b")
    (tmp_path / "a" / "demonstrations.npz").write_bytes(
        (tmp_path / "b" / "demonstrations.npz").read_bytes()
    )
    with pytest.raises(ValueError, match="prior data is not what this run was started with"):
        train(tiny(), tmp_path / "a", resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.path": "missing.npz"}, "no data file at missing.npz"),
        ({"data.demos": 0}, "no prior data"),
        ({"train.batch_size": 0}, "train.batch_size must be at least 1, got 0"),
        ({"train.batch_size": 1}, "some source gets no row"),
        ({"execute_length": 2}, "execute_length must be between 1 and chunk_length=1"),
        ({"algo.edit_scale": 0.0}, "edit_scale must be in"),
        ({"base.num_steps": 0}, r"base.num_steps must be in \[1, 10000\]"),
    ],
)
def test_bad_options_are_refused_and_leave_no_run(tmp_path, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(tiny(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_task_and_unwritable_directory(tmp_path):
    with pytest.raises(
        ValueError, match=r"unknown task 'probe/bandid'. Did you mean 'probe/bandit'"
    ):
        train(tiny(task="probe/bandid"), tmp_path / "run")
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(ValueError, match=r"cannot write to run directory .*file"):
        train(tiny(), tmp_path / "file" / "run")


@pytest.mark.slow
def test_phases_without_meaning_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"rlpd has nothing to learn in train.offline_steps=5"):
        train(tiny("rlpd", **{"train.offline_steps": 5}), tmp_path / "run")
    with pytest.raises(ValueError, match="no base policy that could act"):
        train(tiny("rlpd", **{"train.critic_warmup_steps": 5}), tmp_path / "run2")
    with pytest.raises(ValueError, match=r"bc has nothing to learn in train.critic_pretrain_steps"):
        train(tiny("bc", **{"train.critic_pretrain_steps": 4}), tmp_path / "run3")


@pytest.mark.slow
def test_options_of_a_base_policy_that_is_not_there_are_refused(tmp_path):
    message = r"rlpd has no base policy: base.width=32 would have no effect; leave it out"
    with pytest.raises(ValueError, match=message):
        train(tiny("rlpd", **{"base.width": 32}), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_data_of_another_task_is_refused(tmp_path):
    from exporl.data.formats import save_npz
    from exporl.envs.probes import collect

    episodes = collect("bandit", 3, 0.1, 0)
    save_npz(tmp_path / "bandit.npz", episodes)
    pytest.importorskip("metaworld")
    with pytest.raises(ValueError, match=r"shape \(1, 1\), the task needs \(1, 4\)"):
        train(
            tiny(task="metaworld/reach-v3", **{"data.path": str(tmp_path / "bandit.npz")}),
            tmp_path / "run",
        )


@pytest.mark.slow
def test_diverging_policy_stops_with_the_last_checkpoint(tmp_path):
    config = tiny(**{"log.save_every": 5})
    trainer = Trainer(config, tmp_path, Silent(), False)
    trainer.pretrain()
    saved = newest(tmp_path)
    trainer.learner.state = dataclasses.replace(
        trainer.learner.state,
        base_ema=jax.tree.map(lambda x: x * np.nan, trainer.learner.state.base_ema),
    )
    with pytest.raises(FloatingPointError, match="policy produced NaN"):
        trainer.online()
    checkpoint.load(saved)


class Restless(gymnasium.ObservationWrapper):
    """An environment that never repeats itself, like a real robot."""

    def observation(self, observation):
        noise = np.random.default_rng().standard_normal(2).astype(np.float32)
        return {"state": observation["state"] + noise}


@pytest.mark.slow
def test_environment_that_cannot_be_repeated_starts_a_new_episode(tmp_path):
    config = tiny(**{"train.online_steps": 13, "eval.every": 1000})
    task = make_task(config.task, config.reward)
    restless = dataclasses.replace(task, make_env=lambda: Restless(task.make_env()))
    train(config, tmp_path / "run", task=restless)
    said = []
    progress = Silent()
    progress.say = said.append
    more = override(config, {"train.online_steps": 20})
    train(more, tmp_path / "run", progress, resume=True, task=restless)
    assert any("environment 0 is not deterministic" in line for line in said)
    parts, record = checkpoint.load(newest(tmp_path / "run"))
    assert record["rollout"]["env_steps"] == 20
    assert parts["replay"]["truncated"][0, :40].sum() == 1
