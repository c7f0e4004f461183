"""A base policy from outside that learnt, given back to the framework it came from: weights, a card
that says how to load them, and the file it came from with them."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from exporl.acting.policy import Policy
from exporl.bundle.card import (
    About,
    front_matter,
    licence,
    reads_and_gives,
    results,
    training,
    without_folder,
)
from exporl.external import GIVEN, OutsideBase
from exporl.external.handing_back import program_file, weights_file
from exporl.external.pytorch import TorchPolicy
from exporl.external.torch_files import parts_of
from exporl.files.bundle import CARD, CONFIG, POLICY, TRAINING, WEIGHTS
from exporl.spec import Spec

COMPARED = 4
"""Observations on which a file is compared with the policy before it is written."""


def base_contents(
    policy: Policy, about: About, training_config: bytes
) -> tuple[dict[str, bytes], str]:
    """The files of the base policy alone, and what there is to say about the one it came from.

    Args:
        policy: around that base policy.
        about: what the card says; its part is "base".
        training_config: every option of the run.

    Raises:
        ValueError: the base policy has learnt nothing.
    """
    base, name = policy.outside, without_folder(str(about.config["base"]["policy"]))
    assert base is not None
    if not base.learns:
        raise ValueError(
            f"{base.name} is frozen: training left it as it was, and it is still where it came "
            "from. One that learns (base.learns=True) is exported."
        )
    interface = dataclasses.replace(policy.interface, spec=_read(base), normalized=False)
    contents = {
        CONFIG: _json({"type": "exporl-base", "base": name, "checkpoint": policy.checkpoint_name}),
        POLICY: _json(interface.to_json()),
        WEIGHTS: weights_file(base),
        TRAINING: training_config,
    }
    found = program_file(base, name, _observations(base.spec))
    said, file = found if isinstance(found, str) else "", ""
    if isinstance(found, tuple):
        suffix, content = found
        file = f"policy{suffix}"
        contents[file] = content
        said = f"{file} is the file that training began with, with the weights of now."
    card = [
        front_matter(about, "pytorch" if isinstance(base.policy, TorchPolicy) else "exporl"),
        _head(policy, about, name),
        results(about),
        training(about),
        _loading(base, name, file, said),
        reads_and_gives(interface),
        licence(about),
    ]
    contents[CARD] = "\n".join(card).encode()
    return contents, said or f"{WEIGHTS} is loaded as {CARD} says."


def _read(base: OutsideBase) -> Spec:
    kept = tuple(entry for entry in base.spec.observation if entry[0] in base.reads)
    return dataclasses.replace(base.spec, observation=kept)


def _observations(spec: Spec) -> Mapping[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal((COMPARED, *shape)).astype(dtype)
        for name, shape, dtype in spec.observation
    }


def _head(policy: Policy, about: About, name: str) -> str:
    shown = "handed over in Python" if name == GIVEN else f"`{name}`"
    return (
        f"# {about.name}\n\nA policy for `{about.config['task']}`: the base policy alone "
        f"({shown}), as it was after training with {about.config['algorithm']} by [exporl]"
        f"(https://arxiv.org/abs/2507.07986), from {policy.checkpoint_name}. Its code is not part "
        "of this folder.\n"
    )


def _loading(base: OutsideBase, name: str, file: str, said: str) -> str:
    """How to get the policy back in its own framework."""
    if not isinstance(base.policy, TorchPolicy):
        return _section(
            "from safetensors.numpy import load_file\n\n"
            "policy = ...  # made as for training\n"
            f'policy.load(load_file("{WEIGHTS}"))'
        )
    if file:
        load = "torch.jit.load" if file.endswith(".pt") else "torch.export.load"
        adapter = parts_of(name.removeprefix("torch:"))[1]
        return _section(
            f'import torch\n\nmodel = {load}("{file}")'
            + ("" if file.endswith(".pt") else ".module()"),
            f"{said} In exporl: `--base torch:{file}:{adapter}`. The parameters alone, with the "
            f"adapter's names for them, are in `{WEIGHTS}`.",
        )
    make = "..." if name == GIVEN else f"{name.rsplit(':', 1)[-1]}(spec)"
    return _section(
        "from safetensors.torch import load_file\n\n"
        f"module = {make}  # made as for training\n"
        f'module.load_state_dict(load_file("{WEIGHTS}"))\nmodule.eval()',
        said
        + " A function for `--base torch:...` that ends with these lines returns it to exporl.",
    )


def _section(code: str, more: str = "") -> str:
    return f"## Load it\n\n```python\n{code}\n```\n" + (f"\n{more.strip()}\n" if more else "")


def _json(data: Any) -> bytes:
    return json.dumps(data, indent=1).encode()
