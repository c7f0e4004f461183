"""LeRobot policies as base: what a folder says, and what is made of it. The real package is held
against in `test_external_lerobot_real.py`."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from exporl.external import find_policy, outside_base
from exporl.external.fit import check_fit
from exporl.external.lerobot_entries import entries_of, stacked
from exporl.external.lerobot_folder import Feature, read_checkpoint
from exporl.external.met import check_met
from exporl.external.scaling import Scaling
from exporl.spec import Spec
from exporl.units import ActionUnits
from helpers.lerobot import IMAGE, STATISTICS, configuration, install_stand_in, write_folder

STATE, ENV = ("state", (2,), "float32"), ("environment_state", (3,), "float32")
SPEC = Spec((ENV, STATE), action_dim=2, chunk_length=4)
TOP = ("pixels/top", (4, 5, 3), "uint8")
UNITS = ActionUnits((-90.0, -90.0), (90.0, 190.0), (2,), "float32")


@pytest.mark.parametrize("layout", ["old", "new"])
@pytest.mark.parametrize("image", [False, True])
def test_both_layouts_say_the_same(tmp_path, layout, image):
    config = configuration(image=image, n_obs_steps=2)
    found = read_checkpoint(write_folder(tmp_path, config, layout=layout, env={"fps": 10}))
    assert (found.kind, found.steps, found.planned, found.action_dim) == ("diffusion", 2, 7, 2)
    assert list(found.inputs) == list(config["input_features"]) and found.control_hz == 10.0
    for name in (*found.inputs, "action"):
        kept = found.scalings[name].statistics
        assert kept.keys() == STATISTICS[name].keys()
        assert all(np.array_equal(kept[k], np.float32(v)) for k, v in STATISTICS[name].items())
    assert found.scalings["observation.state"].mode == "MIN_MAX"


def test_scaling_by_hand():
    two = {"min": np.float32([0, 5]), "max": np.float32([4, 5])}
    scaling, value = Scaling("MIN_MAX", two), np.float32([[1, 5], [4, 5]])
    np.testing.assert_array_equal(scaling.normalized(value), [[-0.5, -1], [1, -1]])
    np.testing.assert_array_equal(scaling.own(np.float32([[-0.5, -1], [1, -1]])), value)
    moments = {"mean": np.float32([1]), "std": np.float32([2])}
    by_mean = Scaling("MEAN_STD", moments, eps=0.0)
    assert by_mean.normalized(np.float32([5])) == [2] and by_mean.own(np.float32([2])) == [5]
    assert [end.tolist() for end in by_mean.known() or ()] == [[-5.0], [7.0]]
    quantiles = Scaling("QUANTILES", {"q01": np.float32([-1]), "q99": np.float32([3])})
    assert quantiles.normalized(np.float32([3])) == [1] and quantiles.own(np.float32([0])) == [1]
    nothing = Scaling("IDENTITY", {})
    assert nothing.own(value) is value and nothing.known() is None


def test_features_without_statistics_stay_as_they_are(tmp_path):
    """As LeRobot leaves them, in training and afterwards; where its own files are whole."""
    path = write_folder(tmp_path)
    file = path / "policy_preprocessor_step_0_normalizer_processor.safetensors"
    kept = {n: v for n, v in load_file(file).items() if "environment_state" not in n}
    save_file(kept, file)
    scalings = read_checkpoint(path).scalings
    assert scalings["observation.environment_state"].mode == "IDENTITY"
    assert scalings["observation.state"].mode == "MIN_MAX"


def test_entries_are_found_by_their_names(tmp_path):
    checkpoint = read_checkpoint(write_folder(tmp_path, configuration(image=True)))
    names = (
        ("state", "environment_state", "top"),
        ("observation.state", "observation/environment_state", "images/top"),
        ("agent_pos", "environment_state", "pixels/top"),
    )
    for state, env, top in names:
        spec = Spec(((state, *STATE[1:]), (env, *ENV[1:]), (top, *TOP[1:])), 2)
        found = entries_of(checkpoint, spec)
        assert list(found.values()) == [(state,), (env,), (top,)]
    one = {"observation.state": {"type": "STATE", "shape": [2]}} | IMAGE
    alone = read_checkpoint(write_folder(tmp_path, configuration(input_features=one)))
    joined = Spec((("b", (1,), "float32"), ("a", (1,), "float32"), TOP), 2)
    assert entries_of(alone, joined)["observation.state"] == ("a", "b")
    feature = Feature("STATE", (2,))
    seen = {"a": np.float32([[1, 2], [5, 6]]), "b": np.float32([[3, 4], [7, 8]])}
    assert stacked(seen, ("a", "b"), feature, 2).tolist() == [[[1, 3], [2, 4]], [[5, 7], [6, 8]]]
    renamed = {"registry_name": "rename_observations_processor",
               "config": {"rename_map": {"observation.joints": "observation.state"}}}  # fmt: skip
    checkpoint = read_checkpoint(write_folder(tmp_path, steps=[renamed]))
    found = entries_of(checkpoint, Spec((ENV, ("joints", (2,), "float32")), 2))
    assert found["observation.state"] == ("joints",)


def test_entries_that_do_not_fit_say_why(tmp_path):
    checkpoint = read_checkpoint(write_folder(tmp_path, configuration(image=True)))
    two = read_checkpoint(write_folder(tmp_path / "two", configuration(n_obs_steps=2)))
    wide, other = ("state", (4,), "float32"), ("pixels/top", (3, 4, 5), "uint8")
    cases = [
        (checkpoint, (STATE, ENV), r"reads 'observation.images.top' \[3, 4, 5\]; the task shows"),
        (checkpoint, (STATE, ENV, other), r"reads 'observation.images.top' uint8 \[4, 5, 3\]"),
        (checkpoint, (wide, ENV, TOP), r"reads 'observation.state' \[2\]; the task shows state"),
        (two, (STATE, ENV), r"the last 2 observations \(n_obs_steps\), of 'observation.state'"),
        (two, (wide, ENV), r"FrameStackObservation\(env, 2\)"),
        (two, (("state", (5,), "float32"), ENV), r"reads 'observation.state' \[2\] of 2 steps"),
    ]
    for found, entries, message in cases:
        with pytest.raises(ValueError, match=message):
            entries_of(found, Spec(entries, 2))


def test_folders_that_cannot_be_used_say_why(tmp_path):
    step = {"registry_name": "tokenizer_processor", "config": {}}
    halved = {"registry_name": "device_processor", "config": {"float_dtype": "float16"}}
    ends, action = ("observation.state", "min"), ("action", "max")
    cases = [
        ({"config": configuration(type="smolvla")}, "of the type 'smolvla'; diffusion and act can"),
        ({"config": configuration(temporal_ensemble_coeff=0.01)}, "averages its action with those"),
        ({"config": configuration(horizon="8")}, "horizon is '8', not a number"),
        (
            {"config": configuration(output_features={})},
            "is not the configuration of a LeRobot policy",
        ),
        ({"layout": "old", "changes": {ends: None}}, "has no statistic 'min' of 'observation.st"),
        ({"layout": "old", "changes": {ends: [np.inf] * 2}}, "'min' of 'observation.state' has"),
        ({"changes": {action: None}}, "has no statistic 'max' of 'action', by which the policy"),
        (
            {"changes": {action: np.ones((8, 2))}},
            r"'max' of 'action' has the shape \(8, 2\) \(the feature: \(2,\)\)",
        ),
        ({"steps": [step]}, "does more than normalise: its step 'tokenizer_processor'"),
        ({"steps": [halved]}, "does more than normalise: its step 'device_processor'"),
        ({"steps": [{"class": "os.system"}]}, "names code, 'os.system': such a step is not run"),
    ]
    for number, (options, message) in enumerate(cases):
        with pytest.raises(ValueError, match=message):
            read_checkpoint(write_folder(tmp_path / str(number), **options))
    whole = write_folder(tmp_path / "run" / "pretrained_model")
    with pytest.raises(FileNotFoundError, match=r"Did you mean .*pretrained_model"):
        read_checkpoint(whole.parent)
    document = json.loads((whole / "policy_postprocessor.json").read_text())
    document["steps"][1]["state_file"] = "../../elsewhere.safetensors"
    (whole / "policy_postprocessor.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="have to lie in a file beside it"):
        read_checkpoint(whole)
    (whole / "policy_postprocessor.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"policy_postprocessor.json is missing"):
        read_checkpoint(whole)
    (whole / "model.safetensors").write_bytes(b"no weights")
    (whole / "policy_preprocessor.json").unlink()
    with pytest.raises(ValueError, match="is not a safetensors file"):
        read_checkpoint(whole)


def torch_is_needed():
    return pytest.importorskip(
        "torch", reason="PyTorch is not installed: pip install 'exporl[torch]'"
    )


def base_of(path, spec=SPEC):
    base = outside_base(f"lerobot:{path}", None, spec, learns=False, learning_rate=0.0, units=UNITS)
    assert base is not None
    return base


def observed(spec, rows=3):
    """Observations that the policy may have met in training."""
    rng = np.random.default_rng(0)
    seen = {}
    for name, shape, dtype in spec.observation:
        if dtype == "uint8":
            seen[name] = rng.integers(0, 256, (rows, *shape), np.uint8)
        else:
            seen[name] = rng.uniform(-1, 1, (rows, *shape)).astype(np.float32)
    pairs = seen["state"].reshape(rows, -1, 2) * np.float32([2, 10]) + np.float32([0, 20])
    return seen | {"state": pairs.reshape(rows, -1)}


def by_hand(states, image, noise, length):
    """The stand-in's plan in the environment's own units, from states [b, steps, 2]."""
    normal = (states - [-2, 10]) / [4, 20] * 2 - 1
    moved = normal[:, -1] - normal[:, 0] + normal.sum((1, 2))[:, None]
    if image is not None:
        moved += ((image[:, 2, 2] / 255 - [0.4, 0.5, 0.6]) / 0.2).sum(-1)[:, None]
    plan = moved[:, None, None] + np.arange(length)[:, None] / 100 + noise / 10
    return (plan + 1) / 2 * [6, 8] + [-3, 0]


@pytest.mark.parametrize("layout", ["old", "new"])
@pytest.mark.parametrize("image", [False, True])
def test_a_policy_is_normalised_sampled_and_brought_back(tmp_path, monkeypatch, layout, image):
    torch = torch_is_needed()
    install_stand_in(monkeypatch)
    path = write_folder(tmp_path, configuration(image=image), layout=layout)
    spec = dataclasses.replace(SPEC, observation=(ENV, STATE, *([TOP] if image else [])))
    policy, seen = find_policy(f"lerobot:{path}", spec), observed(spec)
    before = torch.random.get_rng_state()
    made = policy.sample(seen, 5, seed=3)
    assert torch.equal(before, torch.random.get_rng_state()) and made.shape == (3, 5, 4, 2)
    noise = torch.randn((15, 8, 2), generator=torch.Generator().manual_seed(3)).numpy()
    expected = by_hand(seen["state"][:, None], seen.get("pixels/top"), noise.reshape(3, 5, 8, 2), 8)
    np.testing.assert_allclose(made, expected[:, :, :4], rtol=1e-4, atol=1e-4)
    base = base_of(path, spec)
    raw = (made - [-90, -90]) / [180, 280] * 2 - 1
    np.testing.assert_allclose(base.sample(seen, 5, 3), raw.clip(-1, 1), rtol=1e-4, atol=1e-4)
    assert not np.array_equal(policy.sample(seen, 5, 3), policy.sample(seen, 5, 4))
    assert base.reads == tuple(name for name, _, _ in spec.observation)


def test_a_history_is_part_of_the_observation(tmp_path, monkeypatch):
    """The same answer whatever was asked before: there is no queue."""
    torch = torch_is_needed()
    install_stand_in(monkeypatch)
    path = write_folder(tmp_path, configuration(n_obs_steps=2))
    spec = Spec((("state", (4,), "float32"), ("environment_state", (6,), "float32")), 2, 3)
    base, seen = base_of(path, spec), observed(spec, rows=4)
    found = {f.name: f for f in check_fit(base, seen)}
    assert {f.status for f in found.values()} == {"pass"}, found
    assert "state 0%, environment_state 0%" in found["statistics"].detail
    assert "rate" not in found
    made = base.policy.sample(seen, 2, seed=1)
    noise = torch.randn((8, 8, 2), generator=torch.Generator().manual_seed(1)).numpy()
    states = seen["state"].reshape(4, 2, 2)
    expected = by_hand(states, None, noise.reshape(4, 2, 8, 2), 8)
    np.testing.assert_allclose(made, expected[:, :, 1:4], rtol=1e-4, atol=1e-4)


def test_other_observations_than_in_training_are_a_warning(tmp_path, monkeypatch):
    """By every number of both steps; entries that make up one input know their part of it."""
    torch_is_needed()
    install_stand_in(monkeypatch)
    one = {"observation.state": {"type": "STATE", "shape": [2]}} | IMAGE
    path = write_folder(tmp_path, configuration(input_features=one), env={"fps": 10})
    spec = Spec((("b", (1,), "float32"), ("a", (1,), "float32"), TOP), 2, 4)
    base, image = base_of(path, spec), np.zeros((4, 4, 5, 3), np.uint8)
    a, b = np.float32([[-2], [0], [1], [2]]), np.float32([[10], [20], [31], [9]])
    rates = {"the task": 10.0}
    seen = {"a": a, "b": b, "pixels/top": image}
    found = {finding.name: finding for finding in check_met(base, seen, rates=rates)}
    assert found["statistics"].status == "warn" and found["rate"].status == "pass"
    assert "observations of the task: a 0%, b 50%" in found["statistics"].detail
    assert "Number 0 of 'b' is 9 to 31 here, and was 10 to 30" in found["statistics"].detail


def test_act_has_one_plan_and_says_so(tmp_path, monkeypatch):
    torch_is_needed()
    install_stand_in(monkeypatch)
    base = base_of(write_folder(tmp_path, configuration("act")))
    seen = observed(SPEC)
    found = {finding.name: finding for finding in check_fit(base, seen)}
    assert found["spread"].detail == "all samples are the same: only edits explore"
    expected = by_hand(seen["state"][:, None], None, np.zeros((3, 1, 8, 2)), 8)
    made = base.policy.sample(seen, 3, 0)
    np.testing.assert_allclose(made, expected[:, [0, 0, 0], :4], rtol=1e-4, atol=1e-4)


def test_chunks_are_the_beginning_of_a_plan(tmp_path, monkeypatch):
    torch_is_needed()
    install_stand_in(monkeypatch)
    path, seen = write_folder(tmp_path), observed(SPEC)
    for length, status in ((1, "pass"), (8, "pass"), (9, "fail")):
        base = base_of(path, dataclasses.replace(SPEC, chunk_length=length))
        found = {finding.name: finding for finding in check_fit(base, seen)}
        assert found["chunks"].status == status
    assert "give --chunk-length 8" in found["chunks"].detail


def test_other_statistics_are_another_policy(tmp_path, monkeypatch):
    torch_is_needed()
    install_stand_in(monkeypatch)
    one = base_of(write_folder(tmp_path / "one"))
    other = base_of(write_folder(tmp_path / "other", changes={("action", "max"): [3.0, 9.0]}))
    old = base_of(write_folder(tmp_path / "old", layout="old"))
    one.load(old.arrays())
    with pytest.raises(ValueError, match="is not the base policy that this run was started with"):
        one.load(other.arrays())


def test_what_lerobot_cannot_build_is_named(tmp_path, monkeypatch):
    torch_is_needed()
    install_stand_in(monkeypatch)
    path = write_folder(tmp_path)
    save_file({"network.wrong": np.ones((1, 1), np.float32)}, path / "model.safetensors")
    with pytest.raises(ValueError, match=r"LeRobot cannot build the policy of .*network.wrong"):
        find_policy(f"lerobot:{path}", SPEC)
    monkeypatch.setitem(sys.modules, "lerobot.policies.act.modeling_act", None)
    path = write_folder(tmp_path / "act", configuration("act"))
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lerobot\[diffusion\]'"):
        find_policy(f"lerobot:{path}", SPEC)
