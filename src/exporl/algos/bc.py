"""Behaviour cloning: the base policy alone, trained by imitation."""

import dataclasses
from typing import Literal

from flax import struct
from jaxtyping import Array, Float

from exporl.algos import common, presets
from exporl.algos.algorithm import ALL_PHASES, Algorithm, Entry, Needs, compiled
from exporl.algos.base_weight import check_imitation
from exporl.algos.common import Imitation, Model, required
from exporl.algos.deploy_noise import DeployNoise
from exporl.algos.presets import TABLE1
from exporl.options import option
from exporl.plain import added
from exporl.policies.base import BasePolicy
from exporl.types import (
    Batch,
    Decision,
    KeyArray,
    Metrics,
    Mode,
    Observation,
    Params,
    Phase,
    Precision,
    Spec,
)


@dataclasses.dataclass(frozen=True)
class BcConfig(DeployNoise):
    """Behaviour cloning with a flow or diffusion policy."""

    base_tau: float = option(0.001, within="(0, 1]")
    """Polyak step of the averaged policy that acts, per online update."""
    base_data: Literal["all", "successes"] = "all"
    """Imitate all rows, or those of successful episodes only."""
    base_weight: Literal["uniform", "shorter", "recent"] = added("uniform", absent="uniform")
    """Which successful episodes count most in imitation, by exp(-z) with z standardised over the
    successes of a minibatch. shorter: z is the length; recent: the age, demonstrations being the
    oldest."""


@struct.dataclass
class BcState:
    """Everything that behaviour cloning learns."""

    base: Model
    base_ema: Params


@dataclasses.dataclass(frozen=True)
class Bc:
    """The functions of behaviour cloning for one base policy."""

    config: BcConfig
    spec: Spec
    imitation: Imitation

    def init(self, key: KeyArray) -> BcState:
        """The state before the first update."""
        base = self.imitation.init(key)
        return BcState(base, common.fresh(base.params))

    def update(
        self, state: BcState, batches: Batch, key: KeyArray, *, phase: Phase = "online"
    ) -> tuple[BcState, Metrics]:
        """Pretraining: one step per minibatch, and the average starts at the result.

        Online: one step on the last minibatch, and the average follows slowly.
        """
        if phase == "pretrain":
            base, average, metrics = self.imitation.pretrain(state.base, batches, key)
        else:
            last = common.last_minibatch(batches)
            base, average, metrics = self.imitation.step(state.base, state.base_ema, last, key)
        return BcState(base, average), metrics

    def acting(self, state: BcState) -> Params:
        """The averaged policy acts."""
        return state.base_ema

    def act(
        self,
        acting: Params,
        observation: Observation,
        key: KeyArray,
        *,
        mode: Mode = "explore",
        proposals: Float[Array, "b n h a"] | None = None,
    ) -> Decision:
        """One sample of the policy in every mode; outside training of less noise, if asked for."""
        factor = self.config.noise_in(mode)
        return self.imitation.act(
            acting, observation, key, self.spec, proposals, noise_scale=factor
        )


def bc(
    config: BcConfig, spec: Spec, base: BasePolicy | None, precision: Precision = "float32"
) -> Algorithm:
    """The algorithm for one task and one base policy, which owns the precision.

    Raises:
        ValueError: options out of range, or there is no base policy.
    """
    check_imitation(config)
    base = required(base, "bc")
    successes_only = config.base_data == "successes"
    imitation = Imitation(base, config.base_tau, successes_only, config.base_weight)
    needs = Needs(ALL_PHASES - {"critic_pretrain"}, imitation.columns, alone=config.alone)
    return compiled(Bc(config, spec, imitation), needs, has_base=True)


PRESETS = {
    "paper": {
        **presets.BASE,
        "train.offline_steps": (200_000, TABLE1),
        **presets.IMITATION_ONLY,
    },
    **{
        size: {**presets.RUNS[size], **presets.SMALL_BASES[size], **presets.IMITATION_ONLY}
        for size in ("small", "tiny", "demo")
    },
}

BC = Entry("bc", BcConfig, bc, check_imitation, presets=PRESETS)
