"""Damaged text files of a run: each is named, with the line and what to do, and a report is made of
what can be read."""

import ast
import hashlib
import json
import os
import re
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from exporl.acting.policy import load_policy
from exporl.cli.main import main
from exporl.data.episodes import Normalizer
from exporl.files import checkpoint
from exporl.files.atomic import LONGEST_LINE, readable_lines
from exporl.files.beside import remember_lines
from exporl.files.reading import DEEPEST, parsed, read_object
from exporl.report.document import SCRIPTS
from exporl.report.page import read_run, write_report
from exporl.run.build import decided_options
from exporl.run.config import override
from exporl.run.directory import finished, load_config, summarize
from exporl.run.saved import find_saved
from exporl.run.session import load_run
from helpers.reports import drawn
from helpers.runs import newest, tiny

ROOT = Path(__file__).parent.parent
OLD = Path(__file__).parent / "data" / "old_run"
SCRIPT = "<script>alert(1)</script><img src=x onerror='alert(2)'>\""


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "run"))


BAD = {
    "empty": (b"", "is not valid JSON"),
    "cut off": (b'{"a": ', "is not valid JSON"),
    "binary": (b"\xff\xfe\x00", "is not valid JSON"),
    "a list": (b"[]", "must hold a JSON object, got list"),
    "a number": (b"1", "must hold a JSON object, got int"),
    "deep": (b"[" * 200_000 + b"]" * 200_000, "is nested too deeply"),
    "deep objects": (b'{"a":' * 200 + b"1" + b"}" * 200, "is nested too deeply"),
    "a huge number": (b'{"a": ' + b"9" * 9000 + b"}", "is not valid JSON"),
}


@pytest.mark.parametrize("damage", BAD)
@pytest.mark.parametrize("name", ["config.json", "policy.json"])
def test_a_damaged_object_is_named_with_what_to_do(run, name, damage, capsys):
    content, message = BAD[damage]
    (run / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{run / name} {message}.*Copy it from the run again"):
        load_policy(run)
    if name == "config.json":
        for args in (["report", str(run)], ["eval", str(run)], ["train", "--resume", str(run)]):
            assert main(args) == 2
            assert f"{name} {message}" in capsys.readouterr().err


def test_nesting_is_read_as_deep_as_is_said():
    text = "{" + '"a":{' * (DEEPEST - 1) + "}" * (DEEPEST - 1) + "}"
    assert parsed(text.encode(), "it")
    with pytest.raises(ValueError, match="it is nested too deeply"):
        parsed(f'{{"a":{text}}}'.encode(), "it")


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"none\.json cannot be read: No such file"):
        read_object(tmp_path / "none.json")
    (tmp_path / "large.json").write_text('{"a": 1}' + " " * 100)
    monkeypatch.setattr("exporl.files.reading.LARGEST", 50)
    with pytest.raises(ValueError, match=r"large\.json has 108 bytes, at most 50 are read"):
        read_object(tmp_path / "large.json")


@pytest.mark.parametrize(
    "change",
    [
        {"algo": 3},
        {"algo": {"edit_scale": "much"}},
        {"seed": [0]},
        {"task": None},
        {"nothing": 1},
        {"algorithm": {}},
    ],
    ids=str,
)
def test_a_configuration_of_something_else_is_named(run, change):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=f"{run / 'config.json'}"):
        load_run(run)


# Decisions and statistics.


@pytest.mark.parametrize(
    "content",
    ["[1]", '{"edit_scale": 0.9}', '{"hoist_sampling": "maybe"}', '{"hoist_sampling": "auto"}'],
)
def test_decisions_of_something_else_are_named(tmp_path, content):
    (tmp_path / "tuning.json").write_text(content)
    with pytest.raises(ValueError, match=r"tuning\.json (does not say what was|must hold)"):
        decided_options(tiny(), tmp_path)


def test_decisions_are_read(tmp_path):
    (tmp_path / "tuning.json").write_text('{"hoist_sampling": true}')
    assert decided_options(tiny(), tmp_path).hoist_sampling is True


@pytest.mark.parametrize(
    "change",
    [
        {"std": {"state": [0.0, 1.0]}},
        {"mean": {"state": [0.0]}},
        {"mean": {"state": [float("nan"), 0.0]}},
        {"mean": {"other": [0.0, 0.0]}},
        {"clip": 0},
        {"clip": "wide"},
        {"mean": 3},
    ],
    ids=str,
)
def test_statistics_of_no_use_are_refused(change):
    good = {"mean": {"state": [0.0, 1.0]}, "std": {"state": [1.0, 2.0]}, "clip": 5.0}
    assert np.isfinite(Normalizer.from_json(good)({"state": np.zeros(2)})["state"]).all()
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        Normalizer.from_json(good | change)


# The report.

