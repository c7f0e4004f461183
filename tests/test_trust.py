"""Opening a run directory runs no code of it: what it names is loaded only where it is trusted, and
never from inside it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exporl import outside
from exporl.acting.policy import load_policy
from exporl.cli.main import main
from exporl.envs.registry import make_task
from exporl.files import checkpoint
from exporl.outside import check_trust, load_module, outside_names
from exporl.report.page import read_run
from exporl.run.config import to_json
from exporl.run.directory import load_config
from exporl.run.loop import train
from exporl.run.session import load_run
from helpers.runs import newest, tiny

OLD = Path(__file__).parent / "data" / "old_run"
PAYLOAD = """
from pathlib import Path
Path({proof!r}).write_text("code ran")
def make():
    raise SystemExit
"""


@pytest.fixture(autouse=True)
def nothing_opened(monkeypatch):
    """Run directories that other tests have opened do not count."""
    monkeypatch.setattr(outside, "_OPENED", set())


class Evil:
    """A run directory that was downloaded, with code in it, in the current directory."""

    def __init__(self, folder: Path, module: str, **named):
        self.proof = folder / "proof"
        self.run = Path(shutil.copytree(OLD, folder / "runs" / "evil"))
        self.name = f"{module}:make"
        for place in (self.run / "payload.py", self.run / "package" / "__init__.py"):
            place.parent.mkdir(exist_ok=True)
            place.write_text(PAYLOAD.format(proof=str(self.proof)))
        config = json.loads((self.run / "config.json").read_text())
        for option in named:
            *outer, last = option.split("__")
            inner = config
            for key in outer:
                inner = inner[key]
            inner[last] = self.name
        (self.run / "config.json").write_text(json.dumps(config))

    def harmless(self) -> bool:
        return not self.proof.exists()


WAYS = {
    "the whole way from the current directory": ("runs.evil.payload", "."),
    "a package on the way": ("runs.evil.package.inner", "."),
    "inside the run": ("payload", "runs/evil"),
    "inside a folder of the run": ("payload", "runs/evil/checkpoints"),
}
OPTIONS = ("task", "algorithm", "base__kind")


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("way", WAYS)
def test_a_downloaded_run_runs_no_code(tmp_path, monkeypatch, capsys, way, option):
    module, start = WAYS[way]
    evil = Evil(tmp_path, module, **{option: None})
    monkeypatch.chdir(tmp_path / start)
    if start.endswith("checkpoints"):
        monkeypatch.syspath_prepend(evil.run)
    message = (
        f"names code that does not come with exporl: {option.replace('__', '.')} '{evil.name}'"
    )
    for args in (["eval", str(evil.run)], ["train", "--resume", str(evil.run)]):
        assert main(args) == 2
        assert message in capsys.readouterr().err
    assert evil.harmless()
    if option != "task":  # a policy needs no task
        with pytest.raises(ValueError, match=message):
            load_policy(evil.run)
    with pytest.raises(ValueError, match=message):
        load_run(evil.run)
    read_run(evil.run)  # a report loads nothing
    assert evil.harmless()


@pytest.mark.parametrize("way", WAYS)
def test_code_inside_a_run_directory_is_not_loaded_even_if_it_is_trusted(
    tmp_path, monkeypatch, way
):
    module, start = WAYS[way]
    evil = Evil(tmp_path, module, algorithm=None)
    monkeypatch.chdir(tmp_path / start)
    if start.endswith("checkpoints"):
        monkeypatch.syspath_prepend(evil.run)
    for load in (load_policy, load_run):
        with pytest.raises(ValueError, match=r"inside the run directory .*evil: code is never"):
            load(evil.run, trust=True)
    check_trust(evil.run, {}, False)
    with pytest.raises(ValueError, match=r"inside the run directory .*evil: code is never"):
        make_task(evil.name)
    assert evil.harmless()


def test_a_link_into_a_run_directory_is_no_way_in(tmp_path, monkeypatch):
    evil = Evil(tmp_path, "mine", algorithm=None)
    (tmp_path / "mine.py").symlink_to(evil.run / "payload.py")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="inside the run directory"):
        load_policy(evil.run, trust=True)
    assert evil.harmless()


def test_what_trusted_code_imports_is_not_found_in_the_run_either(tmp_path, monkeypatch):
    """The module is installed, and what it imports would be in the current directory, the run."""
    evil = Evil(tmp_path, "payload")
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "honest_module.py").write_text("import payload")
    monkeypatch.syspath_prepend(installed)
    monkeypatch.chdir(evil.run)
    check_trust(evil.run, {}, False)
    with pytest.raises(ValueError, match=r"cannot import 'honest_module'.*No module named 'payl"):
        load_module("honest_module:make", "task")
    assert evil.harmless()


def test_the_checkpoint_names_no_code_either(tmp_path, monkeypatch):
    """The configuration is harmless, and the one in the checkpoint's record is not."""
    evil = Evil(tmp_path, "runs.evil.payload")
    parts, record = checkpoint.load(newest(evil.run))
    record["config"]["algorithm"] = evil.name
    checkpoint.save(evil.run / "checkpoints", 160, parts, record, 1)
    monkeypatch.chdir(tmp_path)
    for load in (load_policy, load_run):
        with pytest.raises(ValueError, match=r"config\.json was changed since .*: algorithm was"):
            load(evil.run)
    assert evil.harmless()


# Code of one's own.

MINE = """
import dataclasses
from exporl.algos.expo_entry import EXPO
mine = dataclasses.replace(EXPO, name="mine")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A run of an algorithm of one's own, beside the module."""
    run = Path(shutil.copytree(OLD, tmp_path / "runs" / "own"))
    config = json.loads((run / "config.json").read_text()) | {"algorithm": "own_module:mine"}
    (run / "config.json").write_text(json.dumps(config))
    (tmp_path / "own_module.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return run


@pytest.mark.parametrize("trust", [True, ["own_module:mine"]], ids=["all", "by name"])
def test_what_is_trusted_is_loaded(own, trust):
    assert load_config(own, trust=trust).algorithm == "own_module:mine"


def test_other_names_are_not_trusted(own):
    with pytest.raises(ValueError, match=r"algorithm 'own_module:mine'.*add --trust"):
        load_config(own, trust=["other_module:mine"])


def test_whoever_names_it_in_the_command_trusts_it(own, capsys):
    """It gets as far as the checkpoint, which is of another algorithm."""
    for args in (["train", "own_module:mine", "--resume", str(own)], ["eval", str(own), "--trust"]):
        assert main(args) == 2
        assert "algorithm was 'expo', is now 'own_module:mine'" in capsys.readouterr().err


def test_a_configuration_given_in_python_is_the_callers_own(tmp_path, monkeypatch):
    (tmp_path / "other_module.py").write_text("def make():\n    raise RuntimeError('asked for')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="asked for"):
        train(tiny(task="other_module:make"), tmp_path / "run")


def test_every_option_that_could_be_loaded_is_found():
    config = to_json(tiny(task="a:task", **{"base.kind": "a:base"})) | {"algorithm": "a:algorithm"}
    config["algo"]["anything"] = ["a:part"]
    config["data"]["path"] = "C:/demos.npz"
    assert outside_names(config) == {
        "task": "a:task",
        "algorithm": "a:algorithm",
        "base.kind": "a:base",
        "algo.anything": "a:part",
    }
    assert "task" not in outside_names(config, task=False)


@pytest.mark.slow
def test_help_names_the_option():
    done = subprocess.run(
        [sys.executable, "-m", "exporl.cli", "eval", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--trust" in done.stdout
