"""The programs of `examples/`: how long they are, and one of them run as a reader would run it."""

import runpy
from pathlib import Path

from exporl.files.atomic import read_lines
from helpers.code import lines_of_tokens

FOLDER = Path(__file__).parents[2] / "examples"


def code_lines(path: Path) -> int:
    """Lines of code: without blank lines, comments and docstrings."""
    return len(set(lines_of_tokens(path.read_text())))


def learnt_and_acted(run: Path, least_updates: int) -> None:
    """Asserts that a run's policy acted in training, and learnt online: what its files say."""
    lines = [line for line in read_lines(run / "metrics.jsonl") if line["phase"] == "online"]
    acted = [line["env_steps"] for line in lines if line["mode"] == "policy"]
    last = read_lines(run / "eval.jsonl")[-1]
    assert acted, f"the policy never acted in {run.name}"
    assert lines[-1]["updates"] == last["updates"] >= least_updates


def run_example(name: str, folder: Path, monkeypatch) -> None:
    """Runs an example as `python NAME`, its files going into a folder; other files can import it
    afterwards."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(FOLDER)
    runpy.run_path(str(FOLDER / name), run_name="__main__")
