"""Policies of PyTorch: modules that sample and learn, and actors of Stable-Baselines3."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from exporl.external import find_policy, outside_base
from exporl.external.base import ImitationBatch
from exporl.external.fit import check_fit
from exporl.external.pytorch import torch_policy
from exporl.external.sb3 import read_archive
from exporl.files import checkpoint
from exporl.run.loop import train
from exporl.run.session import load_run
from exporl.spec import Spec
from helpers.batches import same
from helpers.examples import FOLDER, code_lines, learnt_and_acted, run_example
from helpers.runs import evaluations, newest, tiny

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'exporl[torch]'")

SPEC = Spec((("state", (2,), "float32"),), action_dim=1)
SEEN = {"state": np.arange(8, dtype=np.float32).reshape(4, 2)}
SHARED = Path(__file__).parents[2] / "shared" / "policies" / "sac-HalfCheetah-v3.zip"


class Tiny(torch.nn.Module):
    """A Gaussian around a linear layer, in half of the tests with numbers of bfloat16."""

    def __init__(self, seed=0, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(seed)
        self.mean = torch.nn.Linear(2, 1).to(dtype)
        self.dtype = dtype

    def sample(self, observations, num):
        mean = self.mean(observations["state"].to(self.dtype))[:, None, None]
        return (mean + 0.1 * torch.randn(len(mean), num, 1, 1)).clamp(-1, 1)

    def loss(self, observations, action, valid):
        noisy = action + 0.1 * torch.randn_like(action)
        mean = self.mean(observations["state"].to(self.dtype))[:, None]
        return ((mean - noisy).square().sum(-1) * valid).sum() / valid.sum()


class Remembers(torch.nn.Module):
    """A walker with an LSTM whose state lies in buffers, as many are exported."""

    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTMCell(2, 1)
        self.register_buffer("hidden", torch.zeros(1, 1))

    def sample(self, observations, num):
        seen = observations["state"]
        state = self.hidden.expand(len(seen), 1), torch.zeros(len(seen), 1)
        made, _ = self.lstm(seen, state)
        self.hidden.copy_(made[:1])
        return made[:, None, None].expand(-1, num, -1, -1)


def learn(policy, steps, first=0):
    rng = np.random.default_rng(5)
    for step in range(first, first + steps):
        seen, action = rng.standard_normal((6, 2), np.float32), np.ones((6, 1, 1), np.float32)
        batch = ImitationBatch({"state": seen}, action, np.ones((6, 1), np.float32), step)
        assert policy.imitate(batch)["base/loss"] >= 0
    return policy


def made(module, learns=False):
    policy = torch_policy(module, "the module", 1e-2)
    base = outside_base(None, policy, SPEC, learns=learns, learning_rate=1e-2)
    assert base is not None
    return base


def test_a_module_fits_and_leaves_torch_as_it_was():
    base = made(Tiny(), learns=True)
    before = torch.random.get_rng_state()
    assert {finding.status for finding in check_fit(base, SEEN)} == {"pass"}
    learn(base.policy, 1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not np.array_equal(base.sample(SEEN, 2, 0), base.sample(SEEN, 2, 1))
    assert base.policy.module.mean.weight.grad is not None and not base.policy.module.training


def test_a_memory_is_refused_by_its_name():
    found = {f.name: f.detail for f in check_fit(made(Remembers()), SEEN) if f.status == "fail"}
    assert list(found) == ["memory"] and "changes its buffers" in found["memory"]
    assert "lstm (LSTMCell)" in found["memory"]


def test_what_is_no_policy_is_refused(monkeypatch):
    for wrong in (torch.nn.Linear(2, 1), np.tanh):
        with pytest.raises(ValueError, match=r"must be a torch.nn.Module with sample"):
            torch_policy(wrong, "it", 1e-3)
    robot = type(sys)("a_robot")
    robot.load = lambda spec: Path("/nowhere/weights.pt").read_bytes()
    monkeypatch.setitem(sys.modules, "a_robot", robot)
    with pytest.raises(ValueError, match=r"load\(spec\) raised FileNotFoundError"):
        find_policy("torch:a_robot:load", SPEC)
    frozen = type("Frozen", (Tiny,), {"loss": None})()
    found = [f.name for f in check_fit(made(frozen, learns=True), SEEN) if f.status == "fail"]
    assert found == ["learning"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD"])
def test_state_brings_back_module_and_optimiser_to_the_bit(dtype, optimizer, tmp_path):
    """The state goes through a checkpoint; going on twice from it gives the same twice."""

    class Brings(Tiny):
        def optimizer(self):
            extra = {"momentum": 0.9} if optimizer == "SGD" else {}
            return getattr(torch.optim, optimizer)(self.parameters(), lr=0.01, **extra)

    whole = learn(made(Brings(dtype=dtype), learns=True).policy, 5)
    half = learn(made(Brings(dtype=dtype), learns=True).policy, 2)
    checkpoint.save(tmp_path, 1, {"base": half.state()}, {}, keep=1)
    saved = checkpoint.load(tmp_path / "checkpoint-000000001")[0]["base"]
    kept = {name: np.array(value) for name, value in saved.items()}
    for _ in range(2):
        other = made(Brings(seed=9, dtype=dtype), learns=True)
        other.load({f"state/{name}": value for name, value in saved.items()})
        rng = np.random.default_rng(5)
        for _ in range(2):
            rng.standard_normal((6, 2), np.float32)
        for step in (2, 3, 4):
            seen, action = rng.standard_normal((6, 2), np.float32), np.ones((6, 1, 1), np.float32)
            batch = ImitationBatch({"state": seen}, action, np.ones((6, 1), np.float32), step)
            other.policy.imitate(batch)
        assert same(other.policy.state(), whole.state())
        assert same(dict(saved), kept)
    with pytest.raises(ValueError, match="cannot go on from what was saved of it"):
        other.load({"state/module/other": np.zeros(1, np.float32)})


LEARNS = {
    "base.policy": "torch:torch_policy:load",
    "base.learns": True,
    "train.offline_steps": 10,
    "train.online_steps": 16,
    "log.save_every": 4,
    "eval.every": 16,
}
KILLED = """
    import os, signal, sys
    from pathlib import Path
    from exporl.run.loop import train
    from exporl.run.progress import Silent
    from helpers.runs import tiny
    class Kill(Silent):
        steps = 0
        def advance(self, steps, note):
            self.steps += steps
            if self.steps >= 10 + 11:
                os.kill(os.getpid(), signal.SIGKILL)
    train(tiny(**{options!r}), Path("killed"), Kill())
