"""The benchmark that ends and resumes runs: its comparison sees a bit, and what it has found is
nothing."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from kill_cases import SEEDS, SINGLE, VARIANTS, Command, Moment, Watched, phase_of
from kill_resume import KINDS, Chain, Reference, faults_of, next_chain
from same_runs import array_differences, differences_of

from exporl.files import checkpoint
from exporl.files.atomic import append_line
from exporl.files.run_files import CONFIG, DEMONSTRATIONS, EVAL, METRICS, REPORT, SUMMARY

ROOT = Path(__file__).parent.parent
CHAIN = {"kind": "kill", "index": 3, "variant": "rlpd", "wall_s": 1.0, "faults": ["it is gone"]}
END = {"moment": ["cpu", 1.5, 0.0], "during": "online"}


def write_run(run: Path) -> Path:
    """The files of a finished run, as far as they are compared."""
    run.mkdir()
    for name in (CONFIG, SUMMARY):
        (run / name).write_text(json.dumps({"seed": 0, "train_s": 1.5, "versions": {}}))
    for name in (METRICS, EVAL):
        append_line(run / name, {"phase": "online", "env_steps": 20, "loss": 0.5, "time/s": 0.25})
    (run / REPORT).write_text("page")
    np.savez(run / DEMONSTRATIONS, actions=np.zeros(3, np.float32))
    parts = {"learner": {"w": np.arange(4, dtype=np.float32)}, "replay": {"n": np.array([7])}}
    record = {"updates": 3, "train_s": 1.0, "files": {}, "rollout": {"env_steps": 20}}
    checkpoint.save(run / "checkpoints", 20, parts, record, 2)
    return run


@pytest.fixture
def pair(tmp_path):
    return write_run(tmp_path / "run"), write_run(tmp_path / "reference")


def test_measured_times_are_no_difference(pair):
    run, reference = pair
    for name in (METRICS, SUMMARY):
        text = (run / name).read_text()
        (run / name).write_text(text.replace("0.25", "9.75").replace("1.5", "8.5"))
    assert differences_of(run, reference) == []


def save(run, **changes):
    parts = {"learner": {"w": np.arange(4, dtype=np.float32)}, "replay": {"n": np.array([7])}}
    record = {"updates": changes.pop("updates", 3), "rollout": {"env_steps": 20}}
    checkpoint.save(run / "checkpoints", changes.pop("step", 20), parts | changes, record, 1)


next_to_3 = np.nextafter(np.float32(3), np.float32(4))
CHANGES = {
    "a bit": (
        lambda run: save(run, learner={"w": np.float32([0, 1, 2, next_to_3])}),
        "learner: w differs",
    ),
    "a sign": (lambda run: save(run, learner={"w": np.float32([-0.0, 1, 2, 3])}), "w differs"),
    "a type": (lambda run: save(run, learner={"w": np.arange(4.0)}), "learner: w differs"),
    "an array": (lambda run: save(run, replay={}), r"replay: \['n'\] are not in both"),
    "a counter": (lambda run: save(run, updates=4), r"record: \['updates'\] differ"),
    "a step": (lambda run: save(run, step=19), "newest checkpoint is .* instead of"),
    "a number of a line": (
        lambda run: (run / METRICS).write_text((run / METRICS).read_text().replace("0.5", "0.6")),
        r"metrics.jsonl, line 1: \['loss'\] differ",
    ),
    "a line": (
        lambda run: append_line(run / EVAL, {"env_steps": 40}),
        "eval.jsonl has 2 lines instead of 1",
    ),
    "a file": (lambda run: (run / REPORT).unlink(), "report.html is missing"),
    "a summary": (lambda run: (run / SUMMARY).write_text("{}"), "summary.json differs"),
    "what a kill leaves": (
        lambda run: (run / "checkpoints" / ".tmp-1").mkdir(),
        ".tmp-1 was left behind",
    ),
    "demonstrations": (
        lambda run: np.savez(run / DEMONSTRATIONS, actions=np.ones(3, np.float32)),
        "demonstrations.npz: actions differs",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_difference_is_told(pair, name):
    run, reference = pair
    change, message = CHANGES[name]
    change(run)
    found = "; ".join(differences_of(run, reference))
    assert re.search(message, found), found


def test_sums_of_another_order_are_the_same_only_where_that_is_asked_for():
    one, two = ({"w": np.float32([1.0, value])} for value in (1e-3, 1.001e-3))
    assert array_differences("learner", one, two) == ["learner: w differs"]
    assert array_differences("learner", one, two, exact=False) == []
    far = {"w": np.float32([1.1, 1e-3])}
    assert array_differences("learner", one, far, exact=False) == ["learner: w differs"]


@pytest.mark.parametrize(
    ("lines", "evaluations", "phase"),
    [
        ([], [], "building"),
        ([{"phase": "pretrain", "env_steps": 0}], [], "pretrain"),
        ([{"phase": "online", "env_steps": 30}], [{"env_steps": 0}], "evaluation"),
        ([{"phase": "online", "env_steps": 40}], [{"env_steps": 30}], "online"),
    ],
)
def test_what_a_run_was_doing_is_told_from_its_files(tmp_path, lines, evaluations, phase):
    assert phase_of(tmp_path, 30) == "before the run"
    (tmp_path / CONFIG).write_text("{}")
    for name, records in ((METRICS, lines), (EVAL, evaluations)):
        for record in records:
            append_line(tmp_path / name, record)
    assert phase_of(tmp_path, 30) == phase
    (tmp_path / "checkpoints" / ".tmp-0").mkdir(parents=True)
    assert phase_of(tmp_path, 30) == "checkpoint"


def test_the_kind_that_is_furthest_behind_comes_next():
    wanted = {"kill": 4, "term": 2}
    assert next_chain(wanted, []) == ("kill", 0)
    assert next_chain(wanted, [CHAIN | {"ends": [END]}]) == ("term", 0)
    assert next_chain({"kill": 4}, [CHAIN | {"ends": [END], "index": 1}]) == ("kill", 0)
    done = [CHAIN | {"ends": [END] * 4}, CHAIN | {"kind": "term", "ends": [END] * 2}]
    assert next_chain(wanted, done) is None


def test_a_fault_says_how_to_see_it_again():
    told = faults_of(CHAIN | {"ends": [END]})
    assert "rlpd (--chain kill:3)" in told and "it is gone" in told and "1.5" in told


def test_what_a_command_leaves_running_is_found_and_killed(tmp_path, monkeypatch):
    """A child in a session of its own outlives the process that was started."""
    code = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; "
        "time.sleep(600)'], start_new_session=True, stdout=subprocess.DEVNULL)"
    )
    begin = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda args, **how: begin([sys.executable, "-c", code], **how)
    )
    command = Command(["nothing"], tmp_path / "log", tmp_path)
    assert not Watched(command, tmp_path).wait_until(Moment("cpu", 1000.0))
    assert command.wait() == 0
    (orphan,) = command.children()
    assert command.wait_for_orphans(0.0) == [orphan] and command.living() == []


@pytest.mark.slow
def test_one_run_is_killed_resumed_and_compared(tmp_path):
    chain = Chain("kill", 8, 0, tmp_path)
    assert chain.name == "bc, diffusion"
    command = Command(chain.variant.command(tmp_path / "whole"), tmp_path / "log", tmp_path / "p")
    watched = Watched(command, tmp_path / "whole")
    while watched.wait_until(Moment("change", 1_000_000)):
        pass
    assert command.wait() == 0, command.said()
    made = chain.make(Reference(tmp_path / "whole", 1e9, watched.changes))
    assert made["faults"] == [] and not chain.place.exists()
    other = shutil.copytree(tmp_path / "whole", tmp_path / "other")
    append_line(other / METRICS, {"env_steps": 500})
    chain = Chain("kill", 32, 0, tmp_path)  # of the same variant, ended once
    assert chain.name == "bc, diffusion"
    made = chain.make(Reference(other, 1e9, watched.changes))
    assert "run: metrics.jsonl has" in made["faults"][0] and chain.place.exists()


def test_variants_cover_algorithms_bases_backups_environments_and_the_guard():
    words = [" ".join(variant.command(Path("run"))) for variant in VARIANTS.values()]
    for needed in ("train expo", "train rlpd", "train bc", "train custom_algorithm:BEST_OF_N",
                   "--base.kind diffusion", "--algo.backup filtered", "--algo.backup cached",
                   "--num-envs 2", "--num-envs 3", "--train.guard auto", "metaworld/",
                   "--seeds-mode processes", "--seeds-mode vmap"):  # fmt: skip
        assert any(needed in each for each in words), needed
    assert set(SINGLE) | set(SEEDS) == set(VARIANTS)


def test_nothing_was_lost():
    result = json.loads((ROOT / "benchmarks" / "results" / "kill_resume.json").read_text())
    assert result["faults"] == []
    assert result["by_variant"]["kill"].keys() <= SINGLE.keys()
    assert result["by_variant"]["seeds"].keys() <= SEEDS.keys()
    assert result["ended"]["kill"] >= 100
    assert all(result["ended"][kind] >= 30 for kind in KINDS)
    assert set(result["outcomes"]["term"]) | set(result["outcomes"]["hup"]) <= {
        "saved", "told what is kept", "nothing had begun", "before the command began",
        "had finished",
    }  # fmt: skip
