"""PyTorch files as base policies: TorchScript, exported programs, and what is refused."""

import json
import sys
import types
import warnings
import zipfile

import numpy as np
import pytest

from exporl.external import find_policy, outside_base
from exporl.external.fit import check_fit
from exporl.external.torch_archives import kind_of
from exporl.spec import Spec

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'exporl[torch]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, about TorchScript

SPEC = Spec((("pose", (2,), "float32"), ("goal", (1,), "float32")), action_dim=2, chunk_length=2)
SEEN = {
    "pose": np.arange(8, dtype=np.float32).reshape(4, 2) / 8,
    "goal": np.ones((4, 1), np.float32),
}


class ByName(torch.nn.Module):
    def __init__(self, size=3, out=4):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(size, out, bias=False)

    def forward(self, pose, goal, noise):
        mean = self.layer(torch.cat([goal, pose], dim=1))
        return torch.tanh(mean.unflatten(1, (2, 2)) + noise / 10)


class Alone(ByName):
    def forward(self, x):
        return torch.tanh(self.layer(x))


class Samples(ByName):
    """A method `sample` of its own."""

    def forward(self, x):
        return x

    @torch.jit.export
    def sample(self, observations: dict[str, torch.Tensor], num: int):
        pose = observations["pose"]
        spread = torch.randn(pose.shape[0], num, 2, 2)
        return torch.tanh(pose[:, None, None] + spread / 10)


class Walker(torch.nn.Module):
    """An LSTM whose state lies in buffers, as walking policies are exported."""

    def __init__(self):
        super().__init__()
        self.memory = torch.nn.LSTM(3, 4)
        self.register_buffer("hidden_state", torch.zeros(1, 1, 4), persistent=False)
        self.register_buffer("cell_state", torch.zeros(1, 1, 4), persistent=False)

    def forward(self, x):
        out, (hidden, cell) = self.memory(x.unsqueeze(0), (self.hidden_state, self.cell_state))
        self.hidden_state[:] = hidden
        self.cell_state[:] = cell
        return out.squeeze(0)