"""


@pytest.mark.slow
def test_a_run_with_a_learning_module_is_killed_and_goes_on_exactly(tmp_path, monkeypatch):
    """SIGKILL between two checkpoints; the run finds its module again by its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(FOLDER)
    config = tiny(**LEARNS)
    train(config, tmp_path / "whole")
    paths = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": paths}
    code = textwrap.dedent(KILLED).replace("{options!r}", repr(LEARNS))
    killed = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, env=environment
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    train(config, tmp_path / "killed", resume=True)
    one, other = newest(tmp_path / "whole"), newest(tmp_path / "killed")
    a, b = checkpoint.load(one)[0], checkpoint.load(other)[0]
    assert one.name == other.name and a.keys() == b.keys()
    assert all(same(a[part], b[part]) for part in a)
    assert any(name.startswith("outside/state/optimizer/") for name in a["learner"])
    assert evaluations(tmp_path / "whole") == evaluations(tmp_path / "killed")
    with pytest.raises(ValueError, match=r"base.policy 'torch:torch_policy:load'"):
        load_run(tmp_path / "whole")
    assert load_run(tmp_path / "whole", trust=True).evaluate(base=True).returns


@pytest.mark.slow
def test_the_example_learns_in_both_frameworks(tmp_path, monkeypatch, capsys):
    assert code_lines(FOLDER / "torch_policy.py") <= 40
    run_example("torch_policy.py", tmp_path, monkeypatch)
    assert "'algorithm': 'expo'" in capsys.readouterr().out
    learnt_and_acted(tmp_path / "runs" / "torch", least_updates=100)
    lines = [line["base"]["return_mean"] for line in evaluations(tmp_path / "runs" / "torch")]
    policy = [line["policy"]["return_mean"] for line in evaluations(tmp_path / "runs" / "torch")]
    assert policy[-1] > lines[-1]


def archive(path, *, activation=None, drop="", extra=(), inputs=3):
    """A Stable-Baselines3 archive of a small actor, and the actor."""
    torch.manual_seed(0)
    body = torch.nn.Sequential(
        torch.nn.Linear(inputs, 8), torch.nn.Tanh() if activation else torch.nn.ReLU(),
        torch.nn.Linear(8, 8), torch.nn.Tanh() if activation else torch.nn.ReLU(),
    )  # fmt: skip
    mean, log_std = torch.nn.Linear(8, 2), torch.nn.Linear(8, 2)
    named = {f"actor.latent_pi.{k}": v for k, v in body.state_dict().items()}
    for name, layer in (("mu", mean), ("log_std", log_std)):
        named |= {f"actor.{name}.{k}": v for k, v in layer.state_dict().items()}
    named = {k: v for k, v in named.items() if not drop or drop not in k}
    content = io.BytesIO()
    torch.save({**named, **dict(extra)}, content)
    options = {"use_sde": False} | ({"activation_fn": activation} if activation else {})
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("policy.pth", content.getvalue())
        file.writestr("data", json.dumps({"policy_kwargs": options, "x": {":serialized:": "!"}}))
    return body, mean, log_std


