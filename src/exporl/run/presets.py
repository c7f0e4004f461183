"""Presets: option values per algorithm and domain, each with where it comes from.

The sizes of the paper's domains, and two that train on a CPU. `exporl presets` prints them.
"""

from typing import TYPE_CHECKING, Any

from exporl.suggest import closest

if TYPE_CHECKING:
    from exporl.run.config import RunConfig

Preset = dict[str, tuple[Any, str]]
"""Dotted option -> (value, source)."""

TABLE1 = "paper Table 1"
SCRIPT = "official script"
CODE = "official code"
OURS = "measured here: docs/algorithms/expo.md"
SIZE = "chosen for a CPU"

_COMMON: Preset = {
    "train.batch_size": (256, TABLE1),
    "train.utd_ratio": (20, TABLE1),
    "train.discount": (0.99, TABLE1),
    "data.prior_ratio": (0.5, CODE),
    "algo.tau": (0.005, TABLE1),
    "algo.num_qs": (10, TABLE1),
    "algo.num_min_qs": (2, TABLE1),
    "algo.hidden": ((256, 256, 256), TABLE1),
    "algo.critic_learning_rate": (3e-4, TABLE1),
    "algo.initial_temperature": (1.0, CODE),
}
_EXPO: Preset = _COMMON | {
    "base.kind": ("diffusion", TABLE1),
    "base.num_steps": (10, TABLE1),
    "base.width": (256, CODE),
    "base.num_blocks": (3, CODE),
    "base.learning_rate": (3e-4, TABLE1),
    "algo.num_base_samples": (8, TABLE1),
    "algo.num_edit_samples": (8, TABLE1),
}
_ONLINE: Preset = {"train.random_steps": (5_000, SCRIPT), "train.update_after": (5_000, SCRIPT)}
_ADROIT: Preset = {
    "train.online_steps": (300_000, "paper plots"),
    "eval.every": (5_000, TABLE1),
    "eval.episodes": (100, TABLE1),
}
_ANTMAZE: Preset = {**_ADROIT, "algo.num_min_qs": (1, SCRIPT)}
_ROBOMIMIC: Preset = {
    "reward": ("0/1", CODE),
    "train.online_steps": (500_000, "official README"),
    "eval.every": (10_000, TABLE1),
    "eval.episodes": (50, TABLE1),
}
_DOMAINS: dict[str, Preset] = {
    "adroit": _ADROIT,
    "antmaze": _ANTMAZE,
    "robomimic": _ROBOMIMIC,
    "mimicgen": _ROBOMIMIC,
}
# edit_scale online, offline-to-online, imitation steps
_EDITS: dict[str, tuple[float, float, int]] = {
    "adroit": (0.7, 0.7, 20_000),
    "antmaze": (0.05, 0.05, 500_000),
    "robomimic": (0.05, 0.1, 200_000),
    "mimicgen": (0.05, 0.05, 200_000),
}

_SMALL_RUN: Preset = {
    "train.batch_size": (128, SIZE),
    "train.utd_ratio": (4, SIZE),
    "train.online_steps": (20_000, SIZE),
    "eval.every": (2_500, SIZE),
    "log.save_every": (2_500, SIZE),
    "algo.num_qs": (4, SIZE),
    "algo.hidden": ((128, 128), SIZE),
    "algo.initial_temperature": (0.1, OURS),
}
_TINY_RUN: Preset = {**_SMALL_RUN, "train.batch_size": (64, SIZE), "algo.hidden": ((64, 64), SIZE)}
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
_SMALL_EXPO: Preset = {
    "algo.num_base_samples": (4, SIZE),
    "algo.num_edit_samples": (4, SIZE),
    "train.critic_warmup_steps": (1_000, OURS),
    "train.update_after": (200, OURS),
}
_RLPD_START: Preset = {"train.random_steps": (1_000, SIZE), "train.update_after": (1_000, SIZE)}
_BC_OUT = ("algo.tau", "algo.num_qs", "algo.num_min_qs", "algo.hidden", "algo.critic_learning_rate",
           "algo.initial_temperature")  # fmt: skip
_DEMO_RUN: Preset = {
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


def _without(preset: Preset, names: tuple[str, ...]) -> Preset:
    return {name: value for name, value in preset.items() if name not in names}


def _build() -> dict[tuple[str, str], Preset]:
    presets: dict[tuple[str, str], Preset] = {
        ("expo", "paper"): _EXPO,
        ("rlpd", "paper"): _COMMON | _ONLINE,
        ("bc", "paper"): {name: v for name, v in _EXPO.items() if name.startswith("base.")}
        | {"train.offline_steps": (200_000, TABLE1), "train.online_steps": (0, "imitation only")},
    }
    for domain, options in _DOMAINS.items():
        online, tuned, steps = _EDITS[domain]
        source = SCRIPT if domain == "antmaze" else TABLE1
        extra: Preset = {"algo.edit_dropout": (0.1, TABLE1)} if domain == "adroit" else {}
        start: Preset = {} if domain == "adroit" else _ONLINE
        presets["expo", domain] = (
            _EXPO | options | extra | start | {"algo.edit_scale": (online, TABLE1)}
        )
        presets["expo", f"{domain}-pretrained"] = (
            _EXPO
            | options
            | extra
            | {"algo.edit_scale": (tuned, source), "train.offline_steps": (steps, TABLE1)}
        )
        presets["rlpd", domain] = _COMMON | options | start
    sizes = {
        "small": (_SMALL_RUN, _SMALL_BASE, {}),
        "tiny": (_TINY_RUN, _TINY_BASE, {}),
        "demo": (_SMALL_RUN, _TINY_BASE, _DEMO_RUN),
    }
    for size, (run, base, extra) in sizes.items():
        presets["expo", size] = run | base | _SMALL_EXPO | extra
        presets["rlpd", size] = run | _RLPD_START | extra
        presets["bc", size] = (
            _without(run, _BC_OUT) | base | extra | {"train.online_steps": (0, "imitation only")}
        )
    return presets


PRESETS = _build()
"""(algorithm, name) -> preset."""


def check_algorithm(algorithm: str) -> None:
    """Whether there are presets for an algorithm.

    Raises:
        ValueError: there are none; names the closest.
    """
    known = {name for name, _ in PRESETS}
    if algorithm not in known:
        raise ValueError(f"unknown algorithm {algorithm!r}. {closest(algorithm, known)}")


def find_preset(algorithm: str, name: str) -> Preset:
    """A preset's options with their sources.

    Raises:
        ValueError: unknown algorithm or preset; names the closest.
    """
    check_algorithm(algorithm)
    names = [preset for algo, preset in PRESETS if algo == algorithm]
    if name not in names:
        raise ValueError(f"unknown preset {name!r} for {algorithm}. {closest(name, names)}")
    return PRESETS[algorithm, name]


def preset_config(algorithm: str, name: str, task: str) -> "RunConfig[Any]":
    """The configuration of a run that a preset describes.

    Raises:
        ValueError: unknown algorithm or preset; names the closest.
    """
    from exporl.algos import ALGORITHMS  # imports JAX, which listing presets does not need
    from exporl.run.config import RunConfig, override

    preset = find_preset(algorithm, name)
    config = RunConfig(task=task, algo=ALGORITHMS[algorithm][0](), preset=name)
    return override(config, {option: value for option, (value, _) in preset.items()})
