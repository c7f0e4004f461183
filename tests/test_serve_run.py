"""A run behind the server: its policy's own actions, whoever else asks; newer checkpoints."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("websockets")
from exporl.acting.of_task import interface_of_run
from exporl.acting.policy import load_policy
from exporl.acting.rows import act_each, ranked
from exporl.algos import BestOfNConfig, ExpoConfig, RlpdConfig
from exporl.files import checkpoint
from exporl.serve.batches import SIZES, compile_calls
from exporl.serve.client import Client
from exporl.serve.newer import Newer
from exporl.serve.requests import metadata
from helpers.runs import newest
from helpers.serving import serving, until

OLD = Path(__file__).parent / "data" / "old_run"
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}
RNG = np.random.default_rng(0)
ROWS = {"state": RNG.uniform(-1, 1, (16, 2)).astype(np.float32)}
SEEDS = np.arange(16, dtype=np.uint32) % 5


@pytest.fixture(scope="module")
def policy():
    policy = load_policy(OLD)
    compile_calls(policy)
    return policy


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def write_newer(run, change, step=240):
    """A checkpoint that came later, its learner changed."""
    parts, record = checkpoint.load(newest(run))
    learner = {name: np.asarray(change(array)) for name, array in parts["learner"].items()}
    checkpoint.save(run / "checkpoints", step, parts | {"learner": learner}, record, 5)


def test_what_is_decided_for_one_does_not_depend_on_the_others(policy):
    """To the bit in a call of the same size, to rounding in one of another."""
    together = policy.decide_each(ROWS, SEEDS)
    others = {"state": np.where(np.arange(16)[:, None] == 3, ROWS["state"], 9.0)}
    with_others = policy.decide_each(others.copy(), np.where(np.arange(16) == 3, SEEDS, 77))
    np.testing.assert_array_equal(with_others[3].action, together[3].action)
    for row in range(16):
        alone = {"state": ROWS["state"][row : row + 1]}
        one = policy.decide_each(alone, SEEDS[row : row + 1])[0]
        itself = policy.decide({"state": ROWS["state"][row]}, seed=int(SEEDS[row]))
        for other in (one, itself):
            np.testing.assert_allclose(together[row].action, other.action, **ROUNDING)
            np.testing.assert_allclose(together[row].info["q"], other.info["q"], **ROUNDING)
            assert together[row].info["index"] == other.info["index"]


def test_nothing_is_compiled_while_robots_wait(policy):
    compiled = act_each(policy.algorithm.act, policy.mode)
    before = compiled._cache_size()
    with serving(policy) as running, Client(running.address) as client:
        client.act({"state": [0.1, 0.2]})
        client.act({"state": np.array([0.1, 0.2], np.float64)}, seed=2**32 - 1)
    policy.decide_each({"state": ROWS["state"][: SIZES[1]]}, SEEDS[: SIZES[1]])
    assert compiled._cache_size() == before >= len(SIZES)


def test_a_client_gets_what_the_policy_decides(policy):
    with serving(policy) as running, Client(running.address) as client:
        for seed, state in enumerate(ROWS["state"][:5]):
            found = client.infer({"state": state}, seed=seed)
            itself = policy.decide({"state": state}, seed=seed)
            np.testing.assert_allclose(found["actions"], itself.action, **ROUNDING)
            np.testing.assert_allclose(found["expo/q"], itself.info["q"], **ROUNDING)
            assert found["expo/index"] == itself.info["index"]
            assert found["expo/edited"] is bool(itself.info["edited"])
    assert client.metadata["expo"]["candidates"] == 8 == policy.candidates


def test_how_many_are_ranked():
    expo = ExpoConfig(num_base_samples=8, num_edit_samples=4)
    assert ranked(expo, "evaluate") == 12 and ranked(expo, "base") == 1
    assert ranked(dataclasses.replace(expo, edits_act="explore"), "evaluate") == 8
    filtered = dataclasses.replace(expo, backup="filtered", filter_acting=True)
    assert ranked(filtered, "evaluate") == 2
    assert ranked(BestOfNConfig(), "evaluate") == 8 and ranked(RlpdConfig(), "evaluate") is None


def test_a_policy_that_comes_to_no_number(policy):
    broken = load_policy(OLD)
    broken.parameters = jax.tree.map(lambda x: x * np.float32(np.nan), broken.parameters)
    assert broken.decide_each({"state": ROWS["state"][:1]}, SEEDS[:1]) == [None]
    with (
        serving(broken) as running,
        Client(running.address) as client,
        pytest.raises(ValueError, match="the policy came to no number for this observation"),
    ):
        client.act({"state": [0.0, 0.0]})


def test_a_newer_checkpoint_is_taken_over(run):
    said = []
    policy = load_policy(run)
    newer = Newer(run, lambda: load_policy(run), said.append)
    with serving(policy) as running, Client(running.address) as client:
        before = client.infer({"state": [0.3, 0.1]}, seed=1)
        assert newer.look(policy) is None and not said
        write_newer(run, lambda array: array * 2)
        found = newer.look(policy)
        running.server.exchange(found)
        after = client.infer({"state": [0.3, 0.1]}, seed=1)
        assert running.server.connected == 1, "on the same connection"
    assert said == ["serving checkpoint-000000240 from now on"]
    assert after["expo/checkpoint"] == "checkpoint-000000240" != before["expo/checkpoint"]
    itself = load_policy(run).decide({"state": [0.3, 0.1]}, seed=1)
    np.testing.assert_allclose(after["actions"], itself.action, **ROUNDING)
    assert after["expo/q"] != before["expo/q"]


def test_a_folder_that_only_sounds_newer_and_a_checkpoint_that_is_written_anew(run):
    """Neither a copy with a name of its own nor what was refused before hides what is of use."""
    said = []
    policy = load_policy(run)
    newer = Newer(run, lambda: load_policy(run), said.append)
    write_newer(run, lambda array: array, step=240)
    learner = newest(run) / "learner.safetensors"
    (run / "checkpoints" / "checkpoint-backup").mkdir()
    kept = learner.read_bytes()
    learner.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="a damaged checkpoint"):
        assert newer.look(policy) is None
    learner.write_bytes(kept)
    os.utime(learner.parent / "manifest.json")
    with pytest.warns(UserWarning, match="checkpoint-backup"):
        found = newer.look(policy)
    assert found is not None and found.checkpoint_name == "checkpoint-000000240"


def test_a_newer_checkpoint_that_is_of_no_use(run):
    """It is said once, and the older one goes on."""
    said = []
    policy = load_policy(run)
    newer = Newer(run, lambda: load_policy(run), said.append)
    write_newer(run, lambda array: array * np.float32(np.nan) if array.dtype.kind == "f" else array)
    found = newer.look(policy)
    assert found is not None, "numbers are looked at when it decides"
    write_newer(run, lambda array: array, step=320)
    (newest(run) / "learner.safetensors").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="a damaged checkpoint"):
        assert newer.look(found) is None
    assert newer.look(found) is None
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"precision": "bfloat16"}))
    parts, record = checkpoint.load(run / "checkpoints" / found.checkpoint_name)
    checkpoint.save(run / "checkpoints", 400, parts, record, 5)
    assert newer.look(found) is None and newer.look(found) is None
    assert len(said) == 2 and said[1].startswith("checkpoint-000000400 is not served: ")
    assert said[1].endswith(f"Going on with {found.checkpoint_name}.")


def test_the_hash_of_the_statistics(run):
    stated = interface_of_run(run).to_json() | {"normalized": True}
    (run / "policy.json").write_text(json.dumps(stated))
    statistics = {"mean": {"state": [0.5, 0.5]}, "std": {"state": [2.0, 2.0]}, "clip": 5.0}
    (run / "statistics.json").write_text(json.dumps(statistics))
    digest = hashlib.sha256((run / "statistics.json").read_bytes()).hexdigest()
    policy = load_policy(run)
    assert metadata(policy, digest)["expo"]["statistics_sha256"] == digest
    one = policy.decide_each({"state": ROWS["state"][:1]}, SEEDS[:1])[0]
    itself = policy.decide({"state": ROWS["state"][0]}, seed=int(SEEDS[0]))
    np.testing.assert_allclose(one.action, itself.action, **ROUNDING)


@pytest.mark.slow
def test_the_command(run, tmp_path):
    """Starts, answers, follows the run on the same connection, ends at a signal."""
    command = [sys.executable, "-m", "exporl.cli", "serve", str(run), "--port", "0"]
    with (
        (tmp_path / "said").open("w") as said,
        subprocess.Popen(
            [*command, "--reload-every", "0.02"], stdout=subprocess.PIPE, stderr=said, text=True
        ) as server,
    ):
        try:
            last = answered(run, server)
        finally:
            server.kill()
    told = (tmp_path / "said").read_text()
    assert last.startswith("ended after ") and "Traceback" not in told
    assert "serving checkpoint-000000240 from now on" in told


def answered(run, server) -> str:
    """Asks a server while its run goes on, ends it with SIGTERM; its last words."""
    line = server.stdout.readline()
    assert line.startswith(f"serving {run} (checkpoint-000000160) at ws://127.0.0.1:")
    address = line.split(" at ")[1].split(";")[0]
    with urllib.request.urlopen(address.replace("ws:", "http:") + "/healthz") as answer:
        assert answer.read() == b"OK\n"
    with Client(address, deadline_s=60.0) as client:
        first = client.infer({"state": [0.3, 0.1]}, seed=1)
        itself = load_policy(run).decide({"state": [0.3, 0.1]}, seed=1)
        np.testing.assert_allclose(first["actions"], itself.action, **ROUNDING)
        write_newer(run, lambda array: array * 2)

        def followed():
            answer = client.infer({"state": [0.3, 0.1]}, seed=1)
            return answer["expo/checkpoint"] == "checkpoint-000000240"

        until(followed)
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    return server.stdout.read()
