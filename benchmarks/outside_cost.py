"""What a base policy from outside costs: the share of a training step that is spent in it.

    .venv/bin/python benchmarks/outside_cost.py

EXPO, preset `small`, on the changed cheetah of changed_robots.py, 8 samples per observation, a
frozen policy of two layers of 256 with weights drawn at random, in every framework that is
installed, with fresh and with cached backups. On one core, so that nothing overlaps. Seconds per
environment step without the start, and the share of them in `sample`. Writes
benchmarks/results/outside_cost.json.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import changed_robots
import numpy as np
from common import write_result
from tables import outside

from exporl.external import OutsidePolicy, find_policy
from exporl.external.functions import as_policy
from exporl.external.sb3 import Sb3Actor
from exporl.run.callbacks import Callback
from exporl.run.config import override
from exporl.run.loop import train
from exporl.run.presets import around_a_policy, preset_config
from exporl.spec import Spec
from exporl.types import Step

WIDTH = 256
SKIPPED = 200
"""Environment steps before the measurement: start, compilation, and the first updates."""
TASK = changed_robots.cheetah_gears()
FEATURES, ACTIONS = TASK.spec.observation[0][1][0], TASK.spec.action_dim


def weights() -> dict[str, np.ndarray]:
    """Of a Gaussian actor, by Stable-Baselines3's names."""
    rng = np.random.default_rng(0)
    sizes = {
        "latent_pi.0": (WIDTH, FEATURES),
        "latent_pi.2": (WIDTH, WIDTH),
        "mu": (ACTIONS, WIDTH),
        "log_std": (ACTIONS, WIDTH),
    }
    made: dict[str, np.ndarray] = {}
    for name, (rows, columns) in sizes.items():
        kernel = rng.standard_normal((rows, columns)) / np.sqrt(columns)
        made[f"{name}.weight"] = kernel.astype(np.float32)
        made[f"{name}.bias"] = np.zeros(rows, np.float32)
    return made


def callable_policy(folder: Path) -> OutsidePolicy:
    """A function of NumPy: the mean and noise of 0.1."""
    own = weights()

    def sample(observations: dict[str, np.ndarray], num: int, seed: int) -> np.ndarray:
        hidden = np.maximum(observations["state"] @ own["latent_pi.0.weight"].T, 0)
        hidden = np.maximum(hidden @ own["latent_pi.2.weight"].T, 0)
        mean = np.tanh(hidden @ own["mu.weight"].T)
        noise = np.random.default_rng(seed).standard_normal((len(mean), num, ACTIONS), np.float32)
        return np.clip(mean[:, None] + 0.1 * noise, -1, 1)[:, :, None]

    return as_policy(sample, "callable")


def sb3_policy(folder: Path) -> OutsidePolicy:
    """An actor of Stable-Baselines3, as its archive would give it."""
    return Sb3Actor(weights(), "relu", ("state",))


