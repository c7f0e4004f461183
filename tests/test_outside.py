"""Algorithms and base policies that do not come with the library, by the name
`module:attribute`."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from exporl.algos import ALGORITHMS, find_algorithm, make_algorithm
from exporl.algos.expo_options import ExpoConfig
from exporl.algos.presets import RUNS
from exporl.cli.main import main
from exporl.outside import load_outside
from exporl.policies import BaseConfig, BasePolicy, make_base
from exporl.run.config import RunConfig, check, from_json, override, to_json
from exporl.run.presets import preset_config
from exporl.run.progress import Silent
from exporl.run.trainer import Trainer
from exporl.types import Spec
from helpers.batches import random_batch
from helpers.runs import run_all

SPEC = Spec((("state", (3,), "float32"),), action_dim=2)
MODULE = '''
import dataclasses

import jax.numpy as jnp

from exporl.algos import Entry, Needs
from exporl.algos.algorithm import compiled
from exporl.algos.expo_entry import EXPO
from exporl.options import option
from exporl.policies import flow
from exporl.types import Decision


@dataclasses.dataclass(frozen=True)
class StillConfig:
    """Options."""

    size: float = option(0.5, within="(0, 1]")
    """Size of every action."""
    steps: int = 3
    """Even numbers are refused."""


@dataclasses.dataclass(frozen=True)
class Still:
    """Always the same action."""

    config: StillConfig
    spec: object

    def init(self, key):
        return {"updates": jnp.zeros(())}

    def update(self, state, batches, key, *, phase="online"):
        return {"updates": state["updates"] + 1}, {"still/reward": batches.reward.mean()}

    def acting(self, state):
        return state

    def act(self, acting, observation, key, *, mode="explore", proposals=None):
        num = next(iter(observation.values())).shape[0]
        shape = (num, self.spec.chunk_length, self.spec.action_dim)
        return Decision(jnp.full(shape, self.config.size), {})


def make(config, spec, base, precision):
    return compiled(Still(config, spec), Needs(frozenset({"online"})), has_base=False)


def check(config):
    if config.steps % 2 == 0:
        raise ValueError(f"steps must be odd, got {config.steps}.")


still = Entry("still", StillConfig, make, check)
presets = {"small": {"algo.edit_scale": (0.3, "ours")}}
variant = dataclasses.replace(EXPO, name="variant", presets=presets)


def made():
    return still


number = 3


def my_base(config, spec, precision):
    return flow(config, spec, precision)


def no_base(config, spec, precision):
    return "nothing"
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A module of one's own, found on sys.path, with its algorithms under names that no other
    test uses."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "my_algorithms.py").write_text(MODULE)
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(folder)
    yield "my_algorithms"
    patch.undo()


@pytest.mark.parametrize("attribute", ["still", "made"])
def test_an_algorithm_of_ones_own(package, attribute):
    name = f"{package}:{attribute}"
    entry = find_algorithm(name)
    algorithm = make_algorithm(name, entry.config(size=0.25), SPEC, None)
    state, metrics = algorithm.update(
        algorithm.init(jax.random.key(0)), random_batch(SPEC, 2, 4), jax.random.key(1)
    )
    assert state["updates"] == 1 and np.isfinite(metrics["still/reward"])
    decision = algorithm.act(
        algorithm.acting(state), {"state": np.zeros((5, 3), np.float32)}, jax.random.key(2)
    )
    np.testing.assert_array_equal(decision.action, np.full((5, 1, 2), 0.25))


def test_its_options_are_checked(package):
    name = f"{package}:still"
    config = find_algorithm(name).config
    with pytest.raises(ValueError, match=r"size must be in \(0, 1\], got 2"):
        make_algorithm(name, config(size=2.0), SPEC, None)
    with pytest.raises(ValueError, match="steps must be odd, got 4"):
        make_algorithm(name, config(steps=4), SPEC, None)
    with pytest.raises(ValueError, match=f"{name} needs a StillConfig, got a ExpoConfig"):
        make_algorithm(name, ExpoConfig(), SPEC, None)
    with pytest.raises(ValueError, match=f"{name} needs a StillConfig, got a ExpoConfig"):
        check(RunConfig("t", ExpoConfig(), algorithm=name))


def test_its_configuration_survives_json(package):
    config = preset_config(f"{package}:still", "small", "probe/bandit")
    config = override(config, {"algo.size": 0.75})
    data = json.loads(json.dumps(to_json(config)))
    assert data["algorithm"] == f"{package}:still"
    assert from_json(data) == config and from_json(data).algo.size == 0.75
    with pytest.raises(
        ValueError, match=r"cannot import 'no_such_module' of algorithm 'no_such_module:still'"
    ):
        from_json(data | {"algorithm": "no_such_module:still"})


def test_two_algorithms_may_share_their_options(package):
    """So a run says which one it is of; the options alone belong to the library's."""
    config = preset_config(f"{package}:variant", "small", "probe/bandit")
    assert config.algorithm == f"{package}:variant" and type(config.algo) is ExpoConfig
    assert from_json(to_json(config)).algorithm == f"{package}:variant"
    assert RunConfig("t", ExpoConfig()).algorithm == "expo"


