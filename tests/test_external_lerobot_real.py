"""LeRobot's own policies as base, against LeRobot's own loop: the same actions, to the bit."""

import json
import warnings

import numpy as np
import pytest

from exporl.external import find_policy, outside_base
from exporl.external.fit import check_fit
from exporl.spec import Spec
from helpers.examples import FOLDER, code_lines, learnt_and_acted, run_example

WHY = "LeRobot 0.4 or later is not installed: pip install 'lerobot[diffusion]'"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch", reason=WHY)
    types = pytest.importorskip("lerobot.configs.types", reason=WHY)
    diffusion = pytest.importorskip("lerobot.policies.diffusion.modeling_diffusion", reason=WHY)
    act = pytest.importorskip("lerobot.policies.act.modeling_act", reason=WHY)
    from lerobot.policies.act.processor_act import make_act_pre_post_processors
    from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors
    from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.filterwarnings("ignore")

KINDS = {name: types.FeatureType[name] for name in ("STATE", "ENV", "VISUAL", "ACTION")}
STATE = types.PolicyFeature(KINDS["STATE"], (2,))
ENV = types.PolicyFeature(KINDS["ENV"], (3,))
TOP = types.PolicyFeature(KINDS["VISUAL"], (3, 32, 40))
ACTION = types.PolicyFeature(KINDS["ACTION"], (2,))
VECTORS = {"observation.state": STATE, "observation.environment_state": ENV}
MIN_MAX, MEAN_STD = types.NormalizationMode.MIN_MAX, types.NormalizationMode.MEAN_STD
MODES = {"STATE": MIN_MAX, "ENV": MEAN_STD, "VISUAL": MEAN_STD, "ACTION": MIN_MAX}
rng = np.random.default_rng(0)


def moments(*shape):
    """Statistics with all names that LeRobot's data sets have."""
    low = rng.uniform(-3, -1, shape).astype(np.float32)
    high = rng.uniform(1, 3, shape).astype(np.float32)
    mean = rng.uniform(-0.5, 0.5, shape).astype(np.float32)
    return {"min": low, "max": high, "mean": mean, "std": high / 3, "count": np.float32([1000])}


STATISTICS = {"observation.state": moments(2), "observation.environment_state": moments(3),
              "observation.images.top": moments(3, 1, 1), "action": moments(2)}  # fmt: skip


def saved(folder, kind, **options):
    """A small policy with random weights in a folder, and what LeRobot plays it with."""
    torch.manual_seed(1)
    common = {"normalization_mapping": MODES, "output_features": {"action": ACTION}}
    common |= {"n_action_steps": 4, "device": "cpu"}
    if kind == "diffusion":
        small = {"horizon": 8, "down_dims": (16, 32), "n_groups": 4, "num_train_timesteps": 10}
        small |= {"input_features": VECTORS, "diffusion_step_embed_dim": 16}
        config = diffusion.DiffusionConfig(**common, **small, **options)
        policy, make = diffusion.DiffusionPolicy(config), make_diffusion_pre_post_processors
    else:
        small = {"chunk_size": 8, "dim_model": 16, "n_heads": 2, "dim_feedforward": 16}
        small |= {"n_encoder_layers": 1, "n_vae_encoder_layers": 1}
        small |= {"input_features": {"observation.state": STATE, "observation.images.top": TOP}}
        config = act.ACTConfig(**common, **small, pretrained_backbone_weights=None, **options)
        policy, make = act.ACTPolicy(config), make_act_pre_post_processors
    policy.eval()
    kept = {n: STATISTICS[n] for n in (*config.input_features, "action")}
    processors = make(config, kept)
    policy.save_pretrained(folder)
    for processor in processors:
        processor.save_pretrained(folder)
    return policy, *processors


def played(policy, before, after, observations, seed):
    """LeRobot's loop: one action per observation; draws of the plan at step i by seed + i."""
    policy.reset()
    actions = []
    for step, seen in enumerate(observations):
        torch.manual_seed(seed + step)
        batch = before({name: torch.from_numpy(value) for name, value in seen.items()})
        actions.append(after(policy.select_action(batch)).numpy())
    return np.concatenate(actions)


