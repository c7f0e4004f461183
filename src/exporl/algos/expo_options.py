"""The options of EXPO."""

import dataclasses
from typing import Literal

from exporl.algos.algorithm import Measurements
from exporl.algos.base_weight import check_imitation
from exporl.algos.bounds import BoundOptions
from exporl.algos.deploy_noise import noise_in
from exporl.options import check_members, option, sizes
from exporl.plain import added
from exporl.types import Mode

Backup = Literal["fresh", "filtered", "cached"]


@dataclasses.dataclass(frozen=True)
class ExpoConfig(BoundOptions):
    """EXPO. Defaults are Table 1 of the paper where it has the number, else the official code."""

    num_base_samples: int = 8
    """Actions n that the base policy proposes per observation (paper: N)."""
    num_edit_samples: int = 8
    """How many of them are also edited; 0 turns EXPO into best-of-n."""
    edit_scale: float = option(0.1, within="(0, 2]", advice="for no edits set num_edit_samples=0")
    """Largest edit per action dimension, in units of the [-1, 1] range (paper: beta)."""
    edit_value: Literal["mean", "min"] = added("mean", absent="mean")
    """What edits are moved towards: the mean over all critics, or their minimum."""
    edits_act: Literal["always", "explore"] = added("always", absent="always")
    """When edits are candidates for acting: always, or only while learning. The TD target always
    has them."""
    min_noise_scale: float = option(1.0, within="[0, 1]", absent=1.0)
    """Scale of the noise that the first of the n base samples is decoded from; it rises evenly to
    1 at the last. 1: all are samples of the base policy. 0: the first is its central action."""
    deploy_noise_scale: float = option(1.0, within="[0, 1]", absent=1.0)
    """Factor on the noise that base samples are decoded from outside training, by the base policy
    alone and by the policy around it. Below 1 they act closer to the base's central action, without
    the noise of the demonstrations, while training explores with all of it."""
    num_qs: int = 10
    """Critics in the ensemble."""
    num_min_qs: int = 2
    """Critics in each minimum (1 for AntMaze)."""
    hidden: tuple[int, ...] = sizes(256, 256, 256)
    """Hidden layers of the critics and of the edit policy."""
    critic_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the critics."""
    edit_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the edit policy at the start."""
    temperature_learning_rate: float = option(3e-4, within="[0, inf)")
    """Adam step size of the log temperature."""
    decay_steps: int = option(3_000_000, within="[0, inf)")
    """Edit updates over which its learning rate falls to 0 on a cosine; 0: constant."""
    tau: float = option(0.005, within="(0, 1]")
    """Polyak step of the target critics, per critic update."""
    base_tau: float = option(0.001, within="(0, 1]")
    """Polyak step of the averaged base policy, per base update."""
    base_updates: int = option(1, within="[0, 1000]", absent=1)
    """Imitation steps of the base policy per update call, one on each of the last minibatches (and
    no more than there are). 0: online it stays as it was after imitation."""
    initial_temperature: float = option(1.0, within="(0, inf)")
    """Entropy weight at the start (paper: alpha). Scale it with the reward."""
    edit_dropout: float = option(0.0, within="[0, 1)")
    """Dropout of the edit policy while it is trained (Adroit: 0.1)."""
    entropy_scale: float = option(1.0, within="[0, inf)")
    """Factor on the entropy term of the edit loss."""
    target_entropy: Literal["attainable", "released"] | float = option(
        "attainable", within="(-inf, inf)"
    )
    """Entropy that the temperature steers the scaled edit towards. attainable: -d/2 + d
    ln(edit_scale); released: -d/2; or a number of nats."""
    clip_edits: bool = True
    """Clip edited actions to [-1, 1]; the release does not."""
    selection: Literal["argmax", "soft"] = "argmax"
    """Take the best candidate, or draw i with p ~ exp(softness * Q_i)."""
    softness: float = option(1.0, within="[0, inf)")
    """Inverse temperature of soft selection (kappa), per unit of Q."""
    backup_entropy: bool = False
    """With soft selection: bootstrap from Q - temperature * log p(choice)."""
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
    target_policy: Literal["on-the-fly", "base"] = added("on-the-fly", absent="on-the-fly")
    """Whose next action the TD target values: the on-the-fly policy's, or (an ablation) one sample
    of the base policy's, as the on-the-fly policy acts only."""
    filter_acting: bool = False
    """With filtered backups: also act on the one sample that the filter keeps."""
    cache_refresh: int = option(64, within="[1, inf)")
    """With cached backups: observations whose samples are renewed per update call."""
    hoist_sampling: Literal["auto"] | bool = "auto"
    """Draw the candidates of all minibatches in one call, with the same result; auto: where that
    is measured to be faster."""

    def edits_in(self, mode: Mode) -> bool:
        """Whether edits are candidates in a mode: never in "base" and "unedited"."""
        return mode == "explore" or (mode == "evaluate" and self.edits_act == "always")

    def noise_in(self, mode: Mode) -> float:
        """Factor on the noise of base samples in a mode."""
        return noise_in(mode, self.deploy_noise_scale)


