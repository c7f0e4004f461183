"""The policies that outside_cost.py measures: the same two layers of 256 in every framework, and a
diffusion policy of LeRobot. Their weights are drawn at random."""

import contextlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import changed_robots
import gymnasium
import numpy as np

from exporl import Task, custom_task
from exporl.external import OutsidePolicy, find_policy
from exporl.external.functions import as_policy
from exporl.external.sb3 import Sb3Actor
from exporl.spec import Spec

WIDTH = 256
TASK = changed_robots.cheetah_gears()
FEATURES, ACTIONS = TASK.spec.observation[0][1][0], TASK.spec.action_dim
MOST_SAMPLES = 64
"""Largest `expo/samples` of the server, as `exporl serve` has it."""
HORIZON = 8
"""Actions that the diffusion policy plans; the first one is used."""
SHORT = 20
"""Steps of its episodes: evaluations around it are not what is measured."""
SPLIT = {"state": slice(0, 8), "environment_state": slice(8, None)}
"""A diffusion policy of LeRobot reads two vectors: positions and velocities."""


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


class Numeric:
    """The mean and noise of 0.1 in NumPy."""

    def __init__(self) -> None:
        self.weights = weights()

    def __call__(self, observations: dict[str, np.ndarray], num: int, seed: int) -> np.ndarray:
        """[b, num, 1, a]."""
        own = self.weights
        hidden = np.maximum(observations["state"] @ own["latent_pi.0.weight"].T, 0)
        hidden = np.maximum(hidden @ own["latent_pi.2.weight"].T, 0)
        mean = np.tanh(hidden @ own["mu.weight"].T)
        noise = np.random.default_rng(seed).standard_normal((len(mean), num, ACTIONS), np.float32)
        return np.clip(mean[:, None] + 0.1 * noise, -1, 1)[:, :, None]


def callable_policy(folder: Path, closing: contextlib.ExitStack) -> OutsidePolicy:
    """A function of NumPy."""
    return as_policy(Numeric(), "callable")


def sb3_policy(folder: Path, closing: contextlib.ExitStack) -> OutsidePolicy:
    """An actor of Stable-Baselines3, as its archive would give it."""
    return Sb3Actor(weights(), "relu", ("state",))


def onnx_policy(folder: Path, closing: contextlib.ExitStack) -> OutsidePolicy:
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


def torch_policy(folder: Path, closing: contextlib.ExitStack) -> OutsidePolicy:
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


def serve_numeric(said: Connection) -> None:
    """Serves the function of NumPy, in a process of its own, and says at which port."""
    from websockets.sync.server import ServerConnection, serve

    from exporl.serve.messages import packed, unpacked

    policy = Numeric()
    told = {"extras": ["expo/seed", "expo/samples"], "most_samples": MOST_SAMPLES}

    def converse(connection: ServerConnection) -> None:
        connection.send(packed({"action_horizon": 1, "expo": told}))
        for message in connection:
            asked = unpacked(bytes(message))
            seen = {"state": asked["state"][None]}
            actions = policy(seen, asked["expo/samples"], asked["expo/seed"])[0]
            connection.send(packed({"actions": actions.astype(np.float32)}))

    with serve(converse, "localhost", 0, compression=None) as server:
        said.send(server.socket.getsockname()[1])
        server.serve_forever()


def remote_policy(folder: Path, closing: contextlib.ExitStack) -> OutsidePolicy:
    """The function of NumPy behind a WebSocket: all samples of an observation are one request."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve_numeric, args=(there,), daemon=True
    )
    server.start()
    closing.callback(server.join)
    closing.callback(server.terminate)
    policy = find_policy(f"ws://localhost:{here.recv()}", TASK.spec)
    closing.callback(getattr(policy, "close", int))
    return policy


class Split(gymnasium.ObservationWrapper):
    """The cheetah, whose observation is two vectors."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        low, high = env.observation_space.low, env.observation_space.high  # pyright: ignore[reportAttributeAccessIssue]
        spaces: dict[str, gymnasium.Space] = {
            name: gymnasium.spaces.Box(low[part], high[part], dtype=np.float32)
            for name, part in SPLIT.items()
        }
        self.observation_space = gymnasium.spaces.Dict(spaces)

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """Its parts."""
        return {name: observation[part].astype(np.float32) for name, part in SPLIT.items()}


def split_cheetah() -> Task:
    """The cheetah whose actuators are 0.6 times as strong, as `Split` shows it."""

    def make() -> gymnasium.Env:
        env = Split(changed_robots.changed("HalfCheetah-v5", "actuator_gear", 0.6))
        return gymnasium.wrappers.TimeLimit(env, SHORT)

    return custom_task(
        make, name="split_cheetah", reward="env", success=changed_robots.never, normalize=False
    )


def lerobot_policy(folder: Path, closing: contextlib.ExitStack) -> OutsidePolicy:
    """A small diffusion policy that LeRobot saved: a U-Net of 32 and 64 channels, 5 steps."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionConfig, DiffusionPolicy
    from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors

    spec: Spec = split_cheetah().spec
    kinds = {"state": FeatureType.STATE, "environment_state": FeatureType.ENV}
    shapes = {name: shape for name, shape, _ in spec.observation}
    inputs = {f"observation.{n}": PolicyFeature(kind, shapes[n]) for n, kind in kinds.items()}
    config = DiffusionConfig(
        input_features=inputs,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTIONS,))},
        n_obs_steps=1,
        horizon=HORIZON,
        n_action_steps=1,
        down_dims=(32, 64),
        noise_scheduler_type="DDIM",
        num_inference_steps=5,
        device="cpu",
    )
    ends = {**{name: feature.shape for name, feature in inputs.items()}, "action": (ACTIONS,)}
    statistics = {n: {"min": np.full(s, -1.0), "max": np.full(s, 1.0)} for n, s in ends.items()}
    DiffusionPolicy(config).save_pretrained(folder)
    for processor in make_diffusion_pre_post_processors(config, statistics):
        processor.save_pretrained(folder)
    return find_policy(f"lerobot:{folder}", spec)


Made = Callable[[Path, contextlib.ExitStack], OutsidePolicy]
KINDS: dict[str, tuple[str, Made]] = {
    "callable": ("numpy", callable_policy),
    "sb3": ("numpy", sb3_policy),
    "onnx": ("onnxruntime", onnx_policy),
    "torch": ("torch", torch_policy),
    "ws": ("websockets", remote_policy),
    "lerobot": ("lerobot", lerobot_policy),
}
"""Kind -> the package that it needs, and what makes a policy of it: writes into a folder, and
leaves what is to be closed afterwards."""
TASKS: dict[str, Callable[[], Task]] = {"lerobot": split_cheetah}
"""Kind -> its task, where that is not `TASK`."""