def walk(length):
    """Observations of an episode, by LeRobot's names."""
    return [
        {name: rng.uniform(-2, 2, feature.shape).astype(np.float32)
         for name, feature in VECTORS.items()} for _ in range(length)
    ]  # fmt: skip


SPEC = Spec((("state", (4,), "float32"), ("environment_state", (6,), "float32")), 2, 4)


def histories(observations, at):
    """What a task with a history of two shows at a step, [1, ...] each."""
    before, now = observations[max(at - 1, 0)], observations[at]
    return {
        name.removeprefix("observation."): np.concatenate([before[name], now[name]])[None]
        for name in now
    }


@pytest.mark.parametrize("scheduler", ["DDIM", "DDPM"])
def test_a_diffusion_policy_plays_as_in_lerobot(tmp_path, scheduler):
    """Eight steps, two plans; DDPM draws inside as well."""
    options = {"noise_scheduler_type": scheduler, "num_inference_steps": 5}
    policy, before, after = saved(tmp_path, "diffusion", **options)
    episode = walk(8)
    expected = played(policy, before, after, episode, seed=7)
    mine = find_policy(f"lerobot:{tmp_path}", SPEC)
    plans = [mine.sample(histories(episode, at), 1, 7 + at)[0, 0] for at in (0, 4)]
    np.testing.assert_array_equal(np.concatenate(plans), expected)


def test_both_layouts_are_the_same_policy(tmp_path):
    """The older one has its statistics among the weights, and no processors."""
    policy, *_ = saved(tmp_path / "new", "diffusion", noise_scheduler_type="DDIM")
    old = tmp_path / "old"
    policy.save_pretrained(old)
    weights, modes = load_file(old / "model.safetensors"), {"min", "max", "mean", "std"}
    for name in (*VECTORS, "action"):
        begin = "unnormalize_outputs" if name == "action" else "normalize_inputs"
        for key in modes & STATISTICS[name].keys():
            buffer = f"{begin}.buffer_{name.replace('.', '_')}.{key}"
            weights[buffer] = torch.from_numpy(STATISTICS[name][key])
    save_file(weights, old / "model.safetensors")
    seen = {
        n: rng.uniform(-2, 2, (5, *shape)).astype(np.float32) for n, shape, _ in SPEC.observation
    }
    one, other = (find_policy(f"lerobot:{tmp_path / name}", SPEC) for name in ("new", "old"))
    np.testing.assert_array_equal(one.sample(seen, 3, 2), other.sample(seen, 3, 2))
    base = outside_base(None, one, SPEC, learns=False, learning_rate=0.0)
    assert base is not None
    failed = {finding.name for finding in check_fit(base, seen) if finding.status == "fail"}
    assert failed <= {"range"}  # random weights
    assert one.sample(seen, 3, 2).std(axis=1).min() > 0


def test_act_with_a_camera_plays_as_in_lerobot(tmp_path):
    """The names of weights that would be downloaded are not followed."""
    policy, before, after = saved(tmp_path, "act")
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_backbone_weights"] = "ResNet18_Weights.IMAGENET1K_V1"
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = Spec((("agent_pos", (2,), "float32"), ("pixels/top", (32, 40, 3), "uint8")), 2, 4)
    state = rng.uniform(-2, 2, (1, 2)).astype(np.float32)
    picture = rng.integers(0, 256, (1, 32, 40, 3), dtype=np.uint8)
    image = np.ascontiguousarray(np.moveaxis(picture[0], -1, 0), np.float32) / 255
    seen = {"observation.state": state[0], "observation.images.top": image}
    expected = played(policy, before, after, [seen] * 4, seed=0)
    mine = find_policy(f"lerobot:{tmp_path}", spec)
    made = mine.sample({"agent_pos": state, "pixels/top": picture}, 3, 0)
    np.testing.assert_array_equal(made[0, 0], expected)
    np.testing.assert_array_equal(made[0, 0], made[0, 2])


@pytest.mark.slow
def test_the_example_learns_around_the_folder(tmp_path, monkeypatch, capsys):
    assert code_lines(FOLDER / "lerobot_policy.py") <= 40
    run_example("lerobot_policy.py", tmp_path, monkeypatch)
    assert "'algorithm': 'expo'" in capsys.readouterr().out
    learnt_and_acted(tmp_path / "runs" / "lerobot", least_updates=20)
