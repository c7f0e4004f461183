"""Nothing outside a run directory is read, written or removed because of what lies in it."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from exporl.acting.policy import load_policy
from exporl.files import checkpoint
from exporl.files.atomic import append_line, cut_back
from exporl.files.checkpoint import CorruptCheckpointError
from exporl.files.run_files import NAMES
from exporl.report.page import write_report
from exporl.run.directory import load_config
from exporl.run.loop import train
from exporl.run.saved import find_resumable
from exporl.run.session import load_run
from helpers.runs import content_of, newest, tiny

OLD = Path(__file__).parent / "data" / "old_run"


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def signed(folder: Path, **changes) -> None:
    """Changes a manifest, with a digest that fits."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    manifest.pop("self")
    digest = checkpoint._digest(json.dumps(manifest, sort_keys=True))
    path.write_text(json.dumps(manifest | {"self": digest}))


@pytest.mark.parametrize("name", ["/etc/passwd", "../../victim", "a/b.safetensors", "", "x", ".."])
def test_a_manifest_names_plain_files_only(run, name):
    folder = newest(run)
    signed(folder, sha256={name: "0" * 64})
    with pytest.raises(
        CorruptCheckpointError, match=f"manifest.json names '{name}', which is no f"
    ):
        checkpoint.load(folder)


@pytest.mark.parametrize("victim", ["/victim", "../victim", "config.json"])
def test_resumption_shortens_nothing_but_its_own_lines(run, victim):
    outside = run.parent / "victim"
    outside.write_text("precious")
    name = str(outside) if victim == "/victim" else victim
    record = json.loads((newest(run) / "manifest.json").read_text())["record"]
    signed(newest(run), record=record | {"files": record["files"] | {name: 0}})
    before = content_of(run)
    found = find_resumable(load_config(run), run, str)
    assert found is not None
    assert outside.read_text() == "precious" and content_of(run) == before


@pytest.mark.parametrize("name", NAMES)
def test_links_in_a_run_directory_are_refused(run, name):
    elsewhere = run.parent / "elsewhere"
    if (run / name).exists():
        shutil.move(run / name, elsewhere)
    else:
        elsewhere.write_text("{}\n")
    (run / name).symlink_to(elsewhere)
    before = content_of(run.parent)
    message = f"{name} is a symbolic link to {elsewhere}"
    for use in (load_run, load_policy, lambda run: write_report([run], run / "new.html")):
        with pytest.raises(ValueError, match=message):
            use(run)
    with pytest.raises(ValueError, match=message):
        train(tiny(), run, resume=(run / "config.json").exists())
    assert content_of(run.parent) == before


@pytest.mark.parametrize("name", ["", "manifest.json", "learner.safetensors"])
def test_links_in_checkpoints_are_refused(run, name):
    path = newest(run) / name if name else newest(run)
    shutil.move(path, run.parent / "elsewhere")
    path.symlink_to(run.parent / "elsewhere")
    with pytest.raises(ValueError, match="is a symbolic link to"):
        load_policy(run)
    with pytest.raises(CorruptCheckpointError, match="is a symbolic link"):
        checkpoint.load(newest(run))


def test_a_new_run_is_not_made_around_links(tmp_path):
    (tmp_path / "victims").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "victims")
    with pytest.raises(ValueError, match="checkpoints is a symbolic link"):
        train(tiny(), tmp_path / "run")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_make_anybody_wait(run):
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"metrics\.jsonl is neither a file nor a folder"):
        load_run(run)


def test_a_run_directory_may_be_reached_through_a_link(run, tmp_path):
    (tmp_path / "latest").symlink_to(run)
    assert load_policy(tmp_path / "latest").execute_length == 1


def test_lines_are_not_written_through_links(tmp_path):
    (tmp_path / "victim").write_text("precious\n")
    (tmp_path / "lines.jsonl").symlink_to(tmp_path / "victim")
    for write in (lambda path: append_line(path, {}), lambda path: cut_back(path, 0)):
        with pytest.raises(ValueError, match="nothing is written through links"):
            write(tmp_path / "lines.jsonl")
    assert (tmp_path / "victim").read_text() == "precious\n"


# Pruning.


def save(folder: Path, step: int, keep: int) -> Path:
    return checkpoint.save(folder, step, {"part": {"x": np.zeros(3)}}, {}, keep)


def test_pruning_removes_only_checkpoints_that_their_own_manifest_proves(tmp_path):
    folder, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    for step in (1, 2):
        save(folder, step, 9)
    save(elsewhere, 3, 9)
    (folder / "checkpoint-notes").mkdir()
    (folder / "checkpoint-notes" / "thesis.txt").write_text("precious")
    (folder / "checkpoint-000000000").symlink_to(elsewhere)
    (folder / ".old-link").symlink_to(elsewhere)
    (folder / ".tmp-precious").mkdir()
    (folder / ".tmp-precious" / "thesis.txt").write_text("precious")
    shutil.copytree(elsewhere / "checkpoint-000000003", folder / "checkpoint-000000004")  # renamed
    (folder / "checkpoint-000000001" / "notes.txt").write_text("precious")
    save(folder, 5, 1)
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint-notes",
        "checkpoint-000000000",
        ".old-link",
        ".tmp-precious",
        "checkpoint-000000001",
        "checkpoint-000000004",
        "checkpoint-000000005",
    }
    assert content_of(folder / "checkpoint-000000001") == {"notes.txt": b"precious"}
    assert (folder / "checkpoint-notes" / "thesis.txt").read_text() == "precious"
    assert list((elsewhere / "checkpoint-000000003").iterdir())


def test_checkpoints_that_were_exchanged_are_noticed(tmp_path):
    one, two = save(tmp_path, 1, 9), save(tmp_path, 2, 9)
    one.rename(tmp_path / "away")
    two.rename(one)
    (tmp_path / "away").rename(two)
    for path in (one, two):
        with pytest.raises(CorruptCheckpointError, match="it was renamed or exchanged"):
            checkpoint.load(path)


@pytest.mark.parametrize(
    "changes", [{"record": []}, {"step": "1"}, {"sha256": ["part.safetensors"]}], ids=str
)
def test_a_manifest_of_something_else_is_named(tmp_path, changes):
    path = save(tmp_path, 1, 9)
    signed(path, **changes)
    with pytest.raises(CorruptCheckpointError, match=r"manifest\.json is not that of a checkpoint"):
        checkpoint.load(path)


def test_a_part_that_is_asked_for_and_missing_is_named(tmp_path):
    with pytest.raises(CorruptCheckpointError, match=r"it has no learner\.safetensors"):
        checkpoint.load(save(tmp_path, 1, 9), only=("learner",))
