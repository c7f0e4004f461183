"""What `exporl train` answers before anything is trained: help, habits of other programs, what is
missing."""

import json
import os

import pytest

from exporl.cli import main as command_line
from exporl.cli.main import main
from exporl.cli.numbers import whole_number
from exporl.cli.train import with_options
from exporl.cli.train_help import INSTEAD, PRESETS, SAME, WIDTH
from exporl.envs.registry import FAMILIES
from exporl.run.presets import PRESETS as KNOWN
from exporl.run.presets import preset_config
from exporl.suggest import closest
from helpers.runs import SMALL

TASK = ["--task", "probe/bandit"]


def answer(capsys, *args: str) -> str:
    """The error of a command that is refused."""
    assert main(list(args)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    return error


def helped(capsys, *args: str) -> str:
    """The help of one algorithm."""
    with pytest.raises(SystemExit) as stopped:
        main([*args, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


# Help.


@pytest.mark.parametrize("args", [("train", "--help"), ("train", "-h")], ids=" ".join)
def test_help_without_an_algorithm_has_usage_examples_presets_and_the_options_of_a_run(
    args, capsys
):
    assert main(list(args)) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: exporl train ALGO --task TASK")
    assert out.count("\n  exporl train ") >= 6
    for option in ("--run-dir DIR", "--seeds N", "--seeds-mode MODE", "--resume RUN", "--async"):
        assert f"\n  {option} " in out
    for name in PRESETS["expo"]:
        assert name in out


def test_the_presets_in_the_help_are_those_there_are():
    listed = {(algorithm, name) for algorithm, names in PRESETS.items() for name in names}
    assert listed == set(KNOWN)


def test_help_of_an_algorithm_has_its_options_with_what_they_mean(capsys):
    out = helped(capsys, "train", "rlpd", "--preset", "paper")
    words = " ".join(out.replace("│", " ").split())
    assert "Defaults are those of the preset 'paper'." in words
    assert "rlpd small, tiny, demo, stable, paper" in words and "pretrained" not in words
    assert "--algo.num-qs INT Critics in the ensemble. (default: 10)" in words
    assert "--data.filter-key" in words and "--seeds N" in words


@pytest.mark.parametrize("columns", ["60", "300"])
def test_no_line_of_a_help_text_is_too_wide(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["train", "--help"]) == 0 and main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    lines += helped(capsys, "train", "expo").splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert os.environ["COLUMNS"] == columns


def test_the_version(capsys, monkeypatch):
    monkeypatch.setattr(command_line.metadata, "version", lambda name: f"9 of {name}")
    assert main(["--version"]) == 0 and main(["-V"]) == 0
    assert capsys.readouterr().out == "exporl 9 of exporl\n" * 2


# Whole numbers.


@pytest.mark.parametrize(
    ("text", "value"), [("12", 12), ("1_000", 1000), ("1e5", 100_000), ("2.5e3", 2500), ("-3", -3)]
)
def test_whole_numbers_as_people_write_them(text, value):
    assert whole_number(text) == value and type(whole_number(text)) is int


@pytest.mark.parametrize("text", ["1.5", "1e-3", "many", "nan", "inf", "1e300", ""])
def test_what_is_no_whole_number(text):
    with pytest.raises(ValueError, match="must be a whole number, got"):
        whole_number(text)


def test_options_of_training_take_them(capsys):
    config = preset_config("expo", "small", "probe/bandit")
    args = ["--train.online-steps", "1e5", "--eval.at", "1e2", "2e2", "--algo.hidden", "6.4e1"]
    got = with_options(config, [*args, "--data.demos", "1e1", "--algo.edit-scale", "2e-1"])
    assert (got.train.online_steps, got.eval.at, got.data.demos) == (100_000, (100, 200), 10)
    assert got.algo.hidden == (64,) and got.algo.edit_scale == 0.2
    assert type(got.train.online_steps) is int
    with pytest.raises(SystemExit):
        with_options(config, ["--train.online-steps", "1.5"])
    assert "must be a whole number, got '1.5'" in "".join(capsys.readouterr()).replace("\n", " ")


def test_other_commands_take_them(tmp_path, capsys):
    collect = ["data", "collect", "probe/bandit", "--output", str(tmp_path / "two.npz")]
    assert main([*collect, "--episodes", "2e0", "--seed", "1e3"]) == 0
    assert "2 episodes" in capsys.readouterr().out
    assert "number of seeds, got '1.5'" in answer(capsys, "train", "expo", *TASK, "--seeds", "1.5")


# Habits.


@pytest.mark.parametrize("option", [*INSTEAD, *" ".join(SAME.values()).split()])
def test_options_of_other_programs_have_one_line_that_says_what_to_use(option, capsys):
    error = answer(capsys, "train", "expo", *TASK, f"--{option}", "3")
    assert f"there is no option --{option}: " in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--lr", "3e-4"], "--algo.critic-learning-rate"),
        (["--learning_rate=3e-4"], "--base.learning-rate"),
        (["--wandb"], "metrics.jsonl"),
        (["--gpu", "1"], "CUDA_VISIBLE_DEVICES=1"),
        (["--env", "Hopper-v4"], "use --task"),
        (["--epochs", "9"], "--train.offline-steps"),
        (["--batch_size", "9"], "there is no option --batch_size: use --train.batch-size."),
        (["--online-steps=9"], "there is no option --online-steps: use --train.online-steps."),
        (["--path", "x.npz"], "use --data.path."),
        (["--every", "9"], "use --eval.every or --log.every."),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_the_right_option_is_named(given, words, capsys):
    assert words in answer(capsys, "train", "expo", *TASK, *given)


def test_no_option_of_exporl_is_refused_as_a_habit():
    config = preset_config("expo", "small", "probe/bandit")
    got = with_options(config, ["--seed", "3", "--train.batch_size", "7", "--num_envs", "2"])
    assert (got.seed, got.train.batch_size, got.num_envs) == (3, 7, 2)


@pytest.mark.parametrize("name", ["EXPO", "Expo"])
def test_capitals_of_an_algorithm_do_not_matter(name, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", name, *TASK, "--run-dir", str(run), *SMALL, "--task", "nowhere/x"]) == 2
    assert "unknown task 'nowhere/x'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Hopper-v4", None),
        ("HalfCheetah-v5", None),
        ("CartPole-v1", None),
        ("peg-insert-side", "metaworld/peg-insert-side-v3"),
        ("Bandit", "probe/bandit"),
    ],
)
def test_a_task_of_no_family_is_told_which_families_there_are(name, meant, capsys):
    error = answer(capsys, "train", "expo", "--task", name)
    assert ", ".join(FAMILIES) in error and "module:function" in error
    assert ("Did you mean" in error) == (meant is not None)
    assert meant is None or f"Did you mean '{meant}'?" in error


def test_only_a_near_name_is_suggested():
    assert closest("Hopper-v4", ["metaworld/handle-pull-v3"], "") == ""
    assert closest("EXPO", ["bc", "expo"], "") == "Did you mean 'expo'?"
    assert closest("smal", ["tiny", "Small"], "") == "Did you mean 'Small'?"


# Without what is needed.


def unfinished(folder, steps, wanted, finished=False):
    """A run directory as far as it is looked at."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"train": {"online_steps": wanted}}))
    (folder / "metrics.jsonl").write_text(json.dumps({"env_steps": steps}) + "\n")
    if finished:
        (folder / "summary.json").write_text(json.dumps({"after": {"env_steps": wanted}}))


def test_resume_without_a_folder_lists_the_runs_that_are_not_finished(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    error = answer(capsys, "train", "--resume")
    assert "--resume needs the folder of a run, or of seeds" in error
    assert "There is no unfinished run below runs/." in error
    unfinished(tmp_path / "runs" / "one", 400, 20_000)
    unfinished(tmp_path / "runs" / "many" / "s1", 7, 900)
    unfinished(tmp_path / "runs" / "done", 900, 900, finished=True)
    (tmp_path / "runs" / "odd").mkdir()
    (tmp_path / "runs" / "odd" / "config.json").write_text("{")
    error = answer(capsys, "train", "--resume", "--train.online-steps", "50")
    assert "runs/one   step 400 of 20,000" in error and "runs/many/s1   step 7 of 900" in error
    assert "done" not in error and "odd" not in error


def test_of_many_unfinished_runs_the_newest_are_listed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        run = tmp_path / "runs" / f"r{number}"
        unfinished(run, 1, 2)
        os.utime(run / "config.json", (number, number))
    error = answer(capsys, "train", "--resume")
    assert "runs/r11 " in error and "runs/r0 " not in error and "and 2 more" in error


@pytest.mark.parametrize("option", ["--task", "--preset", "--run-dir", "--seeds"])
def test_an_option_without_its_value_is_named(option, capsys):
    assert f"{option}" in (error := answer(capsys, "train", "expo", option))
    assert "expected one argument" in error
