"""A run's configuration: frozen dataclasses, JSON there and back, differences by name."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Generic, Literal, TypeVar

from exporl.algos import ALGORITHMS, check_config, find_algorithm, name_of
from exporl.data.formats.record import ReadOptions
from exporl.envs.task import Reward
from exporl.external.base import GIVEN
from exporl.options import MOST_EPISODES, SEEDS, check_options, option
from exporl.outside import is_outside
from exporl.plain import added, from_plain
from exporl.policies import BaseConfig
from exporl.suggest import closest
from exporl.types import Precision

AlgoT = TypeVar("AlgoT")
COLLECTED = 20
"""Demonstrations that are collected where nobody says how many."""
ENVIRONMENTS = "[1, 10000]"
"""Environments that one process can step one after the other."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Prior data and replay."""

    path: str | None = None
    """File or folder of episodes in any known format; without it demonstrations are collected from
    the task's scripted expert."""
    format: str | None = added(None, absent=None)
    """How to read the file: a format's name, see docs/data.md; recognised from the file by
    default."""
    keys: tuple[str, ...] = added((), absent=())
    """Observation entries to read, in this order; all of them by default."""
    filter_key: str | None = added(None, absent=None)
    """Read only the demonstrations listed under mask/<filter_key> (robomimic)."""
    horizon: int | None = option(None, within="[1, inf)", absent=None)
    """Steps after which episodes end where the file marks no time limits (D4RL, arrays)."""
    images: bool = added(False, absent=False)
    """Also decode the videos (LeRobot; slow)."""
    assume_success: bool = added(False, absent=False)
    """All episodes are successful demonstrations, where neither success nor reward is recorded
    (LeRobot)."""
    skip_bad: bool = False
    """Leave out damaged episodes of the file, and say which, instead of stopping."""
    demos: int | None = option(None, within=f"[0, {MOST_EPISODES}]")
    """Episodes to take from the file, in order, or to collect without one; by default the whole
    file, or 20 collected. 0: no prior data, or the whole file."""
    demo_noise: float = option(0.3, within="[0, inf)")
    """Standard deviation of the noise on the scripted expert's actions."""
    demo_seed: int = option(0, within=SEEDS)
    """Seed of the collection; independent of the run's seed, so that seeds share their data."""
    prior_ratio: float = option(0.5, within="[0, 1]")
    """Share of prior data in every minibatch; the rest is online data. 0: only imitation and the
    critics' pretraining see it."""
    capacity: int = option(1_000_000, within="[1, inf)")
    """Online rows kept per environment (steps plus one per episode)."""
    storage: Literal["memory", "disk"] = added("memory", absent="memory")
    """Where images, and other observation entries of a page or more, of the online replay lie: in
    memory, or in files that are mapped into it, so that they may exceed it. Nothing else
    differs."""
    scratch: str | None = added(None, absent=None)
    """A folder for the files of data.storage=disk; the run's own by default."""
    bootstrap_timeouts: bool = True
    """Bootstrap at time limits. The release's robosuite wrapper stores them as terminal (False)."""

    @property
    def collected(self) -> int:
        """Episodes that are collected where there is no file."""
        return COLLECTED if self.demos is None else self.demos

    @property
    def reading(self) -> ReadOptions:
        """What is read of the file."""
        names = [field.name for field in dataclasses.fields(ReadOptions)]
        return ReadOptions(**{name: getattr(self, name) for name in names})


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How much is learnt from what, and when."""

    offline_steps: int = option(0, within="[0, inf)")
    """Imitation steps of the base policy before anything else."""
    critic_pretrain_steps: int = option(0, within="[0, inf)")
    """Critic updates on prior data alone, with the on-the-fly backup, before acting."""
    online_steps: int = option(100_000, within="[0, inf)")
    """Environment steps, over all environments."""
    random_steps: int = option(0, within="[0, inf)")
    """Uniformly random actions for so many environment steps at the start (online from scratch:
    5000)."""
    critic_warmup_steps: int = option(0, within="[0, inf)")
    """After them, the base policy acts alone for so many steps while the critic learns (the
    release: 0)."""
    update_after: int = option(0, within="[0, inf)")
    """Environment steps before the first update."""
    update_every: int = option(1, within="[1, inf)")
    """Environment steps per update call."""
    utd_ratio: int = option(20, within="[1, inf)")
    """Critic updates per environment step (update-to-data ratio)."""
    batch_size: int = option(256, within="[1, inf)")
    """Rows per minibatch."""
    devices: int = option(1, within="[1, inf)", absent=1)
    """Devices that share the rows of every minibatch, each with all parameters (--devices). With
    --seeds each device trains its share of the seeds instead."""
    asynchronous: bool = False
    """Act and learn at the same time, in two threads, at the same update-to-data ratio (--async).
    Not repeatable to the bit."""
    actors: int = option(0, within="[0, 10000]", absent=0)
    """Processes of their own that step the environments while this one learns (--actors), on Ray:
    num_envs / actors environments each. 0: this process steps them. Not repeatable to the bit: the
    order in which steps arrive depends on timing."""
    discount: float = option(0.99, within="[0, 1]")
    """Per environment step (gamma)."""
    guard: Literal["off", "auto", "success", "return"] = added("off", absent="off")
    """Choose between the base policy alone and the policy around it by how their last episodes
    went, measured by success or by return: who acts in the next training episode, and who is
    deployed. auto: by success where that is what the environment pays for, else by return."""
    prefetch: bool = True
    """Draw the next update's rows while the device is busy with this one: they cannot include the
    step in between. False draws them afterwards, as the release does."""
    divergence: Literal["warn", "stop"] = added("warn", absent="warn")
    """What to do when critics say values far outside what rewards and discount allow: say it once,
    or end the run."""


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluation, on environments and seeds of its own; it never changes training."""

    every: int = option(5_000, within="[1, inf)")
    """Environment steps between evaluations; there is one before the first step and one after the
    last."""
    at: tuple[int, ...] = option((), within="[0, inf)", absent=())
    """Environment steps at which to evaluate, instead of `every`; beside the first and the last."""
    episodes: int = option(50, within=f"[1, {MOST_EPISODES}]")
    """Episodes per evaluation, the same starts every time."""
    num_envs: int = option(10, within=ENVIRONMENTS)
    """Environments stepped together."""
    seed: int = option(1_000_003, within=SEEDS)
    """Fixes the starts; shared by all runs, so that results pair up."""
    base: bool = True
    """Also evaluate the base policy alone on the same starts."""
    unedited: bool = added(False, absent=False)
    """Also evaluate the policy without edits, the best of its base samples, on the same starts."""


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """Metrics and checkpoints."""

    every: int = option(500, within="[1, inf)")
    """Environment steps (while pretraining: imitation steps) between lines of metrics."""
    save_every: int = option(5_000, within="[1, inf)")
    """Environment (or pretraining) steps between checkpoints."""
    keep: int = option(2, within="[1, inf)")
    """Checkpoints kept."""
    silence_s: float = option(120.0, within="(0, inf)", absent=120.0)
    """Seconds without an answer of an environment after which the run says where it waits."""


