"""Every numeric option has a range, and a value outside it is refused in one sentence before
anything is made; so is a run that cannot fit into memory."""

import dataclasses
import math
import typing

import pytest

from exporl.algos import ALGORITHMS, check_config
from exporl.cli.main import main
from exporl.envs.probes import SPEC
from exporl.policies import BaseConfig
from exporl.run.config import RunConfig, check, override
from exporl.run.memory import check_memory, least_bytes
from exporl.run.presets import preset_config

TOGETHER = {"num_base_samples", "num_edit_samples", "num_qs", "num_min_qs", "execute_length"}
"""Checked against each other."""
GB = 10**9


def config(algorithm="expo", **changes):
    return override(preset_config(algorithm, "small", "probe/bandit"), changes)


def numeric_fields():
    run = [type(getattr(config(), name)) for name in ("data", "train", "eval", "log")]
    for kind in (RunConfig, BaseConfig, *run, *(entry.config for entry in ALGORITHMS.values())):
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            parts = {hints[field.name], *typing.get_args(hints[field.name])}
            if parts & {int, float}:
                yield pytest.param(field, id=f"{kind.__name__}.{field.name}")


@pytest.mark.parametrize("field", list(numeric_fields()))
def test_every_numeric_option_has_a_range(field):
    assert {"within", "sizes"} & field.metadata.keys() or field.name in TOGETHER


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("algo.entropy_scale", math.nan, "entropy_scale must not be negative, got nan"),
        ("algo.entropy_scale", -1.0, "entropy_scale must not be negative, got -1.0"),
        ("algo.softness", math.nan, "softness must not be negative, got nan"),
        ("algo.softness", -1.0, "softness must not be negative, got -1.0"),
        ("algo.edit_scale", 1e-300, r"edit_scale must be in \(0, 2\], got 1e-300 \(0 as float32\)"),
        ("algo.tau", 1e-50, r"tau must be in \(0, 1\], got 1e-50 \(0 as float32\)"),
        ("algo.critic_learning_rate", 1e39, r"must not be negative, got 1e\+39 \(inf as float32"),
        ("algo.hidden", (64, 0), r"hidden must list at least one positive layer size"),
        ("base.learning_rate", math.nan, "base.learning_rate must not be negative, got nan"),
        ("base.learning_rate", -1.0, "base.learning_rate must not be negative, got -1.0"),
        ("base.learning_rate", math.inf, "base.learning_rate must not be negative, got inf"),
        ("base.weight_decay", math.nan, "base.weight_decay must not be negative, got nan"),
        ("base.weight_decay", -1.0, "base.weight_decay must not be negative, got -1.0"),
        ("base.decay_steps", -1, "base.decay_steps must not be negative, got -1"),
        ("base.num_steps", 0, r"base.num_steps must be in \[1, 10000\], got 0"),
        ("data.demo_noise", math.inf, "data.demo_noise must not be negative, got inf"),
        ("data.prior_ratio", math.nan, r"data.prior_ratio must be in \[0, 1\], got nan"),
        ("train.batch_size", 1, "train.batch_size=1 cannot be shared with data.prior_ratio=0.5"),
        ("train.discount", 1.5, r"train.discount must be in \[0, 1\], got 1.5"),
        ("eval.at", (10, -1), "eval.at must not be negative, got -1"),
        ("eval.seed", 2**32, r"eval.seed must be in \[0, 4294967295\], got 4294967296"),
        ("log.silence_s", 0.0, "log.silence_s must be positive, got 0.0"),
        ("log.silence_s", math.nan, "log.silence_s must be positive, got nan"),
        ("num_envs", 100_000, r"num_envs must be in \[1, 10000\], got 100000"),
        ("seed", 10**20 - 1, r"seed must be in .*, got 99999999999999999999"),
    ],
)
def test_values_outside_their_range_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        check(config(**{name: value}))


