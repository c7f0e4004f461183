"""Base policies behind a server: `exporl serve`'s own, and others that know openpi's protocol
alone."""

import contextlib
import dataclasses
import itertools
import socket
import types

import numpy as np
import pytest

pytest.importorskip("websockets")
from exporl.cli.main import main
from exporl.envs.registry import make_task
from exporl.external import OutsideBase, connections, find_policy, outside_base
from exporl.external.base import PolicyFailed
from exporl.external.connections import Patience
from exporl.external.fit import check_fit, refuse_misfit
from exporl.external.remote import RemotePolicy
from exporl.external.told import read_told
from exporl.outside import outside_names
from exporl.serve.client import Client
from exporl.units import ActionUnits
from helpers.remote import SPEC, Served, decided, openpi_like
from helpers.serving import serving, until

SEEN = {"state": np.arange(8, dtype=np.float32).reshape(4, 2) / 8}
TASK = make_task("probe/delay")
SHORT = Patience(0.1, 0.1)
"""For servers that are not there."""


def base_of(address, spec=SPEC, **options):
    return OutsideBase(RemotePolicy(address, spec=spec, **options), f"base {address!r}", spec)


def findings(base, **options):
    return {found.name: found for found in check_fit(base, SEEN, task=TASK, **options)}


def failed(base, **options):
    found = findings(base, **options).values()
    return {each.name: each.detail for each in found if each.status == "fail"}


def by_hand(num, seed):
    """The samples that `Served` gives: a seed per observation, counted on per sample."""
    firsts = np.random.SeedSequence(seed).generate_state(len(SEEN["state"]))
    return np.array([
        [[decided(state, (int(first) + i) % 2**32)] for i in range(num)]
        for state, first in zip(SEEN["state"], firsts, strict=True)
    ])  # fmt: skip


@pytest.fixture
def running():
    with serving(Served()) as running:
        yield running


