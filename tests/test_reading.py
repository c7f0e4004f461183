"""How easily the algorithms read: shapes, words per line, documented options, no clever lambdas."""

import ast
import dataclasses
import inspect
import itertools
from pathlib import Path

import pytest

from exporl.algos import ALGORITHMS
from exporl.policies import BaseConfig
from helpers.code import lines_of_tokens

SOURCE = Path(__file__).parent.parent / "src" / "exporl"
ROOMS = ("ops", "nets", "policies", "algos")
FILES = sorted(path for room in ROOMS for path in (SOURCE / room).rglob("*.py"))
COLUMNS, LINES, FUNCTION_LINES, TOKENS = 100, 400, 60, 11

NOT_ARRAYS = {
    "algos/__init__.py: make_algorithm(config)": "options of any algorithm",
    "algos/__init__.py: check_config(config)": "options of any algorithm",
    "algos/algorithm.py: init()": "the state of any algorithm",
    "algos/algorithm.py: update(state)": "the state of any algorithm",
    "algos/algorithm.py: update()": "the state of any algorithm",
    "algos/algorithm.py: acting(state)": "the state of any algorithm",
}
"""Where `Any` stands for something that is no array: what it is."""
BARE = {"Array", "Any", "jax.Array", "np.ndarray", "AnyArray", "ArrayLike"}


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def functions(path: Path) -> list[ast.FunctionDef]:
    """Every function of a file, methods and inner functions included."""
    return [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
    ]


def is_bare(annotation: ast.expr | None) -> bool:
    """Whether an annotation is missing, or says nothing about a shape: alone, or as one of
    several possibilities."""
    if annotation is None:
        return True
    if isinstance(annotation, ast.BinOp):
        return is_bare(annotation.left) or is_bare(annotation.right)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "tuple":
        inside = annotation.slice
        return any(map(is_bare, inside.elts if isinstance(inside, ast.Tuple) else [inside]))
    return ast.unparse(annotation) in BARE


def without_shape(path: Path) -> list[str]:
    """Parameters, `function(parameter)`, and results, `function()`, that are annotated with no
    shape."""
    found = []
    for function in functions(path):
        given = function.args
        arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
        arguments += [argument for argument in (given.vararg, given.kwarg) if argument is not None]
        for argument in arguments:
            if argument.arg not in ("self", "cls") and is_bare(argument.annotation):
                found.append(f"{name_of(path)}: {function.name}({argument.arg})")
        if is_bare(function.returns):
            found.append(f"{name_of(path)}: {function.name}()")
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_array_has_a_shape(path):
    assert set(without_shape(path)) <= set(NOT_ARRAYS)


def test_every_exception_is_needed():
    found = {place for path in FILES for place in without_shape(path)}
    assert set(NOT_ARRAYS) == found


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("def f(x): return x", ["f(x)", "f()"]),
        ("def f(x: Array) -> Any: return x", ["f(x)", "f()"]),
        ('def f(x: Float[Array, "b"]) -> tuple[Array, int]: return x, 1', ["f()"]),
        ("def f(x: Array | None = None) -> None: pass", ["f(x)"]),
        ("def f(x: int) -> int:\n    def g(y): return y\n    return x", ["g(y)", "g()"]),
        ("class C:\n    def f(self, *x: Any, **y: object) -> None: pass", ["f(x)"]),
    ],
)
def test_a_missing_shape_is_found(text, places, tmp_path, monkeypatch):
    monkeypatch.setattr("test_reading.SOURCE", tmp_path)
    (tmp_path / "file.py").write_text(text)
    assert without_shape(tmp_path / "file.py") == [f"file.py: {place}" for place in places]


def tokens_per_line(text: str) -> float:
    """Names, numbers, strings and signs per line of code; docstrings and comments are none."""
    lines = lines_of_tokens(text)
    return len(lines) / max(len(set(lines)), 1)


def test_tokens_are_counted():
    assert tokens_per_line('"""Says nothing."""\n\nx = f(1)  # six\ny = "two"\n') == (6 + 3) / 2


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "algos"], ids=name_of)
def test_a_line_says_one_thing(path):
    assert tokens_per_line(path.read_text()) <= TOKENS


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_sizes(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    for function in functions(path):
        assert (function.end_lineno or 0) - function.lineno < FUNCTION_LINES, function.name


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_functions_have_names(path):
    """A lambda that is given a name is a function without a signature."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr):
            assert not isinstance(node.value, ast.Lambda), f"line {node.lineno}"
    assert "fmt: skip" not in path.read_text()


@pytest.mark.parametrize("config", [*(entry.config for entry in ALGORITHMS.values()), BaseConfig])
def test_options_are_documented_under_their_fields(config):
    documented = set()
    for part in (part for part in config.__mro__ if dataclasses.is_dataclass(part)):
        body = ast.parse(inspect.getsource(part)).body[0].body
        for field, text in itertools.pairwise(body):
            is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
                documented.add(field.target.id)
    assert documented == {field.name for field in dataclasses.fields(config)}
