"""A resumption is checked before anything is written, and so is what a run is evaluated with."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from exporl.acting.policy import load_policy
from exporl.cli.main import main
from exporl.envs.registry import make_task
from exporl.files import checkpoint
from exporl.files.atomic import append_line
from exporl.run.config import override
from exporl.run.directory import write_config
from exporl.run.loop import train
from exporl.run.saved import find_resumable
from exporl.run.session import load_run
from helpers.runs import Heard, content_of, newest, tiny

STEPS = {"train.online_steps": 24}


TASK = dataclasses.replace(make_task("probe/delay"), normalize=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run of 24 steps in an environment whose observations are normalised."""
    run = tmp_path_factory.mktemp("made") / "run"
    train(tiny(), run, task=TASK)
    return run


@pytest.fixture
def run(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "run"))


def edit(path: Path, *where: str, value) -> None:
    """Changes one entry of a JSON file."""
    data = json.loads(path.read_text())
    inner = data
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    path.write_text(json.dumps(data))


def resign(folder: Path, **changes) -> None:
    """Changes a checkpoint's record, with a digest that fits."""
    parts, record = checkpoint.load(folder)
    step = json.loads((folder / "manifest.json").read_text())["step"]
    checkpoint.save(folder.parent, step, parts, record | changes, 9)


def refused(run: Path, message: str, **changes) -> None:
    """A resumption is refused, and leaves every file as it was."""
    before = content_of(run)
    with pytest.raises(ValueError, match=message):
        train(override(tiny(), STEPS | changes), run, resume=True, task=TASK)
    assert content_of(run) == before


def found(run: Path, **changes) -> list[str]:
    """What is said of a run that may go on."""
    said: list[str] = []
    assert find_resumable(override(tiny(), STEPS | changes), run, said.append) is not None
    return said


@pytest.mark.slow
@pytest.mark.parametrize("steps", [10, 23])
def test_a_run_beyond_what_is_asked_for_is_left_alone(run, steps):
    message = f"the run is at step 24 already: train.online_steps={steps} is less"
    refused(run, message, **{"train.online_steps": steps})
    assert found(run) == []


@pytest.mark.slow
def test_environments_that_step_together_may_end_beyond_the_last_step(tmp_path):
    config = tiny(num_envs=5)
    train(config, tmp_path / "run")
    assert checkpoint.load(newest(tmp_path / "run"))[1]["rollout"]["env_steps"] == 25
    assert find_resumable(config, tmp_path / "run", str) is not None


@pytest.mark.slow
def test_the_command_line_says_it_and_goes_on_afterwards(run, capsys):
    before = content_of(run)
    assert main(["train", "--resume", str(run), "--train.online-steps", "20"]) == 2
    assert "the run is at step 24 already" in capsys.readouterr().err
    assert content_of(run) == before
    assert found(run) == []


@pytest.mark.slow
def test_data_that_was_exchanged_is_refused_before_anything_is_written(run, tmp_path):
    from exporl.data.formats import load_npz, save_npz

    episodes = load_npz(run / "demonstrations.npz")
    save_npz(run / "demonstrations.npz", episodes[1:])
    refused(run, r"prior data is not what this run was started with: .*demonstrations\.npz was")


@pytest.mark.slow
def test_demonstrations_collected_again_are_compared_before_they_are_kept(run):
    (run / "demonstrations.npz").unlink()
    resign(newest(run), data="0" * 64)
    refused(run, "prior data is not what this run was started with")


@pytest.mark.slow
def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew(run):
    shutil.rmtree(run / "checkpoints")
    refused(run, r"tells of 24 environment steps, and its newest checkpoint is of 0: newer ones")


def test_a_run_killed_before_its_first_checkpoint_may_go_on_with_more_of_them(tmp_path):
    """Its lines tell of steps that it was not to save yet."""
    write_config(tiny(**{"log.save_every": 12}), tmp_path)
    append_line(tmp_path / "metrics.jsonl", {"phase": "online", "env_steps": 10})
    assert find_resumable(tiny(**{"log.save_every": 4}), tmp_path, str) is None
    append_line(tmp_path / "metrics.jsonl", {"phase": "online", "env_steps": 14})
    with pytest.raises(ValueError, match="its newest checkpoint is of 0: newer ones were removed"):
        find_resumable(tiny(**{"log.save_every": 1000}), tmp_path, str)