SB3 = Spec((("b_goal", (1,), "float32"), ("a_pose", (2,), "float32")), action_dim=2)


@pytest.mark.parametrize("activation", [None, "<class 'torch.nn.modules.activation.Tanh'>"])
def test_an_actor_of_stable_baselines_is_computed_as_torch_does(tmp_path, activation):
    body, mean, log_std = archive(tmp_path / "sac.zip", activation=activation)
    policy = find_policy(f"sb3:{tmp_path / 'sac.zip'}", SB3)
    rng = np.random.default_rng(0)
    seen = {
        name: rng.standard_normal((40, *shape), np.float32) for name, shape, _ in SB3.observation
    }
    made = policy.sample(seen, 500, 0)
    with torch.no_grad():
        x = body(torch.from_numpy(np.concatenate([seen["a_pose"], seen["b_goal"]], 1)))
        center, spread = mean(x).numpy(), log_std(x).exp().numpy()
    np.testing.assert_allclose(made[:, 0, 0], np.tanh(center), atol=1e-6)
    drawn = np.arctanh(made[:, 1:, 0].astype(np.float64).clip(-1 + 1e-7, 1 - 1e-7))
    np.testing.assert_allclose(np.median(drawn, 1), center, atol=0.5 * spread.max())
    np.testing.assert_allclose(drawn.std(1) / spread, 1, atol=0.2)
    few = {name: value[:3] for name, value in seen.items()}
    one = {name: value[1:2] for name, value in seen.items()}
    assert np.array_equal(policy.sample(few, 1, 0)[1:2], policy.sample(one, 1, 9))
    base = outside_base(f"sb3:{tmp_path / 'sac.zip'}", None, SB3, learns=False, learning_rate=0.0)
    assert base is not None and {f.status for f in check_fit(base, few)} == {"pass"}


def test_archives_that_cannot_be_read_say_why(tmp_path):
    path, wide = tmp_path / "it.zip", dataclasses.replace(SB3, action_dim=3)
    cases = [
        ({}, wide, "makes actions of 2 numbers; the task takes 3"),
        ({"inputs": 9}, SB3, r"observations of 9 numbers; the task shows 3: a_pose \[2\], b_goal"),
        ({"drop": "log_std"}, SB3, "has no Gaussian actor of SAC or TQC"),
        ({"extra": [("lstm.weight", torch.zeros(1))]}, SB3, "a policy with a memory"),
        ({"activation": "<class 'SiLU'>"}, SB3, "has the activation <class 'SiLU'>"),
    ]
    for options, spec, message in cases:
        archive(path, **options)
        with pytest.raises(ValueError, match=message):
            find_policy(f"sb3:{path}", spec)
    with pytest.raises(FileNotFoundError, match="there is no base policy"):
        find_policy("sb3:nowhere.zip", SB3)
    path.write_bytes(b"PK not really")
    with pytest.raises(ValueError, match="is not a Stable-Baselines3 archive"):
        find_policy(f"sb3:{path}", SB3)
    archive(path, extra=[("harm", Harm())])
    with pytest.raises(ValueError, match=r"policy.pth holds no plain weights"):
        read_archive(path)
    assert not Harm.done


class Harm:
    """Runs code where it is unpickled."""

    done = False

    def __reduce__(self):
        return (setattr, (Harm, "done", True))


@pytest.mark.skipif(not SHARED.is_file(), reason="no ../shared/policies here")
def test_a_real_actor_runs_as_it_was_published():
    pytest.importorskip("mujoco", reason="MuJoCo is not installed: pip install 'exporl[adroit]'")
    env = gymnasium.make("HalfCheetah-v5")
    policy = find_policy(f"sb3:{SHARED}", Spec((("state", (17,), "float32"),), action_dim=6))
    seen, _ = env.reset(seed=0)
    total, over = 0.0, False
    while not over:
        rows = {"state": seen[None].astype(np.float32)}
        seen, reward, terminated, truncated, _ = env.step(policy.sample(rows, 1, 0)[0, 0, 0])
        total, over = total + float(reward), terminated or truncated
    assert total > 8500
