"""What a policy from outside has learnt, as files of its own framework."""

import importlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_arrays

from exporl.external.base import OutsideBase
from exporl.external.pytorch import Program, TorchPolicy
from exporl.external.torch_files import open_torch, parts_of

TOLERANCE = 1e-5
"""Most that an action in [-1, 1] of a file may differ from the policy's."""


def weights_file(base: OutsideBase) -> bytes:
    """A safetensors file: of a torch module its state_dict, by its own names; of another policy
    its `state()`."""
    if not isinstance(base.policy, TorchPolicy):
        arrays = base.state()
        return save_arrays({name: np.array(value, order="C") for name, value in arrays.items()})
    save: Any = importlib.import_module("safetensors.torch").save
    tensors = base.policy.module.state_dict()
    return save({n: t.detach().cpu().clone().contiguous() for n, t in tensors.items()})


def program_file(
    base: OutsideBase, name: str, observations: Mapping[str, np.ndarray]
) -> tuple[str, bytes] | str | None:
    """The file that a policy came from, with the weights of now.

    Args:
        base: the policy.
        name: what it was opened by, `torch:FILE` or `torch:FILE:module:function`.
        observations: some, [b, ...] each, on which the file is compared with the policy.

    Returns:
        (its suffix, its content); or why it would not be the same policy, a sentence; None where
        the policy came from no file.
    """
    program: Program | None = getattr(base.policy, "program", None)
    if program is None:
        return None
    content = program.saved()
    with tempfile.TemporaryDirectory(prefix="exporl-base-") as folder:
        path = Path(folder) / f"policy{program.suffix}"
        path.write_bytes(content)
        _, adapter = parts_of(name.removeprefix("torch:"))
        again = open_torch(f"{path}{adapter and ':' + adapter}", base.spec, 0.0)
        seen = {entry: np.array(observations[entry]) for entry in base.reads}
        theirs = again.sample({entry: value.copy() for entry, value in seen.items()}, 2, 0)
        apart = float(np.abs(theirs - base.policy.sample(seen, 2, 0)).max())
    if not apart <= TOLERANCE:
        return (
            f"The file that it came from is not written again: with {adapter} around it its "
            f"actions differ by {apart:.2g}, because not all that was learnt is in it."
        )
    return program.suffix, content
