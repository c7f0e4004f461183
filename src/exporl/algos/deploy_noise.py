"""How much noise actions are decoded from: less of it outside training, and less for the first of
several base samples.

Where demonstrations are noisy, a base policy imitates their noise too. Decoded from less of it, an
action lies closer to the policy's central one. Any policy that decodes noise can use it; nothing
that is learnt depends on `deploy_noise_scale`.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from exporl.options import option
from exporl.types import Mode

ALONE: tuple[Mode, Mode] = ("base", "sample")
"""Modes in which the base policy acts alone; in "sample" with all of its noise."""


def noise_in(mode: Mode, deploy_noise_scale: float) -> float:
    """Factor on the noise that actions are decoded from in a mode."""
    return 1.0 if mode in ("explore", "sample") else deploy_noise_scale


def alone_while_learning(deploy_noise_scale: float) -> Mode:
    """The mode in which the base policy acts alone while learning: with all of its noise."""
    return "base" if deploy_noise_scale == 1 else "sample"


def noise_scales(num: int, factor: float, least: float = 1.0) -> Float[Array, " {num}"] | None:
    """Scales of the noise that samples are decoded from, for `policies.base.propose`; None where
    all have all of it.

    Args:
        num: samples n per observation.
        factor: on the noise of all of them.
        least: of the first one, before the factor; it rises evenly to 1 at the last.
    """
    return None if least == factor == 1 else factor * jnp.linspace(least, 1.0, num)


@dataclasses.dataclass(frozen=True)
class DeployNoise:
    """How much noise actions are decoded from outside training. Default: all, as in training."""

    deploy_noise_scale: float = option(1.0, within="[0, 1]", absent=1.0)
    """Factor on the noise that actions are decoded from outside training, by the base policy alone
    and by the policy that acts. Below 1 they act closer to their central action, without the noise
    of the demonstrations, while training explores with all of it."""

    def noise_in(self, mode: Mode) -> float:
        """Factor on the noise that actions are decoded from in a mode."""
        return noise_in(mode, self.deploy_noise_scale)

    @property
    def alone(self) -> Mode:
        """How the base policy acts alone while learning, for `Needs`."""
        return alone_while_learning(self.deploy_noise_scale)


@dataclasses.dataclass(frozen=True)
class SampleNoise(DeployNoise):
    """The same where one of n base samples is chosen, whose first ones may have less noise."""

    min_noise_scale: float = option(1.0, within="[0, 1]", absent=1.0)
    """Scale of the noise that the first of the n base samples is decoded from; it rises evenly to
    1 at the last. 1: all are samples of the base policy. 0: the first is its central action."""