@pytest.mark.parametrize("num", [1, 3, 70])
def test_samples_are_decided_by_the_seed_and_nothing_else(running, num, monkeypatch):
    """Whether one request asks for many samples or many do."""
    base = base_of(running.address)
    made = base.sample(SEEN, num, seed=9)
    np.testing.assert_allclose(made, by_hand(num, 9), atol=1e-6)
    assert np.array_equal(base.sample(SEEN, num, seed=9), made)
    assert not np.array_equal(base.sample(SEEN, num, seed=10), made)
    monkeypatch.setattr("exporl.serve.requests.EXTRAS", ("expo/seed",))
    one_by_one = base_of(running.address, connections=3)
    np.testing.assert_array_equal(one_by_one.sample(SEEN, num, seed=9), made)
    until(lambda: running.server.answers == 3 * 4 * (1 + num // 64) + 4 * num)  # once it is sent
    assert running.server.connected == (8 if num > 64 else 4) + 3


def test_a_policy_of_exporl_fits_and_is_told_apart(running):
    base = base_of(running.address)
    found = findings(base, num=4)
    assert {each.status for each in found.values()} == {"pass"}
    assert found["units"].detail == "actions between [-1, 1], as the environment takes them"
    assert found["memory"].detail == "the same question gets the same answer"
    assert "cannot learn, frozen" in found["learning"].detail
    assert len(base.fingerprint()) == 32 and base.seeded
    learns = OutsideBase(base.policy, "base", SPEC, learns=True)
    assert "has no imitate" in failed(learns)["learning"]


def test_the_first_actions_of_longer_chunks_are_used():
    def answer(message, before):
        return np.linspace(0, 0.5, 6).reshape(3, 2)

    two = dataclasses.replace(SPEC, action_dim=2, chunk_length=2)
    for metadata in ({}, {"action_horizon": 3}):
        with openpi_like(answer, metadata) as address:
            made = base_of(address, two).sample(SEEN, 1, 0)
            np.testing.assert_allclose(made[3, 0], [[0, 0.1], [0.2, 0.3]], atol=1e-6)
            whole = RemotePolicy(address).sample(dict(SEEN), 1, 0)
            assert whole.shape == (4, 1, 3, 2)
            four = dataclasses.replace(two, chunk_length=4)
            assert "give --chunk-length 3" in " ".join(failed(base_of(address, four)).values())


def test_actions_are_scaled_from_the_bounds_that_are_told():
    with serving(Served((-2.0, 6.0))) as running:
        base = base_of(running.address)
        np.testing.assert_allclose(base.sample(SEEN, 2, 1), by_hand(2, 1), atol=1e-6)
        assert Client(running.address).act({"state": np.zeros(2)}).max() > 1
        assert "made for actions between [-2, 6]" in failed(base)["units"]
        wide = ActionUnits((-2.0,), (6.0,), (1,), "float32")
        task = dataclasses.replace(TASK, action_units=wide)
        assert not [f for f in check_fit(base, SEEN, task=task) if f.status == "fail"]


def test_actions_of_a_server_without_bounds_may_be_in_the_environment_s_units():
    units = ActionUnits((-2.0,), (6.0,), (1,), "float32")
    with openpi_like(lambda message, before: np.full((1, 1), 4.0)) as address:
        policy = RemotePolicy(address, spec=SPEC, actions="env")
        base = OutsideBase(policy, "base", SPEC, units=units)
        np.testing.assert_allclose(base.sample(SEEN, 1, 0), np.full((4, 1, 1, 1), 0.5))
    with serving(Served((-2.0, 6.0))) as running:
        policy = RemotePolicy(running.address, actions="env")
        base = OutsideBase(policy, "base", SPEC, units=units)
        np.testing.assert_allclose(base.sample(SEEN, 2, 1), by_hand(2, 1), atol=1e-6)


def test_another_control_rate_is_a_warning():
    served = Served()
    served.interface = dataclasses.replace(served.interface, control_hz=20.0)
    with serving(served) as running:
        task = dataclasses.replace(TASK, control_hz=10.0)
        found = check_fit(base_of(running.address), SEEN, task=task)
        told = [each.detail for each in found if each.status == "warn"]
        assert len(told) == 1 and told[0].startswith(
            "the policy 20 Hz, the task 10 Hz: its actions"
        )


def test_entries_have_the_shape_that_the_server_reads():
    served = Served()
    served.interface = dataclasses.replace(served.interface, own_shapes={"state": (2, 1)})
    with serving(served) as running:
        base = base_of(running.address)
        assert not failed(base)
        np.testing.assert_allclose(base.sample(SEEN, 1, 4), by_hand(1, 4), atol=1e-6)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"observation": (("stat", (2,), "float32"),)}, "reads 'state' float32[2], which the task"),
        ({"observation": (("state", (3,), "float32"),)}, "reads 'state' [2], the task shows [3]"),
        ({"observation": (("state", (2,), "uint8"),)}, "'state' as float32, the task shows uint8"),
        ({"action_dim": 2}, "makes actions of 1 numbers, the task takes 2"),
        ({"chunk_length": 4}, "chunks of 1 actions, the run has chunk_length=4"),
    ],
)
def test_what_does_not_fit_is_known_before_anything_is_asked(running, task, said):
    spec = dataclasses.replace(SPEC, **task)
    found = check_fit(base_of(running.address, spec), SEEN)
    assert said in " ".join(each.detail for each in found if each.status == "fail")
    assert running.server.answers == 0


def drawing(message, before):
    """Draws by itself; one generator for all."""
    return GENERATOR.uniform(-0.5, 0.5, (1, 1))


GENERATOR = np.random.default_rng(0)


def test_a_server_without_seeds_draws_by_itself():
    with openpi_like(drawing) as address:
        base = base_of(address)
        found = findings(base, num=4)
        assert {each.status for each in found.values()} == {"pass"}
        assert "takes no seeds and draws by itself: runs do not repeat" in found["memory"].detail
        assert found["spread"].detail == "samples differ" and not base.seeded
        assert len(base.fingerprint()) == 0


def test_equal_answers_of_a_server_without_seeds():
    """More than one sample of them is refused; one is not."""

    def same(message, before):
        assert "expo/seed" not in message and "expo/samples" not in message
        return message["state"][:1, None] / 8

    with openpi_like(same) as address:
        base = base_of(address)
        with pytest.raises(ValueError, match=r"asked 4 times .* one answer, and it takes no seeds: "
                           r"it is deterministic, or plays from a memory. .* "
                           r"--algo.num-base-samples 1 instead of 2"):  # fmt: skip
            refuse_misfit(base, SEEN, num=2)
        refuse_misfit(base, SEEN, num=1)
        assert findings(base)["spread"].status == "skip"


def counted(message, before):
    return np.full((1, 1), len(before) / 100)


def test_a_memory_of_each_connection_is_found():
    with openpi_like(counted) as address:
        base = base_of(address, connections=1)
        assert "what it answers depends on what it was asked before" in failed(base)["memory"]


