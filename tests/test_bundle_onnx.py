"""The ONNX file of a bundle: the same actions from the same draws, without JAX and exporl."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from exporl.acting.policy import load_policy
from exporl.bundle.deploy import deploy, run_session, session_of
from exporl.bundle.export import difference, export_bundle
from exporl.bundle.graph import Graph
from exporl.bundle.primitives import NotInOnnx
from exporl.bundle.tracing import Key, Missing, Tracer
from exporl.randomness import EVALUATE, run_key
from helpers.bundles import PLAYED, made_run, observations

pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")
MANY = 1000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    changes = {"algo.num_base_samples": 4, "algo.num_edit_samples": 3, "algo.min_noise_scale": 0.1}
    export_bundle(made_run(folder / "run", **changes), folder / "arm")
    return folder / "arm"


def lines_of(folder: Path) -> str:
    """The Python lines that a card shows for acting without exporl."""
    code = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return code[1]


ALONE = """
import sys

for name in ("jax", "jaxlib", "flax", "exporl", "safetensors"):
    sys.modules[name] = None  # importing it fails
{lines}
data = dict(np.load("inputs.npz"))
count = len(data["force"])
played = []
for i in range(count):
    noise = {{name: data[name][i] for name in data if name.split(".")[0] in draws}}
    played.append(act({{name: data[name][i] for name in ("force", "pose")}}, noise))
one = {{name: data[name][0] for name in ("force", "pose")}}
np.savez("outputs.npz", played=played, alone=[next_action(one) for _ in range(5)], left=len(chunk))
print(sorted(name for name in sys.modules if sys.modules[name] and "jax" in name))
"""


def alone(folder: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the card's lines make of inputs, in a process that can import neither."""
    np.savez(folder / "inputs.npz", **inputs)
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE.format(lines=lines_of(folder))],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    found = dict(np.load(folder / "outputs.npz"))
    for name in ("inputs.npz", "outputs.npz"):
        (folder / name).unlink()
    return found


def test_a_thousand_actions_without_jax_and_exporl(bundle):
    policy, seen = load_policy(bundle), observations(MANY)
    deployed = deploy(policy)
    draws = [deployed.noise(seed) for seed in range(MANY)]
    inputs = {name: np.stack([each[name] for each in seen]) for name in seen[0]}
    inputs |= {name: np.stack([each[name] for each in draws]) for name in draws[0]}
    assert set(inputs) == {"force", "pose", "normal.0", "normal.1", "order.0"}
    found = alone(bundle, inputs)
    expected = np.stack([policy.act(each, seed=seed) for seed, each in enumerate(seen)])
    assert found["played"].shape == expected.shape == (MANY, PLAYED, 2)
    assert found["played"].dtype == expected.dtype == np.float32
    assert expected.std(axis=0).min() > 0.1, "they are no constants"
    np.testing.assert_allclose(found["played"], expected, atol=1e-5)
    assert found["alone"].shape == (5, 2) and found["left"] == 1, "of a chunk 2 are played"


def test_the_file_is_valid_small_and_what_the_card_says(bundle):
    import onnx

    model = onnx.load_from_string((bundle / "policy.onnx").read_bytes())
    onnx.checker.check_model(model, full_check=True)
    assert (bundle / "policy.onnx").stat().st_size < 200_000
    kinds = {each.name.split(".")[0] for each in model.graph.input}
    assert kinds == {"observation", "normal", "order"}
    assert "its actions differed by at most" in (bundle / "README.md").read_text()
    read = {name for node in model.graph.node for name in node.input}
    assert {each.name for each in model.graph.initializer} <= read


def test_noise_is_the_input_that_decides(bundle):
    policy = load_policy(bundle)
    deployed = deploy(policy)
    session, seen = session_of(deployed.model), observations(1)[0]
    feed = deployed.feed(seen, 0)
    mine = run_session(session, feed)
    np.testing.assert_array_equal(run_session(session, feed), mine)
    for name in ("normal.0", "observation.pose"):
        changed = run_session(session, feed | {name: feed[name] + 1})
        assert np.abs(changed - mine).max() > 1e-3, name