@dataclasses.dataclass(frozen=True)
class RunConfig(Generic[AlgoT]):
    """Everything that defines a run; written to config.json with its effective values."""

    task: str
    """Task name, `family/name`; `exporl tasks` lists them. Or `module:function` of your own: it
    returns an environment or a Task."""
    algo: AlgoT
    """Options of the algorithm."""
    algorithm: str = ""
    """The algorithm: a name that `exporl presets` lists, or `module:attribute` of your own: an
    `Entry` or a function that returns one. Left out, it is found from `algo`."""
    preset: str = "small"
    """Where the defaults come from; `exporl presets` lists them."""
    seed: int = option(0, within=SEEDS)
    """Training seed."""
    reward: Reward = "-1/0"
    """Learning reward: -1 per step and 0 at success, 0 and 1, or the environment's own."""
    num_envs: int = option(1, within=ENVIRONMENTS)
    """Environments that collect online data, each its own stream in the replay."""
    chunk_length: int = option(1, within="[1, inf)")
    """Actions predicted at once (h)."""
    execute_length: int | None = None
    """Actions played of each chunk; all of them by default."""
    precision: Precision = "float32"
    """Of the matrix products that sample the base policy and rank candidates: bfloat16 is faster
    and rounds them. Parameters, optimisers, TD targets and all training stay float32."""
    base: BaseConfig = dataclasses.field(default_factory=BaseConfig)
    """The base policy."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    """Prior data and replay."""
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    """Amounts and phases of learning."""
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    """Evaluation."""
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    """Metrics and checkpoints."""

    def __post_init__(self) -> None:
        """Names the algorithm where it was left out.

        Raises:
            ValueError: the options belong to an algorithm of your own, which has to be named.
        """
        if not self.algorithm:
            object.__setattr__(self, "algorithm", name_of(self.algo))

    @property
    def actions_played(self) -> int:
        """Actions played of each chunk."""
        return self.chunk_length if self.execute_length is None else self.execute_length


def check(config: RunConfig[Any]) -> None:
    """Checks ranges and combinations that no single part can see.

    Raises:
        ValueError: naming the option, its value and what is possible.
    """
    check_config(config.algorithm, config.algo)
    for name in ("", "base.", "data.", "train.", "eval.", "log."):
        check_options(getattr(config, name[:-1]) if name else config, name)
    _check_shares(config.train.batch_size, config.data.prior_ratio)
    _check_devices(config.train.batch_size, config.train.devices)
    if config.data.path is None and (asked := _of_a_file(config.data)):
        raise ValueError(
            f"data.{asked[0]} says how a file is read, and there is none: give data.path as well, "
            "or leave it out."
        )
    _check_actors(config)
    if config.data.scratch is not None and config.data.storage != "disk":
        raise ValueError(
            f"data.scratch={config.data.scratch!r} has no effect: data.storage is "
            f"{config.data.storage!r}. Set data.storage to 'disk', or leave data.scratch out."
        )
    if not 1 <= config.actions_played <= config.chunk_length:
        raise ValueError(
            f"execute_length must be between 1 and chunk_length={config.chunk_length}, got "
            f"{config.execute_length}."
        )


def _check_actors(config: RunConfig[Any]) -> None:
    """Whether environments can be shared among actors, and who acts is decided here alone."""
    actors = config.train.actors
    if not actors:
        return
    if config.num_envs % actors:
        raise ValueError(
            f"num_envs={config.num_envs} environments cannot be shared equally among train.actors="
            f"{actors}: set num_envs to {actors} or a multiple of it."
        )
    for option_name, value, off in (
        ("train.guard", config.train.guard, "off"),
        ("base.policy", config.base.policy, None),
    ):
        if value != off:
            raise ValueError(
                f"{option_name}={value} works in one process only: leave train.actors={actors} "
                f"out, or set {option_name} to {off}."
            )


def with_given(config: RunConfig[Any], base: Any) -> RunConfig[Any]:
    """The configuration of a run whose base policy is handed over in Python, unless it is None:
    it says so, where it does not name the policy."""
    if base is None or config.base.policy is not None:
        return config
    return override(config, {"base.policy": GIVEN})


def _check_shares(batch_size: int, prior_ratio: float) -> None:
    """Whether prior and online data both get rows of a minibatch, where both are to."""
    prior = round(prior_ratio * batch_size)
    if 0 < prior_ratio < 1 and not 1 <= prior <= batch_size - 1:
        raise ValueError(
            f"train.batch_size={batch_size} cannot be shared with data.prior_ratio={prior_ratio:g}"
            ": some source gets no row."
        )


def _check_devices(batch_size: int, devices: int) -> None:
    """Whether every device gets the same number of rows."""
    if left := batch_size % devices:
        fits = [size for size in (batch_size - left, batch_size - left + devices) if size]
        raise ValueError(
            f"train.batch_size={batch_size} rows cannot be split over train.devices={devices}: "
            f"{left} are left over. Set train.batch_size to {' or '.join(map(str, fits))}."
        )


def _of_a_file(data: DataConfig) -> tuple[str, ...]:
    """The options given that mean something for a file only."""
    return (("format",) if data.format is not None else ()) + data.reading.asked()


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted names -> values of all nested options."""
    result: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            result |= flatten(value, name + ".")
        else:
            result[name] = value
    return result