LINE_DAMAGE = {
    "not JSON": ('{"env_st', "line 2 is not valid JSON"),
    "a list": ("[1]", "line 2 must hold a JSON object, got list"),
    "deep": ("[" * 9000 + "]" * 9000, "line 2 is nested too deeply"),
    "text for a number": ('{"env_steps": "x"}', "env_steps is 'x', not a"),
    "no result": ('{"env_steps": 5, "time/train_s": 1}', "it has no"),
    "not a number": ('{"env_steps": NaN}', "env_steps is nan, not a"),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", LINE_DAMAGE)
@pytest.mark.parametrize("name", ["eval.jsonl", "metrics.jsonl"])
def test_a_report_is_made_of_the_lines_that_can_be_read(run, name, damage):
    text, message = LINE_DAMAGE[damage]
    if (name, damage) == ("metrics.jsonl", "no result"):
        text, message = '{"a/b": 1}', "it has no env_steps"
    lines = (run / name).read_text().splitlines()
    whole = len(lines)
    lines[1] = text
    (run / name).write_text("".join(line + "\n" for line in lines))
    found = read_run(run)
    of_file = found.evals if name == "eval.jsonl" else found.metrics
    assert len(of_file) == whole - 1
    assert any(message in problem and "left out" in problem for problem in found.problems)
    page = write_report([run], run / "report.html").read_text()
    assert "Damaged files" in page and name in page and drawn(page)["charts"]
    summary = summarize(run)
    assert any(message in problem for problem in summary["problems"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"success": []}, "has no episodes of the policy"),
        ({"success": [1, 0]}, "are not all true or false"),
        ({"success_rate": 0.123}, "the success rate of the policy, 0.123, is not that of its epis"),
    ],
    ids=str,
)
def test_an_evaluation_that_contradicts_itself_is_left_out(run, change, message):
    lines = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    lines[-1]["policy"] |= change
    (run / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_run(run)
    assert len(found.evals) == len(lines) - 1
    assert any(message in problem for problem in found.problems)


def test_an_intact_run_has_no_problems(run):
    assert read_run(run).problems == []
    assert "problems" not in summarize(run)
    assert "Damaged files" not in write_report([run], run / "r.html").read_text()


def test_a_report_notices_descriptions_that_were_changed_or_are_gone(run):
    glossary = run / "glossary.json"
    glossary.write_text('{"time/train_s": "seconds of training"}')
    parts, record = checkpoint.load(newest(run))
    checkpoint.save(run / "checkpoints", 160, parts, record | remember_lines(run), 1)
    assert read_run(run).problems == []
    glossary.write_text('{"time/train_s": "minutes of training"}')
    assert read_run(run).problems == [
        f"{glossary} was changed since the newest checkpoint was written."
    ]
    glossary.unlink()
    assert read_run(run).problems == [f"{glossary} is gone."]


def test_a_report_notices_lines_and_options_that_were_changed(run):
    parts, record = checkpoint.load(newest(run))
    checkpoint.save(run / "checkpoints", 160, parts, record | remember_lines(run), 1)
    assert read_run(run).problems == []
    lines = (run / "eval.jsonl").read_text().splitlines(keepends=True)
    (run / "eval.jsonl").write_text("".join(lines[:1] + lines[:0:-1]))
    config = json.loads((run / "config.json").read_text())
    config["train"]["discount"], config["log"]["every"] = 0.5, 7
    (run / "config.json").write_text(json.dumps(config))
    (run / "metrics.jsonl").unlink()
    problems = read_run(run).problems
    assert len(problems) == 3
    assert re.search(r"metrics\.jsonl was shortened: it had \d+ bytes, it has 0", problems[0])
    assert "eval.jsonl was changed" in problems[1]
    assert "train.discount was 0.99, is now 0.5" in problems[2]


@pytest.mark.parametrize("content", ["", "[]", '{"after": 3}', '{"after": {"env_steps": "x"}}'])
def test_a_damaged_summary_is_made_again(run, content):
    (run / "summary.json").write_text(content)
    assert finished(run, tiny()) is None


def test_a_summary_that_does_not_follow_from_the_evaluations_is_made_again(run):
    summary = summarize(run) | {"train_s": 3.0}
    steps = summary["after"]["env_steps"]
    config = override(load_config(run), {"train.online_steps": steps})
    (run / "summary.json").write_text(json.dumps(summary))
    assert finished(run, config) == summary
    summary["after"]["policy"] += 0.125
    (run / "summary.json").write_text(json.dumps(summary))
    assert finished(run, config) is None


# Everything in a page is text.


def planted(value):
    """The same, every string and name replaced or followed by a script."""
    if isinstance(value, str):
        return value + SCRIPT
    if isinstance(value, list):
        return [planted(each) for each in value]
    if isinstance(value, dict):
        return {key: planted(each) for key, each in value.items()} | {SCRIPT: 1}
    return value


def test_whatever_a_run_says_is_shown_as_text(run):
    for name in ("config.json", "summary.json"):
        (run / name).write_text(json.dumps(planted(json.loads((run / name).read_text()))))
    for name in ("eval.jsonl", "metrics.jsonl"):
        lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
        lines += [planted(lines[-1]), {"env_steps": SCRIPT}]
        (run / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_report([run], run / "report.html").read_text()
    assert "&lt;script&gt;" in page
    assert page.count("<script") == 1 + len(SCRIPTS) and "<img" not in page


def test_one_function_escapes():
    """Nothing else in the library makes text for a page."""
    for path in sorted((ROOT / "src" / "exporl").rglob("*.py")):
        names = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert "html" not in names or path.name == "markup.py", path


def test_lines_without_an_end_are_not_read_into_memory(tmp_path):
    (tmp_path / "lines.jsonl").write_text('{"a": 1}\n\n{"b": 2}\n')
    os.truncate(tmp_path / "lines.jsonl", 20 * 10**9)
    tracemalloc.start()
    try:
        lines, problems = readable_lines(tmp_path / "lines.jsonl")
        assert tracemalloc.get_traced_memory()[1] < 4 * LONGEST_LINE
    finally:
        tracemalloc.stop()
    assert lines == [{"a": 1}, {"b": 2}]
    assert problems == [
        f"{tmp_path / 'lines.jsonl'}, line 4 has more than {LONGEST_LINE} bytes: it is damaged."
    ]


def test_a_record_of_options_that_are_none_names_the_checkpoint(run):
    file = newest(run) / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["record"]["config"]["train"]["update_every"] = "often"
    manifest.pop("self")
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps({**manifest, "self": digest}))
    with pytest.raises(ValueError, match=rf"{newest(run).name} is not a .*train\.update_every"):
        find_saved(load_config(run), run)
