"""Behaviour cloning: the base policy alone, trained by imitation."""

import dataclasses
from typing import Literal

from flax import struct

from exporl.algos import common
from exporl.algos.common import Algorithm, Model
from exporl.algos.options import check_options
from exporl.policies.base import BasePolicy, propose
from exporl.types import Batch, Params, Precision, Spec


@dataclasses.dataclass(frozen=True)
class BcConfig:
    """Behaviour cloning with a flow or diffusion policy."""

    base_tau: float = 0.001  # Polyak step of the averaged policy that acts, per online update.
    base_data: Literal["all", "successes"] = "all"  # Imitate all rows, or those of successful episodes only.


@struct.dataclass
class BcState:
    """Everything that behaviour cloning learns."""

    base: Model
    base_ema: Params


def bc(config: BcConfig, spec: Spec, base: BasePolicy, precision: Precision = "float32") -> Algorithm:
    """The algorithm for one task and one base policy, which owns the precision. Raises ValueError for options out of range."""
    check_options(config)
    successes_only = config.base_data == "successes"

    def init(key) -> BcState:
        params = base.init(key)
        return BcState(Model.create(params, base.optimizer), common.fresh(params))

    def update(state: BcState, batches: Batch, key, *, phase="online"):
        """Pretraining: one step per minibatch. Online: one step on the last one, and the average follows slowly."""
        if phase == "pretrain":
            model, average, metrics = common.pretrain_base(base, state.base, batches, successes_only, key)
        else:
            last = common.last_minibatch(batches)
            model, average, metrics = common.update_base(
                base, config.base_tau, state.base, state.base_ema, last, successes_only, key
            )
        return BcState(model, average), metrics

    def acting(state: BcState) -> Params:
        return state.base_ema

    def act(params, observation, key):
        return propose(base, params, observation, 1, key, spec)[:, 0]

    phases = common.ALL_PHASES - {"critic_pretrain"}
    return common.compiled(init, update, acting, act, act, phases=phases)
