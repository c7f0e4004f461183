"""The programs of `examples/`: how long they are, and one of them run as a reader would run it."""

import runpy
from pathlib import Path

from helpers.code import lines_of_tokens

FOLDER = Path(__file__).parents[2] / "examples"


def code_lines(path: Path) -> int:
    """Lines of code: without blank lines, comments and docstrings."""
    return len(set(lines_of_tokens(path.read_text())))


def run_example(name: str, folder: Path, monkeypatch) -> None:
    """Runs an example as `python NAME`, its files going into a folder; other files can import it
    afterwards."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(FOLDER)
    runpy.run_path(str(FOLDER / name), run_name="__main__")
