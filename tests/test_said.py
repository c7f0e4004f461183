"""What commands say: one line about a mistake, and nothing that a terminal would obey, whatever is
in the files."""

import os
import warnings

import numpy as np
import pytest

from exporl import options
from exporl.cli.main import main
from exporl.cli.numbers import number
from exporl.cli.status import plain
from exporl.data.formats import save_npz
from exporl.options import LARGEST_SEED, Interval
from helpers.episodes import random_episode
from helpers.recordings import flat, write_hdf5, write_npz


def test_a_pipe_is_no_data_file(tmp_path, capsys):
    """Opening it would wait for whoever writes into it."""
    os.mkfifo(tmp_path / "pipe.npz")
    for command in ("inspect", "validate"):
        assert main(["data", command, str(tmp_path / "pipe.npz")]) == 2
        assert "pipe.npz is neither a file nor a folder" in capsys.readouterr().err


def test_names_in_a_file_give_a_terminal_no_orders(tmp_path, capsys):
    """A colour, a bell, text from right to left; and more than anybody reads."""
    for name in ("\x1b[31mred", "bell\x07", "\u202eleft", "x" * 50_000):
        seen = {name: np.zeros((6, 2), np.float32)}
        save_npz(tmp_path / "d.npz", [random_episode(5, observations=seen)])
        for command in ("inspect", "validate"):
            main(["data", command, str(tmp_path / "d.npz")])
        main(["data", "inspect", str(tmp_path / "d.npz"), "--keys", "other"])
        said = "".join(capsys.readouterr())
        assert not set("\x1b\x07\u202e") & set(said) and len(said) < 20_000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("é ü 漢 100%", "é ü 漢 100%"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\udcff", "\\udcff"),
        ("\u202eevil", "\\u202eevil"),
        ("x" * 5000 + "\nnext", "x" * 1000 + " ... " + "x" * 1000 + "\nnext"),
    ],
)
def test_text_for_a_terminal(text, shown):
    assert plain(text) == shown


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["collect", "probe/bandit", "--output", "x.npz", "--noise", "nan"], "--noise: must be at"),
        (["collect", "probe/bandit", "--output", "x.npz/"], "'x.npz/' is a file by its ending"),
        (["convert", "a.npz", "x.hdf5/"], "'x.hdf5/' is a file by its ending .hdf5 and a folder"),
        (
            ["collect", "probe/bandit", "--output", "x.npz", "--episodes", "1e15"],
            "--episodes: must be in [1, 1000000], got 1e15",
        ),
        (["collect", "probe/bandit", "--output", "x.npz", "--noise", "inf"], "--noise: must be at"),
        (["collect", "probe/bandit", "--output", "x.npz", "--seed", "1e10"], "--seed: must be in"),
        (["collect", "probe/bandit", "--output", "x.npz", "--episodes", "no"], "got 'no'"),
        (["inspect", "x.npz", "--limit", "0"], "argument --limit: must be at least 1, got 0"),
        (["inspect", "x.npz", "--lim", "3"], "unrecognized arguments: --lim 3"),
        (["inspect"], "the following arguments are required: path. `exporl data inspect --help`"),
        (["convert", "x.npz", "y.npz", "--scale-actions", "0", "inf"], "--scale-actions takes LOW"),
        (["convert", "x.npz", "y.npz", "--scale-actions", "nan", "1"], "--scale-actions takes LOW"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_mistakes_are_one_line(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_npz(tmp_path / "x.npz", [random_episode()])
    assert main(["data", *args]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"x.npz"}


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["data", "inspect", "x.npz", "--plot", "x.npz/page.html"], "x.npz/page.html"),
        (["data", "inspect", "x.npz", "--plot", "folder"], "'folder'"),
        (["data", "convert", "x.npz", "x.npz/in.npz"], "x.npz/in.npz"),
        (["data", "convert", "x.npz", "x.npz/in.hdf5"], "x.npz/in.hdf5"),
        (["data", "convert", "x.npz", "x.npz/set-v0", "--to", "minari"], "x.npz/set-v0"),
        (["data", "collect", "probe/bandit", "--output", "x.npz/in.npz"], "x.npz/in.npz"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_a_place_that_cannot_be_written_is_named_as_it_was_given(
    args, named, capsys, tmp_path, monkeypatch
):
    """Not its temporary name, and not the folder that cannot be made."""
    monkeypatch.chdir(tmp_path)
    save_npz(tmp_path / "x.npz", [random_episode()])
    (tmp_path / "folder").mkdir()
    assert main(args) == 2
    said = capsys.readouterr().err
    assert named in said and said.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"x.npz", "folder"}


HOSTILE = {
    "no columns": {"observations": np.zeros((12, 0))},
    "no actions": {"actions": np.zeros((12, 0))},
    "infinite actions": {"actions": np.full((12, 2), -np.inf)},
    "actions beyond float32": {"actions": np.full((12, 2), 1e300)},
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("end", [".npz", ".hdf5"])
def test_values_that_are_none_are_answered_with_the_files_name(name, end, tmp_path, capsys):
    """And without a warning of NumPy."""
    write = write_npz if end == ".npz" else write_hdf5
    arrays = flat(timeouts=np.isin(np.arange(12), (3, 11))) | HOSTILE[name]
    path, out = write(tmp_path / f"d{end}", arrays), str(tmp_path / "out.npz")
    for args in (
        ["inspect", str(path), "--skip-bad"],
        ["validate", str(path)],
        ["convert", str(path), out, "--skip-bad", "--scale-actions"],
        ["convert", str(path), out],
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            status = main(["data", *args])
        said = "".join(capsys.readouterr())
        assert path.name in said and "reshape" not in said
        assert status == 2 or args[0] == "inspect"
    assert not (tmp_path / "out.npz").exists()


def test_seeds_of_commands_are_those_of_options():
    assert Interval.parse(options.SEEDS).high == LARGEST_SEED
    assert number(0, LARGEST_SEED)("1e3") == 1000 and type(number(0)("1e3")) is int
    assert number(0, whole=False)("2.5") == 2.5
