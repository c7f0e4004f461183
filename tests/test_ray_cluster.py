"""A real Ray cluster of two nodes on this machine: runs join it, and its head is killed."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from exporl.files.atomic import read_lines
from helpers.ray_cluster import ENVIRONMENT, RayCluster
from helpers.runs import newest, wait_for

pytest.importorskip("ray", reason="needs Ray: pip install 'exporl[ray]'")
pytestmark = pytest.mark.slow
RLPD = ["rlpd", "--preset", "tiny", "--task", "probe/delay", "--data.demos", "4"]
RLPD += ["--algo.hidden", "16", "16", "--algo.num-qs", "3", "--train.batch-size", "8"]
RLPD += ["--train.utd-ratio", "1", "--train.random-steps", "4", "--train.update-after", "2"]
RLPD += ["--train.online-steps", "60", "--log.every", "20", "--log.save-every", "20"]
RLPD += ["--eval.every", "1000", "--eval.episodes", "3", "--num-envs", "2"]


@pytest.fixture(scope="module")
def cluster():
    with RayCluster(2) as made:
        yield made


def begin(*args: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "exporl.cli", "train", *args]
    environment = os.environ | ENVIRONMENT | environment
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True
    )


def new(run: Path, address: str, *args: str, **environment: str) -> subprocess.Popen[str]:
    return begin(*RLPD, "--run-dir", str(run), "--address", address, *args, **environment)


def ended(process: subprocess.Popen[str], status: int) -> str:
    said = " ".join(process.communicate(timeout=900)[0].split())
    assert process.returncode == status, said
    return said


def test_a_run_acts_on_another_node_and_leaves_the_cluster_as_it_was(tmp_path, cluster):
    run, before = tmp_path / "run", {each.pid for each in cluster.processes("raylet/raylet")}
    assert len(before) == 2  # and only the one that is not the head's can begin actors
    process = new(run, "auto", "--actors", "2", RAY_ADDRESS=cluster.address)
    ended(process, 0)
    last = read_lines(run / "metrics.jsonl")[-1]
    assert (last["env_steps"], last["updates"], last["actors/restarts"]) == (60, 58, 0)
    assert {each.pid for each in cluster.processes("raylet/raylet")} == before


def test_a_cluster_with_too_few_cpus_is_said_before_training(tmp_path, cluster):
    said = ended(new(tmp_path / "run", cluster.address, "--actors", "3", "--num-envs", "3"), 2)
    assert "the Ray cluster has 2 CPUs, and each of 3 actors needs one" in said
    assert "--wait-for-cpus" in said


def test_a_run_whose_cluster_loses_its_head_ends_and_goes_on_elsewhere(tmp_path, cluster):
    """The last test: there is no cluster after it."""
    run = tmp_path / "run"
    process = new(run, cluster.address, "--actors", "2", "--train.online-steps", "100000")
    wait_for(run / "metrics.jsonl", '"env_steps": 40', 900)
    (head,) = cluster.processes("gcs_server")
    head.kill()
    said = ended(process, 2)
    assert re.search(r"the head of the Ray cluster, [\d.]+:\d+, is gone", said), said
    assert f"go on with: exporl train --resume {run}" in said
    kept = int(newest(run).name.split("-")[1])
    assert kept >= 40 and newest(run).name in said
    lines = [line for line in read_lines(run / "metrics.jsonl") if line["env_steps"] <= kept]
    total = str(kept + 20)
    ended(begin("--resume", str(run), "--train.online-steps", total), 0)
    after = read_lines(run / "metrics.jsonl")
    assert after[: len(lines)] == lines and after[-1]["env_steps"] == kept + 20


def test_the_cluster_file_of_the_documents_is_one():
    yaml = pytest.importorskip("yaml")
    text = (Path(__file__).parents[1] / "docs" / "distributed.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    config = yaml.safe_load(block)
    folder = importlib.import_module("ray.autoscaler").__path__[0]
    schema = json.loads((Path(folder) / "ray-schema.json").read_text())
    jsonschema = importlib.import_module("jsonschema")
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        jsonschema.validate(config | {"max_worker": 1}, schema)
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
