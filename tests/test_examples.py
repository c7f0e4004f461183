"""An algorithm and a base policy of one's own, from one file outside the library: they learn, act,
are resumed and acted with like the library's."""

import functools
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from exporl import BaseConfig, Spec, load_policy, make_algorithm, make_base
from exporl.algos import find_algorithm
from exporl.files.atomic import read_lines
from helpers.batches import random_batch
from helpers.examples import FOLDER, code_lines, learnt_and_acted, run_example

SPEC = Spec((("state", (3,), "float32"),), action_dim=2, chunk_length=2)
SMALL = {"num_steps": 2, "width": 16, "num_blocks": 1, "time_dim": 8}


def returns(run):
    """Mean returns of the base policy before training, and of the policy and its base after it."""
    lines = read_lines(run / "eval.jsonl")
    last = {who: lines[-1][who]["return_mean"] for who in ("policy", "base")}
    return lines[0]["base"]["return_mean"], last["policy"], last["base"]


@pytest.mark.slow
def test_an_algorithm_of_ones_own_learns_to_be_better_than_its_base(tmp_path, monkeypatch, capsys):
    """On the bandit the base imitates a mode at -0.5 and one at 0.5; the best action is 0.8."""
    assert code_lines(FOLDER / "custom_algorithm.py") <= 60
    run_example("custom_algorithm.py", tmp_path, monkeypatch)
    assert "'algorithm': 'custom_algorithm:BEST_OF_N'" in capsys.readouterr().out
    run = tmp_path / "runs" / "best-of-n"
    logged = {name for file in ("metrics", "eval") for line in read_lines(run / f"{file}.jsonl")
              for name in line if "/" in name}  # fmt: skip
    assert "critic/loss" in logged
    learnt_and_acted(run, least_updates=100)
    assert logged <= set(json.loads((run / "glossary.json").read_text()))
    before, after, base_after = returns(run)
    assert after > before + 0.4 and after > base_after + 0.1
    policy, seen = load_policy(run, trust=True), {"state": np.zeros((50, 2), np.float32)}
    actions = [policy.act(seen, seed=0, mode=mode) for mode in ("evaluate", "base")]
    best, alone = (np.abs(action - 0.8).mean() for action in actions)
    assert best < alone - 0.1 and actions[0].shape == (50, 1, 1)


def test_it_takes_chunks_of_any_length_and_checks_its_options(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    name = "custom_algorithm:BEST_OF_N"
    config = find_algorithm(name).config(num_samples=4)
    algorithm = make_algorithm(name, config, SPEC, make_base(BaseConfig("flow", **SMALL), SPEC))
    key, seen = jax.random.key(0), {"state": np.zeros((5, 3), np.float32)}
    state = jax.eval_shape(algorithm.init, key)
    for phase, expected in (("pretrain", False), ("online", True)):
        update = functools.partial(algorithm.update, phase=phase)
        after, metrics = jax.eval_shape(update, state, random_batch(SPEC, 3, 8), key)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        assert "base/loss" in metrics and ("critic/loss" in metrics) == expected
    chosen = jax.eval_shape(algorithm.act, algorithm.acting(state), seen, key)
    assert chosen.action.shape == (5, 2, 2) and chosen.info["q"].shape == (5,)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        make_algorithm(name, type(config)(num_samples=0), SPEC, None)


@pytest.mark.slow
def test_expo_learns_with_a_base_policy_of_ones_own(tmp_path, monkeypatch, capsys):
    assert code_lines(FOLDER / "custom_base_policy.py") <= 40
    run_example("custom_base_policy.py", tmp_path, monkeypatch)
    assert "'algorithm': 'expo'" in capsys.readouterr().out
    run = tmp_path / "runs" / "gaussian"
    learnt_and_acted(run, least_updates=150)
    before, after, base_after = returns(run)
    assert after > max(before, base_after) + 0.2
    seen = {"state": np.zeros((500, 2), np.float32)}
    samples = load_policy(run, trust=True).act(seen, seed=0, mode="base")
    assert abs(samples.mean()) < 0.15 and 0.35 < samples.std() < 0.65, (
        "one Gaussian over both modes"
    )


@pytest.mark.slow
def test_the_gaussian_is_trained_by_likelihood(monkeypatch):
    """The loss leaves out rows without weight, and is least at the mean and deviation of the
    data."""
    monkeypatch.syspath_prepend(FOLDER)
    base = make_base(BaseConfig("custom_base_policy:gaussian", **SMALL), SPEC)
    params, key = jax.jit(base.init)(jax.random.key(0)), jax.random.key(1)
    loss = jax.jit(base.loss)
    batch, half = random_batch(SPEC, 8), random_batch(SPEC, 8)
    half = half.replace(action=np.where(np.arange(8)[:, None, None] < 4, half.action, 9.0))
    weight = (np.arange(8) < 4).astype(np.float32)
    assert loss(params, batch, weight, key)[0] == loss(params, half, weight, key)[0]
    zero = np.zeros((8, *base.noise_shape), np.float32)
    mean = jax.jit(base.decode)(params, batch.observation, zero)
    near, far = batch.replace(action=mean), batch.replace(action=mean + 1)
    every = np.ones(8, np.float32)
    assert loss(params, near, every, key)[0] < loss(params, far, every, key)[0]
    assert base.predict is None and np.abs(mean).max() <= 1


def test_every_example_is_listed_with_its_command_and_run_by_a_test():
    listed = (FOLDER / "README.md").read_text()
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    examples = sorted(path.name for path in FOLDER.glob("*.py"))
    assert re.findall(r"\[([\w.]+)\]\(\1\)", listed) and len(examples) >= 4
    for name in examples:
        assert f"[{name}]({name})" in listed and f"`python {name}`" in listed
        assert re.search(rf'(run_example\("{name}"|"examples" / "{name}")', tests), name
    assert set(re.findall(r"\((\w+\.py)\)", listed)) == set(examples)
