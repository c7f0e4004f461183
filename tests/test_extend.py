"""What it takes to add something to the library: one file, and its place in the registry. Shown on
a copy of the package, so that nothing else can have been touched."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exporl.algos import (
    ALGORITHMS,
    described_metrics,
    find_algorithm,
    make_algorithm,
    name_of,
)
from exporl.data.formats import FORMATS, Format
from exporl.envs.registry import FAMILIES
from exporl.envs.task import Family
from exporl.policies import BASES, BaseConfig, make_base
from exporl.run.presets import preset_config
from exporl.types import Spec
from helpers.examples import FOLDER

SOURCE = Path(__file__).parent.parent / "src" / "exporl"
FAMILY_FILE = '''"""The bandit by the sea."""

import dataclasses

from exporl.envs import probes
from exporl.envs.task import Family


def make(name, reward):
    return dataclasses.replace(probes.make("bandit", reward), name=f"shore/{name}")


FAMILY = Family(("near",), make, module=None, extra=None, summary="state 2, action 1, one step")
'''
FORMAT_FILE = '''"""One JSON object per line and episode."""

import functools
import json

import numpy as np

from exporl.data.episodes import Episode
from exporl.data.formats.record import Format, Record


def matches(path):
    return path.suffix == ".lines"


def records(path, options):
    for index, line in enumerate(path.read_text().splitlines()):
        yield Record(f"line {index}", functools.partial(read, line))


def read(line):
    data = {name: np.array(value, np.float32) for name, value in json.loads(line).items()}
    success = data["successes"] > 0
    return Episode({"state": data["state"]}, data["actions"], data["rewards"], success, True)


def write(path, episodes):
    lines = [
        {"state": e.observations["state"].tolist(), "actions": e.actions.tolist(),
         "rewards": e.rewards.tolist(), "successes": e.successes.tolist()}
        for e in episodes
    ]
    path.write_text("\\n".join(map(json.dumps, lines)))


FORMAT = Format("lines", "JSON lines", matches, records, write, endings=(".lines",))
'''
ADDED = {
    "envs/registry.py": (
        ("from exporl.envs import (\n", "from exporl.envs import (\n    shore,\n"),
        ("FAMILIES: dict[str, Family] = {\n", "FAMILIES = {\n    'shore': shore.FAMILY,\n"),
    ),
    "data/formats/__init__.py": (
        (
            "from exporl.data.formats import arrays,",
            "from exporl.data.formats import lines, arrays,",
        ),
        ("        pusht.FORMAT,", "        lines.FORMAT,\n        pusht.FORMAT,"),
    ),
}
"""Registry -> the lines that change in it."""
USE = """
from exporl.cli.main import main

assert main(["tasks", "shore"]) == 0
assert main(["check", "shore/near"]) == 0
collect = ["data", "collect", "shore/near", "--episodes", "3", "--output"]
assert main([*collect, "three.npz"]) == 0
assert main(["data", "convert", "three.npz", "three.lines"]) == 0
assert main(["data", "inspect", "three.lines"]) == 0
assert main(["check", "shore/near", "--data", "three.lines"]) == 0
"""


def test_a_family_and_a_format_are_one_file_each_and_a_line(tmp_path):
    copy = tmp_path / "source" / "exporl"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "envs" / "shore.py").write_text(FAMILY_FILE)
    (copy / "data" / "formats" / "lines.py").write_text(FORMAT_FILE)
    for registry, changes in ADDED.items():
        text = (copy / registry).read_text()
        for before, after in changes:
            assert text.count(before) == 1
            text = text.replace(before, after)
        (copy / registry).write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", USE],
        env={**os.environ, "PYTHONPATH": str(copy.parent), "COLUMNS": "200"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "shore/near: keeps its promises" in done.stdout
    assert "three.lines (lines)" in done.stdout and "3, 3 steps" in done.stdout


def test_the_documents_list_what_is_registered(monkeypatch):
    monkeypatch.syspath_prepend(SOURCE.parents[1] / "benchmarks")
    import reference

    family = Family(("near",), FAMILIES["probe"].make, None, None, "one step")
    monkeypatch.setitem(FAMILIES, "shore", family)
    monkeypatch.setitem(FORMATS, "lines", Format("lines", "JSON lines", bool, iter))
    assert "\n| `shore` | near | one step |" in reference.families()
    assert "\n| `lines` | JSON lines | no |" in reference.formats()


@pytest.mark.parametrize("registered", [True, False], ids=["registered", "outside"])
def test_an_algorithm_is_one_file(registered, monkeypatch):
    """And a line where it is to have a name of the library; none otherwise."""
    monkeypatch.syspath_prepend(FOLDER)
    name, spec = "custom_algorithm:BEST_OF_N", Spec((("state", (2,), "float32"),), 1)
    entry = find_algorithm(name)
    if registered:
        name = "best-of-n"
        monkeypatch.setitem(ALGORITHMS, name, entry)
        assert name_of(entry.config()) == name
    config = preset_config(name, "tiny", "probe/bandit")
    base = make_base(config.base, spec)
    algorithm = make_algorithm(name, config.algo, spec, base)
    assert config.algo == entry.config() and algorithm.has_base
    assert {"critic/loss", "base/loss"} <= set(described_metrics(name, algorithm, base))


@pytest.mark.parametrize("registered", [True, False], ids=["registered", "outside"])
def test_a_base_policy_is_one_file(registered, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    kind, spec = "custom_base_policy:gaussian", Spec((("state", (2,), "float32"),), 1)
    if registered:
        import custom_base_policy

        kind = "gaussian"
        monkeypatch.setitem(BASES, kind, custom_base_policy.gaussian)
    base = make_base(BaseConfig(kind, width=8, num_blocks=1), spec)
    assert base.noise_shape == (1, 1) and set(dict(base.metrics)) == {"base/loss"}
