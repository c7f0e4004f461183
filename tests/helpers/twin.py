"""Slow NumPy twins of the networks, in float64: what they compute is written out once more."""

import math

import jax
import numpy as np


def numbers(params) -> dict:
    """Parameters as float64 arrays."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def member(params, index: int) -> dict:
    """The parameters of one member of an ensemble."""
    return jax.tree.map(lambda leaf: leaf[index], params)


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def normalised(layer, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    return scaled * layer["scale"] + layer["bias"]


def relu(x):
    return np.maximum(x, 0)


def gelu(x):
    """With tanh, as `jax.nn.gelu` approximates it."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def mlp(layers, x, activation=relu):
    """Dense layers, each with its layer norm if it has one, then the activation."""
    for i in range(sum(name.startswith("Dense_") for name in layers)):
        x = dense(layers[f"Dense_{i}"], x)
        if f"LayerNorm_{i}" in layers:
            x = normalised(layers[f"LayerNorm_{i}"], x)
        x = activation(x)
    return x


def one_value(layers, *inputs):
    x = mlp(layers["MLP_0"], np.concatenate([np.asarray(x, np.float64) for x in inputs], axis=-1))
    return dense(layers["Dense_0"], x)[..., 0]


def q_values(params, features, action):
    """[e, b] of an ensemble of critics; actions [b, h, a]."""
    ensemble = numbers(params["params"]["ensemble"])
    size = ensemble["Dense_0"]["bias"].shape[0]
    flat = np.asarray(action).reshape(len(action), -1)
    return np.stack([one_value(member(ensemble, i), features, flat) for i in range(size)])


def state_value(params, features):
    """[b]."""
    return one_value(numbers(params["params"]["value"]), features)
