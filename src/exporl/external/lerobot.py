"""LeRobot policies: a checkpoint folder, sampled with the user's own `lerobot` package.

The package builds the network; the folder's statistics are applied here. Nothing remembers: the
history that a policy reads is part of the observation, and its noise follows from the seed.
"""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporl.external.base import OutsidePolicy
from exporl.external.lerobot_entries import entries_of, stacked
from exporl.external.lerobot_folder import (
    ACTION,
    NO_WEIGHTS,
    WEIGHTS,
    Checkpoint,
    read_checkpoint,
)
from exporl.external.pytorch import TorchPolicy, import_torch, seeded
from exporl.spec import Spec

CLASSES = {
    "diffusion": ("lerobot.policies.diffusion.modeling_diffusion", "DiffusionPolicy"),
    "act": ("lerobot.policies.act.modeling_act", "ACTPolicy"),
}
"""Type of a policy -> its module and class."""
INSTALL = "this base policy needs LeRobot 0.4 or later: pip install 'lerobot[diffusion]'"


class LeRobotPolicy(TorchPolicy):
    """A policy of LeRobot without its queues: every answer follows from observations and seed."""

    def __init__(
        self, module: Any, checkpoint: Checkpoint, reads: dict[str, tuple[str, ...]], spec: Spec
    ):
        """A policy around a module.

        Args:
            module: LeRobot's policy, with its weights.
            checkpoint: what its folder says.
            reads: input of the policy -> the entries of an observation that make it up.
            spec: what the task shows, and the chunks of the run.
        """
        super().__init__(module)
        self.actions = "env"  # the processors bring them back into the units of its data
        self._checkpoint, self._reads, self._chunk = checkpoint, reads, spec.chunk_length
        names = {entry for entries in reads.values() for entry in entries}
        kept = tuple(entry for entry in spec.observation if entry[0] in names)
        self.spec = Spec(kept, checkpoint.action_dim, min(spec.chunk_length, checkpoint.planned))
        self.control_hz, self.ranges = checkpoint.control_hz, _ranges(checkpoint, reads, spec)
        self._plan: Callable[..., Any] = {"diffusion": _denoised, "act": _predicted}[
            checkpoint.kind
        ]

    def sample(self, observations: dict[str, np.ndarray], num: int, seed: int) -> np.ndarray:
        """Plans for all samples of all observations, in one call of the network.

        Args:
            observations: [b, ...] each; inputs of several steps are vectors of all of them, the
                oldest first, or have an axis for them.
            num: samples of each. Those of ACT are all the same.
            seed: decides the noise.

        Returns:
            [b, num, h, a] in the environment's own units.
        """
        checkpoint, torch = self._checkpoint, import_torch()
        inputs = {}
        for name, entries in self._reads.items():
            seen = stacked(observations, entries, checkpoint.inputs[name], checkpoint.steps)
            inputs[name] = self._tensor(checkpoint.scalings[name].normalized(seen))
        with torch.no_grad(), seeded(seed):
            plans = self._plan(self.module, inputs, num)
        made = plans[:, : self._chunk].to("cpu", torch.float32).numpy()
        own = checkpoint.scalings[ACTION].own(made)
        return own.reshape(-1, num, *own.shape[1:])

    def state(self) -> dict[str, np.ndarray]:
        """Parameters, buffers, and the statistics."""
        kept = {
            f"scaling/{name}/{scaling.mode}/{key}": value
            for name, scaling in self._checkpoint.scalings.items()
            for key, value in scaling.statistics.items()
        }
        return super().state() | kept


