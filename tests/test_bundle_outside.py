"""A base policy from outside that learnt, exported for its own framework: what is loaded there acts
as the base policy of the run does."""

import sys
import types

import numpy as np
import pytest
from safetensors.numpy import load_file

from exporl.acting.policy import load_policy
from exporl.bundle.export import export_bundle
from exporl.cli.main import main
from exporl.external import find_policy
from exporl.files.bundle import BASE_KIND, check_bundle
from exporl.run.loop import train
from exporl.spec import Spec
from helpers.outside import Drawn, Learns
from helpers.runs import content_of, tiny

SPEC = Spec((("state", (2,), "float32"),), action_dim=1)
SEEN = {"state": np.random.default_rng(0).uniform(-1, 1, (32, 2)).astype(np.float32)}
LEARNING = {
    "base.learns": True,
    "base.learning_rate": 0.05,
    "train.offline_steps": 10,
    "train.online_steps": 8,
    "train.update_after": 2,
    "eval.every": 8,
    "eval.episodes": 1,
}


def of_torch():
    """The torch package, and a module that samples and imitates around another one."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    class Around(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def sample(self, observations, num):
            mean = self.inner(observations["state"])[:, None, None].expand(-1, num, -1, -1)
            return torch.tanh(mean + 0.1 * torch.randn_like(mean))

        def loss(self, observations, action, valid):
            mean = torch.tanh(self.inner(observations["state"]))
            return ((mean[:, None] - action).square().sum(-1) * valid).sum() / valid.sum()

    class Scaled(Around):
        """Learns something that is not part of what it is around."""

        def __init__(self, inner):
            super().__init__(inner)
            self.scale = torch.nn.Parameter(torch.ones(1))

        def sample(self, observations, num):
            return super().sample(observations, num) * self.scale.clamp(0, 1) * 0.9

        def loss(self, observations, action, valid):
            return super().loss(observations, action * self.scale, valid)

    return torch, Around, Scaled


def saved(torch, suffix, folder):
    """A file with a linear layer, and its weights."""
    torch.manual_seed(3)
    layer = torch.nn.Linear(2, 1)
    path = folder / f"it{suffix}"
    if suffix == ".pt":
        torch.jit.script(layer).save(str(path))
    else:
        shapes = {"input": {0: torch.export.Dim.DYNAMIC}}
        program = torch.export.export(layer, (torch.zeros(5, 2),), dynamic_shapes=shapes)
        torch.export.save(program, str(path))
    return path, layer.weight.detach().numpy().copy()


def base_actions(run, base=None, num=2):
    """What the base policy of a run draws."""
    policy = load_policy(run, trust=True, base=base)
    assert policy.outside is not None
    return policy.outside.sample(SEEN, num, 7)


def test_a_module_gets_its_weights_back(tmp_path):
    torch, around, _ = of_torch()

    def new(seed):
        torch.manual_seed(seed)
        return around(torch.nn.Linear(2, 1))

    first = new(0)
    before = first.inner.weight.detach().numpy().copy()
    train(tiny(**LEARNING), tmp_path / "run", base=first)
    done = export_bundle(tmp_path / "run", tmp_path / "out", part="base", base=new(1))
    assert set(done.sizes) == {"config.json", "policy.json", "weights.safetensors",
                               "train_config.json", "README.md"}  # fmt: skip
    from safetensors.torch import load_file as load_tensors

    module = new(2)
    module.load_state_dict(load_tensors(tmp_path / "out" / "weights.safetensors"))
    assert np.abs(module.inner.weight.detach().numpy() - before).max() > 1e-3
    torch.manual_seed(7)
    with torch.no_grad():
        made = module.sample({"state": torch.from_numpy(SEEN["state"])}, 2).numpy()
    run = base_actions(tmp_path / "run", new(3))
    np.testing.assert_allclose(made, run, atol=1e-5)
    played = load_policy(tmp_path / "run", base=new(4)).act(SEEN, seed=0, mode="base")
    assert played.shape == (32, 1, 1)
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'module.load_state_dict(load_file("weights.safetensors"))' in card
    assert "library_name: pytorch" in card and "handed over in Python" in card
    assert check_bundle(tmp_path / "out", (BASE_KIND,))["kind"] == BASE_KIND
    with pytest.raises(ValueError, match=r"holds a base policy for its own framework"):
        load_policy(tmp_path / "out")
    export_bundle(tmp_path / "run", tmp_path / "out", part="base", base=new(5), replace=True)


@pytest.mark.filterwarnings("ignore")  # torch's own, about TorchScript
@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_a_file_is_written_again_with_the_new_weights(suffix, tmp_path, monkeypatch, capsys):
    torch, around, _ = of_torch()
    robot = types.ModuleType("export_robot")
    vars(robot).update(adapt=lambda module, spec: around(module))
    monkeypatch.setitem(sys.modules, "export_robot", robot)
    path, before = saved(torch, suffix, tmp_path)
    name = f"torch:{path}:export_robot:adapt"
    train(tiny(**LEARNING, **{"base.policy": name}), tmp_path / "run")
    words = ["export", str(tmp_path / "run"), str(tmp_path / "out"), "--base", "--trust"]
    assert main(words) == 0
    assert f"policy{suffix} is the file that training began with" in capsys.readouterr().out
    again = find_policy(f"torch:{tmp_path / 'out' / f'policy{suffix}'}:export_robot:adapt", SPEC)
    run = base_actions(tmp_path / "run")
    np.testing.assert_allclose(again.sample(dict(SEEN), 2, 7), run, atol=1e-5)
    old = find_policy(name, SPEC)
    assert np.abs(old.sample(dict(SEEN), 2, 7) - run).max() > 1e-3
    weight = load_file(tmp_path / "out" / "weights.safetensors")["inner.weight"]
    assert np.abs(weight - before).max() > 1e-3
    text = b"".join(content_of(tmp_path / "out").values())
    assert str(tmp_path).encode() not in text, "only this machine knows that"
    assert f"--base torch:policy{suffix}:export_robot:adapt".encode() in text


@pytest.mark.filterwarnings("ignore")  # torch's own, about TorchScript
def test_a_file_without_all_that_was_learnt_is_not_written(tmp_path, monkeypatch):
    torch, _, scaled = of_torch()
    robot = types.ModuleType("export_robot")
    vars(robot).update(adapt=lambda module, spec: scaled(module))
    monkeypatch.setitem(sys.modules, "export_robot", robot)
    path, _ = saved(torch, ".pt", tmp_path)
    config = tiny(**LEARNING, **{"base.policy": f"torch:{path}:export_robot:adapt"})
    train(config, tmp_path / "run")
    done = export_bundle(tmp_path / "run", tmp_path / "out", part="base", trust=True)
    assert "not all that was learnt is in it" in done.onnx and "policy.pt" not in done.sizes
    assert "scale" in load_file(tmp_path / "out" / "weights.safetensors")


def test_a_policy_of_another_framework_gets_its_state_back(tmp_path):
    train(tiny(**LEARNING), tmp_path / "run", base=Learns())
    export_bundle(tmp_path / "run", tmp_path / "out", part="base", base=Learns())
    policy = Learns()
    policy.load(load_file(tmp_path / "out" / "weights.safetensors"))
    assert policy.steps > 10
    run = base_actions(tmp_path / "run", Learns())
    np.testing.assert_allclose(policy.sample(SEEN, 2, 7), run, atol=1e-5)
    assert "policy.load(load_file(" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(ValueError, match=r"where it learnt, is exported with --base"):
        export_bundle(tmp_path / "run", tmp_path / "whole", base=Learns())


def test_a_frozen_policy_is_still_where_it_came_from(tmp_path):
    frozen = {**LEARNING, "base.learns": False, "train.offline_steps": 0}
    train(tiny(**frozen), tmp_path / "run", base=Drawn())
    with pytest.raises(ValueError, match="is frozen: training left it as it was"):
        export_bundle(tmp_path / "run", tmp_path / "out", part="base", base=Drawn())
    assert not (tmp_path / "out").exists()
