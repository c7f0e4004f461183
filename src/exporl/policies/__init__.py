"""Base policies: expressive models trained by imitation, as records of pure functions."""

from exporl.policies.base import BaseConfig, BasePolicy
from exporl.policies.diffusion import diffusion
from exporl.policies.flow import flow
from exporl.types import Precision, Spec


def make_base(config: BaseConfig, spec: Spec, precision: Precision = "float32") -> BasePolicy:
    """The base policy that a configuration describes; `precision` is that of its sampling.

    Raises:
        ValueError: unknown kind, or a size that is not positive.
    """
    kinds = {"flow": flow, "diffusion": diffusion}
    if config.kind not in kinds:
        raise ValueError(f"base.kind must be one of {', '.join(kinds)}; got {config.kind!r}.")
    return kinds[config.kind](config, spec, precision)
