"""Best of n: the base policy imitates, critics judge, and of n base samples the best one acts.

EXPO without edits, and nothing else changed: the same critics, base policy, data and choice. What
EXPO adds to it is what its edit policy is worth. Acting by the best of n samples of an imitating
policy is IDQL's way (Hansen-Estruch et al., arXiv 2304.10573), whose critic learns from the data's
actions instead (`idql.py`); here the TD target bootstraps from the best of n, as in EXPO (arXiv
2507.07986).

Composed of EXPO's functions (`expo.py`), its defaults and its presets. EXPO's edit policy is part
of the state, is never evaluated and never learns.
"""

import dataclasses
from typing import Literal

from exporl.algos import expo_options
from exporl.algos.algorithm import Algorithm, Entry, Measurements
from exporl.algos.bounds import BoundOptions
from exporl.algos.common import CRITIC_METRICS, required
from exporl.algos.expo_entry import PRESETS as EXPO_PRESETS
from exporl.algos.expo_entry import expo
from exporl.algos.expo_options import Backup, ExpoConfig
from exporl.algos.filtered import FILTER_METRICS
from exporl.algos.presets import without_foreign
from exporl.options import check_options, option, sizes
from exporl.plain import added
from exporl.policies.base import BasePolicy
from exporl.types import Precision, Spec


@dataclasses.dataclass(frozen=True)
class BestOfNConfig(BoundOptions):
    """Best of n. Every option and default is EXPO's; those of edits are not there."""

    num_base_samples: int = option(8, within="[1, inf)")
    """Actions n that the base policy proposes per observation. EXPO's 8 and their edits are as many
    candidates as 16 here."""
    min_noise_scale: float = option(1.0, within="[0, 1]")
    """Scale of the noise that the first of the n base samples is decoded from; it rises evenly to
    1 at the last. 1: all are samples of the base policy. 0: the first is its central action."""
    deploy_noise_scale: float = option(1.0, within="[0, 1]")
    """Factor on the noise that base samples are decoded from outside training, by the base policy
    alone and by the policy around it. Below 1 they act closer to the base's central action, without
    the noise of the demonstrations, while training explores with all of it."""
    num_qs: int = 10
    """Critics in the ensemble."""
    num_min_qs: int = 2
    """Critics in each minimum (1 for AntMaze)."""
    hidden: tuple[int, ...] = sizes(256, 256, 256)
    """Hidden layers of the critics."""
    critic_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the critics."""
    tau: float = option(0.005, within="(0, 1]")
    """Polyak step of the target critics, per critic update."""
    base_tau: float = option(0.001, within="(0, 1]")
    """Polyak step of the averaged base policy, per base update."""
    base_updates: int = option(1, within="[1, inf)")
    """Imitation steps of the base policy per update call, one on each of the last minibatches (and
    no more than there are)."""
    selection: Literal["argmax", "soft"] = "argmax"
    """Take the best sample, or draw i with p ~ exp(softness * Q_i)."""
    softness: float = option(1.0, within="[0, inf)")
    """Inverse temperature of soft selection, per unit of Q."""
    base_data: Literal["all", "successes"] = "all"
    """The base imitates all rows, or successful episodes only (a minibatch without any: its
    demonstrations)."""
    base_weight: Literal["uniform", "shorter", "recent"] = added("uniform", absent="uniform")
    """Which successful episodes count most in imitation, by exp(-z) with z standardised over the
    successes of a minibatch. shorter: z is the length; recent: the age, demonstrations being the
    oldest."""
    acting_base: Literal["ema", "live"] = "ema"
    """Base parameters that act; the TD target always samples the live ones."""
    backup: Backup = "fresh"
    """Where the TD target's base samples come from. fresh: sampled for every row, exact.
    filtered: one of n, kept by a critic of the noise before denoising (FASTER). cached: n that
    the replay keeps per row, renewed at a steady rate. All but fresh approximate."""
    filter_acting: bool = False
    """With filtered backups: also act on the one sample that the filter keeps."""
    cache_refresh: int = option(64, within="[1, inf)")
    """With cached backups: observations whose samples are renewed per update call."""
    hoist_sampling: Literal["auto"] | bool = "auto"
    """Draw the samples of all minibatches in one call, with the same result; auto: where that is
    measured to be faster."""


NAMES = tuple(field.name for field in dataclasses.fields(BestOfNConfig))


def as_expo(config: BestOfNConfig) -> ExpoConfig:
    """EXPO's options that mean the same."""
    options = {name: getattr(config, name) for name in NAMES}
    return ExpoConfig(num_edit_samples=0, **options)


def check(config: BestOfNConfig) -> None:
    """Checks ranges, and options that contradict each other.

    Raises:
        ValueError: naming the options, their values and what is possible.
    """
    check_options(config)
    expo_options.check(as_expo(config))


def resolve(config: BestOfNConfig, measured: Measurements) -> BestOfNConfig:
    """`hoist_sampling` decided, as in EXPO."""
    decided = expo_options.resolve(as_expo(config), measured)
    return dataclasses.replace(config, hoist_sampling=decided.hoist_sampling)


def best_of_n(
    config: BestOfNConfig, spec: Spec, base: BasePolicy | None, precision: Precision = "float32"
) -> Algorithm:
    """The algorithm for one task and one base policy.

    Raises:
        ValueError: options contradict each other, or there is no base policy.
    """
    check(config)
    return expo(as_expo(config), spec, required(base, "best_of_n"), precision)


PRESETS = {name: without_foreign(preset, BestOfNConfig) for name, preset in EXPO_PRESETS.items()}

METRICS = {**CRITIC_METRICS, **FILTER_METRICS}

BEST_OF_N = Entry("best_of_n", BestOfNConfig, best_of_n, check, resolve, PRESETS, METRICS)
