"""Preset files: what is written can be read and run, and what is wrong is said."""

import pytest

from exporl.cli.main import main
from exporl.cli.train import with_options
from exporl.run.config import differences, override
from exporl.run.preset_file import PresetFile, preset_text, read_preset_file
from exporl.run.presets import preset_config

OPTIONS = {
    "algo.hidden": (16, 16),
    "algo.tau": 1e-07,
    "chunk_length": 2,
    "data.path": 'a "file" \u00e9',
    "train.prefetch": False,
}


def written(folder, found, comments=()):
    path = folder / "own.toml"
    path.write_text(preset_text(found, comments))
    return path


def test_what_is_written_is_read_and_makes_the_configuration(tmp_path):
    found = PresetFile("rlpd", "tiny", OPTIONS)
    path = written(tmp_path, found, ["where it is from", "and more"])
    assert path.read_text().startswith("# where it is from\n# and more\nalgorithm = ")
    assert read_preset_file(path) == found
    config = preset_config("rlpd", str(path), "probe/delay")
    wanted = override(preset_config("rlpd", "tiny", "probe/delay"), OPTIONS)
    assert differences(wanted, config) == {"preset": ("tiny", str(path))}
    assert config.task == "probe/delay"


def test_options_of_the_command_line_differ_from_the_file(tmp_path):
    path = written(tmp_path, PresetFile("rlpd", "tiny", {"train.utd_ratio": 7}))
    config = preset_config("rlpd", str(path), "probe/delay")
    got = with_options(config, ["--train.batch-size", "9"])
    assert (got.train.utd_ratio, got.train.batch_size) == (7, 9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("algorithm = ", "is no TOML file"),
        ('preset = "tiny"', "names no algorithm"),
        ('algorithm = "rlpd"\noption = 3', "the unknown entry 'option'. Did you mean 'options'?"),
        ('algorithm = "rlpd"\npreset = "b.toml"', "must be the name of a preset"),
        ('algorithm = "rlpd"\npreset = "tini"', "unknown preset 'tini' for rlpd"),
        ('algorithm = "rlpd"\noptions = 3', "it must be a table"),
        ('algorithm = "rlpd"\noptions.seed = 3', "a preset is for any task and seed"),
        ('algorithm = "rlpd"\noptions.algo.tai = 3', "unknown option 'algo.tai'. Did you mean"),
        ('algorithm = "rlpd"\noptions.train.utd_ratio = 0.5', "'train.utd_ratio' must be"),
        ('algorithm = "expo"', "is a preset of expo, not of rlpd"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, said, capsys):
    path = tmp_path / "own.toml"
    path.write_text(text)
    args = ["--task", "probe/delay", "--run-dir", str(tmp_path / "run"), "--preset", str(path)]
    assert main(["train", "rlpd", *args]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_not_there(tmp_path, capsys):
    args = ["--task", "probe/delay", "--preset", str(tmp_path / "none.toml")]
    assert main(["train", "rlpd", *args]) == 2
    assert "none.toml cannot be read: No such file" in capsys.readouterr().err