def test_options_of_ones_own_must_be_named(package):
    with pytest.raises(ValueError, match="StillConfig belongs to no algorithm of exporl"):
        RunConfig("t", find_algorithm(f"{package}:still").config())


def test_presets(package):
    """Its own where it has them; else the run options of the name, and defaults."""
    own = preset_config(f"{package}:variant", "small", "t")
    assert own == RunConfig("t", ExpoConfig(edit_scale=0.3), algorithm=f"{package}:variant")
    shared = preset_config(f"{package}:still", "small", "t")
    assert (
        shared.algo == find_algorithm(f"{package}:still").config() and shared.base == BaseConfig()
    )
    assert (shared.train.batch_size, shared.train.offline_steps) == (128, 0)
    for name in RUNS:
        check(preset_config(f"{package}:still", name, "t"))
        check(preset_config(f"{package}:variant", name, "t"))
        assert not [option for option in RUNS[name] if option.startswith(("algo.", "base."))]
    with pytest.raises(
        ValueError, match=r"unknown preset 'smal' for my_algorithms:still. Did you mean 'small'"
    ):
        preset_config(f"{package}:still", "smal", "t")


def test_a_run_of_it(package, tmp_path):
    config = override(
        preset_config(f"{package}:still", "tiny", "probe/bandit"),
        {
            "train.online_steps": 6,
            "train.batch_size": 4,
            "eval.episodes": 2,
            "eval.num_envs": 1,
            "data.demos": 2,
        },
    )
    trainer = Trainer(config, tmp_path, Silent(), resume=False)
    run_all(trainer)
    assert trainer.learner.arrays()["['updates']"] > 0
    assert (tmp_path / "eval.jsonl").read_text().count('"policy"') == 2


def test_the_command_line_knows_it(package, tmp_path, capsys):
    args = [
        "--task",
        "probe/bandit",
        "--run-dir",
        str(tmp_path / "run"),
        "--train.online-steps",
        "3",
    ]
    args += [
        "--eval.episodes",
        "1",
        "--eval.num-envs",
        "1",
        "--data.demos",
        "2",
        "--train.batch-size",
        "2",
    ]
    assert main(["train", f"{package}:still", *args, "--algo.size", "0.5"]) == 0
    assert (
        json.loads((tmp_path / "run" / "config.json").read_text())["algorithm"]
        == f"{package}:still"
    )
    args[3] = str(tmp_path / "other")
    assert main(["train", f"{package}:still", *args, "--algo.size", "5"]) == 2
    assert "size must be in (0, 1], got 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "{}:stil",
            r"algorithm 'my_algorithms:stil': my_algorithms has no 'stil'. Did you mean 'still'",
        ),
        (
            "{}:number",
            r"algorithm 'my_algorithms:number' is a int: it must be an exporl Entry, or a function",
        ),
        (
            "no_such_module:still",
            r"cannot import 'no_such_module' of algorithm .*ModuleNotFoundError",
        ),
        ("exppo", r"unknown algorithm 'exppo'\. Did you mean 'expo'\? Known: bc, best_of_n, calql"),
        (":still", r"unknown algorithm ':still'"),
    ],
)
def test_names_that_are_none(package, name, message):
    with pytest.raises(ValueError, match=message):
        find_algorithm(name.format(package))


def test_a_base_policy_of_ones_own(package):
    config = BaseConfig(kind=f"{package}:my_base", num_steps=2, width=16, num_blocks=1, time_dim=8)
    base = make_base(config, SPEC)
    assert isinstance(base, BasePolicy) and base.noise_shape == (1, 2)
    run = RunConfig("t", ExpoConfig(), base=config)
    assert from_json(json.loads(json.dumps(to_json(run)))) == run


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("no_base", r"base\.kind='my_algorithms:no_base' made a str: it must be a function"),
        ("number", r"base\.kind='my_algorithms:number' made a int"),
        ("other", r"base policy 'my_algorithms:other': my_algorithms has no 'other'"),
    ],
)
def test_base_policies_that_are_none(package, attribute, message):
    with pytest.raises(ValueError, match=message):
        make_base(BaseConfig(kind=f"{package}:{attribute}"), SPEC)


def test_modules_are_looked_for_in_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "here_only.py").write_text("thing = 5")
    monkeypatch.chdir(tmp_path)
    assert load_outside("here_only:thing", "thing") == 5
    assert str(tmp_path) not in __import__("sys").path


def test_entries_are_named_as_registered():
    assert {name: entry.name for name, entry in ALGORITHMS.items()} == {
        name: name for name in ALGORITHMS
    }
    assert all(dataclasses.is_dataclass(entry.config) for entry in ALGORITHMS.values())