def _ranges(
    checkpoint: Checkpoint, reads: Mapping[str, tuple[str, ...]], spec: Spec
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Least and greatest values that the policy met, of vectors and actions whose statistics it
    has: by entry, all steps of a history alike."""
    found, sizes = {}, {name: int(np.prod(shape)) for name, shape, _ in spec.observation}
    for name, entries in reads.items():
        known = checkpoint.scalings[name].known()
        if known is None or checkpoint.inputs[name].kind == "VISUAL":
            continue
        ends, first = np.broadcast_to(np.stack(known), (2, *checkpoint.inputs[name].shape)), 0
        for entry in entries:
            size = sizes[entry] // checkpoint.steps
            low, high = np.tile(ends[:, first : first + size], (1, checkpoint.steps))
            found[entry], first = (low, high), first + size
    known = checkpoint.scalings[ACTION].known()
    return found | ({} if known is None else {ACTION: known})


def open_lerobot(path: str, spec: Spec, learning_rate: float) -> OutsidePolicy:
    """The policy of `lerobot:PATH`, a folder that LeRobot saved. Its inputs are entries of the
    observation with their names, see `entries_of`.

    Raises:
        ValueError: the folder cannot be read, or holds a policy that does not fit or cannot be
            sampled; says which.
        FileNotFoundError: there is no such folder, or a file of it is missing.
        ModuleNotFoundError: LeRobot or torch is not installed; says how to install it.
    """
    checkpoint = read_checkpoint(Path(path))
    reads = entries_of(checkpoint, spec)
    return LeRobotPolicy(_built(checkpoint), checkpoint, reads, spec)


def _built(checkpoint: Checkpoint) -> Any:
    """LeRobot's policy with the folder's weights, on the device that its configuration names."""
    torch = import_torch()
    home, name = CLASSES[checkpoint.kind]
    try:
        kind = getattr(importlib.import_module(home), name)
        configs = importlib.import_module("lerobot.configs.policies").PreTrainedConfig
        load_file = importlib.import_module("safetensors.torch").load_file
    except Exception as error:  # packages beneath it fail in ways of their own
        raise ModuleNotFoundError(f"{INSTALL} ({type(error).__name__}: {error})") from error
    path = checkpoint.path
    try:
        config = configs.from_pretrained(path)
        if hasattr(config, "pretrained_backbone_weights"):
            config.pretrained_backbone_weights = None  # they would be downloaded
        if hasattr(config, "compile_model"):
            config.compile_model = False
        if checkpoint.kind == "diffusion":
            config.n_action_steps = checkpoint.planned  # the whole plan is returned
        with seeded(0):
            module = kind(config)
        weights = load_file(path / WEIGHTS)
        kept = {n: tensor for n, tensor in weights.items() if not n.startswith(NO_WEIGHTS)}
        module.load_state_dict({n.replace("._orig_mod", ""): t for n, t in kept.items()})
    except (Exception, SystemExit) as error:  # LeRobot and what it parses with have many kinds
        said = " ".join(f"{error}".split())
        raise ValueError(
            f"LeRobot cannot build the policy of {path}: {type(error).__name__}: {said} Was it "
            "saved by another version of LeRobot than the one that is installed?"
        ) from error
    return module.to(torch.device(config.device)).eval()


def _denoised(policy: Any, inputs: Mapping[str, Any], num: int) -> Any:
    """Plans [b x num, planned, a] of a diffusion policy, from noise that the seed decides; inputs
    are [b, steps, ...]."""
    torch, config = import_torch(), policy.config
    rows = {name: value.repeat_interleave(num, dim=0) for name, value in inputs.items()}
    views = [rows.pop(name) for name in config.image_features]
    if views:
        rows["observation.images"] = torch.stack(views, dim=2)
    first = next(iter(rows.values()))
    shape = (len(first), config.horizon, config.action_feature.shape[0])
    noise = torch.randn(shape, dtype=first.dtype).to(first.device)  # alike on every device
    return policy.diffusion.generate_actions(rows, noise=noise)


def _predicted(policy: Any, inputs: Mapping[str, Any], num: int) -> Any:
    """Plans [b x num, planned, a] of ACT, which has one per observation."""
    plans = policy.predict_action_chunk({name: value[:, 0] for name, value in inputs.items()})
    return plans.repeat_interleave(num, dim=0)
