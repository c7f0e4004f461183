"""PyTorch policies: a `torch.nn.Module` with `sample`, and with `loss` one that goes on learning.

Every draw of a module comes from torch's global generator, which is seeded for each call and left
as it was afterwards: modules need no seeds.
"""

import contextlib
import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from exporl.external.base import ImitationBatch, OutsidePolicy
from exporl.outside import load_outside
from exporl.spec import Spec

MEMORY = ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")
"""Layers that are often a policy's memory of its past."""
BITS = ":bfloat16"
"""What the name of an array ends with that holds the bits of such numbers."""


def is_torch_module(value: Any) -> bool:
    """Whether something is a `torch.nn.Module`, without importing torch."""
    homes = {(kind.__module__, kind.__name__) for kind in type(value).__mro__}
    return ("torch.nn.modules.module", "Module") in homes


def open_module(name: str, spec: Spec, learning_rate: float) -> OutsidePolicy:
    """The policy of `torch:module:function`: function(spec) returns the module.

    Raises:
        ValueError: the function cannot be loaded or returns something else.
        ModuleNotFoundError: torch is not installed; says how to install it.
    """
    try:
        load: Any = load_outside(name, "base policy")
    except ValueError as error:
        if getattr(error.__cause__, "name", None) == "torch":  # the module is there
            import_torch()
        raise
    import_torch()
    try:
        module = load(spec)
    except (Exception, SystemExit) as error:  # the user's function may raise anything
        raise ValueError(
            f"base policy 'torch:{name}': {name.partition(':')[2]}(spec) raised "
            f"{type(error).__name__}: {error}. It is given the task's shapes, an exporl.Spec, and "
            "returns a torch.nn.Module."
        ) from error
    return torch_policy(module, f"base policy 'torch:{name}'", learning_rate)


def torch_policy(module: Any, name: str, learning_rate: float) -> "TorchPolicy":
    """A policy around a module.

    Args:
        module: a `torch.nn.Module` with sample(observations, num) -> [b, num, h, a]: tensors by
            entry, [b, ...], on the device of its parameters. With loss(observations, action [b, h,
            a], valid [b, h]) -> scalar it can learn; optimizer() returns its optimiser, by default
            Adam.
        name: for messages.
        learning_rate: of Adam.

    Raises:
        ValueError: something else.
    """
    if not is_torch_module(module) or not callable(getattr(module, "sample", None)):
        raise ValueError(
            f"{name} is a {type(module).__name__}: it must be a torch.nn.Module with "
            "sample(observations, num) -> actions [b, num, h, a] in [-1, 1] (docs/own_policy.md)."
        )
    module = module.eval()
    if callable(getattr(module, "loss", None)):
        return LearningTorchPolicy(module, learning_rate)
    return TorchPolicy(module)


def import_torch() -> Any:
    """The torch package.

    Raises:
        ModuleNotFoundError: it is not installed; says how to install it.
    """
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "this base policy needs PyTorch: pip install 'exporl[torch]'"
        ) from error


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """While it lasts, torch draws what the seed decides; afterwards what it would have drawn."""
    torch = import_torch()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class Program(NamedTuple):
    """An opened file with a module."""

    suffix: str
    """".pt" or ".pt2"."""
    saved: Callable[[], bytes]
    """The content of such a file with the module's weights of now."""