def check(config: ExpoConfig) -> None:
    """Checks ranges, and options that contradict each other.

    Raises:
        ValueError: naming the options, their values and what is possible.
    """
    check_imitation(config)
    check_members(config.num_qs, config.num_min_qs)
    num, edits = config.num_base_samples, config.num_edit_samples
    if not 0 <= edits <= num or num < 1:
        raise ValueError(
            f"num_edit_samples must be between 0 and num_base_samples={num} (at least 1), "
            f"got {edits}: every edit starts from one base sample."
        )
    if config.backup_entropy and config.selection != "soft":
        raise ValueError(
            "backup_entropy needs selection='soft': the best candidate has log probability 0."
        )
    if config.min_noise_scale != 1 and config.backup == "filtered":
        raise ValueError(
            f"min_noise_scale={config.min_noise_scale} needs backup='fresh' or 'cached': a filter "
            "draws noise of its own."
        )
    if config.deploy_noise_scale != 1 and config.filter_acting:
        raise ValueError(
            f"deploy_noise_scale={config.deploy_noise_scale} has no effect with filter_acting: the "
            "filter draws noise of its own."
        )
    _check_backup(config)
    _check_effect(config, "cache_refresh", "backup", "cached")
    _check_effect(config, "softness", "selection", "soft")


def check_outside(config: ExpoConfig) -> None:
    """Checks the options against a base policy from outside, whose noise is its own.

    Raises:
        ValueError: one asks for noise of a certain kind; says what is possible.
    """
    if config.backup == "filtered":
        raise ValueError(
            "backup='filtered' chooses among the noise that a base policy decodes, and one from "
            "outside draws its own: use 'fresh' or 'cached'."
        )
    scales = {
        "min_noise_scale": config.min_noise_scale,
        "deploy_noise_scale": config.deploy_noise_scale,
    }
    for name, scale in scales.items():
        if scale != 1:
            raise ValueError(
                f"{name}={scale} scales the noise that a base policy decodes, and one from outside "
                "draws its own: set it to 1."
            )


def _check_backup(config: ExpoConfig) -> None:
    if config.filter_acting and config.backup != "filtered":
        raise ValueError(
            f"filter_acting needs backup='filtered', got backup={config.backup!r}: there is no "
            "filter to act with."
        )
    if config.target_policy == "base" and config.backup == "filtered":
        raise ValueError(
            "target_policy='base' needs backup='fresh' or 'cached': a filter is there to choose "
            "the sample that the TD target values."
        )
    if config.hoist_sampling is not True:
        return
    if config.backup == "filtered":
        raise ValueError(
            "hoist_sampling=True needs candidates that stand still: the filter learns at every "
            "minibatch."
        )
    if config.backup == "cached":
        raise ValueError(
            "hoist_sampling=True has nothing to hoist with backup='cached': nothing is sampled."
        )


def _check_effect(config: ExpoConfig, name: str, needed: str, needed_value: str) -> None:
    """An option that another one switches off must have its default."""
    value = getattr(config, name)
    if value != getattr(ExpoConfig, name) and getattr(config, needed) != needed_value:
        raise ValueError(
            f"{name}={value} has no effect with {needed}={getattr(config, needed)!r}: "
            f"it needs {needed}={needed_value!r}."
        )


def resolve(config: ExpoConfig, measured: Measurements) -> ExpoConfig:
    """`hoist_sampling` decided: only fresh backups draw candidates that stand still."""
    if config.hoist_sampling != "auto":
        return config
    hoist = config.backup == "fresh" and measured.hoisting_pays(config.num_base_samples)
    return dataclasses.replace(config, hoist_sampling=hoist)
