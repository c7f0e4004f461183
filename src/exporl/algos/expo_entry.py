"""EXPO as it is registered: how it is built from its options, and its presets."""

from collections.abc import Mapping

import optax
from jaxtyping import Array, Float

from exporl.algos import presets
from exporl.algos.algorithm import Algorithm, Entry, Needs, Preset, compiled
from exporl.algos.base_target import BaseTargetExpo
from exporl.algos.bounds import TargetBounds
from exporl.algos.common import CRITIC_METRICS, CriticTrainer, Imitation, required
from exporl.algos.deploy_noise import alone_while_learning
from exporl.algos.edit_metrics import CHOICE_METRICS, EDIT_METRICS
from exporl.algos.expo import Expo, ExpoState
from exporl.algos.expo_options import ExpoConfig, check, check_outside, resolve
from exporl.algos.filtered import FILTER_METRICS, FilteredExpo
from exporl.algos.presets import SCRIPT, SIZE, STABLE, TABLE1
from exporl.nets.critic import Critic
from exporl.nets.gaussian import TanhGaussian
from exporl.policies.base import BasePolicy, learning_rate
from exporl.types import KeyArray, Observation, Precision, Spec


def make_expo(
    config: ExpoConfig, spec: Spec, base: BasePolicy, precision: Precision = "float32"
) -> Expo:
    """EXPO's functions, with the networks and optimisers that the options describe."""
    critic = Critic(config.hidden, config.num_qs)
    edit = TanhGaussian(config.hidden, spec.chunk_length, spec.action_dim, config.edit_dropout)
    edit_rate = learning_rate(config.edit_learning_rate, config.decay_steps)
    kind = BaseTargetExpo if config.target_policy == "base" else Expo
    return kind(
        config=config,
        spec=spec,
        base=base,
        edit=edit,
        sampling_edit=edit.clone(precision=precision),
        critic=critic,
        ranking_critic=critic.clone(precision=precision),
        imitation=Imitation(
            base, config.base_tau, config.base_data == "successes", config.base_weight
        ),
        critic_trainer=CriticTrainer.adam(
            critic, config.critic_learning_rate, config.tau, TargetBounds.create(config, spec)
        ),
        edit_optimizer=optax.flatten(optax.adam(edit_rate)),
        temperature_optimizer=optax.adam(config.temperature_learning_rate),
    )


def expo(
    config: ExpoConfig, spec: Spec, base: BasePolicy | None, precision: Precision = "float32"
) -> Algorithm:
    """The algorithm for one task and one base policy.

    Raises:
        ValueError: options contradict each other, or there is no base policy.
    """
    check(config)
    base = required(base, "expo")
    if base.outside:
        check_outside(config)
    agent = make_expo(config, spec, base, precision)

    def propose(
        state: ExpoState, observation: Observation, key: KeyArray
    ) -> Float[Array, "b n h a"]:
        """Base samples for the replay to keep, from the live base policy."""
        return agent.propose(state.base.params, observation, key)

    functions = agent
    alone = alone_while_learning(config.deploy_noise_scale)
    columns = agent.critic_trainer.bounds.columns + agent.imitation.columns
    needs = Needs(columns=columns, alone=alone)
    if config.backup == "filtered":
        functions = FilteredExpo.create(agent, precision)
    if config.backup == "cached":
        needs = needs._replace(proposals=config.num_base_samples, refresh=config.cache_refresh)
    elif base.outside:
        needs = needs._replace(attached=config.num_base_samples)
    return compiled(functions, needs, has_base=True, propose=propose)


_PAPER: Preset = {
    **presets.LEARNING,
    **presets.CRITICS,
    **presets.BASE,
    "algo.num_base_samples": (8, TABLE1),
    "algo.num_edit_samples": (8, TABLE1),
}
_ADROIT: Preset = {"algo.edit_dropout": (0.1, TABLE1)}
_SMALL: Preset = {
    "algo.num_base_samples": (4, SIZE),
    "algo.num_edit_samples": (4, SIZE),
}
_STABLE: Preset = {
    "chunk_length": (6, STABLE),
    "algo.backup": ("cached", STABLE),
    "algo.base_data": ("successes", STABLE),
    "algo.base_tau": (0.005, STABLE),
    "algo.base_updates": (4, STABLE),
    "algo.deploy_noise_scale": (0.5, STABLE),
    "algo.min_noise_scale": (0.0, STABLE),
    "algo.edits_act": ("explore", STABLE),
    "algo.pessimistic_start": ("auto", STABLE),
    "algo.return_bound": ("auto", STABLE),
    "algo.clip_targets": ("auto", STABLE),
    "train.guard": ("auto", STABLE),
}
_STABLE_ADROIT: Preset = {
    **_STABLE,
    "algo.base_tau": (0.001, STABLE),
    "algo.base_updates": (1, STABLE),
}


def _online(domain: str, edit_scale: float) -> Preset:
    """Learning from prior data, without a pretrained base policy."""
    start = _ADROIT if domain == "adroit" else presets.FROM_SCRATCH
    scale: Preset = {"algo.edit_scale": (edit_scale, TABLE1)}
    return {**_PAPER, **presets.DOMAINS[domain], **start, **scale}


def _pretrained(domain: str, edit_scale: float, imitation_steps: int) -> Preset:
    """Imitation of the prior data first."""
    extra = _ADROIT if domain == "adroit" else {}
    scale: Preset = {
        "algo.edit_scale": (edit_scale, SCRIPT if domain == "antmaze" else TABLE1),
        "train.offline_steps": (imitation_steps, TABLE1),
    }
    return {**_PAPER, **presets.DOMAINS[domain], **extra, **scale}


def _on_a_cpu(size: str) -> Preset:
    return {
        **presets.on_a_cpu(size, ExpoConfig),
        **_SMALL,
    }


PRESETS: Mapping[str, Preset] = {
    "paper": _PAPER,
    "adroit": _online("adroit", 0.7),
    "adroit-pretrained": _pretrained("adroit", 0.7, 20_000),
    "antmaze": _online("antmaze", 0.05),
    "antmaze-pretrained": _pretrained("antmaze", 0.05, 500_000),
    "robomimic": _online("robomimic", 0.05),
    "robomimic-pretrained": _pretrained("robomimic", 0.1, 200_000),
    "mimicgen": _online("mimicgen", 0.05),
    "mimicgen-pretrained": _pretrained("mimicgen", 0.05, 200_000),
    "small": _on_a_cpu("small"),
    "tiny": _on_a_cpu("tiny"),
    "demo": _on_a_cpu("demo"),
    "stable": {**_on_a_cpu("demo"), **_STABLE},
    "stable-adroit": {**_on_a_cpu("demo"), **_STABLE_ADROIT},
}

METRICS = {**CRITIC_METRICS, **EDIT_METRICS, **CHOICE_METRICS, **FILTER_METRICS}

EXPO = Entry("expo", ExpoConfig, expo, check, resolve, PRESETS, METRICS)
