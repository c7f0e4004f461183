"""A policy from outside that is missing, does not fit, or fails in the middle of a run: it is told
before anything is collected, or after everything was saved."""

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from exporl.envs.registry import make_task
from exporl.external import connections, outside_base
from exporl.external.base import PolicyFailed
from exporl.external.functions import as_policy
from exporl.external.lerobot import open_lerobot
from exporl.external.onnx import open_onnx
from exporl.external.remote import RemotePolicy
from exporl.external.sb3 import Sb3Actor
from exporl.files import checkpoint
from exporl.parallel.seeds import train_seeds
from exporl.run.config import override
from exporl.run.loop import train
from exporl.spec import Spec
from helpers.batches import same
from helpers.lerobot import install_stand_in, write_folder
from helpers.outside import Drawn, Learns
from helpers.runs import evaluations, newest, tiny

TASK = dataclasses.replace(make_task("probe/delay"), normalize=True)
ROUND = {
    "train.offline_steps": 0,
    "train.online_steps": 16,
    "log.save_every": 1000,
    "eval.every": 16,
}
NAN = np.float32("nan")


def refuses_to_collect(*arguments):
    raise AssertionError("demonstrations were collected")


NEVER = dataclasses.replace(TASK, collect=refuses_to_collect)
MISSING = {
    "torch:nowhere.pt": (FileNotFoundError, "there is no base policy nowhere.pt"),
    "torch:nowhere.pt2:my_robot:adapt": (FileNotFoundError, "there is no base policy nowhere.pt2"),
    "torch:no_robot:load": (ValueError, "cannot import 'no_robot'"),
    "sb3:nowhere.zip": (FileNotFoundError, "there is no base policy nowhere.zip"),
    "onnx:nowhere.onnx": (FileNotFoundError, "there is no base policy nowhere.onnx"),
    "lerobot:nowhere": (FileNotFoundError, "there is no LeRobot policy nowhere"),
    "no_robot:to_policy": (ValueError, "cannot import 'no_robot'"),
    "ws://127.0.0.1:9": (ConnectionError, "no policy server answers at ws://127.0.0.1:9"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_policy_is_told_before_anything_is_collected(name, tmp_path, monkeypatch):
    """Also where the framework of its kind is not installed."""
    for package in ("torch", "onnxruntime", "lerobot"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connections, "FIRST_S", 0.1)
    kind, message = MISSING[name]
    config = tiny(**ROUND, **{"base.policy": name})
    with pytest.raises(kind, match=message):
        train(config, tmp_path / "run", task=NEVER)
    assert not (tmp_path / "run").exists()


def test_a_module_that_needs_torch_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "needs_torch.py").write_text("import torch\n\n\ndef load(spec): ...\n")
    (tmp_path / "needs_none.py").write_text("def load(spec): ...\n")
    for module in ("needs_torch", "needs_none"):
        config = tiny(**ROUND, **{"base.policy": f"torch:{module}:load"})
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'exporl\[torch\]'"):
            train(config, tmp_path / "run", task=NEVER)
    sys.modules.pop("needs_none")


class Wide(Drawn):
    """Says that it makes actions of seven numbers."""

    spec = Spec((("state", (2,), "float32"),), action_dim=7)


def of_another_shape(observations, num, seed):
    return np.zeros((len(observations["state"]), num, 1, 7), np.float32)


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("policy", [Wide(), of_another_shape, Drawn()])
def test_a_policy_that_does_not_fit_is_told_before_anything_is_collected(policy, learns, tmp_path):
    if isinstance(policy, Wide):
        message = "actions: the policy makes actions of 7 numbers, the task takes 1"
    elif learns:
        message = "learning: base.learns=True, and the policy has no imitate"
    elif isinstance(policy, Drawn):
        train(tiny(**ROUND, **{"data.demos": 2}), tmp_path / "run", task=TASK, base=policy)
        return
    else:
        message = r"answers in the shape \(4, 4, 1, 7\)|answered in the shape \(4, 4, 1, 7\)"
    config = tiny(**ROUND, **{"base.learns": learns})
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "run", task=NEVER, base=policy)
    assert not (tmp_path / "run").exists()