KINDS = {
    "diffusion, soft, filtered": (
        "expo",
        {
            "base.kind": "diffusion",
            "base.num_steps": 3,
            "algo.selection": "soft",
            "algo.softness": 20.0,
            "algo.backup": "filtered",
            "algo.filter_acting": True,
        },
    ),
    "unclipped, no edits": ("expo", {"base.kind": "flow", "algo.num_edit_samples": 0}),
    "best of n": ("best_of_n", {}),
    "idql": ("idql", {}),
    "qc": ("qc", {}),
    "fql": ("fql", {}),
    "dac": ("dac", {"base.num_steps": 3}),
    "qsm": ("qsm", {"base.num_steps": 3}),
    "qam": ("qam", {}),
    "rlpd": ("rlpd", {}),
    "calql": ("calql", {}),
    "bc": ("bc", {"base.kind": "diffusion", "base.num_steps": 4}),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_algorithm(kind, tmp_path):
    algorithm, changes = KINDS[kind]
    policy = load_policy(made_run(tmp_path / "run", algorithm, **changes))
    assert difference(deploy(policy), 40) < 1e-5


@pytest.mark.slow
def test_the_base_alone(tmp_path):
    run = made_run(tmp_path / "run")
    done = export_bundle(run, tmp_path / "base", part="base")
    assert "differed by at most" in done.onnx
    policy = load_policy(run)
    policy.mode = "base"
    deployed, seen = deploy(policy), observations(1)[0]
    mine = session_of(str(tmp_path / "base" / "policy.onnx"))
    feed = deployed.feed(seen, 4)
    expected = np.clip(run_session(mine, feed), -1, 1)
    theirs = policy.interface.units.to_unit(policy.decide(seen, seed=4).action)
    np.testing.assert_allclose(expected, theirs, atol=1e-5)
    assert {each.name for each in mine.get_inputs()} == {*feed}


# What cannot be expressed.


def traced(function, *shapes):
    """What a tracer makes of a function of arrays and a key."""
    arguments = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    closed = jax.make_jaxpr(function)(*arguments, run_key(0, EVALUATE))
    tracer = Tracer()
    names = [tracer.graph.input(f"x{i}", s, np.dtype("float32")) for i, s in enumerate(shapes)]
    (result,) = tracer.run(closed, [*names, Key()])
    return tracer.graph, result


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x, key: x + jax.random.uniform(key, x.shape), "a draw by 'random_bits'"),
        (lambda x, key: jax.numpy.sort(x), "the primitive 'sort'"),
        (lambda x, key: x.astype("bfloat16") + 1, "results of type bfloat16"),
        (lambda x, key: jax.lax.cumsum(x), "the primitive 'cumsum'"),
        (lambda x, key: x[0] ** 7, "the power 7"),
        (lambda x, key: jax.random.permutation(key, x), "a random order of something else"),
        (lambda x, key: jax.lax.scan(lambda c, y: (c + y, c), 0.0, x)[1], "a loop that collects"),
    ],
)
def test_what_has_no_counterpart_is_named(function, why):
    _, result = traced(function, (4,))
    assert isinstance(result, Missing) and why in result.why


def test_what_is_not_needed_does_no_harm():
    def function(x, key):
        return x * 2, jax.numpy.sort(x)

    graph, result = traced(lambda x, key: function(x, key)[0], (4,))
    session = session_of(graph.model(result, (4,), "action", ""))
    found = session.run(["action"], {"x0": np.arange(4, dtype=np.float32)})[0]
    np.testing.assert_array_equal(found, [0, 2, 4, 6])


@pytest.mark.parametrize(
    "function",
    [
        lambda x, key: jax.numpy.where(x > 0, jax.lax.rsqrt(x * x + 1), x**3),
        lambda x, key: jax.lax.clamp(-0.5, x, 0.5) != jax.numpy.float32(0.5),
        lambda x, key: jax.numpy.einsum("ij,kj->ik", x, jax.numpy.square(x)),
        lambda x, key: x.T[1:3],
        lambda x, key: x[jax.numpy.argmax(x, axis=0)],
        lambda x, key: jax.scipy.special.erf(x) + jax.nn.gelu(x) + jax.nn.softmax(x),
        lambda x, key: jax.vmap(lambda a, b: a @ b)(x.reshape(3, 2, 2), x.reshape(3, 2, 2)),
        lambda x, key: jax.lax.scan(lambda c, y: (c * 0.5 + y, None), x[0], x)[0],
    ],
)
def test_primitives_mean_the_same(function):
    def real(x, key):
        return function(x, key).astype("float32")

    graph, result = traced(real, (3, 4))
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    expected = np.asarray(real(x, run_key(0, EVALUATE)))
    session = session_of(graph.model(result, expected.shape, "action", ""))
    found = session.run(["action"], {"x0": x})[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_bundles_without_onnx_say_why(tmp_path, monkeypatch):
    run = made_run(tmp_path / "run")

    def refuse(policy):
        raise NotInOnnx("the primitive 'fft'")

    for replacement, why in (
        (refuse, "acting uses the primitive 'fft', which has no counterpart"),
        (_missing, "the package onnx was not installed. `pip install 'exporl[onnx]'`"),
    ):
        monkeypatch.setattr("exporl.bundle.export.deploy", replacement)
        done = export_bundle(run, tmp_path / "b", replace=True)
        card = (tmp_path / "b" / "README.md").read_text()
        assert why in done.onnx and why in card and "import onnxruntime" not in card
        assert not (tmp_path / "b" / "policy.onnx").exists()
    monkeypatch.undo()
    monkeypatch.setattr("exporl.bundle.export.difference", lambda deployed, num: 0.5)
    assert "differed by 0.5 from the policy's" in export_bundle(run, tmp_path / "c").onnx
    assert json.loads((tmp_path / "c" / "config.json").read_text())["algorithm"] == "expo"


def _missing(policy):
    raise ModuleNotFoundError("No module named 'onnx'", name="onnx")


def test_constants_are_kept_once():
    graph = Graph()
    assert graph.named(np.ones(3)) == graph.named(np.ones(3)) != graph.named(np.ones(3, "int32"))
    assert graph.named(np.ones((3, 1))) != graph.named(np.ones(3)) and len(graph.constants) == 3
