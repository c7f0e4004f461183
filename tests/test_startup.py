"""What starts at once: help, lists and looks into files do not wait for JAX."""

import subprocess
import sys

import numpy as np
import pytest

from exporl.data.episodes import Episode
from exporl.data.formats import save_npz

RUN = """
import sys
from exporl.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as left:  # argparse's own --help
    status = left.code
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(status)
"""


def imported(*args: str, code: str = RUN, status: int = 0) -> set[str]:
    """The packages that a new process has imported after one command."""
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return {module.split(".")[0] for module in done.stderr.splitlines()[-1].split()}


@pytest.fixture
def episodes(tmp_path):
    """A file of one episode."""
    path = tmp_path / "one.npz"
    actions, seen = np.zeros((3, 2), np.float32), {"state": np.zeros((4, 1), np.float32)}
    save_npz(
        path, [Episode(seen, actions, np.zeros(3, np.float32), np.zeros(3, bool), terminated=False)]
    )
    return path


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("--help",),
        ("--version",),
        ("train", "--help"),
        ("bench", "--help"),
        ("export", "--help"),
    ],
)
def test_help_imports_nothing_beside_the_standard_library(args):
    assert not imported(*args) & {"jax", "flax", "numpy", "rich", "tyro", "gymnasium", "jaxtyping"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "args",
    [("tasks",), ("tasks", "probe"), ("data", "--help")],
    ids=" ".join,
)
def test_lists_do_not_import_jax(args):
    assert not imported(*args) & {"jax", "flax", "optax"}


@pytest.mark.parametrize("command", ["inspect", "validate"])
def test_looking_into_a_file_does_not_import_jax(command, episodes):
    assert not imported("data", command, str(episodes)) & {"jax", "flax", "optax", "gymnasium"}


@pytest.mark.parametrize(
    "args",
    [
        ("train", "expos", "--task", "probe/bandit"),
        ("train", "expo"),
        ("train", "expo", "--task", "probe/bandit", "--lr", "1"),
        ("train", "--resume"),
    ],
    ids=" ".join,
)
def test_the_usual_mistakes_are_answered_at_once(args):
    assert not imported(*args, status=2) & {"jax", "numpy", "rich", "tyro", "gymnasium"}


def test_tables_of_a_suite_do_not_import_jax(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text('score = 0.5\n[algorithms.expo]\n[tasks."probe/bandit"]\n')
    assert not imported("bench", str(path), "--table") & {"jax", "flax", "optax", "gymnasium"}


@pytest.mark.parametrize("module", ["exporl", "exporl.cli"])
def test_the_command_is_there_without_its_script(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("exporl ") and done.stderr == ""


def test_the_package_alone_imports_nothing():
    code = "import sys, exporl; dir(exporl); print(*sorted(sys.modules), file=sys.stderr)"
    assert not imported(code=code) & {"jax", "numpy", "gymnasium"}


@pytest.mark.slow
def test_a_name_imports_what_it_needs():
    code = "import sys; from exporl import Batch; print(*sorted(sys.modules), file=sys.stderr)"
    assert {"jax", "flax"} <= imported(code=code)