def test_seeds_are_not_collected_for_where_the_policy_is_missing(tmp_path):
    config = tiny(**ROUND, **{"base.policy": "onnx:nowhere.onnx"})
    with pytest.raises(FileNotFoundError, match=r"there is no base policy nowhere.onnx"):
        train_seeds(config, tmp_path / "seeds", 2, mode="processes")
    assert not (tmp_path / "seeds").exists()


# In the middle of a run.


SPEC = Spec((("state", (2,), "float32"), ("environment_state", (3,), "float32")), action_dim=2)
SEEN = {name: np.ones((3, *shape), np.float32) for name, shape, _ in SPEC.observation}


class Place(NamedTuple):
    """What a policy is made with."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    until_the_end: contextlib.ExitStack


@pytest.fixture
def place(tmp_path, monkeypatch):
    with contextlib.ExitStack() as stack:
        yield Place(tmp_path, monkeypatch, stack)


# Each makes a policy, and what spoils it.


def a_function(place):
    weights = np.ones((2, 2), np.float32)

    def sample(observations, num, seed):
        return np.repeat(np.tanh(observations["state"] @ weights)[:, None, None], num, axis=1)

    return as_policy(sample, "it"), lambda: weights.fill(NAN)


def an_actor(place):
    sizes = {"latent_pi.0": (4, 2), "mu": (2, 4), "log_std": (2, 4)}
    weights = {f"{name}.weight": np.ones(size, np.float32) for name, size in sizes.items()}
    weights |= {f"{name}.bias": np.zeros(size[0], np.float32) for name, size in sizes.items()}
    return Sb3Actor(weights, "relu", ("state",)), lambda: weights["mu.weight"].fill(NAN)


def a_module(place):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    class Linear(torch.nn.Linear):
        def sample(self, observations, num):
            return torch.tanh(self(observations["state"]))[:, None, None].expand(-1, num, -1, -1)

    module = Linear(2, 2)
    return as_policy(module, "it"), lambda: module.weight.data.fill_(NAN)


def a_script(place):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from exporl.external.torch_files import open_torch

    torch.jit.script(torch.nn.Linear(5, 2)).save(place.folder / "it.pt")
    policy = open_torch(str(place.folder / "it.pt"), SPEC, 0.0)
    return policy, lambda: policy.module.weight.data.fill_(NAN)


def an_onnx_file(place):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    helper, number = onnx.helper, onnx.TensorProto.FLOAT

    def opened(name, weight):
        kernel = onnx.numpy_helper.from_array(np.full((2, 2), weight, np.float32), "W")
        ends = [helper.make_tensor_value_info(n, number, ["b", 2]) for n in ("state", "action")]
        node = helper.make_node("MatMul", ["state", "W"], ["action"])
        graph = helper.make_graph([node], "policy", ends[:1], ends[1:], [kernel])
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), place.folder / name)
        return open_onnx(str(place.folder / name), SPEC, 0.0)

    policy, other = opened("it.onnx", 0.1), opened("other.onnx", NAN)
    return policy, lambda: setattr(policy, "_session", other._session)


def a_folder_of_lerobot(place):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    install_stand_in(place.monkeypatch)
    policy = open_lerobot(str(write_folder(place.folder / "policy")), SPEC, 0.0)
    return policy, lambda: policy._checkpoint.scalings["action"].statistics["min"].fill(NAN)


def a_server(place):
    pytest.importorskip("websockets", reason="websockets is not installed")
    from helpers.remote import openpi_like

    answer = np.zeros((1, 2), np.float32)
    address = place.until_the_end.enter_context(openpi_like(lambda message, before: answer))
    policy = RemotePolicy(address, spec=SPEC)
    place.until_the_end.callback(policy.connections.close)
    return policy, lambda: answer.fill(NAN)


KINDS = (
    a_function,
    an_actor,
    a_module,
    a_script,
    an_onnx_file,
    a_folder_of_lerobot,
    a_server,
)


@pytest.mark.filterwarnings("ignore")  # torch's own, about TorchScript
@pytest.mark.parametrize("make", KINDS)
def test_numbers_that_are_none_are_a_failure_of_the_policy_by_its_name(make, place):
    """Of every kind; what it is told apart by remains what it was."""
    policy, spoil = make(place)
    base = outside_base("my:policy", policy, SPEC, learns=False, learning_rate=0.0)
    assert base is not None and np.isfinite(base.sample(SEEN, 2, 0)).all()
    before = base.arrays()
    spoil()
    message = r"base policy 'my:policy' answered NaN or infinity in \d+ of 12 numbers.*mend it"
    with pytest.raises(PolicyFailed, match=message):
        base.sample(SEEN, 2, 0)
    assert same(before, base.arrays())


class Spoilt(Drawn):
    """Draws, until it is asked about so many observations at a time once too often."""

    def __init__(self, rows, times):
        self.rows, self.left = rows, times

    def sample(self, observations, num, seed):
        self.left -= len(observations["state"]) == self.rows
        made = super().sample(observations, num, seed)
        return made if self.left >= 0 else made * NAN


def told(caught):
    return " ".join(caught.value.__notes__)


def test_a_policy_that_answers_nan_while_acting_loses_nothing(tmp_path):
    """The checkpoint is written first; with the mended policy the run is the unbroken one."""
    config = tiny(**ROUND)
    train(config, tmp_path / "whole", base=Drawn(), task=TASK)
    with pytest.raises(PolicyFailed, match="answered NaN or infinity") as caught:
        train(config, tmp_path / "broken", base=Spoilt(1, 11), task=TASK)
    name = newest(tmp_path / "broken").name
    assert 0 < int(name.rsplit("-", 1)[1]) < 16
    assert f"The last checkpoint is {name}; go on with" in told(caught)
    train(config, tmp_path / "broken", base=Drawn(), task=TASK, resume=True)
    one, other = newest(tmp_path / "whole"), newest(tmp_path / "broken")
    a, b = checkpoint.load(one)[0], checkpoint.load(other)[0]
    assert one.name == other.name and a.keys() == b.keys()
    assert all(same(a[part], b[part]) for part in a)
    assert evaluations(tmp_path / "whole") == evaluations(tmp_path / "broken")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_policy_that_answers_nan_in_an_update_leaves_a_checkpoint(asynchronous, tmp_path):
    config = tiny(**ROUND, **{"train.asynchronous": asynchronous})
    with pytest.raises(PolicyFailed, match="answered NaN or infinity") as caught:
        train(config, tmp_path / "run", base=Spoilt(16, 3), task=TASK)
    name = newest(tmp_path / "run").name
    assert f"The last checkpoint is {name}" in told(caught)
    train(config, tmp_path / "run", base=Drawn(), task=TASK, resume=True)
    assert newest(tmp_path / "run").name == "checkpoint-000000016"


def test_a_policy_that_fails_before_acting_begins_leaves_a_checkpoint(tmp_path):
    config = tiny(**ROUND, **{"train.critic_pretrain_steps": 8})
    with pytest.raises(PolicyFailed, match="answered NaN or infinity"):
        train(config, tmp_path / "run", base=Spoilt(16, 2), task=TASK)
    assert newest(tmp_path / "run").name == "checkpoint-000000004"
    train(config, tmp_path / "run", base=Drawn(), task=TASK, resume=True)
    assert newest(tmp_path / "run").name == "checkpoint-000000024"


class Diverges(Learns):
    """Its own numbers become NaN after so many imitation steps."""

    def imitate(self, batch):
        made = super().imitate(batch)
        if self.steps == 10:
            self.mean = self.mean * NAN
        return made


def test_a_policy_that_diverged_never_replaces_the_last_checkpoint(tmp_path):
    config = override(tiny(**ROUND), {"base.learns": True, "log.save_every": 4})
    with pytest.raises(PolicyFailed, match="answered NaN or infinity") as caught:
        train(config, tmp_path / "run", base=Diverges(), task=TASK)
    assert "What was learnt since the last checkpoint is lost" in told(caught)
    saved = checkpoint.load(newest(tmp_path / "run"))[0]["learner"]
    assert np.isfinite(saved["outside/state/mean"]).all()
    train(config, tmp_path / "run", base=Learns(), task=TASK, resume=True)
    assert newest(tmp_path / "run").name == "checkpoint-000000016"
