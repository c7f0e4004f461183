"""Base policies: expressive models trained by imitation, as records of pure functions."""

from collections.abc import Callable
from typing import Any

from exporl.once import made_once
from exporl.outside import is_outside, load_outside
from exporl.policies.base import BaseConfig, BasePolicy
from exporl.policies.diffusion import diffusion
from exporl.policies.elsewhere import elsewhere
from exporl.policies.flow import flow
from exporl.types import Precision, Spec

MakeBase = Callable[[BaseConfig, Spec, Precision], BasePolicy]
"""(options, the task's shapes, precision of sampling) -> base policy."""
BASES: dict[str, MakeBase] = {"flow": flow, "diffusion": diffusion}
"""Kind -> what makes it."""


def make_base(config: BaseConfig, spec: Spec, precision: Precision = "float32") -> BasePolicy:
    """The base policy that a configuration describes; the same arguments get the same record.

    Args:
        config: its options. `kind` is a key of `BASES`, or `module:function` of your own: a
            `MakeBase`.
        spec: the task's shapes.
        precision: of sampling.

    Raises:
        ValueError: unknown kind, a size that is not positive, or a function that returns something
            else.
    """
    if config.policy is not None:
        return made_once(elsewhere, spec)
    if config.learns:
        raise ValueError(
            "base.learns=True means something for a policy from outside only: give --base as well, "
            "or leave it out. Base policies of exporl learn anyway."
        )
    make = BASES.get(config.kind)
    if make is None:
        return _outside(config, spec, precision)
    return made_once(make, config, spec, precision)


def _outside(config: BaseConfig, spec: Spec, precision: Precision) -> BasePolicy:
    if not is_outside(config.kind):
        raise ValueError(f"base.kind must be one of {', '.join(BASES)}; got {config.kind!r}.")
    make: Any = load_outside(config.kind, "base policy")
    made = made_once(make, config, spec, precision) if callable(make) else make
    if not isinstance(made, BasePolicy):
        raise ValueError(
            f"base.kind={config.kind!r} made a {type(made).__name__}: it must be a function "
            "(config, spec, precision) that returns a BasePolicy."
        )
    return made
