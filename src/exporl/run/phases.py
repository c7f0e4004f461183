"""The phases of a run: the updates that they need, when they are due, and whether a run can have
them."""

from typing import Any

from exporl.algos import Algorithm
from exporl.policies.base import BaseConfig
from exporl.run.config import RunConfig, TrainConfig, differences
from exporl.speed.compile_ahead import Program

FROM_SCRATCH = (
    "learn from scratch: --data.demos 0 --data.prior-ratio 0 --train.offline-steps 0 "
    "--train.critic-pretrain-steps 0"
)
"""What to ask for where there is no prior data."""
PRETRAIN_SCAN = 100
"""Imitation steps per compiled call."""


def programs(train: TrainConfig) -> list[Program]:
    """The updates that a run will need, in its order."""
    minibatches = train.utd_ratio * train.update_every
    wanted: list[Program] = [
        ("pretrain", min(PRETRAIN_SCAN, train.offline_steps)),
        ("critic_pretrain", minibatches if train.critic_pretrain_steps else 0),
        ("online", minibatches if train.online_steps else 0),
    ]
    return [(phase, num) for phase, num in wanted if num]


def acting_mode(train: TrainConfig, env_steps: int) -> str:
    """How the next step is chosen after so many: "random", "base" (it acts alone) or "policy"."""
    if env_steps < train.random_steps:
        return "random"
    return "base" if env_steps < train.random_steps + train.critic_warmup_steps else "policy"


def update_calls_due(train: TrainConfig, before: int, after: int) -> int:
    """The online update calls that become due between two numbers of environment steps."""
    first, last = (
        max(steps - train.update_after, 0) // train.update_every for steps in (before, after)
    )
    return last - first


def online_updates(train: TrainConfig, calls: int, offline_steps: int, critic_steps: int) -> int:
    """Minibatches learnt from online, of all update calls so far.

    Args:
        train: the amounts of learning.
        calls: update calls over all phases.
        offline_steps: imitation steps among them.
        critic_steps: critic updates of pretraining among them.
    """
    minibatches = train.utd_ratio * train.update_every
    before = -(-offline_steps // PRETRAIN_SCAN) + critic_steps // minibatches
    return (calls - before) * minibatches


def crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies after `before`, up to and including `after`."""
    return after // every > before // every


def check_phases(config: RunConfig[Any], algorithm: Algorithm, *, has_data: bool) -> None:
    """Checks that every phase asked for exists and has what it needs.

    Raises:
        ValueError: naming the option and its value.
    """
    train, name = config.train, config.algorithm
    for option, phase in (
        ("offline_steps", "pretrain"),
        ("critic_pretrain_steps", "critic_pretrain"),
    ):
        if getattr(train, option) and phase not in algorithm.needs.phases:
            raise ValueError(
                f"{name} has nothing to learn in train.{option}={getattr(train, option)}; set it "
                "to 0."
            )
    if train.guard != "off" and not algorithm.has_base:
        raise ValueError(
            f"{name} has no base policy to choose instead: train.guard={train.guard!r} has no"
            " effect; set it to 'off'."
        )
    if train.critic_warmup_steps and not algorithm.has_base:
        raise ValueError(
            f"{name} has no base policy that could act during train.critic_warmup_steps="
            f"{train.critic_warmup_steps}; set it to 0."
        )
    if not algorithm.has_base and (ignored := differences(BaseConfig(), config.base)):
        option, (_, value) = next(iter(ignored.items()))
        raise ValueError(
            f"{name} has no base policy: base.{option}={value} would have no effect; leave it out."
        )
    if (
        train.offline_steps or train.critic_pretrain_steps or config.data.prior_ratio > 0
    ) and not has_data:
        raise ValueError(
            "no prior data: give data.path (a file of episodes) or data.demos (how many to "
            f"collect), or {FROM_SCRATCH}."
        )


def evaluation_due(config: RunConfig[Any], last: int, env_steps: int) -> bool:
    """Whether to evaluate after so many environment steps, the last time having been after `last`
    (-1: never): before the first step and after the last one in any case."""
    options = config.eval
    if last < 0 or (env_steps >= config.train.online_steps and last != env_steps):
        return True
    if options.at:
        return any(last < at <= env_steps for at in options.at)
    return crossed(last, env_steps, options.every)
