"""Configurations and presets: JSON there and back, errors that name the option, defaults that stay
as they are."""

import copy
import dataclasses
import json
import math
import re

import pytest

from exporl.algos import ALGORITHMS, make_algorithm
from exporl.policies import make_base
from exporl.run.config import RunConfig, check, differences, flatten, from_json, override, to_json
from exporl.run.presets import PRESETS, preset_config
from exporl.types import Spec

SPEC = Spec((("state", (3,), "float32"),), action_dim=2)


def config(algorithm: str = "expo") -> RunConfig:
    return preset_config(algorithm, "small", "probe/bandit")


def through_json(data):
    return json.loads(json.dumps(data))


@pytest.mark.parametrize(("algorithm", "name"), sorted(PRESETS))
def test_every_preset_builds_and_survives_json(algorithm, name):
    preset = preset_config(algorithm, name, "probe/bandit")
    assert (preset.algorithm, preset.preset, preset.task) == (algorithm, name, "probe/bandit")
    check(preset)
    values = flatten(preset)
    for option, (value, source) in PRESETS[algorithm, name].items():
        assert values[option] == value
        assert type(values[option]) is type(value)
        assert source.strip()
    restored = from_json(through_json(to_json(preset)))
    assert restored == preset
    assert {option: type(value) for option, value in flatten(restored).items()} == {
        option: type(value) for option, value in values.items()
    }
    base = None if algorithm in ("rlpd", "calql") else make_base(preset.base, SPEC)
    assert make_algorithm(algorithm, preset.algo, SPEC, base).needs.phases


@pytest.mark.parametrize(
    ("task", "taken", "base_tau"),
    [
        ("adroit/pen", "stable-adroit", 0.001),
        ("metaworld/push-v3", "stable", 0.005),
        ("my_module:make_env", "stable", 0.005),
    ],
)
def test_a_preset_for_the_family_of_the_task_is_taken(task, taken, base_tau):
    preset = preset_config("expo", "stable", task)
    assert (preset.preset, preset.algo.base_tau) == (taken, base_tau)
    assert preset == preset_config("expo", taken, task)


def test_presets_change_nothing_else():
    presets, defaults = (
        copy.deepcopy(PRESETS),
        {name: RunConfig("t", ALGORITHMS[name].config()) for name in ALGORITHMS},
    )
    before = copy.deepcopy({name: to_json(default) for name, default in defaults.items()})
    for algorithm, name in PRESETS:
        to_json(preset_config(algorithm, name, "t"))["train"]["online_steps"] = -1
    assert presets == PRESETS
    for name, default in defaults.items():
        assert (
            to_json(default) == to_json(RunConfig("t", ALGORITHMS[name].config())) == before[name]
        )


@pytest.mark.parametrize(("algorithm", "name"), sorted(PRESETS))
def test_presets_change_only_the_options_they_list(algorithm, name):
    default = RunConfig("t", ALGORITHMS[algorithm].config(), preset=name)
    assert set(differences(default, preset_config(algorithm, name, "t"))) <= set(
        PRESETS[algorithm, name]
    )


def test_configurations_cannot_be_changed_in_place():
    whole = config()
    for part in (whole, whole.algo, whole.base, whole.data, whole.train, whole.eval, whole.log):
        field = dataclasses.fields(part)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, field, getattr(part, field))


def test_unknown_presets_and_algorithms_name_the_closest():
    with pytest.raises(ValueError, match=r"unknown algorithm 'exp'. Did you mean 'expo'"):
        preset_config("exp", "small", "t")
    with pytest.raises(ValueError, match=r"unknown preset 'smal' for rlpd. Did you mean 'small'"):
        preset_config("rlpd", "smal", "t")
    with pytest.raises(ValueError, match=r"unknown preset 'adroit' for bc. .*Known: .*paper"):
        preset_config("bc", "adroit", "t")


