"""The building blocks of presets, each value with where it comes from.

Presets name every option with its dots, as on the command line. The algorithms put theirs together
from these.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from exporl.algos.algorithm import Preset

TABLE1 = "paper Table 1"
SCRIPT = "official script"
CODE = "official code"
OURS = "measured here: docs/algorithms/expo.md"
SIZE = "chosen for a CPU"
STABLE = "benchmarks/stable.py"

LEARNING: Preset = {
    "train.batch_size": (256, TABLE1),
    "train.utd_ratio": (20, TABLE1),
    "train.discount": (0.99, TABLE1),
    "data.prior_ratio": (0.5, CODE),
}
"""How much is learnt from what, in the paper."""
CRITICS: Preset = {
    "algo.tau": (0.005, TABLE1),
    "algo.num_qs": (10, TABLE1),
    "algo.num_min_qs": (2, TABLE1),
    "algo.hidden": ((256, 256, 256), TABLE1),
    "algo.critic_learning_rate": (3e-4, TABLE1),
    "algo.initial_temperature": (1.0, CODE),
}
"""The critics of the paper."""
BASE: Preset = {
    "base.kind": ("diffusion", TABLE1),
    "base.num_steps": (10, TABLE1),
    "base.width": (256, CODE),
    "base.num_blocks": (3, CODE),
    "base.learning_rate": (3e-4, TABLE1),
}
"""The base policy of the paper."""
FROM_SCRATCH: Preset = {
    "train.random_steps": (5_000, SCRIPT),
    "train.update_after": (5_000, SCRIPT),
}
"""How a run begins without a pretrained base policy."""

_ADROIT: Preset = {
    "train.online_steps": (300_000, "paper plots"),
    "eval.every": (5_000, TABLE1),
    "eval.episodes": (100, TABLE1),
}
_ROBOMIMIC: Preset = {
    "reward": ("0/1", CODE),
    "train.online_steps": (500_000, "official README"),
    "eval.every": (10_000, TABLE1),
    "eval.episodes": (50, TABLE1),
}
DOMAINS: Mapping[str, Preset] = {
    "adroit": _ADROIT,
    "antmaze": {**_ADROIT, "algo.num_min_qs": (1, SCRIPT)},
    "robomimic": _ROBOMIMIC,
    "mimicgen": _ROBOMIMIC,
}
"""The domains of the paper."""

_SMALL_RUN: Preset = {
    "train.batch_size": (128, SIZE),
    "train.utd_ratio": (4, SIZE),
    "train.online_steps": (20_000, SIZE),
    "eval.every": (2_500, SIZE),
    "log.save_every": (2_500, SIZE),
}
_TINY_RUN: Preset = {**_SMALL_RUN, "train.batch_size": (64, SIZE)}
_DEMO_RUN: Preset = {
    **_SMALL_RUN,
    "train.online_steps": (5_000, OURS),
    "eval.every": (1_000, OURS),
    "eval.episodes": (50, OURS),
    "log.every": (250, OURS),
    "log.save_every": (1_000, OURS),
    "chunk_length": (4, OURS),
    "train.update_every": (2, OURS),
    "train.utd_ratio": (3, OURS),
    "data.demo_noise": (0.4, OURS),
}
RUNS: Mapping[str, Preset] = {
    "small": _SMALL_RUN,
    "tiny": _TINY_RUN,
    "demo": _DEMO_RUN,
    "paper": LEARNING,
}
"""Options of the run alone, by the name of a preset: what any algorithm can be run with. An
algorithm that does not have the preset gets these, and its own defaults."""

_SMALL_CRITICS: Preset = {
    "algo.num_qs": (4, SIZE),
    "algo.hidden": ((128, 128), SIZE),
    "algo.initial_temperature": (0.1, OURS),
}
SMALL_CRITICS: Mapping[str, Preset] = {
    "small": _SMALL_CRITICS,
    "tiny": {**_SMALL_CRITICS, "algo.hidden": ((64, 64), SIZE)},
    "demo": _SMALL_CRITICS,
}
"""Critics that train on a CPU, by the name of a preset."""

_SMALL_BASE: Preset = {
    "base.kind": ("flow", SIZE),
    "base.num_steps": (5, SIZE),
    "base.width": (128, SIZE),
    "base.num_blocks": (3, SIZE),
    "base.time_dim": (64, SIZE),
    "train.offline_steps": (4_000, SIZE),
}
_TINY_BASE: Preset = {
    **_SMALL_BASE,
    "base.width": (64, SIZE),
    "base.num_blocks": (2, SIZE),
    "base.time_dim": (32, SIZE),
}
SMALL_BASES: Mapping[str, Preset] = {
    "small": _SMALL_BASE,
    "tiny": _TINY_BASE,
    "demo": _TINY_BASE,
}
"""Base policies that train on a CPU, by the name of a preset."""
IMITATION_ONLY: Preset = {"train.online_steps": (0, "imitation only")}
AROUND_A_BASE: Preset = {
    "train.critic_warmup_steps": (1_000, OURS),
    "train.update_after": (200, OURS),
}
"""How a run on a CPU begins where a pretrained base policy can act."""


def without_foreign(preset: Preset, config: type[Any]) -> Preset:
    """A preset without the options of the algorithm, `algo.*`, that an options class lacks."""
    known = {f"algo.{field.name}" for field in dataclasses.fields(config)}
    return {
        name: value
        for name, value in preset.items()
        if name in known or not name.startswith("algo.")
    }


def on_cpus(config: type[Any], own: Preset) -> dict[str, Preset]:
    """The presets of all sizes, for an algorithm around a base policy.

    Args:
        config: its options class.
        own: its own options, the same in every size.
    """
    return {size: {**on_a_cpu(size, config), **own} for size in SMALL_BASES}


def on_a_cpu(size: str, config: type[Any]) -> Preset:
    """The preset of a size, for an algorithm around a base policy."""
    parts = {
        **RUNS[size],
        **SMALL_CRITICS[size],
        **SMALL_BASES[size],
        **AROUND_A_BASE,
    }
    return without_foreign(parts, config)