def test_a_memory_of_observations_is_found():
    """Asked the same twice it answers the same; asked about something else in between it does
    not."""

    def last(message, before):
        others = [m for m in before if not np.array_equal(m["state"], message["state"])]
        return np.full((1, 1), others[-1]["state"][0] / 8 if others else 0.0)

    with openpi_like(last) as address:
        base = base_of(address, connections=1)
        assert "asked twice it answers differently" in failed(base)["memory"]


def test_what_a_server_says_is_told_and_names_it():
    def broken(message, before):
        raise ArithmeticError("the joint is missing")

    with openpi_like(broken) as address:
        base = base_of(address)
        with pytest.raises(PolicyFailed, match=f"at {address} answered: .*the joint is missing"):
            base.sample(SEEN, 2, 0)
        assert "the joint is missing" in failed(base)["answers"]


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        (np.zeros(1), r"answers actions of the shape \[1\]; \[actions of a chunk, dimensions"),
        (np.zeros((1, 1, 1)), r"answers actions of the shape \[1, 1, 1\]"),
        (np.zeros((0, 1)), r"answers chunks of 0 actions"),
        ([["a"]], "answers no array of numbers as actions"),
        (np.zeros((1, 2)), r"answered in the shape \(4, 1, 1, 2\); \(4, 1, 1, 1\) is needed"),
    ],
)
def test_other_actions_than_the_protocol_has(actions, said):
    with openpi_like(lambda message, before: actions) as address:
        base = base_of(address)
        with pytest.raises(PolicyFailed, match=said):
            base.sample(SEEN, 1, 0)


def test_chunks_of_different_lengths():
    lengths = itertools.count(1)
    with openpi_like(lambda message, before: np.zeros((next(lengths), 1))) as address:
        policy = RemotePolicy(address, connections=1)
        with pytest.raises(PolicyFailed, match=r"answers chunks of 1 and of 4 actions"):
            policy.sample(dict(SEEN), 1, 0)


@pytest.mark.parametrize(
    "expo",
    [
        {"observation": 3},
        {"observation": {"state": {"shape": ["x"], "dtype": "float32"}}},
        {"observation": {"state": {}}},
        {"action": {"low": [0.0], "high": [-1.0], "shape": [1], "dtype": "float32"}},
        {"action": {"low": 1.0}},
        {"action": {"low": ["a"], "high": [1.0], "shape": [1], "dtype": "float32"}},
        {"extras": 3},
        {"extras": ["expo/samples"], "most_samples": None},
    ],
)
def test_metadata_that_makes_no_sense(expo):
    with pytest.raises(ValueError, match="at ws://x does not say what its policy takes and gives"):
        read_told({"expo": expo}, "ws://x")
    assert read_told({"expo": 3, "action_horizon": "many"}, "ws://x") == read_told({}, "ws://x")


