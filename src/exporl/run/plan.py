"""What will happen in a run, in words, before it begins."""

from typing import Any

from exporl.algos import Algorithm
from exporl.run.config import RunConfig
from exporl.run.phases import update_calls_due
from exporl.run.progress import duration


def plan(config: RunConfig[Any], algorithm: Algorithm, seconds: float | None = None) -> str:
    """Who acts until when, how much is learnt and how long it takes, in one line.

    Args:
        config: of the run.
        algorithm: whether it has a base policy that a guard can choose.
        seconds: what the run takes, evaluations included; None: no run of its kind has finished
            here yet.
    """
    train = config.train
    parts = []
    if train.offline_steps:
        parts.append(f"{train.offline_steps:,} imitation steps")
    if train.critic_pretrain_steps:
        parts.append(f"{train.critic_pretrain_steps:,} critic updates on the prior data")
    if train.online_steps:
        parts.append(f"{train.online_steps:,} environment steps: {_who_acts(config, algorithm)}")
        calls = update_calls_due(train, 0, train.online_steps)
        minibatches = train.utd_ratio * train.update_every
        parts.append(
            f"{calls:,} update calls of {minibatches} minibatches from step "
            f"{train.update_after + train.update_every:,} on"
        )
    if not parts:
        return "plan: nothing to learn"
    if seconds is None:
        parts.append("how long is not known until a run of this kind has finished here")
    else:
        parts.append(f"about {duration(seconds)} in all, as the last run of this kind took here")
    return "plan: " + "; ".join(parts)


def _who_acts(config: RunConfig[Any], algorithm: Algorithm) -> str:
    train, last = config.train, config.train.online_steps
    begins = train.random_steps + train.critic_warmup_steps
    acts = []
    if train.random_steps:
        acts.append(f"random actions until step {min(train.random_steps, last):,}")
    if train.critic_warmup_steps and train.random_steps < last:
        acts.append(f"the base policy alone until step {min(begins, last):,}")
    if begins < last:
        guarded = train.guard != "off" and algorithm.has_base
        whom = "whichever of base and policy does better" if guarded else "the policy"
        acts.append(f"then {whom}" if acts else whom)
    return ", ".join(acts)


def never_happens(config: RunConfig[Any]) -> list[str]:
    """What of an online run would never happen, each with what to change."""
    train = config.train
    if not train.online_steps:
        return []
    found = []
    begins = train.random_steps + train.critic_warmup_steps
    if begins >= train.online_steps:
        found.append(
            f"the policy never acts in training: it begins after step {begins:,} "
            f"(train.random_steps + train.critic_warmup_steps) of {train.online_steps:,} "
            "(train.online_steps). Lower the former or raise the latter."
        )
    if not update_calls_due(train, 0, train.online_steps):
        found.append(
            f"nothing is learnt online: the first update is due after step "
            f"{train.update_after + train.update_every:,} (train.update_after + "
            f"train.update_every) of {train.online_steps:,} (train.online_steps). Lower the "
            "former or raise the latter."
        )
    return found
