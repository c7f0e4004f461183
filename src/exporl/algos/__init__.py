"""Algorithms: one file each, registered here by name."""

from collections.abc import Callable
from typing import Any

from exporl.algos.bc import BcConfig, bc
from exporl.algos.common import Algorithm
from exporl.algos.expo import ExpoConfig, expo
from exporl.algos.rlpd import RlpdConfig, rlpd
from exporl.policies import BasePolicy
from exporl.suggest import closest
from exporl.types import Precision, Spec

ALGORITHMS: dict[str, tuple[type, Callable[..., Algorithm]]] = {
    "expo": (ExpoConfig, expo),
    "rlpd": (RlpdConfig, rlpd),
    "bc": (BcConfig, bc),
}
"""Name -> (configuration class, constructor)."""


def make_algorithm(
    name: str, config: Any, spec: Spec, base: BasePolicy | None, precision: Precision = "float32"
) -> Algorithm:
    """Builds an algorithm by name.

    Args:
        name: a key of `ALGORITHMS`.
        config: an instance of that algorithm's configuration class.
        spec: the task's shapes.
        base: the base policy; ignored by algorithms that have none.
        precision: of the matrix products that rank candidates.

    Raises:
        ValueError: unknown name, a configuration of another algorithm, or options that contradict each other.
    """
    if name not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {name!r}. {closest(name, ALGORITHMS)}")
    config_class, constructor = ALGORITHMS[name]
    if not isinstance(config, config_class):
        raise ValueError(f"{name} needs a {config_class.__name__}, got a {type(config).__name__}.")
    return constructor(config, spec, base, precision)
