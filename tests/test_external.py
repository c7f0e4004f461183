"""Policies from outside: what is accepted as one, whether it fits a task, and what it is told
apart by."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from exporl.cli.main import main
from exporl.cli.train_request import parse
from exporl.envs.registry import make_task
from exporl.external import OutsideBase, OutsidePolicy, find_policy, outside_base
from exporl.external.base import ImitationBatch
from exporl.external.fit import check_fit, refuse_misfit, some_observations
from exporl.outside import outside_names
from exporl.spec import Spec
from exporl.units import ActionUnits
from helpers.outside import Drawn

SPEC = Spec((("state", (2,), "float32"),), action_dim=1)
SEEN = {"state": np.arange(8, dtype=np.float32).reshape(4, 2)}
MODULE = """
import numpy as np

def to_policy(spec):
    return sample

def sample(observations, num, seed):
    shape = (len(observations["state"]), num, 1, 1)
    return np.random.default_rng(seed).uniform(-1, 1, shape)

def breaks(spec):
    raise RuntimeError("no weights")

number = 3
wide = lambda spec: lambda observations, num, seed: 40 * sample(observations, num, seed)
"""


@pytest.fixture
def robot(tmp_path, monkeypatch):
    """A module of the user's own, `outside_robot`."""
    (tmp_path / "outside_robot.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield "outside_robot"
    sys.modules.pop("outside_robot", None)


def base_of(policy, spec=SPEC, **options):
    found = outside_base(None, policy, spec, learns=False, learning_rate=1e-3, **options)
    assert found is not None
    return found


def failures(policy, spec=SPEC, seen=SEEN, learns=False):
    base = OutsideBase(policy, "the base policy", spec, learns=learns)
    return {f.name: f.detail for f in check_fit(base, seen) if f.status == "fail"}


def test_a_policy_that_fits_passes_every_check():
    assert isinstance(Drawn(), OutsidePolicy)
    base = base_of(Drawn())
    found = {finding.name: finding for finding in check_fit(base, SEEN)}
    assert {f.status for f in found.values()} == {"pass"}
    assert found["spread"].detail == "samples differ" and "state" in found["observations"].detail
    assert base.sample(SEEN, 3, seed=1).shape == (4, 3, 1, 1)
    assert np.array_equal(base.sample(SEEN, 3, seed=1), base.sample(SEEN, 3, seed=1))


class Says(Drawn):
    """A policy with a spec of its own."""

    def __init__(self, **changes):
        self.spec = dataclasses.replace(SPEC, **changes)


class Newtons(Drawn):
    """Answers in the environment's own units, 20 to 60."""

    actions = "env"

    def sample(self, observations, num, seed):
        return 40 + 20 * super().sample(observations, num, seed)


def test_a_policy_may_answer_in_the_environments_own_units():
    units = ActionUnits((20.0,), (60.0,), (1,), "float64")
    base = base_of(Newtons(), units=units)
    assert {finding.status for finding in check_fit(base, SEEN)} == {"pass"}
    plain = base_of(Drawn(), units=units)
    np.testing.assert_allclose(base.sample(SEEN, 3, 1), plain.sample(SEEN, 3, 1), atol=1e-6)
    np.testing.assert_array_equal(plain.sample(SEEN, 3, 1), Drawn().sample(SEEN, 3, 1))
    narrow = ActionUnits((20.0,), (30.0,), (1,), "float64")
    found = {f.name: f for f in check_fit(base_of(Newtons(), units=narrow), SEEN)}
    assert found["range"].status == "fail" and "than the environment's" in found["range"].detail
    assert base_of(Newtons(), units=narrow).sample(SEEN, 3, 1).max() == 1


class Remembers(Drawn):
    """Answers with its last answer, a hidden memory."""

    last = 0.0

    def sample(self, observations, num, seed):
        self.last = 0.5 * self.last + 0.1
        return np.full((len(observations["state"]), num, 1, 1), self.last)


class Counts(Drawn):
    """Answers the same, and changes a buffer."""

    calls = 0

    def sample(self, observations, num, seed):
        self.calls += 1
        return super().sample(observations, num, seed)

    def state(self):
        return {"calls": np.array(self.calls)}


class Raises(Drawn):
    def sample(self, observations, num, seed):
        raise KeyError("joint_3")


class Leaves(Drawn):
    def sample(self, observations, num, seed):
        raise SystemExit(0)


class InPlace(Drawn):
    """Normalises what it is given where it lies, as many do."""

    def sample(self, observations, num, seed):
        observations["state"] -= 5
        return super().sample(observations, num, seed)

    def imitate(self, batch):
        for array in (batch.observation["state"], batch.action, batch.valid):
            array *= 0
        return {}


def test_a_policy_changes_its_own_copies_alone():
    seen = {name: value.copy() for name, value in SEEN.items()}
    base = base_of(InPlace())
    base.sample(seen, 2, seed=1)
    rows = np.ones((4, 1, 1), np.float32)
    batch = ImitationBatch(seen, rows, np.ones((4, 1), np.float32), seed=0)
    base.imitate(batch)
    for name, value in SEEN.items():
        np.testing.assert_array_equal(seen[name], value)
    assert (batch.action == 1).all() and (batch.valid == 1).all()
    assert failures(InPlace(), seen=seen) == {}
    np.testing.assert_array_equal(seen["state"], SEEN["state"])


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Leaves(), "the base policy: sample raised SystemExit: 0. Mend that policy"),
        (Raises(), "the base policy: sample raised KeyError: 'joint_3'. Mend that policy"),
    ],
)
def test_what_a_policy_raises_later_is_named(policy, message):
    base = OutsideBase(policy, "the base policy", SPEC)
    with pytest.raises(ValueError, match=message):
        base.sample(SEEN, 2, seed=1)
    assert "sample raised" in failures(policy)["answers"]


