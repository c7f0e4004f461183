"""Base policies in ONNX files."""

import numpy as np
import pytest

from exporl.external import find_policy, outside_base
from exporl.external.fit import check_fit
from exporl.spec import Spec
from helpers.examples import FOLDER, code_lines, learnt_and_acted, run_example

WHY = "not installed: pip install 'exporl[onnx]'"
onnx = pytest.importorskip("onnx", reason=f"onnx is {WHY}")
pytest.importorskip("onnxruntime", reason=f"onnxruntime is {WHY}")

SPEC = Spec((("pose", (2,), "float32"), ("goal", (1,), "float32")), action_dim=2, chunk_length=2)
SEEN = {
    "pose": np.arange(8, dtype=np.float32).reshape(4, 2) / 8,
    "goal": np.ones((4, 1), np.float32),
}
WEIGHTS = np.random.default_rng(0).uniform(-0.3, 0.3, (3, 4)).astype(np.float32)


def model(path, inputs=None, *, rows="b", noise=4, out=4, random=False):
    """tanh([inputs] W + noise / 10), the inputs in the order that they are given."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    inputs = {"goal": 1, "pose": 2} if inputs is None else inputs
    constants = {"W": WEIGHTS[:, :out], "tenth": np.float32([0.1])}
    nodes = [
        helper.make_node("Concat", list(inputs), ["seen"], axis=1),
        helper.make_node("MatMul", ["seen", "W"], ["mean"]),
        helper.make_node("Mul", ["noise", "tenth"], ["spread"]),
        helper.make_node("Add", ["mean", "spread"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["action"]),
    ]
    if random:
        nodes.insert(0, helper.make_node("RandomNormalLike", ["mean"], ["noise"]))
        nodes = [nodes[1], nodes[2], nodes[0], *nodes[3:]]
    elif not noise:
        nodes[2:4] = [helper.make_node("Identity", ["mean"], ["sum"])]
    drawn = {} if random or not noise else {"noise": noise}
    values = [
        helper.make_tensor_value_info(n, kind, [rows, s]) for n, s in {**inputs, **drawn}.items()
    ]
    result = [helper.make_tensor_value_info("action", kind, [rows, out])]
    known = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "policy", values, result, known)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def base_of(path):
    base = outside_base(f"onnx:{path}", None, SPEC, learns=False, learning_rate=0.0)
    assert base is not None
    return base


@pytest.mark.parametrize("inputs", [{"goal": 1, "pose": 2}, {"observation": 3}])
def test_a_model_is_computed_from_entries_or_from_all_of_them(tmp_path, inputs):
    base = base_of(model(tmp_path / "it.onnx", inputs))
    assert {finding.status for finding in check_fit(base, SEEN)} == {"pass"}
    made = base.sample(SEEN, 300, seed=3)
    assert made.shape == (4, 300, 2, 2)
    mean = np.concatenate([SEEN["goal"], SEEN["pose"]], axis=1) @ WEIGHTS
    drawn = np.arctanh(made.astype(np.float64)).reshape(4, 300, 4) - mean[:, None]
    np.testing.assert_allclose(drawn.mean((0, 1)), 0, atol=0.02)
    np.testing.assert_allclose(drawn.std((0, 1)), 0.1, atol=0.02)
    assert np.array_equal(base.sample(SEEN, 2, 5), base.sample(SEEN, 2, 5))
    assert not np.array_equal(base.sample(SEEN, 2, 5), base.sample(SEEN, 2, 6))


def test_a_model_without_noise_answers_the_same(tmp_path):
    base = base_of(model(tmp_path / "it.onnx", noise=0))
    found = {finding.name: finding for finding in check_fit(base, SEEN)}
    assert {f.status for f in found.values()} == {"pass"}
    assert found["spread"].detail == "all samples are the same: only edits explore"


def test_a_model_that_draws_by_itself_is_refused(tmp_path):
    base = base_of(model(tmp_path / "it.onnx", random=True))
    assert [f.name for f in check_fit(base, SEEN) if f.status == "fail"] == ["memory"]


def test_another_file_is_another_policy(tmp_path):
    one = base_of(model(tmp_path / "one.onnx"))
    other = base_of(model(tmp_path / "other.onnx", noise=0))
    one.load(base_of(tmp_path / "one.onnx").arrays())
    with pytest.raises(ValueError, match="is not the base policy that this run was started with"):
        one.load(other.arrays())


def test_models_that_do_not_fit_say_why(tmp_path):
    path = tmp_path / "it.onnx"
    cases = [
        ({"inputs": {"left": 1, "right": 2}}, "has the inputs left, right; the task shows pose"),
        ({"inputs": {"goal": 2, "pose": 1}}, r"reads 'goal' in the shape \['b', 2\]; the task"),
        ({"out": 3, "noise": 3}, r"makes \[3\] numbers per row; the run needs 4"),
        ({"rows": 1}, "reads 1 rows at a time"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            find_policy(f"onnx:{model(path, **options)}", SPEC)
    path.write_bytes(b"no model")
    with pytest.raises(ValueError, match="is not a model that onnxruntime can open"):
        find_policy(f"onnx:{path}", SPEC)
    with pytest.raises(FileNotFoundError, match="there is no base policy nowhere"):
        find_policy("onnx:nowhere.onnx", SPEC)


@pytest.mark.slow
def test_the_example_learns_around_the_file(tmp_path, monkeypatch, capsys):
    assert code_lines(FOLDER / "onnx_policy.py") <= 40
    run_example("onnx_policy.py", tmp_path, monkeypatch)
    assert "'algorithm': 'expo'" in capsys.readouterr().out
    learnt_and_acted(tmp_path / "runs" / "onnx", least_updates=100)
