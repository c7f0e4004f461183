"""The house rules that a machine can check: import arrows, forbidden constructs, documentation,
sizes, options in use."""

import ast
import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import pytest

import exporl
from exporl.algos import ALGORITHMS
from exporl.run.config import RunConfig

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "exporl"
FILES = sorted(SOURCE.rglob("*.py"))
ROOMS = (
    "spec",
    "suggest",
    "outside",
    "once",
    "randomness",
    "units",
    "nested",
    "types",
    "plain",
    "options",
    "files",
    "serve/messages",
    "serve/jumps",
    "serve/client",
    "serve/admission",
    "actor",
    "ops",
    "nets",
    "policies",
    "algos",
    "data",
    "envs",
    "external",
    "acting",
    "speed",
    "stats",
    "report",
    "bundle",
    "parallel/background",
    "run",
    "distributed",
    "serve",
    "parallel",
    "bench",
    "cli",
    "__main__",
    "__init__",
)
"""From the bottom up: folders, modules beside them, and the modules that lie lower than their
folders: the client of a policy server needs nothing of the library, and a base policy may be asked
through it."""
HOST, DEVICE = {"data", "envs", "external"}, {"ops", "nets", "policies", "algos"}
HEAVY = {
    "metaworld",
    "mujoco",
    "gymnasium_robotics",
    "ogbench",
    "robosuite",
    "gym_pusht",
    "highway_env",
    "h5py",
    "pyarrow",
    "av",
    "minari",
    "matplotlib",
    "torch",
    "onnxruntime",
    "websockets",
    "msgpack",
    "onnx",
    "huggingface_hub",
    "lerobot",
    "optuna",
    "ray",
}
FORBIDDEN_ON_DEVICE = {
    "gymnasium",
    "time",
    "os",
    "pathlib",
    "random",
    "json",
    "rich",
    "safetensors",
}
MOST_LINES, LONGEST_FUNCTION = 400, 60