def edited(path: str, value) -> dict:
    """A configuration in JSON with one option replaced."""
    data = through_json(to_json(config()))
    *parents, name = path.split(".")
    node = data
    for parent in parents:
        node = node[parent]
    node[name] = value
    return data


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("train.utd_ration", "unknown config option 'train.utd_ration'. Did you mean 'utd_ratio'"),
        ("algo.edit_scal", "unknown config option 'algo.edit_scal'. Did you mean 'edit_scale'"),
        ("base.widht", "unknown config option 'base.widht'. Did you mean 'width'"),
        ("sede", "unknown config option 'sede'. Did you mean 'seed'"),
        ("zzz", "unknown config option 'zzz'. Known: algo, algorithm, base"),
    ],
)
def test_unknown_options_name_the_closest(path, message):
    with pytest.raises(ValueError, match=message):
        from_json(edited(path, 1))


def added_later() -> set[str]:
    """Options that earlier versions did not have: files without them stand for what those did."""
    parts = {"": RunConfig, "algo.": type(config().algo)}
    parts |= {
        f"{name}.": type(getattr(config(), name))
        for name in ("base", "train", "eval", "data", "log")
    }
    return {
        prefix + field.name
        for prefix, kind in parts.items()
        for field in dataclasses.fields(kind)
        if "absent" in field.metadata
    }


@pytest.mark.parametrize(
    "path",
    [
        *(path for path in flatten(config()) if path not in added_later() | {"algorithm"}),
        *("algo", "train", "log"),
    ],
)
def test_a_missing_option_is_named(path):
    data = edited(path, None)
    *parents, name = path.split(".")
    node = data
    for parent in parents:
        node = node[parent]
    del node[name]
    with pytest.raises(ValueError, match=f"config lacks '{path}'"):
        from_json(data)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 1.0),
        ("seed", "1"),
        ("seed", True),
        ("seed", None),
        ("task", 3),
        ("reward", "dense"),
        ("reward", None),
        ("execute_length", 1.5),
        ("execute_length", "all"),
        ("data.path", 3),
        ("data.demo_noise", "0.3"),
        ("data.demo_noise", False),
        ("data.bootstrap_timeouts", 1),
        ("base.kind", "gaussian"),
        ("algo.hidden", 256),
        ("algo.hidden", [256, 1.5]),
        ("algo.target_entropy", "half"),
        ("algo.clip_edits", "yes"),
        ("train", 5),
        ("train", None),
        ("algo", [1]),
    ],
)
def test_a_mistyped_option_is_named(path, value):
    with pytest.raises(ValueError, match=f"config option '{path}' must be") as refused:
        from_json(edited(path, value))
    assert not re.search(r"typing|class|NoneType|<|\[str|Literal", str(refused.value))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("data.demo_noise", 0, 0.0),
        ("algo.target_entropy", -3, -3.0),
        ("algo.target_entropy", "released", "released"),
        ("execute_length", None, None),
        ("data.path", "demos.npz", "demos.npz"),
        ("algo.hidden", [], ()),
        ("algo.hidden", [8, 4], (8, 4)),
    ],
)
def test_what_json_may_hold(path, value, expected):
    got = flatten(from_json(edited(path, value)))[path]
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize("name", ["EXPO", "exppo", None, 3])
def test_an_unknown_algorithm_in_json(name):
    with pytest.raises(
        ValueError,
        match=f"config has the unknown algorithm {name!r}. .*Known: bc, best_of_n",
    ):
        from_json(edited("algorithm", name))
    data = edited("algorithm", "expo")
    del data["algorithm"]
    with pytest.raises(ValueError, match="config has the unknown algorithm None"):
        from_json(data)


def test_options_of_another_algorithm():
    with pytest.raises(ValueError, match=r"unknown config option 'algo\."):
        from_json(edited("algorithm", "bc"))


def test_flatten_names_every_option():
    values = flatten(config())
    assert values["task"] == "probe/bandit"
    assert values["train.batch_size"] == 128
    assert values["algo.hidden"] == (128, 128)
    parts = [getattr(config(), name) for name in ("algo", "base", "data", "train", "eval", "log")]
    assert len(values) == len(dataclasses.fields(RunConfig)) - 6 + sum(
        len(dataclasses.fields(part)) for part in parts
    )