def test_complex_answers_are_refused():
    class Complex(Drawn):
        def sample(self, observations, num, seed):
            return super().sample(observations, num, seed) + 1j

    assert "answered complex numbers" in failures(Complex())["answers"]


def scaled(by, rows=0, nan=False):
    def sample(observations, num, seed):
        made = by * Drawn().sample(observations, num, seed)
        made = np.full_like(made, np.nan) if nan else made
        return np.concatenate([made, made[:rows]])

    return sample


MISFITS = {
    "an entry that is not shown": (
        Says(observation=(("stat", (2,), "float32"),)),
        "observations",
        "reads 'stat' float32[2], which the task does not show. Did you mean 'state'?",
    ),
    "another size": (
        Says(observation=(("state", (3,), "float32"),)),
        "observations",
        "reads 'state' [3], the task shows [2]",
    ),
    "another action": (Says(action_dim=7), "actions", "of 7 numbers, the task takes 1"),
    "another chunk": (
        Says(chunk_length=8),
        "chunks",
        "chunks of 8 actions, the run has chunk_length=1: give --chunk-length 8",
    ),
    "another shape": (scaled(1, rows=1), "answers", "(5, 4, 1, 1); (4, 4, 1, 1) is needed"),
    "not a number": (scaled(1, nan=True), "answers", "NaN or infinity in 16 of 16 numbers"),
    "its own units": (scaled(40), "range", "outside [-1, 1]: they seem to be in the environment's"),
    "a memory": (Remembers(), "memory", "asked twice it answers differently"),
    "a buffer": (Counts(), "memory", "sampling changes its buffers"),
    "an error": (Raises(), "answers", "sample raised KeyError: 'joint_3'"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_found_with_its_numbers(name):
    policy, check, message = MISFITS[name]
    found = failures(base_of(policy).policy)
    assert list(found) == [check] and message in found[check], found
    with pytest.raises(ValueError, match=f"the base policy does not fit. {check}: "):
        refuse_misfit(base_of(policy), SEEN)


def test_rounding_beyond_the_bounds_is_clipped():
    base = base_of(scaled(1.0005))
    assert not failures(base.policy) and np.abs(base.sample(SEEN, 50, 0)).max() <= 1


def test_who_is_to_learn_must_be_able_to():
    found = failures(Drawn(), learns=True)
    assert "has no imitate, no state, no load" in found["learning"]


def test_observations_come_from_data_or_from_a_new_environment():
    task = make_task("probe/delay")
    seen = some_observations(task, seed=0)
    assert seen["state"].shape == (4, 2)
    recorded = task.collect(1, 0.1, 0)
    assert some_observations(task, 0, recorded)["state"].shape == (4, 2)


def test_a_policy_is_told_apart_by_its_weights():
    def frozen(value):
        policy = Drawn()
        policy.state = lambda: {"w": np.full(3, value)}
        return base_of(policy)

    one, other, silent = frozen(1.0), frozen(2.0), base_of(Drawn())
    one.load(frozen(1.0).arrays())
    silent.load(base_of(Drawn()).arrays())
    with pytest.raises(ValueError, match="is not the base policy that this run was started with"):
        one.load(other.arrays())
    assert len(silent.fingerprint()) == 0 and len(one.fingerprint()) == 32


def test_a_policy_by_its_name(robot):
    policy = find_policy(f"{robot}:to_policy", SPEC)
    assert base_of(policy).sample(SEEN, 2, 0).shape == (4, 2, 1, 1)
    for name, message in (
        ("breaks", r"breaks\(spec\) raised RuntimeError: no weights"),
        ("number", "is a int: name an object with sample"),
        ("to_polic", "Did you mean 'to_policy'?"),
    ):
        with pytest.raises(ValueError, match=message):
            find_policy(f"{robot}:{name}", SPEC)
    with pytest.raises(ValueError, match=r"name it module:attribute \(your own\), or torch:"):
        find_policy("my_policy", SPEC)
    with pytest.raises(ValueError, match="'http://x:8000': a policy server is named ws://HOST:PO"):
        find_policy("http://x:8000", SPEC)
    with pytest.raises(ValueError, match="is a class Drawn: a policy has sample"):
        base_of(Drawn)


def test_what_was_handed_over_is_asked_for_again():
    with pytest.raises(ValueError, match=r"hand it over again, with base=policy"):
        outside_base("given", None, SPEC, learns=False, learning_rate=0.0)
    assert outside_base(None, None, SPEC, learns=False, learning_rate=0.0) is None


def test_a_name_in_a_run_needs_trust():
    """Of a file as well: nothing outside a run directory is read because of what lies in it."""
    for name in ("torch:robot:load", "sb3:actor.zip", "my_robot:to_policy"):
        assert outside_names({"base": {"policy": name}}) == {"base.policy": name}
    assert outside_names({"base": {"policy": "given"}}) == {}


def test_check_says_what_fits_and_what_does_not(robot, capsys):
    assert main(["check", "probe/delay", "--demos", "0", "--base", f"{robot}:to_policy"]) == 0
    said = capsys.readouterr().out
    assert "base: memory" in said and "samples differ" in said
    assert main(["check", "probe/delay", "--demos", "0", "--policy", f"{robot}:wide"]) == 2
    assert "environment's own units" in " ".join(capsys.readouterr().out.split())
    assert main(["check", "probe/delay", "--demos", "0", "--base", f"{robot}:breaks"]) == 2
    assert "no weights" in capsys.readouterr().out
    assert main(["check", "probe/delay", "--chunk-length", "4"]) == 2
    assert "give --base as well" in capsys.readouterr().err


TRAIN = ["--task", "probe/delay", "--preset", "tiny", "--data.demos", "2", "--run-dir", "run"]


def test_base_is_short_for_an_option_of_the_run():
    for words in (["--base", "my_robot:to_policy"], ["--base=my_robot:to_policy"]):
        options = parse(["expo", "--task", "probe/delay", *words]).options
        assert "=".join(options) == "--base.policy=my_robot:to_policy"


@pytest.mark.parametrize(
    ("algorithm", "name", "message"),
    [
        ("expo", "wide", "base policy 'outside_robot:wide' does not fit. range: actions are"),
        ("expo", "breaks", "breaks(spec) raised RuntimeError: no weights"),
        ("rlpd", "to_policy", "this algorithm draws its own samples or has no base policy"),
    ],
)
def test_a_run_is_refused_before_its_first_step(robot, capsys, algorithm, name, message):
    assert main(["train", algorithm, *TRAIN, "--base", f"{robot}:{name}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert message in said and not Path("run").exists()