@pytest.fixture
def nobody():
    """An address where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"ws://127.0.0.1:{held.getsockname()[1]}"


def test_a_server_that_is_down_is_named(nobody, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("exporl.external.remote.DEADLINE_S", 0.1)
    monkeypatch.chdir(tmp_path)
    for address in (nobody, nobody.replace("ws:", "wss:")):
        with pytest.raises(ConnectionError, match=f"no policy server answers at {address}"):
            find_policy(address, SPEC)
    assert main(["check", "probe/delay", "--demos", "0", "--policy", nobody]) == 2
    assert f"no policy server answers at {nobody}" in " ".join(capsys.readouterr().out.split())
    train = ["train", "expo", "--task", "probe/delay", "--preset", "tiny", "--data.demos", "2"]
    assert main([*train, "--run-dir", "run", "--base", nobody]) == 2
    assert f"no policy server answers at {nobody}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_it_cannot_be_made_with(running):
    for address in ("ws:nowhere", "ws://localhost:99999", "ws://localhost:port"):
        with pytest.raises(ValueError, match=f"'{address}' is no address such as ws://HOST:PORT"):
            find_policy(address, SPEC)
    for options in ({"connections": 0}, {"patience_s": 0.0}):
        with pytest.raises(ValueError, match="at least one connection and patience above 0"):
            RemotePolicy(running.address, **options)


def test_check_asks_the_server(running, capsys):
    check = ["check", "probe/delay", "--demos", "0", "--policy", running.address]
    assert main(check) == 0
    said = capsys.readouterr().out
    assert "base: memory" in said and "samples differ" in said and "base: units" in said


def test_a_run_that_names_a_server_needs_trust(running):
    assert outside_names({"base": {"policy": running.address}}) == {"base.policy": running.address}
    base = outside_base(running.address, None, SPEC, learns=False, learning_rate=0.0)
    assert base is not None and base.name == f"base policy {running.address!r}"
    elsewhere, moved = "ws://127.0.0.1:1", RemotePolicy(running.address)
    base = outside_base(elsewhere, moved, SPEC, learns=False, learning_rate=0.0)
    assert base is not None and base.policy is moved


def test_a_key(running):
    with serving(Served(), api_key="secret") as locked:
        base_of(locked.address, api_key="secret").sample(SEEN, 1, 0)
        with pytest.raises(ConnectionError, match="refuses this client"):
            RemotePolicy(locked.address, api_key="wrong")


def test_a_server_that_takes_fewer_connections_is_asked_over_those():
    with serving(Served(), most_clients=2) as running:
        base = base_of(running.address, connections=8)
        base.sample({"state": SEEN["state"][:2]}, 1, 3)
        base.policy.connections.patience = SHORT
        base.policy.connections._connected = lambda within_s: Client(  # the third one is refused
            running.address, deadline_s=0.1
        )
        before = running.server.answers
        base.policy.connections._open(8)
        base.policy.connections.patience = Patience(60.0, 60.0)
        np.testing.assert_allclose(base.sample(SEEN, 2, 3), by_hand(2, 3), atol=1e-6)
        assert running.server.connected == 2 and running.server.answers >= before + 3


def test_a_server_that_was_restarted_is_found_again(running):
    with serving(Served()) as first:
        base = base_of(first.address)
        one = base.sample(SEEN, 2, 5)
    with serving(Served(), port=first.port):
        np.testing.assert_array_equal(base.sample(SEEN, 2, 5), one)


def test_a_server_that_comes_back_after_the_deadline_is_waited_for(monkeypatch):
    with serving(Served()) as first:
        base = base_of(first.address)
        one = base.sample(SEEN, 2, 5)
    base.policy.connections.patience = Patience(0.05, 120.0)
    told = []
    with contextlib.ExitStack() as again:

        def come_back(message, stacklevel):
            told.append(message)
            base.policy.connections.patience = Patience(60.0, 120.0)
            again.enter_context(serving(Served(), port=first.port))

        monkeypatch.setattr(connections, "warnings", types.SimpleNamespace(warn=come_back))
        np.testing.assert_array_equal(base.sample(SEEN, 2, 5), one)
    assert told == [
        f"the policy server at {first.address} is lost; it is waited for up to 120 s more."
    ]


def test_a_server_that_stays_away_is_named():
    with serving(Served()) as running:
        base = base_of(running.address)
        base.sample(SEEN, 2, 5)
    base.policy.connections.patience = SHORT
    with (
        pytest.warns(UserWarning, match="is lost"),
        pytest.raises(PolicyFailed, match=rf"^no policy server answers at {running.address}; .*"
                      "Start the server again, then go on"),
    ):  # fmt: skip
        base.sample(SEEN, 2, 5)


def test_an_answer_that_does_not_come():
    served = Served()
    with serving(served) as running:
        base = base_of(running.address)
        base.sample(SEEN, 2, 5)
        served.open.clear()
        base.policy.connections.patience = Patience(0.1, 60.0)
        with pytest.raises(PolicyFailed, match=f"at {running.address} gave no answer within 0.1 s"):
            base.sample(SEEN, 2, 5)
        served.open.set()
        base.policy.connections.patience = Patience(60.0, 60.0)
        np.testing.assert_allclose(base.sample(SEEN, 2, 6), by_hand(2, 6), atol=1e-6)


def test_another_policy_behind_the_same_address():
    with serving(Served()) as first:
        base = base_of(first.address)
        base.sample(SEEN, 2, 5)
    other = Served()
    other.interface = dataclasses.replace(other.interface, task="probe/bandit", normalized=True)
    with (
        serving(Served((-2.0, 2.0)), port=first.port) as running,
        pytest.raises(PolicyFailed, match=f"at {running.address} serves another policy"),
    ):
        base.sample(SEEN, 2, 5)


def test_other_parameters_are_told(running):
    base = base_of(running.address)
    before = base.arrays()
    base.sample(SEEN, 2, 5)
    running.server.exchange(Served(checkpoint_name="second"))
    with pytest.warns(UserWarning, match=f"at {running.address} answers from second now, before"):
        base.sample(SEEN, 2, 5)
    base.sample(SEEN, 2, 5)
    with pytest.warns(UserWarning, match="answers from second now, and from first when the run"):
        base.load(before)
    base.load(base.arrays())


def test_closing_ends_every_connection(running):
    policy = RemotePolicy(running.address)
    policy.sample(dict(SEEN), 1, 0)
    assert running.server.connected == 4
    policy.close()
    policy.close()