class Counter(torch.nn.Module):
    """What it remembers changes its answers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x):
        self.steps.add_(1)
        return torch.zeros_like(x)[:, :1].expand(-1, 4) + self.steps / 100


def script(module, path):
    torch.jit.script(module).save(str(path))
    return path


def exported(module, path, rows="b", **sizes):
    """A program with a batch axis of any length, unless `rows` is a number."""
    sizes = sizes or {"pose": (2,), "goal": (1,), "noise": (2, 2)}
    rows = torch.export.Dim("b") if rows == "b" else None
    given = tuple(torch.zeros(5, *size) for size in sizes.values())
    axes = None if rows is None else {name: {0: rows} for name in sizes}
    torch.export.save(torch.export.export(module, given, dynamic_shapes=axes), str(path))
    return path


def base_of(path):
    base = outside_base(f"torch:{path}", None, SPEC, learns=False, learning_rate=0.0)
    assert base is not None
    return base


@pytest.mark.parametrize("save", [script, exported])
def test_a_model_is_computed_from_entries_and_noise(tmp_path, save):
    path = save(ByName(), tmp_path / ("it.pt" if save is script else "it.pt2"))
    base = base_of(path)
    assert {finding.status for finding in check_fit(base, SEEN)} == {"pass"}
    made = base.sample(SEEN, 300, seed=3)
    assert made.shape == (4, 300, 2, 2)
    weight = ByName().layer.weight.detach().numpy()
    mean = np.concatenate([SEEN["goal"], SEEN["pose"]], 1) @ weight.T
    drawn = np.arctanh(made.astype(np.float64)).reshape(4, 300, 4) - mean[:, None]
    np.testing.assert_allclose(drawn.mean((0, 1)), 0, atol=0.02)
    np.testing.assert_allclose(drawn.std((0, 1)), 0.1, atol=0.02)
    before = torch.random.get_rng_state()
    assert np.array_equal(base.sample(SEEN, 2, 5), base.sample(SEEN, 2, 5))
    assert not np.array_equal(base.sample(SEEN, 2, 5), base.sample(SEEN, 2, 6))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_model_of_one_input_reads_all_vectors(tmp_path):
    for base in (
        base_of(script(Alone(), tmp_path / "it.ts")),
        base_of(exported(Alone(), tmp_path / "it.pt2", x=(3,))),
    ):
        found = {finding.name: finding for finding in check_fit(base, SEEN)}
        assert {f.status for f in found.values()} == {"pass"}
        assert found["spread"].detail == "all samples are the same: only edits explore"
        expected = Alone()(torch.from_numpy(np.concatenate([SEEN["goal"], SEEN["pose"]], 1)))
        made = base.sample(SEEN, 2, 0)[:, 1].reshape(4, 4)
        np.testing.assert_allclose(made, expected.detach().numpy(), atol=1e-6)


def test_a_script_that_samples_and_a_file_with_an_adapter(tmp_path, monkeypatch):
    base = base_of(script(Samples(), tmp_path / "it.pt"))
    assert {finding.status for finding in check_fit(base, SEEN)} == {"pass"}
    assert base.sample(SEEN, 3, 0).std(axis=1).min() > 0

    class Adapted(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def sample(self, observations, num):
            flat = self.inner(torch.cat([observations["goal"], observations["pose"]], 1))
            return flat.reshape(-1, 1, 2, 2).repeat(1, num, 1, 1) / 2

    robot = types.ModuleType("file_robot")
    vars(robot).update(adapt=lambda module, spec: Adapted(module), wrong=lambda module: None)
    monkeypatch.setitem(sys.modules, "file_robot", robot)
    path = script(Alone(), tmp_path / "alone.pt")
    alone = base_of(path).sample(SEEN, 2, 0)
    np.testing.assert_allclose(base_of(f"{path}:file_robot:adapt").sample(SEEN, 2, 0), alone / 2)
    with pytest.raises(ValueError, match=r"file_robot:wrong\(module, spec\) raised TypeError"):
        base_of(f"{path}:file_robot:wrong")


def test_a_memory_is_refused_by_what_remembers(tmp_path):
    walker = r"a policy with a memory: being asked changes cell_state, hidden_state; it has memory"
    with pytest.raises(ValueError, match=walker + r" \(LSTM\)"):
        base_of(script(Walker(), tmp_path / "walker.pt"))
    for path in (
        script(Counter(), tmp_path / "it.pt"),
        exported(Counter(), tmp_path / "it.pt2", x=(3,)),
    ):
        with pytest.raises(ValueError, match="a policy with a memory: being asked changes steps"):
            base_of(path)


def test_models_that_do_not_fit_say_why(tmp_path):
    path = tmp_path / "it.pt2"
    wide = exported(Alone(size=9), tmp_path / "wide.pt2", x=(9,))
    cases = [
        (wide, r"reads 'x' in the shape \['b', 9\]; the task shows \['b', 3\] \(goal, pose\)"),
        (exported(Alone(), path, rows=5, x=(3,)), "reads 5 rows at a time: export it"),
        (script(Alone(size=9), tmp_path / "it.pt"), "cannot be sampled for one observation: Run"),
        (script(Alone(out=3), tmp_path / "three.pt"), r"answers \[b, 2 x 2\] actions"),
    ]
    for file, message in cases:
        with pytest.raises(ValueError, match=message):
            base_of(file)
    with pytest.raises(FileNotFoundError, match=r"there is no base policy nowhere.pt2"):
        find_policy("torch:nowhere.pt2", SPEC)
    path.write_bytes(script(Alone(), tmp_path / "it.ts").read_bytes()[:-200])
    with pytest.raises(ValueError, match="is neither TorchScript nor an exported program"):
        base_of(path)


class Harm:
    """Runs code where it is unpickled."""

    done = False

    def __reduce__(self):
        return (setattr, (Harm, "done", True))


def rewritten(source, path, changes):
    """An archive with other contents for some of its parts, and with parts added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        contents = {name: old.read(name) for name in old.namelist()}
        for name, content in (contents | {f"{root}/{n}": c for n, c in changes.items()}).items():
            new.writestr(name, content)
    return path


def test_pickles_are_refused_and_not_read(tmp_path):
    module, path = Alone(), tmp_path / "it.pt"
    for content in (module.state_dict(), {"harm": Harm()}):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"is a pickle of torch.save: reading it would run"):
            base_of(path)
    torch.save({"harm": Harm()}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="is neither TorchScript nor an exported program"):
        base_of(path)
    torch.save((Harm(),), path)
    harm, whole = path.read_bytes(), exported(module, tmp_path / "whole.pt2", x=(3,))
    graph = json.loads(zipfile.ZipFile(whole).read("whole/models/model.json"))
    graph["more"] = {"expr_str": "open('harm')"}
    weights = {"config": {"layer.weight": {"path_name": "weight_0", "use_pickle": True}}}
    cases = [
        ({"data/sample_inputs/model.pt": harm}, r"model.pt holds more than tensors"),
        ({"data/weights/model_weights_config.json": json.dumps(weights)}, "names pickles"),
        ({"data/constants/opaque_obj_0": harm}, "machine code or an object of its own"),
        ({"data/aotinductor/model/it.so": b""}, "machine code or an object of its own"),
        ({"models/model.json": json.dumps(graph)}, r"has the size \"open\('harm'\)\""),
    ]
    for changes, message in cases:
        with pytest.raises(ValueError, match=message):
            base_of(rewritten(whole, tmp_path / "it.pt2", changes))
    with warnings.catch_warnings(), zipfile.ZipFile(whole, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("whole/models/model.json", "{}")
    with pytest.raises(ValueError, match=r"was not written by torch: a name is there twice"):
        kind_of(whole)
    assert not Harm.done