def relative(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def room(path: Path) -> str:
    """The room that a file belongs to: of several, the one that names it most closely."""
    name = relative(path).removesuffix(".py")
    return max(
        (r for r in ROOMS if name == r or name.startswith(r + "/")), key=len, default="no room"
    )


def imports(path: Path) -> list[str]:
    """Every module or name that a file imports, wherever in the file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def file_of(name: str) -> Path:
    """The file of this package that an imported name is found in."""
    parts = name.split(".")[1:]
    for end in range(len(parts), 0, -1):
        for path in (
            SOURCE.joinpath(*parts[:end]).with_suffix(".py"),
            SOURCE.joinpath(*parts[:end], "__init__.py"),
        ):
            if path.is_file():
                return path
    return SOURCE / "__init__.py"


NEEDED = {
    path: {file_of(name) for name in imports(path) if name.split(".")[0] == "exporl"}
    for path in FILES
}
"""File -> files of the package that it imports."""


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_go_down(path):
    here = room(path)
    assert here in ROOMS, f"{relative(path)} belongs to no room"
    for needed in NEEDED[path]:
        there = room(needed)
        assert ROOMS.index(there) <= ROOMS.index(here), (
            f"{relative(path)} imports {relative(needed)}, which is above it"
        )
        assert not (here in HOST and there in DEVICE), f"{here} (host) imports {there} (device)"
    for package in {name.split(".")[0] for name in imports(path)}:
        if here in DEVICE or here == "types":
            assert package not in FORBIDDEN_ON_DEVICE, f"{here} is pure: no {package}"
        if here in HOST:
            assert package not in {"flax", "optax"}, f"{here} is the host's side: no {package}"
        assert package not in {"pickle", "dill", "cloudpickle", "marshal", "shelve"}


def test_every_room_has_files():
    assert {room(path) for path in FILES} == set(ROOMS)


def test_files_do_not_import_each_other_in_a_circle():
    left = {path: needed - {path} for path, needed in NEEDED.items()}
    while free := {path for path, needed in left.items() if not needed & left.keys()}:
        left = {path: needed for path, needed in left.items() if path not in free}
    assert not left, f"these import each other, or what does: {sorted(map(relative, left))}"


def test_the_algorithm_is_read_without_the_rest_of_the_library(capsys):
    """What `algos/expo.py` needs, followed through every import, and printed with its size."""
    needed, new = set(), {SOURCE / "algos" / "expo.py"}
    while new:
        needed |= new
        new = set().union(*(NEEDED[path] for path in new)) - needed
    lines = {relative(path): len(path.read_text().splitlines()) for path in sorted(needed)}
    with capsys.disabled():
        print(f"\nalgos/expo.py needs {len(lines)} files, {sum(lines.values())} lines: {lines}")
    below = set(ROOMS[: ROOMS.index("algos") + 1])
    assert {room(path) for path in needed} <= below
    assert not any(name.startswith(("data/", "envs/", "run/")) for name in lines)


def test_test_files_do_not_import_each_other():
    for path in (ROOT / "tests").rglob("*.py"):
        assert not [name for name in imports(path) if name.startswith("test_")], path


def test_algorithms_do_not_import_each_other():
    names = set(ALGORITHMS)
    for name in names:
        for imported in imports(SOURCE / "algos" / f"{name}.py"):
            parts = imported.split(".")
            assert (
                parts[:2] != ["exporl", "algos"] or len(parts) < 3 or parts[2] not in names - {name}
            )


def test_heavy_packages_are_imported_where_they_are_used():
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(n.split(".")[0] in HEAVY for n in names), path


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_eval_no_bare_except_no_global_randomness_no_print(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {
                "eval",
                "exec",
                "input",
            }, f"{node.func.id} in line {node.lineno}"
            assert node.func.id != "print" or room(path) == "cli", f"print in line {node.lineno}"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "np.random":
            # One file seeds and restores the global state around simulators that draw from nothing
            # else.
            lends = (
                {"get_state", "set_state", "seed"}
                if path == SOURCE / "envs" / "global_random.py"
                else set()
            )
            assert node.attr in {"default_rng", "Generator", "SeedSequence"} | lends, (
                f"{ast.unparse(node)} in line {node.lineno}"
            )
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) != "jax.random.PRNGKey"


def test_the_loop_names_no_algorithm_and_no_task():
    for name in (
        "run/build",
        "run/callbacks",
        "run/learner",
        "run/learning",
        "run/loop",
        "run/trainer",
        "run/session",
        "acting/rollout",
        "acting/guard",
    ):
        words = set(re.findall(r"\w+", (SOURCE / f"{name}.py").read_text().lower()))
        assert not words & {"expo", "rlpd", "metaworld", "adroit", "antmaze", "robomimic"}, name


def test_no_device_names():
    for path in FILES:
        assert not re.search(r"\b(cuda|gpu|tpu)\b[:(\"']", path.read_text(), re.IGNORECASE), path


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_and_functions_are_short(path):
    lines = len(path.read_text().splitlines())
    assert lines <= MOST_LINES, f"{lines} lines"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


def lambdas_named(source: str) -> list[int]:
    """Lines that give a lambda a name, also one out of two."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr):
            values = [node.value]
            while values:
                value = values.pop()
                if isinstance(value, ast.IfExp):
                    values += [value.body, value.orelse]
                elif isinstance(value, ast.BoolOp):
                    values += value.values
                elif isinstance(value, ast.Lambda):
                    found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_no_lambda_has_a_name(path):
    assert not lambdas_named(path.read_text())


def test_named_lambdas_are_found():
    source = (
        "f = lambda: 1\ng = (lambda: 1) if f else f\nh: F = f or (lambda: 2)\nsorted([], key=lambda"
        " x: x)\n"
    )
    assert lambdas_named(source) == [1, 2, 3]


def test_tests_are_not_much_shorter_than_the_source():
    def count(paths):
        return sum(len(path.read_text().splitlines()) for path in paths)

    assert count((ROOT / "tests").rglob("*.py")) >= 0.8 * count(FILES)


def test_the_lazy_package_says_the_same_in_three_places():
    module = ast.parse((SOURCE / "__init__.py").read_text())
    seen = {
        alias.name: node.module
        for block in module.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == exporl._HOME
    assert sorted(seen) == sorted(exporl.__all__)
    assert set(exporl.__all__) <= set(dir(exporl))


@pytest.mark.parametrize("name", exporl.__all__)
def test_public_names_are_what_their_home_defines(name):
    home = importlib.import_module(exporl._HOME[name])
    assert getattr(exporl, name) is getattr(home, name)


def test_a_name_that_is_not_public():
    with pytest.raises(AttributeError, match="module 'exporl' has no attribute 'trian'"):
        exporl.trian  # noqa: B018


def public():
    """Everything that `exporl` exports, and the public methods of its classes."""
    for name in exporl.__all__:
        value = getattr(exporl, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            yield name, value
        if inspect.isclass(value) and value.__module__.startswith("exporl"):
            for member, function in vars(value).items():
                if (
                    inspect.isfunction(function)
                    and not member.startswith("_")
                    and function.__module__ == value.__module__
                ):
                    yield f"{name}.{member}", function


@pytest.mark.parametrize(
    ("name", "value"), list(public()), ids=lambda x: x if isinstance(x, str) else ""
)
def test_public_symbols_are_documented(name, value):
    if name.endswith(".replace"):
        return  # made by flax for its dataclasses
    text = inspect.getdoc(value) or ""
    assert len(text) > 10 and not text.startswith(value.__name__ + "("), (
        f"{name} has no docstring of its own"
    )


def test_every_definition_is_documented():
    """Public functions and classes of every module, exported or not."""
    for path in FILES:
        module = ast.parse(path.read_text())
        assert ast.get_docstring(module), path
        for node in module.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


@pytest.mark.slow
def test_every_option_is_read_somewhere():
    text = {path: path.read_text() for path in FILES}
    configs = [entry.config for entry in ALGORITHMS.values()]
    configs += [
        RunConfig,
        *(
            getattr(exporl, n)
            for n in ("DataConfig", "TrainConfig", "EvalConfig", "LogConfig", "BaseConfig")
        ),
    ]
    for config in configs:
        home = Path(inspect.getfile(config))
        for field in dataclasses.fields(config):
            pattern = re.compile(rf"\.{field.name}\b|[\"']{field.name}[\"']")
            own = len(
                re.findall(
                    rf"config\.{field.name}\b|self\.{field.name}\b|\.{field.name}\b", text[home]
                )
            )
            used = own + sum(
                len(pattern.findall(t))
                for p, t in text.items()
                if p != home and p.name != "presets.py"
            )
            assert used, f"{config.__name__}.{field.name} is read nowhere"
