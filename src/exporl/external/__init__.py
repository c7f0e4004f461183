"""Policies that exporl did not train, as base policies: kinds of them, by what their names begin
with. Host side; frameworks are imported where they are used."""

from collections.abc import Callable
from typing import Any

from exporl.external.base import GIVEN, HAND_OVER, ImitationBatch, OutsideBase, OutsidePolicy
from exporl.external.functions import as_policy, open_attribute
from exporl.external.lerobot import open_lerobot
from exporl.external.onnx import open_onnx
from exporl.external.remote import open_ws, open_wss
from exporl.external.sb3 import open_sb3
from exporl.external.torch_files import open_torch
from exporl.outside import is_outside
from exporl.spec import Spec
from exporl.units import ActionUnits

__all__ = [
    "GIVEN",
    "KINDS",
    "ImitationBatch",
    "OutsideBase",
    "OutsidePolicy",
    "find_policy",
    "outside_base",
]

Open = Callable[[str, Spec, float], OutsidePolicy]
"""(what follows the kind, what the task shows and the run's chunks, learning rate) -> policy."""
KINDS: dict[str, Open] = {
    "torch": open_torch,
    "sb3": open_sb3,
    "onnx": open_onnx,
    "lerobot": open_lerobot,
    "ws": open_ws,
    "wss": open_wss,
}
"""Kind -> what opens it: `--base KIND:REST`."""


def find_policy(name: str, spec: Spec, learning_rate: float = 3e-4) -> OutsidePolicy:
    """The policy that a name stands for.

    Args:
        name: `KIND:REST` of `KINDS`, or `module:attribute` of your own.
        spec: what the task shows, and the chunks of the run.
        learning_rate: of a policy that learns and brings no optimiser.

    Raises:
        ValueError: no such policy, or one that cannot be used; says what is needed.
        FileNotFoundError, ModuleNotFoundError: a file or a framework is missing; says which.
        ConnectionError, TimeoutError: no server answers; names it.
    """
    kind, _, rest = name.partition(":")
    if kind in KINDS and rest:
        return KINDS[kind](rest, spec, learning_rate)
    if "://" in name:
        raise ValueError(
            f"base policy {name!r}: a policy server is named ws://HOST:PORT or wss://HOST:PORT."
        )
    if is_outside(name):
        return open_attribute(name, spec, learning_rate)
    usage = ", ".join(f"{known}:..." for known in KINDS)
    raise ValueError(
        f"base policy {name!r}: name it module:attribute (your own), or {usage}; see "
        "docs/own_policy.md."
    )


def outside_base(
    name: str | None,
    given: Any,
    spec: Spec,
    *,
    learns: bool,
    learning_rate: float,
    units: ActionUnits | None = None,
) -> OutsideBase | None:
    """The policy from outside that a run has; None where it has none.

    Args:
        name: by its configuration.
        given: handed over in Python; used instead of what the name stands for.
        spec: what the task shows, and the chunks of the run.
        learns: whether it goes on imitating.
        learning_rate: of a policy that learns and brings no optimiser.
        units: of the environment's own actions; None: they are in [-1, 1].

    Raises:
        ValueError, FileNotFoundError, ModuleNotFoundError: as `find_policy`; or the run's policy
            was handed over in Python, and is not now.
    """
    if name is None and given is None:
        return None
    called = f"base policy {name!r}" if name not in (None, GIVEN) else "the base policy"
    if given is not None:
        policy = as_policy(given, called, learning_rate)
    elif name == GIVEN:
        raise ValueError(HAND_OVER)
    else:
        assert name is not None
        policy = find_policy(name, spec, learning_rate)
    return OutsideBase(policy, called, spec, learns=learns, units=units)
