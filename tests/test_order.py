"""A folder of seeds says what it was started for, so that none is forgotten that had not begun when
everything was killed."""

import json
import shutil

import pytest

from exporl.cli import train as command
from exporl.cli.main import main
from exporl.files import atomic
from exporl.files.atomic import copy_file
from exporl.files.run_files import CONFIG, DEMONSTRATIONS, SEEDS
from exporl.parallel import seeds
from exporl.parallel.order import ordered, ordered_config, ordered_seeds
from exporl.parallel.seeds import train_seeds
from exporl.run.config import to_json
from exporl.run.stopping import Interrupted
from helpers.runs import tiny


def begin(folder, seed):
    """What a seed leaves first."""
    run = folder / f"s{seed}"
    run.mkdir(parents=True, exist_ok=True)
    (run / CONFIG).write_text(json.dumps(to_json(tiny(seed=seed))))


def order(folder, *begun, first=3, number=2, **changes):
    """A folder of seeds that was killed after these had begun."""
    with ordered(folder, tiny(seed=first, **changes), number):
        for seed in begun:
            begin(folder, seed)
        kept = (folder / SEEDS).read_text()
    if not begun:  # as a kill leaves it
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SEEDS).write_text(kept)
    return folder


def test_it_is_kept_from_the_first_moment_and_where_a_seed_began(tmp_path):
    with ordered(tmp_path / "many", tiny(seed=3), 2):
        assert ordered_seeds(tmp_path / "many") == range(3, 5)
        begin(tmp_path / "many", 4)
    assert ordered_seeds(tmp_path / "many") == range(3, 5)
    assert ordered_config(tmp_path / "many") == tiny(seed=3)
    with ordered(tmp_path / "many", tiny(seed=4), 3):
        assert ordered_seeds(tmp_path / "many") == range(3, 7)
    assert ordered_config(tmp_path / "many").seed == 3


def test_nothing_is_left_where_none_began(tmp_path):
    folder = tmp_path / "a" / "many"
    with pytest.raises(KeyboardInterrupt), ordered(folder, tiny(), 2):
        (folder / "s1").mkdir()
        (folder / "s1" / DEMONSTRATIONS).write_text("collected")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("begun", [(), (4,), (3, 4)])
def test_a_resumption_on_the_command_line_trains_all_that_were_asked_for(
    tmp_path, monkeypatch, begun
):
    asked = []
    monkeypatch.setattr(command, "keep_compiled_programs", lambda say: None)
    monkeypatch.setattr(command, "train_many", lambda *args, **how: asked.append((args, how)) or 0)
    folder = order(tmp_path / "many", *begun)
    assert main(["train", "--resume", str(folder)]) == 0
    ((config, place, number, mode), how), = asked  # fmt: skip
    assert (config, place, number, mode) == (tiny(seed=3), folder, 2, "auto") and how["resume"]


def test_a_folder_of_an_earlier_version_resumes_what_is_there(tmp_path):
    begin(tmp_path, 5)
    assert ordered_seeds(tmp_path) == range(0)


def test_a_folder_that_was_killed_before_any_seed_began_is_not_begun_anew(tmp_path):
    """Demonstrations that lie there may be of other options."""
    folder = order(tmp_path / "many")
    with pytest.raises(FileExistsError, match=r"already holds runs.*--resume"):
        train_seeds(tiny(seed=3), folder, 2)
    with pytest.raises(ValueError, match=r"data\.demo_noise was 0\.05, now 0\.2"):
        train_seeds(tiny(seed=3, **{"data.demo_noise": 0.2}), folder, 2, resume=True)


