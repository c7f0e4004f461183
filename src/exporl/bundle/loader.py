"""How to act with numpy and onnxruntime alone: the lines that a model card shows."""

LOADER = '''\
import json
from pathlib import Path

import numpy as np
import onnxruntime

folder = Path(".")  # where this file lies
policy = json.loads((folder / "policy.json").read_text())
scale = json.loads((folder / "statistics.json").read_text()) if policy["normalized"] else None
session = onnxruntime.InferenceSession(str(folder / "policy.onnx"))
low, high = (np.array(policy["action"][end]) for end in ("low", "high"))
rng, chunk = np.random.default_rng(), []
draws = {
    "normal": lambda shape: rng.standard_normal(shape, np.float32),
    "gumbel": lambda shape: rng.gumbel(size=shape).astype(np.float32),
    "order": lambda shape: rng.permutation(shape[0]).astype(np.int32),
}


def draw():
    """New random inputs: normal numbers, Gumbel numbers, an order of 0, 1, 2, ..."""
    inputs = {each.name: (each.name.split(".")[0], each.shape) for each in session.get_inputs()}
    return {name: draws[kind](shape) for name, (kind, shape) in inputs.items() if kind in draws}


def act(observation, noise):
    """{entry: array} in the environment's own units -> the actions to play, in its own units."""
    seen = {}
    for name, entry in policy["observation"].items():
        value = np.asarray(observation[name], entry["dtype"]).reshape(1, *entry["shape"])
        if scale is not None:
            mean, std = (np.float32(scale[key][name]).reshape(1, -1) for key in ("mean", "std"))
            value = np.clip((value - mean) / std, -scale["clip"], scale["clip"])
        seen[f"observation.{name}"] = value
    unit = session.run(["action"], {**seen, **noise})[0][0, : policy["execute_length"]]
    own = low + (np.clip(unit.astype(float), -1, 1) + 1) / 2 * (high - low)
    return own.astype(policy["action"]["dtype"]).reshape(-1, *policy["action"]["shape"])


def next_action(observation):
    """One action at a time; chunk.clear() when an episode begins."""
    if not chunk:
        chunk.extend(act(observation, draw()))
    return chunk.pop(0)
'''