@pytest.mark.parametrize(
    ("algorithm", "name", "choices"),
    [
        ("best_of_n", "backup", "fresh, filtered, cached"),
        ("idql", "selection", "argmax, implicit"),
        ("fql", "q_value", "mean, min"),
        ("calql", "target_entropy", "dimensions"),
        ("qc", "q_value", "mean, min"),
        ("dsrl", "q_value", "min, mean"),
        ("dac", "target_value", "mean, max"),
        ("qsm", "gradient_of", "critic, target"),
        ("qam", "target_entropy", "attainable"),
    ],
)
def test_misspelt_choices_are_refused(algorithm, name, choices):
    options = config(algorithm).algo
    object.__setattr__(options, name, "best")
    with pytest.raises(ValueError, match=rf"{name} must be one of {choices}; got 'best'"):
        check_config(algorithm, options)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--seeds-mode", "banana"], "--seeds-mode banana has no effect on one run"),
        (["--seed", "99999999999999999999"], "seed must be in"),
        (["--seed", "4294967295", "--seeds", "2"], "seed must be in"),
        (["--train.batch-size", "1"], "some source gets no row"),
        (["--algo.num-base-samples", "1000000"], "algo.num_base_samples"),
    ],
)
def test_the_command_refuses_before_anything_is_collected(
    tmp_path, monkeypatch, capsys, args, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("exporl.run.build.available_bytes", lambda: 8 * GB)
    assert main(["train", "expo", "--task", "probe/bandit", "--run-dir", "run", *args]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not (tmp_path / "run" / "demonstrations.npz").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algo.num_base_samples": 1_000_000}, "one layer for all candidates of a minibatch"),
        ({"algo.hidden": (10_000_000, 10_000_000)}, "networks .algo.hidden"),
        ({"base.width": 10_000_000}, "networks .algo.hidden, algo.num_qs, base.width"),
        ({"train.batch_size": 2_000_000_000}, "train.batch_size"),
        ({"chunk_length": 10**9}, "minibatches .*chunk_length"),
        ({"num_envs": 10_000, "train.online_steps": 100_000}, "online replay"),
    ],
)
def test_a_run_that_cannot_fit_is_refused_with_numbers(changes, message):
    numbers = r"^this run needs at least \S+ [GT]B of memory, and 8.0 GB are available. Most of it,"
    with pytest.raises(ValueError, match=f"{numbers} .*{message}.*: lower these"):
        check_memory(config(**changes), SPEC, 8 * GB)


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("expo", r"algo.num_base_samples, algo.num_edit_samples, algo.hidden, base.width"),
        ("rlpd", r"train.batch_size, algo.hidden, base.width"),
        ("bc", r"train.batch_size, base.width"),
    ],
)
def test_only_options_that_an_algorithm_has_are_named(algorithm, options):
    many = config(algorithm, **{"train.batch_size": 10**9, "train.utd_ratio": 1})
    (named,) = [what for what in least_bytes(many, SPEC) if what.startswith("one layer")]
    assert named.endswith((f"({options})", f", {options})"))


@pytest.mark.parametrize(
    ("name", "most"),
    [("base.num_steps", 10_000), ("base.num_blocks", 1_000), ("base.time_dim", 10_000),
     ("algo.base_updates", 1_000)],
)  # fmt: skip
def test_what_is_repeated_or_laid_out_so_often_has_an_end(name, most):
    check(config(**{name: most}))
    with pytest.raises(ValueError, match=rf"{name.split('.')[1]} must be in \[[01], {most}\], got"):
        check(config(**{name: most + 1}))


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_runs_of_the_presets_fit(algorithm):
    for preset in ("small", "tiny", "paper"):
        whole = preset_config(algorithm, preset, "probe/bandit")
        check_memory(whole, SPEC, 2 * GB)
        assert all(part >= 0 for part in least_bytes(whole, SPEC).values())
    check_memory(config(**{"train.batch_size": 2_000_000_000}), SPEC, None)
