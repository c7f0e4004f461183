"""An ONNX file as base policy: EXPO around a model of which there is nothing but the file.

From this folder: python onnx_policy.py (it writes the file first). Also `exporl train expo --task
probe/bandit --preset tiny --base onnx:bandit.onnx`.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

import exporl


def write_model(path):
    """tanh(W state + 0.5 sign(noise) + 0.1 noise): two modes, as the demonstrations have."""
    weights = onnx.numpy_helper.from_array(np.zeros((2, 1), np.float32), "W")
    halves = [onnx.numpy_helper.from_array(np.float32([x]), n) for x, n in ((0.5, "h"), (0.1, "s"))]
    nodes = [
        helper.make_node("MatMul", ["state", "W"], ["mean"]),
        helper.make_node("Sign", ["noise"], ["side"]),
        helper.make_node("Mul", ["side", "h"], ["mode"]),
        helper.make_node("Mul", ["noise", "s"], ["spread"]),
        helper.make_node("Sum", ["mean", "mode", "spread"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["action"]),
    ]
    sizes = {"state": 2, "noise": 1, "action": 1}
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", size])
        for name, size in sizes.items()
    ]
    graph = helper.make_graph(nodes, "bandit", values[:2], values[2:], [weights, *halves])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


if __name__ == "__main__":
    write_model("bandit.onnx")
    preset = exporl.preset_config("expo", "tiny", "probe/bandit")
    steps = {"train.offline_steps": 0, "train.online_steps": 200, "train.utd_ratio": 2}
    warmup = {"train.critic_warmup_steps": 100, "train.update_after": 50, "eval.episodes": 10}
    config = exporl.override(preset, {"base.policy": "onnx:bandit.onnx", **steps, **warmup})
    print(exporl.train(config, Path("runs/onnx")))
