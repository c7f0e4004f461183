"""The documents say what is true: README code runs, options and metrics are documented, links lead
somewhere."""

import re
import sys
from pathlib import Path

import pytest

import exporl
from exporl.cli.main import COMMANDS, HELP
from helpers.examples import learnt_and_acted

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from reference import PAGES as REFERENCE
from tables import PAGES as RESULTS
from tables import fill

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "examples" / "README.md",
]


@pytest.mark.slow
def test_readme_example_runs(tmp_path, monkeypatch, capsys):
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(code) == 1
    monkeypatch.chdir(tmp_path)
    exec(compile(code[0], "README.md", "exec"), {})
    base, expo = map(float, re.findall(r"-?\d+\.\d+", capsys.readouterr().out))
    assert expo > base
    learnt_and_acted(tmp_path / "runs" / "bandit", least_updates=300)


@pytest.mark.parametrize("page", REFERENCE, ids=lambda page: page.name)
def test_the_tables_of_metrics_families_and_formats_are_those_of_the_source(page):
    text = page.read_text()
    assert fill(text, REFERENCE[page]) == text, "run benchmarks/reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_named_in_documents_exist(page):
    for command in re.findall(r"\bexporl (\w+)", page.read_text()):
        if f"exporl {command}" in HELP or command in COMMANDS:
            continue
        assert command not in {"train", "eval"}, command
    for script in re.findall(
        r"(benchmarks/\w+\.py|tests/\w+\.py|examples/\w+\.py)", page.read_text()
    ):
        assert (ROOT / script).is_file(), f"{page.name} names {script}"


def test_public_names_are_what_all_says():
    assert sorted(exporl.__all__) == sorted(set(exporl.__all__))
    assert all(hasattr(exporl, name) for name in exporl.__all__)


@pytest.mark.parametrize("page", RESULTS, ids=lambda page: page.name)
def test_the_tables_of_a_page_are_the_results(page):
    assert fill(page.read_text(), RESULTS[page]) == page.read_text(), "run benchmarks/tables.py"


@pytest.mark.parametrize("page", RESULTS, ids=lambda page: page.name)
def test_a_table_without_a_place_is_an_error(page):
    text = page.read_text()
    for name in RESULTS[page]:
        with pytest.raises(ValueError, match=f"no place for '{name}'"):
            fill(text.replace(f"<!-- {name} -->", ""), RESULTS[page])