def test_a_damaged_order_is_refused_by_name(tmp_path):
    folder = order(tmp_path / "many")
    for text, message in (
        ('{"first": 0, "number": true}', "seeds.json does not say which seeds"),
        ('{"first": 0}', "seeds.json does not say which seeds"),
        ("{", "seeds.json is not valid JSON"),
    ):
        (folder / SEEDS).write_text(text)
        with pytest.raises(ValueError, match=message):
            ordered_seeds(folder)
    (folder / SEEDS).write_text('{"first": 0, "number": 2}')
    with pytest.raises(ValueError, match=r"seeds\.json does not say which seeds"):
        ordered_config(folder)


def test_an_order_that_names_code_needs_trust(tmp_path):
    folder = order(tmp_path / "many")
    data = json.loads((folder / SEEDS).read_text())
    data["config"]["task"] = "my_module:my_task"
    (folder / SEEDS).write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"task 'my_module:my_task'.*--trust"):
        ordered_config(folder)
    assert ordered_config(folder, trust=True).task == "my_module:my_task"


def test_an_order_is_not_read_or_written_through_a_link(tmp_path):
    folder = order(tmp_path / "many")
    (folder / SEEDS).rename(tmp_path / "elsewhere.json")
    (folder / SEEDS).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ValueError, match="is a symbolic link"):
        ordered_seeds(folder)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "many").write_text("in the way")
    with (
        pytest.raises(ValueError, match=r"cannot write to run directory .*many"),
        ordered(tmp_path / "many", tiny(), 2),
    ):
        raise AssertionError("not reached")


def test_a_stop_before_any_seed_began_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(seeds, "run_processes", lambda jobs, *_: [(None, None) for _ in jobs])
    assert command.train_many(tiny(), tmp_path / "many", 2, "processes", resume=False) == 130
    said = " ".join(capsys.readouterr().err.split())
    assert "Nothing had begun: start it again with the same command." in said
    assert list(tmp_path.iterdir()) == []


def test_a_seed_that_failed_is_told_with_the_command_that_goes_on(tmp_path, monkeypatch, capsys):
    def one_killed(jobs, *_):
        begin(tmp_path / "many", 0)
        return [({"after": {"env_steps": 24}}, None), (None, "its process ended with status -9")]

    monkeypatch.setattr(seeds, "run_processes", one_killed)
    monkeypatch.setattr(seeds, "write_report", lambda *_: None)
    assert command.train_many(tiny(), tmp_path / "many", 2, "processes", resume=False) == 2
    said = capsys.readouterr().out
    assert "s1: failed: its process ended with status -9" in said
    assert f"go on with: exporl train --resume {tmp_path / 'many'}" in said


def test_a_copy_is_whole_or_not_there(tmp_path, monkeypatch):
    def killed(source, path):
        path.write_bytes(source.read_bytes()[:3])
        raise KeyboardInterrupt

    (tmp_path / "one").write_bytes(b"all of it")
    copy_file(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two").read_bytes() == b"all of it"
    monkeypatch.setattr(atomic.shutil, "copyfile", killed)
    with pytest.raises(KeyboardInterrupt):
        copy_file(tmp_path / "one", tmp_path / "three")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_demonstrations_of_many_seeds_are_copied_whole(tmp_path, monkeypatch):
    copied = []
    monkeypatch.setattr(seeds, "copy_file", lambda *paths: copied.append(paths))
    runs = [tmp_path / "s0", tmp_path / "s1"]
    seeds._share_demonstrations(tiny(), None, runs, lambda message: None)
    assert copied == [(runs[0] / DEMONSTRATIONS, runs[1] / DEMONSTRATIONS)]
    shutil.rmtree(tmp_path / "s0")


def test_an_interrupted_request_keeps_what_had_begun(tmp_path, monkeypatch):
    def stopped(jobs, *_):
        begin(tmp_path / "many", 0)
        return [(None, None) for _ in jobs]

    monkeypatch.setattr(seeds, "run_processes", stopped)
    with pytest.raises(Interrupted, match="stopped 2 of 2 seeds"):
        train_seeds(tiny(), tmp_path / "many", 2, mode="processes")
    assert ordered_seeds(tmp_path / "many") == range(2)
