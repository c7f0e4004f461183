"""Policies that ship with the package to record demonstrations; README.md here names their origin
and licences."""

from pathlib import Path

import numpy as np


def load_policy(name: str, group: str = "") -> dict[str, np.ndarray]:
    """The arrays of one policy, from `<name>.npz` in this folder; with a group, those named
    `<group>/...`."""
    prefix = f"{group}/" if group else ""
    with np.load(Path(__file__).parent / f"{name}.npz", allow_pickle=False) as data:
        return {key.removeprefix(prefix): data[key] for key in data.files if key.startswith(prefix)}


def adroit_action(policy: dict[str, np.ndarray], state: np.ndarray) -> np.ndarray:
    """The mean action [a] of an Adroit expert at a state [o]; may lie outside [-1, 1]."""
    x = (state - policy["in_shift"]) / (policy["in_scale"] + 1e-8)
    x = np.tanh(policy["w0"] @ x + policy["b0"])
    x = np.tanh(policy["w1"] @ x + policy["b1"])
    return (policy["w2"] @ x + policy["b2"]) * policy["out_scale"] + policy["out_shift"]


def ant_action(
    policy: dict[str, np.ndarray], body: np.ndarray, direction: np.ndarray
) -> np.ndarray:
    """The mean action [8] that walks an ant with state [27] (positions without x and y, velocities)
    along [2]."""
    x = np.concatenate([body, direction / (np.linalg.norm(direction) + 1e-8)])
    x = np.maximum(x @ policy["w0"] + policy["b0"], 0.0)
    x = np.maximum(x @ policy["w1"] + policy["b1"], 0.0)
    return np.tanh((x @ policy["w2"] + policy["b2"])[:8])
