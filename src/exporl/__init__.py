"""exporl: stable reinforcement learning with expressive policies (EXPO, arXiv 2507.07986), exact
and fast.

Every public name is imported when it is first used: `import exporl` alone is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers see; `_HOME` says the same to Python
    from exporl.acting.evaluate import EvalResult, evaluate
    from exporl.acting.filming import Film
    from exporl.acting.policy import Policy, load_policy
    from exporl.algos import (
        ALGORITHMS,
        Algorithm,
        BcConfig,
        BestOfNConfig,
        CalqlConfig,
        DacConfig,
        DsrlConfig,
        Entry,
        ExpoConfig,
        FqlConfig,
        IdqlConfig,
        QamConfig,
        QcConfig,
        QsmConfig,
        ResidualConfig,
        RlpdConfig,
        bc,
        best_of_n,
        calql,
        dac,
        dsrl,
        expo,
        find_algorithm,
        fql,
        idql,
        make_algorithm,
        qam,
        qc,
        qsm,
        residual,
        rlpd,
    )
    from exporl.bundle.export import export_bundle
    from exporl.data.episodes import Episode, Normalizer, validate_episodes
    from exporl.data.formats import ReadOptions, load_episodes, load_npz, save_npz
    from exporl.data.from_arrays import from_arrays
    from exporl.data.mixture import Mixture
    from exporl.data.replay import Replay
    from exporl.envs.check import check_task
    from exporl.envs.custom import custom_task
    from exporl.envs.registry import list_tasks, make_task
    from exporl.envs.task import Task
    from exporl.external.remote import RemotePolicy
    from exporl.parallel.seeds import SeedResult, train_seeds
    from exporl.policies import BaseConfig, BasePolicy, diffusion, flow, make_base
    from exporl.report.page import write_report
    from exporl.run.callbacks import Callback
    from exporl.run.config import (
        DataConfig,
        EvalConfig,
        LogConfig,
        RunConfig,
        TrainConfig,
        override,
    )
    from exporl.run.directory import load_config
    from exporl.run.loop import train
    from exporl.run.presets import PRESETS, preset_config
    from exporl.run.session import load_run
    from exporl.run.stopping import Interrupted
    from exporl.serve.client import Client
    from exporl.serve.jumps import JumpLimiter
    from exporl.spec import Spec, Step
    from exporl.types import Batch, Decision

_HOME = {
    "ALGORITHMS": "exporl.algos",
    "Algorithm": "exporl.algos",
    "BaseConfig": "exporl.policies",
    "BasePolicy": "exporl.policies",
    "Batch": "exporl.types",
    "BcConfig": "exporl.algos",
    "BestOfNConfig": "exporl.algos",
    "CalqlConfig": "exporl.algos",
    "Callback": "exporl.run.callbacks",
    "Client": "exporl.serve.client",
    "DacConfig": "exporl.algos",
    "DataConfig": "exporl.run.config",
    "Decision": "exporl.types",
    "DsrlConfig": "exporl.algos",
    "Entry": "exporl.algos",
    "Episode": "exporl.data.episodes",
    "EvalConfig": "exporl.run.config",
    "EvalResult": "exporl.acting.evaluate",
    "ExpoConfig": "exporl.algos",
    "Film": "exporl.acting.filming",
    "FqlConfig": "exporl.algos",
    "IdqlConfig": "exporl.algos",
    "Interrupted": "exporl.run.stopping",
    "JumpLimiter": "exporl.serve.jumps",
    "LogConfig": "exporl.run.config",
    "Mixture": "exporl.data.mixture",
    "Normalizer": "exporl.data.episodes",
    "PRESETS": "exporl.run.presets",
    "Policy": "exporl.acting.policy",
    "QamConfig": "exporl.algos",
    "QcConfig": "exporl.algos",
    "QsmConfig": "exporl.algos",
    "ReadOptions": "exporl.data.formats",
    "RemotePolicy": "exporl.external.remote",
    "Replay": "exporl.data.replay",
    "ResidualConfig": "exporl.algos",
    "RlpdConfig": "exporl.algos",
    "RunConfig": "exporl.run.config",
    "SeedResult": "exporl.parallel.seeds",
    "Spec": "exporl.spec",
    "Step": "exporl.spec",
    "Task": "exporl.envs.task",
    "TrainConfig": "exporl.run.config",
    "bc": "exporl.algos",
    "best_of_n": "exporl.algos",
    "calql": "exporl.algos",
    "check_task": "exporl.envs.check",
    "custom_task": "exporl.envs.custom",
    "dac": "exporl.algos",
    "diffusion": "exporl.policies",
    "dsrl": "exporl.algos",
    "evaluate": "exporl.acting.evaluate",
    "expo": "exporl.algos",
    "export_bundle": "exporl.bundle.export",
    "find_algorithm": "exporl.algos",
    "flow": "exporl.policies",
    "fql": "exporl.algos",
    "from_arrays": "exporl.data.from_arrays",
    "idql": "exporl.algos",
    "list_tasks": "exporl.envs.registry",
    "load_config": "exporl.run.directory",
    "load_episodes": "exporl.data.formats",
    "load_npz": "exporl.data.formats",
    "load_policy": "exporl.acting.policy",
    "load_run": "exporl.run.session",
    "make_algorithm": "exporl.algos",
    "make_base": "exporl.policies",
    "make_task": "exporl.envs.registry",
    "override": "exporl.run.config",
    "preset_config": "exporl.run.presets",
    "qam": "exporl.algos",
    "qc": "exporl.algos",
    "qsm": "exporl.algos",
    "residual": "exporl.algos",
    "rlpd": "exporl.algos",
    "save_npz": "exporl.data.formats",
    "train": "exporl.run.loop",
    "train_seeds": "exporl.parallel.seeds",
    "validate_episodes": "exporl.data.episodes",
    "write_report": "exporl.report.page",
}
"""Public name -> module that defines it."""

__all__ = [
    "ALGORITHMS",
    "PRESETS",
    "Algorithm",
    "BaseConfig",
    "BasePolicy",
    "Batch",
    "BcConfig",
    "BestOfNConfig",
    "Callback",
    "CalqlConfig",
    "Client",
    "DacConfig",
    "DataConfig",
    "Decision",
    "DsrlConfig",
    "Entry",
    "Episode",
    "EvalConfig",
    "EvalResult",
    "ExpoConfig",
    "Film",
    "FqlConfig",
    "IdqlConfig",
    "Interrupted",
    "JumpLimiter",
    "LogConfig",
    "Mixture",
    "Normalizer",
    "Policy",
    "QamConfig",
    "QcConfig",
    "QsmConfig",
    "ReadOptions",
    "RemotePolicy",
    "Replay",
    "ResidualConfig",
    "RlpdConfig",
    "RunConfig",
    "SeedResult",
    "Spec",
    "Step",
    "Task",
    "TrainConfig",
    "bc",
    "best_of_n",
    "calql",
    "check_task",
    "custom_task",
    "dac",
    "diffusion",
    "dsrl",
    "evaluate",
    "expo",
    "export_bundle",
    "find_algorithm",
    "flow",
    "fql",
    "from_arrays",
    "idql",
    "list_tasks",
    "load_config",
    "load_episodes",
    "load_npz",
    "load_policy",
    "load_run",
    "make_algorithm",
    "make_base",
    "make_task",
    "override",
    "preset_config",
    "qam",
    "qc",
    "qsm",
    "residual",
    "rlpd",
    "save_npz",
    "train",
    "train_seeds",
    "validate_episodes",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Imports a public name on its first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, imported or not, and what every module has."""
    return sorted({*globals(), *__all__})