def test_override_makes_a_changed_copy():
    before = config()
    after = override(before, {"seed": 3, "algo.edit_scale": 0.7, "eval.every": 11})
    assert (after.seed, after.algo.edit_scale, after.eval.every) == (3, 0.7, 11)
    assert before == config()
    assert differences(before, after) == {
        "seed": (0, 3), "algo.edit_scale": (before.algo.edit_scale, 0.7), "eval.every": (2_500, 11)
    }  # fmt: skip
    assert override(before, {}) == before


@pytest.mark.parametrize(
    ("name", "closest"),
    [("train.utd", "train.utd_ratio"), ("algo.editscale", "algo.edit_scale"), ("sead", "seed")],
)
def test_override_of_an_unknown_option(name, closest):
    with pytest.raises(ValueError, match=f"unknown option '{name}'. Did you mean '{closest}'"):
        override(config(), {name: 1})
    with pytest.raises(ValueError, match="unknown option 'train'"):
        override(config(), {"train": 1})


def test_differences_between_algorithms():
    assert differences(config(), config()) == {}
    found = differences(config("expo"), config("rlpd"))
    assert found["algo.num_edit_samples"] == (4, None)
    assert "algo.tau" not in found


def test_actions_played():
    assert config().actions_played == 1
    assert override(config(), {"chunk_length": 4}).actions_played == 4
    assert override(config(), {"chunk_length": 4, "execute_length": 2}).actions_played == 2


LEAST = {
    "seed": 0,
    "num_envs": 1,
    "chunk_length": 1,
    "data.demos": 0,
    "data.horizon": 1,
    "data.demo_noise": 0.0,
    "data.demo_seed": 0,
    "data.capacity": 1,
    "train.offline_steps": 0,
    "train.critic_pretrain_steps": 0,
    "train.online_steps": 0,
    "train.random_steps": 0,
    "train.actors": 0,
    "train.critic_warmup_steps": 0,
    "train.update_after": 0,
    "train.update_every": 1,
    "train.utd_ratio": 1,
    "train.batch_size": 1,
    "train.devices": 1,
    "eval.every": 1,
    "eval.episodes": 1,
    "eval.num_envs": 1,
    "eval.seed": 0,
    "log.every": 1,
    "log.save_every": 1,
    "log.keep": 1,
}
BOUNDED = ("seed", "eval.seed", "data.demo_seed", "num_envs", "eval.num_envs")
BOUNDED += ("data.demos", "eval.episodes", "train.actors")
RANGES = ("train.discount", "data.prior_ratio")
OPTIONAL = {"data.demos": 20, "data.horizon": 100}
"""Numbers that are None by default."""


@pytest.mark.parametrize("name", LEAST)
def test_the_least_value_of_an_option(name):
    with_file = override(config(), {"data.path": "demos.npz", "data.prior_ratio": 0.0})
    check(override(with_file, {name: LEAST[name]}))
    above = "not be negative" if LEAST[name] == 0 else "be at least 1"
    if name in BOUNDED:
        above = rf"be in \[{LEAST[name]:g}, .*\]"
    with pytest.raises(ValueError, match=f"^{name} must {above}, got {LEAST[name] - 1}"):
        check(override(config(), {name: LEAST[name] - 1}))


@pytest.mark.parametrize("name", RANGES)
def test_the_range_of_a_fraction(name):
    for value in (0.0, 0.5, 1.0):
        check(override(config(), {name: value}))
    for value in (-0.01, 1.01, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"^{name} must be in \[0, 1\], got {value}"):
            check(override(config(), {name: value}))


def test_every_number_of_the_run_has_a_rule():
    numbers = {
        name for name, value in flatten(override(config(), OPTIONAL)).items()
        if type(value) in (int, float) and not name.startswith(("algo.", "base."))
    }  # fmt: skip
    assert numbers == {*LEAST, *RANGES, "log.silence_s"}


@pytest.mark.parametrize("value", [0, -1, 5])
def test_execute_length(value):
    with pytest.raises(
        ValueError, match=f"^execute_length must be between 1 and chunk_length=4, got {value}"
    ):
        check(override(config(), {"chunk_length": 4, "execute_length": value}))
    for allowed in (1, 4, None):
        check(override(config(), {"chunk_length": 4, "execute_length": allowed}))
