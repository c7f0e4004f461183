"""The programs of `examples/`: how long they are, and one of them run as a reader would run it."""

import ast
import io
import runpy
import tokenize
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "examples"


def code_lines(path: Path) -> int:
    """Lines of code: without blank lines, comments and docstrings."""
    text = path.read_text()
    kinds = (tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.OP)
    documented = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    used = {token.start[0] for token in tokens if token.type in kinds}
    return len(used - documented)


def run_example(name: str, folder: Path, monkeypatch) -> None:
    """Runs an example as `python NAME`, its files going into a folder; other files can import it
    afterwards."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(FOLDER)
    runpy.run_path(str(FOLDER / name), run_name="__main__")
