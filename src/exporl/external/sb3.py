"""Stable-Baselines3 archives: the actors of SAC and TQC, computed with NumPy.

Weights are read with `torch.load(weights_only=True)` and nothing is unpickled: the architecture
follows from the weights' shapes, and the activation from the archive's text.
"""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from exporl.external.base import OutsidePolicy
from exporl.external.named_files import present
from exporl.external.pytorch import import_torch
from exporl.spec import Spec

HIDDEN = re.compile(r"latent_pi\.(\d+)\.weight")
"""Kernels of the hidden layers, by their names in the actor."""
LOG_STD = (-20.0, 2.0)
"""Bounds of the log standard deviation, as in SAC."""
LARGEST = 2**30
"""Bytes of weights that are read, at most."""
FEW = 16
"""Observations that are computed one by one: acting does not depend on how many act together."""


class Sb3Actor:
    """A squashed Gaussian: tanh(mean + std * noise). The first sample of each observation is its
    mean, as `model.predict(deterministic=True)` plays it; the others are drawn."""

    def __init__(self, weights: dict[str, np.ndarray], activation: str, reads: tuple[str, ...]):
        """An actor of these weights.

        Args:
            weights: by their names in the archive, without "actor.".
            activation: "relu", "tanh" or "elu".
            reads: entries of an observation, concatenated in this order.
        """
        self._weights, self._activation, self._reads = weights, activation, reads
        layers = sorted(filter(HIDDEN.fullmatch, weights), key=_number)
        self._layers = [name.removesuffix(".weight") for name in layers]
        self.spec: Spec | None = None

    def sample(
        self, observations: dict[str, np.ndarray], num: int, seed: int
    ) -> Float[np.ndarray, "b n 1 a"]:
        """The mean action, and `num` - 1 drawn ones."""
        parts = [observations[name].reshape(len(observations[name]), -1) for name in self._reads]
        x = np.concatenate(parts, axis=1).astype(np.float32)
        for layer in self._layers:
            x = self._active(self._linear(layer, x))
        mean, log_std = self._linear("mu", x), self._linear("log_std", x).clip(*LOG_STD)
        shape = (len(x), num, mean.shape[1])
        noise = np.random.default_rng(seed).standard_normal(shape, np.float32)
        noise[:, 0] = 0
        return np.tanh(mean[:, None] + np.exp(log_std)[:, None] * noise)[:, :, None]

    def state(self) -> dict[str, np.ndarray]:
        """The weights."""
        return dict(self._weights)

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        kernel, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        if len(x) <= FEW:
            return np.stack([kernel @ row for row in x]) + bias
        return x @ kernel.T + bias

    def _active(self, x: np.ndarray) -> np.ndarray:
        if self._activation == "tanh":
            return np.tanh(x)
        if self._activation == "elu":
            return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
        return np.maximum(x, 0)


def open_sb3(path: str, spec: Spec, learning_rate: float) -> OutsidePolicy:
    """The actor of `sb3:PATH`. Reads all vectors of floats that the task shows, in the order of
    their names.

    Raises:
        ValueError: not such an archive, another kind of policy, or other sizes than the task's;
            says which.
        FileNotFoundError: there is no file.
        ModuleNotFoundError: torch is not installed; says how to install it.
    """
    weights, activation = read_archive(Path(path))
    reads = sorted(
        name for name, shape, dtype in spec.observation if dtype.startswith("float") and shape
    )
    shapes = {name: shape for name, shape, _ in spec.observation}
    sizes = {name: int(np.prod(shapes[name])) for name in reads}
    first = min(filter(HIDDEN.fullmatch, weights), key=_number)
    wanted, shown = weights[first].shape[1], sum(sizes.values())
    if wanted != shown:
        listed = ", ".join(f"{name} [{size}]" for name, size in sizes.items())
        raise ValueError(
            f"{path} was trained on observations of {wanted} numbers; the task shows {shown}: "
            f"{listed}. Give it those that it was trained on with an adapter of your own "
            "(docs/own_policy.md)."
        )
    actions = weights["mu.weight"].shape[0]
    if actions != spec.action_dim:
        raise ValueError(
            f"{path} makes actions of {actions} numbers; the task takes {spec.action_dim}."
        )
    return Sb3Actor(weights, activation, tuple(reads))


def _number(key: str) -> int:
    return int(key.split(".")[1])


def read_archive(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The actor's weights by their names without "actor.", and its activation.

    Raises:
        ValueError: not an archive of SAC or TQC; says what it is.
        FileNotFoundError: there is no file.
    """
    present(path)
    torch = import_torch()
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("policy.pth").file_size > LARGEST:
                raise ValueError(f"{path}: policy.pth has more than {LARGEST} bytes.")
            content, data = archive.read("policy.pth"), archive.read("data")
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(
            f"{path} is not a Stable-Baselines3 archive ({error}): it is a .zip with policy.pth "
            "and data, as model.save() writes it."
        ) from error
    try:
        named = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        found = {name: np.asarray(value, np.float32) for name, value in named.items()}
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(
            f"{path}: policy.pth holds no plain weights ({type(error).__name__})."
        ) from error
    return _actor(path, found), _activation(path, data)


def _actor(path: Path, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if any("lstm" in name for name in found):
        raise ValueError(
            f"{path} is a policy with a memory (its weights name an LSTM): one hidden state cannot "
            "be sampled several times. Policies must depend on the observation alone."
        )
    layers = [name for name in found if HIDDEN.fullmatch(name.removeprefix("actor."))]
    whole = {"actor.mu.weight", "actor.mu.bias", "actor.log_std.weight", "actor.log_std.bias"}
    if not layers or not whole <= found.keys():
        heads = sorted({name.rsplit(".", 1)[0] for name in found})[:6]
        raise ValueError(
            f"{path} has no Gaussian actor of SAC or TQC (latent_pi, mu, log_std); its layers "
            f"begin with {', '.join(heads)}. Other policies go through an adapter of your own "
            "(docs/own_policy.md)."
        )
    prefixes = ("actor.latent_pi.", "actor.mu.", "actor.log_std.")
    kept = {name: value for name, value in found.items() if name.startswith(prefixes)}
    return {name.removeprefix("actor."): value for name, value in kept.items()}


def _activation(path: Path, data: bytes) -> str:
    """The activation that the archive's text names; ReLU, the default of SAC and TQC, without."""
    try:
        options: Any = json.loads(data)["policy_kwargs"]
        said = str(options.get("activation_fn", "ReLU"))
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: its options cannot be read ({error!r}).") from error
    for name in ("ReLU", "Tanh", "ELU"):
        if re.search(rf"\b{name}\b", said):
            return name.lower()
    raise ValueError(
        f"{path} has the activation {said}; ReLU, Tanh and ELU are known. Use an adapter of your "
        "own (docs/own_policy.md)."
    )