EDITS = {
    "config.json": (("train", "discount"), 0.89, r"train\.discount was 0\.99, is now 0\.89"),
    "statistics.json": (("mean", "state"), [0.5, 0.5], r"mean\.state\[0\] was \S+, is now 0\.5"),
    "policy.json": (("action", "low"), [-3.0], r"action\.low\[0\] was -1\.0, is now -3\.0"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_a_file_that_was_edited_is_refused_and_the_difference_named(run, name):
    where, value, message = EDITS[name]
    edit(run / name, *where, value=value)
    message = f"{name} was changed since {newest(run).name} was written: {message}"
    changes = {"train.discount": 0.89} if name == "config.json" else {}
    refused(run, message, **changes)
    with pytest.raises(ValueError, match=message):
        load_run(run, task=TASK)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["statistics.json", "policy.json"])
def test_a_policy_does_not_act_with_files_that_were_edited(run, name):
    where, value, message = EDITS[name]
    edit(run / name, *where, value=value)
    with pytest.raises(ValueError, match=f"{name} was changed since .*: {message}"):
        load_policy(run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("algo", "edit_scale"), 0.9, r"algo\.edit_scale was 0\.1, is now 0\.9"),
        (("base", "num_steps"), 3, r"base\.num_steps was 2, is now 3"),
        (("algorithm",), "rlpd", r"algorithm was expo, is now rlpd|config option"),
    ],
    ids=["algorithm's option", "base", "algorithm"],
)
def test_a_policy_does_not_act_with_other_options(run, where, value, message):
    edit(run / "config.json", *where, value=value)
    with pytest.raises(ValueError, match=message):
        load_policy(run)


@pytest.mark.slow
def test_what_was_measured_is_remembered(run):
    """Without the file it would be measured again, perhaps with another result."""
    record = checkpoint.load(newest(run))[1]
    resign(newest(run), beside=record["beside"] | {"tuning.json": {"hoist_sampling": False}})
    (run / "tuning.json").unlink()
    said = found(run)
    assert json.loads((run / "tuning.json").read_text()) == {"hoist_sampling": False}
    assert [line for line in said if "tuning.json was missing: written again" in line]


@pytest.mark.slow
def test_what_may_change_may_be_edited(run):
    edit(run / "config.json", "eval", "episodes", value=3)
    edit(run / "config.json", "train", "online_steps", value=30)
    load_run(run, task=TASK)
    assert load_policy(run).checkpoint_name == newest(run).name


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["updates", "rollout", "files", "metrics"])
def test_a_record_of_something_else_is_no_checkpoint_of_the_run(run, missing):
    resign(newest(run), **{missing: None})
    refused(run, f"{newest(run).name} is not a checkpoint of this run: .*'{missing}'")
    with pytest.raises(ValueError, match="is not a checkpoint of this run"):
        load_run(run, task=TASK)


@pytest.mark.slow
def test_arrays_of_something_else_are_no_checkpoint_of_the_run(run):
    parts, record = checkpoint.load(newest(run))
    del parts["rollout"]["queue/0"]
    step = int(newest(run).name.split("-")[1])
    checkpoint.save(run / "checkpoints", step, parts, record, 9)
    refused(run, r"is not a checkpoint of this run: rollout\.safetensors has no proper 'queue/0'")


# Lines and checkpoints that are gone.


@pytest.mark.slow
def test_lines_that_were_changed_or_lost_are_told(run):
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    for changed, told in (
        (lines[:-1], f"{path} was shortened: it had"),
        ([lines[1], lines[0], *lines[2:]], f"{path} was changed: its first"),
        ([], f"{path} was shortened: it had"),
    ):
        path.write_text("".join(changed))
        assert [line for line in found(run) if line.startswith(told)], told


@pytest.mark.slow
def test_a_newest_checkpoint_that_is_gone_is_told(run):
    latest = newest(run)
    shutil.rmtree(latest)
    told = f"tells of 24 environment steps, and its newest checkpoint is of 12.*{newest(run).name}"
    with pytest.warns(UserWarning, match=told):
        session = load_run(run, task=TASK)
    assert session.checkpoint_name == newest(run).name
    with pytest.warns(UserWarning, match=told):
        load_policy(run)
    (run / "summary.json").unlink()  # the lines tell of it as well
    assert found(run) == [], "the last line may have been written before its checkpoint"
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 30}\n')
    assert "newest checkpoint is of 12" in found(run)[0]


@pytest.mark.slow
def test_a_finished_run_without_its_summary_is_not_suspected(run):
    (run / "summary.json").unlink()
    load_run(run, task=TASK)
    load_policy(run)


# The newest checkpoint is damaged.


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
def test_evaluation_with_an_older_checkpoint_is_told_and_recorded(run, capsys):
    older, latest = sorted((run / "checkpoints").iterdir())
    damage(latest / "learner.safetensors")
    with pytest.warns(UserWarning, match=f"damaged checkpoint: {latest.name}: learner.*altered"):
        session = load_run(run, task=TASK)
    assert session.checkpoint_name == older.name and len(session.problems) == 1
    assert main(["eval", str(run), "--episodes", "2"]) == 0
    assert f"This is the older {older.name}" in capsys.readouterr().err
    record = json.loads((run / "eval_afterwards.jsonl").read_text())
    assert record["checkpoint"] == older.name
    assert latest.name in record["problems"][0]


@pytest.mark.slow
def test_evaluation_says_which_checkpoint_it_used(run):
    assert main(["eval", str(run), "--episodes", "2"]) == 0
    record = json.loads((run / "eval_afterwards.jsonl").read_text())
    assert record["checkpoint"] == newest(run).name and "problems" not in record


@pytest.mark.slow
def test_who_listens_is_told_and_not_warned(run):
    damage(newest(run) / "learner.safetensors")
    heard = Heard()
    load_run(run, heard, task=TASK)
    assert len(heard.said) == 1
