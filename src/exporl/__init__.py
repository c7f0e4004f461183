"""exporl: stable reinforcement learning with expressive policies (EXPO, arXiv 2507.07986), exact and fast."""

from exporl.algos import (
    ALGORITHMS,
    Algorithm,
    BcConfig,
    Entry,
    ExpoConfig,
    RlpdConfig,
    bc,
    expo,
    find_algorithm,
    make_algorithm,
    rlpd,
)
from exporl.config import DataConfig, EvalConfig, LogConfig, RunConfig, TrainConfig, override
from exporl.data.episodes import Episode, Normalizer, validate_episodes
from exporl.data.formats import ReadOptions, load_episodes, load_npz, save_npz
from exporl.data.from_arrays import from_arrays
from exporl.data.mixture import Mixture
from exporl.data.replay import Replay
from exporl.envs import Task, check_task, custom_task, list_tasks, make_task
from exporl.evaluate import EvalResult, evaluate
from exporl.policies import BaseConfig, BasePolicy, diffusion, flow, make_base
from exporl.presets import PRESETS, preset_config
from exporl.report import write_report
from exporl.runs import load_config
from exporl.seeds import SeedResult, train_seeds
from exporl.session import load_run
from exporl.train import train
from exporl.types import Batch, Decision, Spec, Step

__all__ = [
    "ALGORITHMS",
    "PRESETS",
    "Algorithm",
    "BaseConfig",
    "BasePolicy",
    "Batch",
    "BcConfig",
    "DataConfig",
    "Decision",
    "Entry",
    "Episode",
    "EvalConfig",
    "EvalResult",
    "ExpoConfig",
    "LogConfig",
    "Mixture",
    "Normalizer",
    "ReadOptions",
    "Replay",
    "RlpdConfig",
    "RunConfig",
    "SeedResult",
    "Spec",
    "Step",
    "Task",
    "TrainConfig",
    "bc",
    "check_task",
    "custom_task",
    "diffusion",
    "evaluate",
    "expo",
    "find_algorithm",
    "flow",
    "from_arrays",
    "list_tasks",
    "load_config",
    "load_episodes",
    "load_npz",
    "load_run",
    "make_algorithm",
    "make_base",
    "make_task",
    "override",
    "preset_config",
    "rlpd",
    "save_npz",
    "train",
    "train_seeds",
    "validate_episodes",
    "write_report",
]
