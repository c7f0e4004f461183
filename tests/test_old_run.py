"""A run made by the version before the options and rooms of today is still of use.

tests/data/old_run was trained, evaluated (expected.json: seed 5, 20 episodes) and resumed to 80
steps (resumed.json) by that version. Tolerances cover another processor's rounding.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from exporl.acting.evaluate import evaluate
from exporl.acting.policy import load_policy
from exporl.algos import ALGORITHMS
from exporl.cli.main import main
from exporl.envs.registry import make_task
from exporl.files import checkpoint
from exporl.files.atomic import read_lines
from exporl.files.run_files import read_config
from exporl.plain import ABSENT
from exporl.policies import BaseConfig
from exporl.run.config import (
    DataConfig,
    EvalConfig,
    LogConfig,
    RunConfig,
    TrainConfig,
    flatten,
)
from exporl.run.directory import load_config
from helpers.runs import newest

OLD = Path(__file__).parent / "data" / "old_run"
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def same_evaluation(got: dict, expected: dict) -> None:
    assert got.keys() - {"values", "discounted", "cut_off"} == expected.keys()
    assert (got["success"], got["lengths"]) == (expected["success"], expected["lengths"])
    np.testing.assert_allclose(got["returns"], expected["returns"], **ROUNDING)
    for name in ("success_rate", "return_mean", "length_mean"):
        assert got[name] == pytest.approx(expected[name], abs=1e-6)


@pytest.mark.slow
def test_it_is_evaluated(run, capsys):
    (run / "demonstrations.npz").unlink()
    assert main(["eval", str(run), "--episodes", "20", "--seed", "5"]) == 0
    assert "same 20 starts" in capsys.readouterr().out
    got = read_lines(run / "eval_afterwards.jsonl")[-1]
    expected = json.loads((OLD / "expected.json").read_text())
    for who in ("policy", "base"):
        same_evaluation(got[who], expected[who])


@pytest.mark.slow
def test_its_policy_acts(run):
    """The evaluation again, by the policy in its environments."""
    (run / "demonstrations.npz").unlink()
    policy, task = load_policy(run), make_task("probe/bandit")
    expected = json.loads((OLD / "expected.json").read_text())
    for mode, who in (("evaluate", "policy"), ("base", "base")):
        result = evaluate(
            [task.make_env() for _ in range(10)],
            policy.algorithm.act,
            policy.parameters,
            task.reward,
            mode=mode,
            episodes=20,
            seed=5,
            execute_length=policy.execute_length,
        )
        same_evaluation(result.to_json(), expected[who])
    action = policy.act(np.zeros(2), seed=0)
    assert action.shape == (1, 1) and abs(action[0, 0]) <= 1
    assert not (run / "policy.json").exists(), "a policy only reads"


def test_it_is_reported(run):
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "probe/bandit" in page and 'type="application/json"' in page


@pytest.mark.slow
def test_it_is_resumed_exactly(run):
    """To step 80: parameters, episodes and evaluations are those of the version that made it."""
    assert main(["train", "--resume", str(run), "--train.online-steps", "80"]) == 0
    expected = json.loads((OLD / "resumed.json").read_text())
    _, record = checkpoint.load(newest(run))
    assert record["updates"] == expected["updates"]
    assert record["rollout"]["env_steps"] == expected["env_steps"] == 80
    outcomes = [outcome[:4] for outcome in record["rollout"]["outcomes"]]
    np.testing.assert_allclose(outcomes, np.array(expected["outcomes"], float), **ROUNDING)
    line = read_lines(run / "eval.jsonl")[-1]
    for who in ("policy", "base"):
        same_evaluation(line[who], expected[who])
    learner = load_file(newest(run) / "learner.safetensors")
    got = {name: np.mean(np.square(leaf, dtype=np.float64)) for name, leaf in learner.items()}
    assert got.keys() == expected["mean_square"].keys()
    for name, value in expected["mean_square"].items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-9, err_msg=name)


def plain_names(data: dict, prefix: str = ""):
    for name, value in data.items():
        if isinstance(value, dict):
            yield from plain_names(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_its_options_are_what_that_version_did():
    """All that it has, and for the rest: what there was before there was an option."""
    config, old = flatten(load_config(OLD)), read_config(OLD)
    has = {name for name in plain_names(old) if not name.startswith("versions.")}
    added = {name: value for name, value in config.items() if name not in has}
    then = {
        "algo.pessimistic_start": False,
        "algo.clip_targets": False,
        "algo.return_bound": False,
        "algo.edit_value": "mean",
        "algo.edits_act": "always",
        "algo.min_noise_scale": 1.0,
        "algo.deploy_noise_scale": 1.0,
        "algo.base_updates": 1,
        "train.guard": "off",
        "eval.at": (),
        "eval.unedited": False,
    }
    assert {name: added[name] for name in then} == then


THEN = {
    "expo": set(read_config(OLD)["algo"]),
    "rlpd": {
        "num_qs",
        "num_min_qs",
        "hidden",
        "critic_learning_rate",
        "policy_learning_rate",
        "temperature_learning_rate",
        "tau",
        "initial_temperature",
        "target_entropy",
        "backup_entropy",
    },
    "bc": {"base_tau", "base_data"},
}
"""Options of the algorithms that this version had."""


def groups():
    """Class of options -> names of the options that this version had."""
    old = read_config(OLD)
    yield RunConfig, set(old) - {"versions"}
    for name, kind in (
        ("base", BaseConfig),
        ("data", DataConfig),
        ("train", TrainConfig),
        ("eval", EvalConfig),
        ("log", LogConfig),
    ):
        yield kind, set(old[name])
    for name, then in THEN.items():
        yield ALGORITHMS[name].config, then


@pytest.mark.parametrize(("kind", "then"), list(groups()), ids=lambda x: getattr(x, "__name__", ""))
def test_every_option_added_since_says_what_runs_without_it_did(kind, then):
    fields = {field.name: field for field in dataclasses.fields(kind)}
    assert then <= fields.keys(), "an option is gone: runs that have it cannot be read"
    for name in fields.keys() - then:
        assert ABSENT in fields[name].metadata, (
            f"{kind.__name__}.{name} was added: give it `added(default, absent=...)` or "
            "`option(..., absent=...)`, the value that does what earlier versions did"
        )
