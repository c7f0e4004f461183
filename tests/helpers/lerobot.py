"""Folders as LeRobot saves policies, written by its schema; and a package `lerobot` that stands in
for the real one: its policies answer what can be computed by hand."""

import json
import sys
import types

import numpy as np
from safetensors.numpy import save_file

FEATURES = {
    "observation.state": {"type": "STATE", "shape": [2]},
    "observation.environment_state": {"type": "ENV", "shape": [3]},
}
IMAGE = {"observation.images.top": {"type": "VISUAL", "shape": [3, 4, 5]}}
MODES = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ENV": "MEAN_STD", "ACTION": "MIN_MAX"}
STATISTICS = {
    "observation.state": {"min": [-2.0, 10.0], "max": [2.0, 30.0]},
    "observation.environment_state": {"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]},
    "observation.images.top": {"mean": [[[0.4]], [[0.5]], [[0.6]]], "std": [[[0.2]]] * 3},
    "action": {"min": [-3.0, 0.0], "max": [3.0, 8.0]},
}
PARTS = {
    "policy_preprocessor": "normalizer_processor",
    "policy_postprocessor": "unnormalizer_processor",
}


def configuration(kind="diffusion", *, image=False, **changes):
    """A config.json."""
    inputs = FEATURES | (IMAGE if image else {})
    shape = {"horizon": 8} if kind == "diffusion" else {"chunk_size": 8}
    config = {
        "type": kind,
        "n_obs_steps": 1,
        "n_action_steps": 4,
        **shape,
        "input_features": inputs,
        "output_features": {"action": {"type": "ACTION", "shape": [2]}},
        "normalization_mapping": MODES,
        "device": "cpu",
    }
    return config | changes


def statistics(changes):
    """Statistics by feature and name, some changed; None takes one away."""
    found = {name: dict(of) for name, of in STATISTICS.items()}
    for (feature, name), value in changes.items():
        found[feature].pop(name, None)
        found[feature] |= {} if value is None else {name: value}
    return {n: {k: np.float32(v) for k, v in of.items()} for n, of in found.items()}


def write_folder(path, config=None, *, layout="new", changes=None, steps=(), env=None):
    """A policy's folder, in the layout of LeRobot 0.4 ("new") or of the versions before it.

    Args:
        path: where; may exist.
        config: config.json; that of a diffusion policy by default.
        layout: "new" or "old".
        changes: (feature, statistic) -> another value, or None.
        steps: more steps of the preprocessor, after the normaliser.
        env: of train_config.json.
    """
    config = config or configuration()
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if env is not None:
        (path / "train_config.json").write_text(json.dumps({"env": env}))
    weights = {"network.weight": np.ones((1, 1), np.float32)}
    kept = {n: of for n, of in statistics(changes or {}).items()
            if n in config["input_features"] or n == "action"}  # fmt: skip
    if layout == "old":
        for name, of in kept.items():
            begin = "unnormalize_outputs" if name == "action" else "normalize_inputs"
            buffer = f"{begin}.buffer_{name.replace('.', '_')}"
            weights |= {f"{buffer}.{key}": value for key, value in of.items()}
    else:
        flat = {f"{name}.{key}": value for name, of in kept.items() for key, value in of.items()}
        features = config["input_features"] | config["output_features"]
        options = {"eps": 1e-8, "features": features, "norm_map": config["normalization_mapping"]}
        for part, name in PARTS.items():
            file = f"{part}_step_0_{name}.safetensors"
            save_file(flat, path / file)
            step = {"registry_name": name, "config": options, "state_file": file}
            device = {"registry_name": "device_processor", "config": {"device": "cpu"}}
            more = list(steps) if part == "policy_preprocessor" else []
            document = {"name": part, "steps": [device, step, *more]}
            (path / f"{part}.json").write_text(json.dumps(document))
    save_file(weights, path / "model.safetensors")
    return path


def install_stand_in(monkeypatch):
    """A package `lerobot` whose networks are sums.

    Diffusion plans in step t: noise / 10 + the newest state - the oldest state + t / 100, in both
    dimensions, plus the first image's middle pixel; ACT the same without noise.
    """
    import torch

    class Config:
        def __init__(self, values):
            for name, value in values.items():
                setattr(self, name, value)
            kinds = {n: f["type"] for n, f in values["input_features"].items()}
            self.image_features = [n for n, kind in kinds.items() if kind == "VISUAL"]
            self.action_feature = types.SimpleNamespace(shape=(2,))
            self.pretrained_backbone_weights = "to be downloaded"

        @classmethod
        def from_pretrained(cls, path):
            return cls(json.loads((path / "config.json").read_text()))

    class Policy(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            assert config.pretrained_backbone_weights is None
            self.config, self.network = config, torch.nn.Linear(1, 1, bias=False)

        @property
        def diffusion(self):
            return self

        def plan(self, states, images, length):
            moved = states[:, -1] - states[:, 0] + states.sum((1, 2), keepdim=True)[:, 0]
            seen = 0 if images is None else images[:, -1, 0, :, 2, 2].sum(-1)[:, None]
            return (moved + seen)[:, None] + torch.arange(length)[:, None] / 100

        def generate_actions(self, batch, noise):
            start = self.config.n_obs_steps - 1
            images = batch.get("observation.images")
            whole = noise / 10 + self.plan(batch["observation.state"], images, noise.shape[1])
            return self.network.weight * whole[:, start : start + self.config.n_action_steps]

        def predict_action_chunk(self, batch):
            return self.plan(batch["observation.state"][:, None], None, self.config.chunk_size)

    for name, contents in {
        "lerobot": {},
        "lerobot.policies": {},
        "lerobot.configs": {},
        "lerobot.configs.policies": {"PreTrainedConfig": Config},
        "lerobot.policies.diffusion": {},
        "lerobot.policies.diffusion.modeling_diffusion": {"DiffusionPolicy": Policy},
        "lerobot.policies.act": {},
        "lerobot.policies.act.modeling_act": {"ACTPolicy": Policy},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
