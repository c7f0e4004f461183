"""Every metric is described beside the code that computes it, and nothing else is described."""

import ast
import dataclasses
import functools
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from exporl.acting.guard import Guard, Outcome
from exporl.algos import (
    ALGORITHMS,
    BcConfig,
    BestOfNConfig,
    CalqlConfig,
    DacConfig,
    DsrlConfig,
    ExpoConfig,
    FqlConfig,
    IdqlConfig,
    QamConfig,
    QcConfig,
    QsmConfig,
    ResidualConfig,
    RlpdConfig,
    described_metrics,
    make_algorithm,
)
from exporl.distributed.learner_service import LearnerService
from exporl.policies import BASES, BaseConfig, make_base
from exporl.run.metrics import METRICS, delays, guard_fields, recent_episodes, time_fields
from exporl.types import PROPOSALS, Spec
from helpers.batches import random_batch

SOURCE = Path(__file__).parent.parent / "src" / "exporl"
SPEC = Spec((("state", (3,), "float32"),), 2, chunk_length=2, value_range=(-10.0, 0.0))
KNOWN_VALUES = {"clip_targets": True, "return_bound": True, "pessimistic_start": True}
OPTIONS = {
    "expo": (
        ExpoConfig(),
        ExpoConfig(num_edit_samples=0),
        ExpoConfig(backup="filtered", filter_acting=True, **KNOWN_VALUES),
        ExpoConfig(backup="cached", edit_value="min"),
        ExpoConfig(selection="soft", backup_entropy=True, base_data="successes", base_updates=2),
        ExpoConfig(base_data="successes", base_weight="shorter"),
    ),
    "best_of_n": (
        BestOfNConfig(),
        BestOfNConfig(backup="filtered", filter_acting=True, **KNOWN_VALUES),
    ),
    "idql": (IdqlConfig(), IdqlConfig(**KNOWN_VALUES)),
    "fql": (FqlConfig(), FqlConfig(**KNOWN_VALUES)),
    "calql": (CalqlConfig(), CalqlConfig(max_backup=False, **KNOWN_VALUES)),
    "dsrl": (DsrlConfig(), DsrlConfig(**KNOWN_VALUES)),
    "dac": (DacConfig(), DacConfig(imitation_weight_rate=0.1, **KNOWN_VALUES)),
    "qsm": (QsmConfig(), QsmConfig(**KNOWN_VALUES)),
    "qam": (QamConfig(), QamConfig(edits=False, **KNOWN_VALUES)),
    "residual": (ResidualConfig(), ResidualConfig(**KNOWN_VALUES)),
    "qc": (QcConfig(), QcConfig(**KNOWN_VALUES)),
    "rlpd": (RlpdConfig(), RlpdConfig(backup_entropy=True, **KNOWN_VALUES)),
    "bc": (BcConfig(), BcConfig(base_data="successes", base_weight="recent")),
}
"""Options of every algorithm that between them make all of its metrics."""
NAME = re.compile(r"[a-z]+/[a-z_]+")


def made(name, config, kind=None):
    """An algorithm with networks of one layer, and the names of the metrics that are described."""
    layers = {"hidden": (8,), "policy_hidden": (8,)}
    config = dataclasses.replace(config, **{k: v for k, v in layers.items() if hasattr(config, k)})
    kind = kind or ("diffusion" if name in ("dac", "qsm") else "flow")
    base = make_base(BaseConfig(kind, num_steps=2, width=8, num_blocks=1, time_dim=4), SPEC)
    algorithm = make_algorithm(name, config, SPEC, base)
    return algorithm, set(described_metrics(name, algorithm, base))


def metrics_of(algorithm, phases=("online",), samples=8):
    """Names of the metrics of updates; nothing is compiled."""
    batches = random_batch(SPEC, 2, 4)
    kept = np.zeros((2, 4, samples, SPEC.chunk_length, SPEC.action_dim), np.float32)
    names = ("return_bound", "data_return", "episode_length", "episode_number")
    per_row = {name: np.zeros((2, 4), np.float32) for name in names}
    batches = batches.replace(extra={PROPOSALS: kept, **per_row})
    state, names = jax.eval_shape(algorithm.init, jax.random.key(0)), set()
    for phase in phases:
        update = functools.partial(algorithm.update, phase=phase)
        names |= set(jax.eval_shape(update, state, batches, jax.random.key(1))[1])
    return names


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_updates_log_what_is_described_and_nothing_else(name):
    algorithms = [made(name, config)[0] for config in OPTIONS[name]]
    logged = metrics_of(algorithms[0], algorithms[0].needs.phases)
    assert logged.union(*map(metrics_of, algorithms[1:])) == made(name, OPTIONS[name][0])[1]


@pytest.mark.parametrize("kind", BASES)
def test_base_policies_log_what_they_describe(kind):
    algorithm, described = made("bc", BcConfig(), kind)
    assert metrics_of(algorithm) == described == {"base/loss"}


def test_an_undescribed_metric_is_found():
    algorithm, described = made("bc", BcConfig())

    def update(state, batches, key, *, phase):
        state, metrics = algorithm.update(state, batches, key, phase=phase)
        return state, metrics | {"base/new": metrics["base/loss"]}

    assert metrics_of(algorithm._replace(update=update)) - described == {"base/new"}


def test_the_loop_logs_what_is_described_and_nothing_else():
    outcome = Outcome(3, success=True, length=3, total_reward=1.0, arm="base")
    actors = LearnerService(2, 1, 100, int, print).metrics()
    logged = (
        recent_episodes([outcome])
        | guard_fields(Guard("success"), [outcome])
        | delays(1.0, 2.0)
        | time_fields(1.0, env_steps_per_s=2.0, eval_s=3.0)
        | {name: value for name, value in actors.items() if name.count("/") == 1}
    )
    assert set(logged) == set(METRICS)
    per_actor = {name.rpartition("/")[0] for name in actors if name.count("/") == 2}
    assert per_actor == {"actors/staleness_updates"}


def test_delays_that_there_are_none_of():
    assert delays(None, np.nan) == {} and delays(0.0, np.nan) == {"rollout/staleness_updates": 0.0}


def named(tree: ast.AST) -> set[str]:
    """Names of metrics that a file gives values to: keys of dictionaries, and what is assigned."""
    keys = [key for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys]
    keys += [
        node.slice
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
    ]
    texts = {key.value for key in keys if isinstance(key, ast.Constant)}
    return {text for text in texts if isinstance(text, str) and NAME.fullmatch(text)}


def described(tree: ast.Module) -> set[str]:
    """Keys of a module's dictionaries `METRICS` and `..._METRICS`."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("METRICS"):
            found |= named(node.value)
    return found


@pytest.mark.parametrize("room", ["algos", "policies", "run"])
def test_descriptions_stand_in_the_file_that_logs(room):
    """So that a metric is added in one file."""
    trees = {path: ast.parse(path.read_text()) for path in (SOURCE / room).glob("*.py")}
    assert any(described(tree) for tree in trees.values())
    for path, tree in trees.items():
        assert named(tree) <= described(tree), path.name


def test_descriptions_elsewhere_are_found():
    text = (
        'METRICS = {"a/b": "what"}\n\ndef f(x):\n    x["a/d"] = 1\n    return {"a/b": 1, "a/c": 2}'
    )
    tree = ast.parse(text)
    assert named(tree) - described(tree) == {"a/c", "a/d"}