class TorchPolicy:
    """A module that samples, in its state for evaluation."""

    def __init__(self, module: Any):
        self.module = module
        self.spec: Spec | None = getattr(module, "spec", None)
        self.actions: str = getattr(module, "actions", "unit")
        self.ranges: Mapping[str, Any] = getattr(module, "ranges", {})
        self.control_hz: float | None = getattr(module, "control_hz", None)
        self.program: Program | None = None
        """The file that it came from, if it came from one."""

    @property
    def memory(self) -> str:
        """Names of recurrent layers, in words; empty where there are none."""
        named = [
            (name, getattr(layer, "original_name", type(layer).__name__))  # TorchScript keeps it
            for name, layer in self.module.named_modules()
        ]
        found = {f"{name or 'it'} ({kind})" for name, kind in named if kind in MEMORY}
        return ", ".join(sorted(found))

    def sample(self, observations: dict[str, np.ndarray], num: int, seed: int) -> np.ndarray:
        """What the module samples, without gradients."""
        torch = import_torch()
        with torch.no_grad(), seeded(seed):
            made = self.module.sample(self._tensors(observations), num)
        return made.detach().to("cpu", torch.float32).numpy()

    def state(self) -> dict[str, np.ndarray]:
        """Parameters and buffers, by their names."""
        named = self.module.state_dict()
        return dict(to_array(f"module/{name}", tensor) for name, tensor in named.items())

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Restores `state()`; shapes and names must be the module's."""
        tensors = dict(to_tensor(name, array) for name, array in state.items())
        names = [name for name in tensors if name.startswith("module/")]
        self.module.load_state_dict({n.removeprefix("module/"): tensors[n] for n in names})

    def _tensors(self, observations: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {name: self._tensor(value) for name, value in observations.items()}

    def _tensor(self, value: np.ndarray) -> Any:
        first = next(self.module.parameters(), None)
        tensor = import_torch().from_numpy(np.array(value))
        return tensor if first is None else tensor.to(first.device)


class LearningTorchPolicy(TorchPolicy):
    """A module that samples and can imitate: its optimiser is part of its state."""

    def __init__(self, module: Any, learning_rate: float):
        super().__init__(module)
        if callable(getattr(module, "optimizer", None)):
            self.optimizer = module.optimizer()
        else:
            self.optimizer = import_torch().optim.Adam(module.parameters(), lr=learning_rate)

    def imitate(self, batch: ImitationBatch) -> dict[str, float]:
        """One step of the optimiser on the module's loss."""
        self.module.train()
        try:
            with seeded(batch.seed):
                seen = self._tensors(batch.observation)
                loss = self.module.loss(seen, self._tensor(batch.action), self._tensor(batch.valid))
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
        finally:
            self.module.eval()
        return {"base/loss": float(loss.detach())}

    def state(self) -> dict[str, np.ndarray]:
        """Parameters, buffers, and everything that the optimiser keeps."""
        saved, arrays = self.optimizer.state_dict(), super().state()
        for index, entries in saved["state"].items():
            for name, value in entries.items():
                key, array = to_array(f"optimizer/{index}/{name}", value)
                arrays[key] = array
        groups = json.dumps(saved["param_groups"], sort_keys=True).encode()
        return arrays | {"optimizer_groups": np.frombuffer(groups, np.uint8)}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Restores `state()`; later steps leave its arrays as they are."""
        super().load(state)
        entries: dict[int, dict[str, Any]] = {}
        for saved_name, array in state.items():
            if saved_name.startswith("optimizer/"):
                key, tensor = to_tensor(saved_name, array)
                _, index, name = key.split("/", 2)
                entries.setdefault(int(index), {})[name] = tensor
        groups = json.loads(np.asarray(state["optimizer_groups"]).tobytes())
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})


def to_array(name: str, tensor: Any) -> tuple[str, np.ndarray]:
    """A tensor's name and a copy of it in host memory. NumPy has no bfloat16: its bits are kept as
    int16, and the name says so."""
    torch = import_torch()
    tensor = torch.as_tensor(tensor).detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return name + BITS, np.array(tensor.view(torch.int16).numpy())
    return name, np.array(tensor.numpy())


def to_tensor(name: str, array: np.ndarray) -> tuple[str, Any]:
    """Inverse of `to_array`; the tensor has memory of its own."""
    torch = import_torch()
    tensor = torch.from_numpy(np.array(array))
    if name.endswith(BITS):
        return name.removesuffix(BITS), tensor.view(torch.bfloat16)
    return name, tensor