def override(config: Any, values: dict[str, Any]) -> Any:
    """A copy with dotted options replaced.

    Raises:
        ValueError: an option does not exist; names the closest.
    """
    check_names(config, values)
    return _override(config, values, "")


def check_names(config: Any, names: Iterable[str]) -> None:
    """Whether a configuration has these dotted options.

    Raises:
        ValueError: an option does not exist; names the closest.
    """
    known = flatten(config)
    for name in names:
        if name not in known:
            raise ValueError(f"unknown option {name!r}. {closest(name, known)}")


def _override(config: Any, values: dict[str, Any], prefix: str) -> Any:
    changes = {}
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            changes[field.name] = _override(value, values, name + ".")
        elif name in values:
            changes[field.name] = values[name]
    return dataclasses.replace(config, **changes)


def differences(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """Dotted name -> (old, new) for every option that differs."""
    before, after = flatten(old), flatten(new)
    names = sorted(set(before) | set(after))
    return {n: (before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)}


def to_json(config: RunConfig[Any]) -> dict[str, Any]:
    """Plain values."""
    return dataclasses.asdict(config)


def from_json(data: dict[str, Any]) -> RunConfig[Any]:
    """Inverse of `to_json`.

    Raises:
        ValueError: unknown or missing options, or a value of the wrong type; names the option.
    """
    data = dict(data)
    name = str(data.get("algorithm"))
    if name not in ALGORITHMS and not is_outside(name):
        raise ValueError(
            f"config has the unknown algorithm {data.get('algorithm')!r}."
            f" {closest(name, ALGORITHMS)}"
        )
    return from_plain(RunConfig, data, generics={AlgoT: find_algorithm(name).config})
