"""The house rules that a machine can check: import arrows, forbidden constructs, documentation, sizes, options in use."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import pytest

import exporl
from exporl.algos import ALGORITHMS
from exporl.config import RunConfig

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "exporl"
FILES = sorted(SOURCE.rglob("*.py"))
LAYERS = {
    "types": 0, "outside": 0, "ops": 1, "nets": 2, "policies": 3, "algos": 4, "data": 4, "envs": 5, "learner": 6, "metrics": 6,
    "checkpoint": 6, "stats": 6, "tuning": 7, "stopping": 6, "asynchronous": 6, "lockstep": 6, "console": 6,
    "charts": 6, "terminal": 6,
    "rollout": 7, "evaluate": 8, "config": 8, "presets": 9, "runs": 9, "ahead": 9, "session": 10,
    "report": 10, "data_page": 10, "train": 11, "demo": 12, "cli_data": 12, "cli_tasks": 12,
    "processes": 12, "seeds": 13, "cli": 14, "__init__": 15,
}  # fmt: skip
PRINTING = {"cli", "cli_data", "cli_tasks", "demo"}
HOST, DEVICE = {"data", "envs"}, {"ops", "nets", "policies", "algos"}
HEAVY = {"metaworld", "mujoco", "gymnasium_robotics", "ogbench", "robosuite", "gym_pusht", "highway_env", "h5py", "pyarrow", "av",
         "minari", "matplotlib"}  # fmt: skip
FORBIDDEN_ON_DEVICE = {"gymnasium", "time", "os", "pathlib", "random", "json", "rich", "safetensors"}


def room(path: Path) -> str:
    """The first part of a module's name inside the package."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """Every module that a file imports, wherever in the file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down(path):
    here = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "exporl":
            there = parts[1]
            assert LAYERS[there] <= LAYERS[here], f"{here} imports {there}, which is above it"
            if there != here:
                assert LAYERS[there] < LAYERS[here] or {here, there} <= HOST, f"{here} and {there} are on one level"
            assert not (here in HOST and there in DEVICE), f"{here} (host) imports {there} (device)"
        if here in DEVICE or here == "types":
            assert parts[0] not in FORBIDDEN_ON_DEVICE, f"{here} is pure: no {parts[0]}"
        if here in HOST:
            assert parts[0] not in {"flax", "optax"}, f"{here} is the host's side: no {parts[0]}"
        assert parts[0] not in {"pickle", "dill", "cloudpickle", "marshal", "shelve"}


def test_algorithms_do_not_import_each_other():
    """EXPO's filter composes EXPO; the algorithms of other papers stand alone."""
    names = set(ALGORITHMS)
    for name in names:
        for imported in imports(SOURCE / "algos" / f"{name}.py"):
            parts = imported.split(".")
            assert parts[:2] != ["exporl", "algos"] or len(parts) < 3 or parts[2] not in names - {name}


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
            assert node.func.id not in {"eval", "exec", "input"}, f"{node.func.id} in line {node.lineno}"
            assert node.func.id != "print" or room(path) in PRINTING, f"print in line {node.lineno}"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "np.random":
            # One file seeds and restores the global state around simulators that draw from nothing else.
            lends = {"get_state", "set_state", "seed"} if path == SOURCE / "envs" / "global_random.py" else set()
            assert node.attr in {"default_rng", "Generator", "SeedSequence"} | lends, (
                f"{ast.unparse(node)} in line {node.lineno}"
            )
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) != "jax.random.PRNGKey"


def test_the_loop_names_no_algorithm_and_no_task():
    for name in ("train", "session", "rollout", "evaluate", "learner"):
        words = set(re.findall(r"\w+", (SOURCE / f"{name}.py").read_text().lower()))
        assert not words & {"expo", "rlpd", "metaworld", "adroit", "antmaze", "robomimic"}, name


def test_no_device_names():
    for path in FILES:
        assert not re.search(r"\b(cuda|gpu|tpu)\b[:(\"']", path.read_text(), re.IGNORECASE), path


def test_sizes():
    """No file beyond 400 lines, tests at least 0.8 of the source."""
    count = lambda paths: sum(len(p.read_text().splitlines()) for p in paths)  # noqa: E731
    assert max(count([path]) for path in FILES) <= 400
    assert count((ROOT / "tests").glob("*.py")) >= 0.8 * count(FILES)


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


@pytest.mark.parametrize(("name", "value"), list(public()), ids=lambda x: x if isinstance(x, str) else "")
def test_public_symbols_are_documented(name, value):
    if name.endswith(".replace"):
        return  # made by flax for its dataclasses
    text = inspect.getdoc(value) or ""
    assert len(text) > 10 and not text.startswith(value.__name__ + "("), f"{name} has no docstring of its own"


def test_every_definition_is_documented():
    """Public functions and classes of every module, exported or not."""
    for path in FILES:
        module = ast.parse(path.read_text())
        assert ast.get_docstring(module), path
        for node in module.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_every_option_is_read_somewhere():
    text = {path: path.read_text() for path in FILES}
    configs = [entry.config for entry in ALGORITHMS.values()]
    configs += [
        RunConfig,
        *(exporl.__dict__[n] for n in ("DataConfig", "TrainConfig", "EvalConfig", "LogConfig", "BaseConfig")),
    ]
    for config in configs:
        home = Path(inspect.getfile(config))
        for field in dataclasses.fields(config):
            pattern = re.compile(rf"\.{field.name}\b|[\"']{field.name}[\"']")
            own = len(re.findall(rf"config\.{field.name}\b|self\.{field.name}\b|\.{field.name}\b", text[home]))
            used = own + sum(len(pattern.findall(t)) for p, t in text.items() if p != home and p.name != "presets.py")
            assert used, f"{config.__name__}.{field.name} is read nowhere"