def onnx_policy(folder: Path) -> OutsidePolicy:
    """tanh(mean(state)) + 0.1 noise in ONNX: a row per sample."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    own, tensors = weights(), []
    for name in ("latent_pi.0", "latent_pi.2", "mu"):
        kernel = np.ascontiguousarray(own[f"{name}.weight"].T)
        tensors.append(numpy_helper.from_array(kernel, name))
    tensors.append(numpy_helper.from_array(np.array([0.1], np.float32), "scale"))
    chain = [
        ("MatMul", ["state", "latent_pi.0"], "a"),
        ("Relu", ["a"], "b"),
        ("MatMul", ["b", "latent_pi.2"], "c"),
        ("Relu", ["c"], "d"),
        ("MatMul", ["d", "mu"], "e"),
        ("Tanh", ["e"], "mean"),
        ("Mul", ["noise", "scale"], "spread"),
        ("Add", ["mean", "spread"], "action"),
    ]
    nodes = [helper.make_node(kind, inputs, [output]) for kind, inputs, output in chain]
    state, noise, action = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", size])
        for name, size in (("state", FEATURES), ("noise", ACTIONS), ("action", ACTIONS))
    )
    graph = helper.make_graph(nodes, "policy", [state, noise], [action], tensors)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "policy.onnx")
    return find_policy(f"onnx:{folder / 'policy.onnx'}", TASK.spec)


def torch_policy(folder: Path) -> OutsidePolicy:
    """The mean and noise of 0.1 in PyTorch."""
    import torch

    class Actor(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(
                torch.nn.Linear(FEATURES, WIDTH),
                torch.nn.ReLU(),
                torch.nn.Linear(WIDTH, WIDTH),
                torch.nn.ReLU(),
                torch.nn.Linear(WIDTH, ACTIONS),
            )

        def sample(self, observations: dict[str, Any], num: int) -> Any:
            mean = torch.tanh(self.net(observations["state"]))[:, None].expand(-1, num, -1)
            return (mean + 0.1 * torch.randn(mean.shape)).clamp(-1, 1)[:, :, None]

    torch.manual_seed(0)
    return as_policy(Actor(), "torch")


KINDS: dict[str, tuple[str, Callable[[Path], OutsidePolicy]]] = {
    "callable": ("numpy", callable_policy),
    "sb3": ("numpy", sb3_policy),
    "onnx": ("onnxruntime", onnx_policy),
    "torch": ("torch", torch_policy),
}
"""Kind -> the package that it needs, and a policy of it."""


class Timed:
    """A policy that says how long it was asked."""

    def __init__(self, policy: OutsidePolicy):
        self.policy, self.seconds = policy, 0.0
        self.spec: Spec | None = getattr(policy, "spec", None)

    def sample(self, observations: dict[str, np.ndarray], num: int, seed: int) -> np.ndarray:
        """The policy's, in seconds that are counted."""
        began = time.perf_counter()
        answer = self.policy.sample(observations, num, seed)
        self.seconds += time.perf_counter() - began
        return answer


class Clock(Callback):
    """Measures from one step to another: all seconds, and those in the policy."""

    def __init__(self, policy: Timed, last: int):
        self._policy, self._last = policy, last
        self._began, self._before = 0.0, 0.0
        self.whole, self.inside = 0.0, 0.0

    def on_step(self, env_steps: int, steps: Sequence[tuple[int, Step]]) -> None:
        """Reads the clocks at the first and the last of them."""
        if env_steps == SKIPPED:
            self._began, self._before = time.perf_counter(), self._policy.seconds
        if env_steps == self._last:
            self.whole = time.perf_counter() - self._began
            self.inside = self._policy.seconds - self._before


def measure(kind: str, backup: str, steps: int) -> dict[str, Any]:
    """Seconds per step of one kind, and its share."""
    last = SKIPPED + steps
    options = {
        "reward": "env",
        "data.demos": 0,
        "data.prior_ratio": 0.0,
        "algo.backup": backup,
        "train.critic_warmup_steps": 0,
        "train.update_after": 50,
        "train.online_steps": last,
        "eval.episodes": 1,
        "log.every": 10_000,
        "log.save_every": 10_000,
    }
    config = around_a_policy(preset_config("expo", "small", "changed_robots:cheetah_gears"))
    with tempfile.TemporaryDirectory() as folder:
        policy = Timed(KINDS[kind][1](Path(folder)))
        clock = Clock(policy, last)
        run = Path(folder) / "run"
        train(override(config, options), run, task=TASK, base=policy, callbacks=[clock])
    return {
        "kind": kind,
        "backup": backup,
        "step_ms": 1_000 * clock.whole / steps,
        "outside_ms": 1_000 * clock.inside / steps,
        "share": clock.inside / clock.whole,
    }


def main() -> None:
    """Every kind that is installed, in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400, help="environment steps measured")
    options = parser.parse_args()
    kinds = [kind for kind, (package, _) in KINDS.items() if find_spec(package)]
    results = [
        measure(kind, backup, options.steps)
        for _ in range(options.rounds)
        for kind in kinds
        for backup in ("fresh", "cached")
    ]
    command = f"benchmarks/outside_cost.py --rounds {options.rounds} --steps {options.steps}"
    print(write_result("outside_cost", {"command": command, "results": results}))
    print(outside())


if __name__ == "__main__":
    main()
