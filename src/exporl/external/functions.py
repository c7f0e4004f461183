"""Policies from outside that are Python already: an object that samples, or a function."""

from collections.abc import Callable
from typing import Any

import numpy as np

from exporl.external.base import OutsidePolicy
from exporl.external.pytorch import is_torch_module, torch_policy
from exporl.outside import load_outside
from exporl.spec import Spec


class FunctionPolicy:
    """A function (observations, num, seed) -> actions [b, num, h, a] as a policy."""

    def __init__(self, function: Callable[[dict[str, np.ndarray], int, int], np.ndarray]):
        self._function = function

    def sample(self, observations: dict[str, np.ndarray], num: int, seed: int) -> np.ndarray:
        """Calls the function."""
        return self._function(observations, num, seed)


def as_policy(given: Any, name: str, learning_rate: float = 3e-4) -> OutsidePolicy:
    """What somebody calls a policy, as one: an object with `sample`, a torch module with `sample`,
    or a function.

    Args:
        given: that.
        name: for messages.
        learning_rate: of a torch module that learns and brings no optimiser.

    Raises:
        ValueError: something else.
    """
    if is_torch_module(given):
        return torch_policy(given, name, learning_rate)
    if not isinstance(given, type):
        if callable(getattr(given, "sample", None)):
            return given
        if callable(given):
            function: Any = given
            return FunctionPolicy(function)
    raise ValueError(
        f"{name} is a {_called(given)}: a policy has sample(observations, num, seed) -> actions "
        "[b, num, h, a] in [-1, 1], or is such a function (docs/own_policy.md)."
    )


def open_attribute(name: str, spec: Spec, learning_rate: float) -> OutsidePolicy:
    """The policy that `module:attribute` names: an object with `sample`, or a function that is
    given the task's shapes and returns the policy.

    Raises:
        ValueError: it cannot be loaded, or is no policy; says what is needed.
    """
    found = load_outside(name, "base policy")
    if not callable(getattr(found, "sample", None)) or isinstance(found, type):
        found = _called_with(found, name, spec)
    return as_policy(found, f"base policy {name!r}", learning_rate)


def _called_with(found: Any, name: str, spec: Spec) -> Any:
    if not callable(found):
        raise ValueError(
            f"base policy {name!r} is a {_called(found)}: name an object with sample(observations, "
            "num, seed), or a function of the task's exporl.Spec that returns one."
        )
    try:
        return found(spec)
    except (Exception, SystemExit) as error:  # the user's function may raise anything
        raise ValueError(
            f"base policy {name!r}: {name.partition(':')[2]}(spec) raised {type(error).__name__}: "
            f"{error}. It is given the task's shapes, an exporl.Spec, and returns a policy."
        ) from error


def _called(value: Any) -> str:
    return f"class {value.__name__}" if isinstance(value, type) else type(value).__name__
