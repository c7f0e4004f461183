"""`exporl data inspect|validate|convert|collect` as a user meets them, and what they are made
of."""

import dataclasses
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from exporl.cli.main import main
from exporl.data import convert
from exporl.data.convert import Written, find_writer, good_episodes, scale_actions
from exporl.data.describe import bars, describe
from exporl.data.episodes import Episode, fingerprint, kinds
from exporl.data.formats import FORMATS, Format, Record, load_episodes, load_npz, save_npz
from exporl.data.inspect import SAMPLE_ROWS, Moments, Sample, survey
from exporl.envs import make_task
from exporl.report.histogram import histogram
from helpers.episodes import random_episode

SHARED = Path(__file__).parents[2] / "shared" / "data"


def episode(length: int = 5, seed: int = 0, **changes) -> Episode:
    paid = {"rewards": np.ones(length, np.float32)}
    return random_episode(length, seed, **(paid | changes))


def records(*episodes: Episode) -> list[Record]:
    return [Record(f"episode {i}", lambda e=e: e) for i, e in enumerate(episodes)]


def broken() -> Episode:
    raise ValueError("rewards cannot be read.")


def with_nan(seed: int = 0) -> Episode:
    made = episode(seed=seed)
    made.observations["state"][2, 1] = np.nan
    return made


@pytest.fixture
def mixed(tmp_path):
    """Six episodes: 1 has NaN and an action of 1.5, 3 an action of -7, 4 repeats 0."""
    episodes = [episode(seed=s) for s in (0, 1, 2, 3, 0, 5)]
    episodes[1].observations["state"][2, 1] = np.nan
    episodes[1].actions[3, 0] = 1.5
    episodes[3].actions[0, 1] = -7
    save_npz(tmp_path / "mixed.npz", episodes)
    return tmp_path / "mixed.npz"


def test_moments_equal_numpy_over_everything():
    rng = np.random.default_rng(0)
    blocks = [
        (1e6 + rng.normal(size=(n, 3)) * [1, 1e-2, 0]).astype(np.float64) for n in (1, 50, 3, 200)
    ]
    moments = Moments(blocks[0])
    for block in blocks:
        moments.add(block)
    every = np.concatenate(blocks)
    np.testing.assert_allclose(moments.mean, every.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.std, every.std(axis=0), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(moments.minimum, every.min(axis=0))
    np.testing.assert_array_equal(moments.maximum, every.max(axis=0))
    assert moments.constant.tolist() == [False, False, True] and moments.count.tolist() == [254] * 3


def test_moments_leave_out_what_is_not_finite():
    values = np.array([[1, np.nan], [3, np.inf], [5, 2]], np.float32)
    moments = Moments(values)
    moments.add(values)
    assert (
        moments.not_finite == 2
        and moments.mean.tolist() == [3, 2]
        and moments.maximum.tolist() == [5, 2]
    )


def test_images_are_summarised_as_one_dimension():
    images = np.random.default_rng(0).integers(256, size=(4, 5, 6, 3), dtype=np.uint8)
    moments = Moments(images)
    moments.add(images)
    assert moments.dims == 1 and moments.mean[0] == pytest.approx(images.mean())


def test_a_sample_is_evenly_spaced_and_bounded():
    sample, rows = Sample(), np.arange(5 * SAMPLE_ROWS)[:, None]
    for start in range(0, len(rows), 777):
        sample.add(rows[start : start + 777])
    kept = sample.rows()[:, 0]
    assert SAMPLE_ROWS / 2 <= len(kept) <= SAMPLE_ROWS
    np.testing.assert_array_equal(kept, np.arange(0, len(rows), kept[1]))


def test_a_survey_finds_everything():
    bad = episode(seed=1)
    bad.actions[3, 0], bad.actions[4, 1] = 1.5, 1.0
    other = episode(seed=2, observations={"state": np.zeros((6, 4), np.float32)})
    items = [*records(episode(), bad, other, episode(3)), Record("demo_9", broken)]
    found = survey([*items, *records(episode())])
    assert found.records == 6 and found.names == [
        "episode 0",
        "episode 1",
        "episode 3",
        "episode 0",
    ]
    assert (
        found.lengths == [5, 5, 3, 5]
        and found.returns == [5, 5, 3, 5]
        and found.successes == [True] * 4
    )
    assert found.duplicates == [("episode 0", "episode 0")]
    assert found.saturated.tolist() == [1, 1] and found.outside.tolist() == [1, 0]
    assert (
        [name for name, _ in found.faults] == ["episode 1", "episode 2", "demo_9"] == found.damaged
    )
    sentences = " ".join(sentence for _, sentence in found.faults)
    assert "actions row 3 reaches 1.5" in sentences and "rewards cannot be read" in sentences
    assert "observation 'state' is float32 [4], in the first episode it is float32 [3]" in sentences


def test_skip_bad_and_limit_of_a_survey():
    bad = episode(seed=1)
    bad.actions[3, 0] = 1.5
    assert survey(records(episode(), bad), skip_bad=True).names == ["episode 0"]
    assert survey(records(episode(), bad, episode(seed=3)), limit=2).records == 2


def test_every_fault_of_an_episode_is_listed():
    bad = with_nan()
    bad.actions[3, 0] = 1.5
    bad.rewards[0] = np.inf
    assert len(survey(records(bad)).faults) == 3


def test_damage_met_half_way_keeps_what_came_before():
    def half():
        yield from records(episode())
        raise ValueError("half.npz ends early.")

    found = survey(half())
    assert found.names == ["episode 0"] and found.faults == [("file", "half.npz ends early.")]


def test_faults_are_checked_against_a_task():
    task = make_task("probe/bandit")
    found = survey(records(episode()), spec=task.spec, adapt=task.adapt)
    assert any("the task needs" in sentence for _, sentence in found.faults)


def test_faults_that_differ_in_numbers_only_count_together():
    found = [("a", "row 3 reaches 1.5e+09."), ("b", "row 17 reaches -2."), ("c", "no steps.")]
    assert kinds(found) == [("row 3 reaches 1.5e+09.", 2, "a"), ("no steps.", 1, "c")]


def test_bars():
    assert bars([0, 0, 0, 0, 1], 0, 1, bins=4) == "█  ▂"
    assert bars([-5, 9, np.nan], 0, 1, bins=3) == "█ █"
    assert bars([], 0, 1, bins=3) == "   " and bars([2, 2], 2, 2, bins=2) == "█ "


def test_constant_neighbours_share_a_line():
    state = np.zeros((6, 6), np.float32)
    state[:, 5] = np.arange(6)
    text = describe(survey(records(episode(observations={"state": state}))), "title")
    assert "0-4 always 0" in text and "5 of 6 dimensions never change" in text
    assert re.search(r"^ +5 +0 +5 +2.5", text, re.MULTILINE)


def test_inspect(mixed, capsys):
    assert main(["data", "inspect", str(mixed)]) == 0
    out = capsys.readouterr().out
    assert "mixed.npz (arrays)" in out and "episodes   6, 30 steps; 6 terminated, 0 cut off" in out
    assert "success    6 of 6 (100%)" in out and "duplicates 1: episode 4 = episode 0" in out
    assert "faults     3 in 2 of 6 episodes" in out and "1 values are NaN or infinite" in out
    assert "|bars| from -7 to 1" in out
    assert main(["data", "inspect", str(mixed), "--skip-bad"]) == 0
    out = capsys.readouterr().out
    assert (
        "episodes   4, 20 steps" in out
        and "|bars| from -1 to 1" in out
        and "NaN or infinite" not in out
    )


def test_inspect_says_where_nothing_was_rewarded(tmp_path, capsys):
    unpaid = episode(rewards=np.zeros(5, np.float32), successes=np.zeros(5, bool))
    save_npz(tmp_path / "unpaid.npz", [unpaid])
    assert main(["data", "inspect", str(tmp_path / "unpaid.npz")]) == 0
    assert (
        "success    0 of 1 (0%); no rewards in this file: --task T applies"
        in capsys.readouterr().out
    )


def test_demonstrations_without_rewards_may_be_called_successes(monkeypatch, mixed, capsys):
    """The option reaches the reader."""
    seen = []
    monkeypatch.setattr(
        "exporl.data.formats.read_records",
        lambda path, name, options: seen.append(options) or records(episode()),
    )
    assert main(["data", "inspect", str(mixed), "--assume-success"]) == 0
    assert [options.assume_success for options in seen] == [True]


def test_inspect_writes_a_page_that_loads_nothing(mixed, tmp_path, capsys):
    assert (
        main(["data", "inspect", str(mixed), "--plot", str(tmp_path / "plots" / "page.html")]) == 0
    )
    page = (tmp_path / "plots" / "page.html").read_text()
    assert str(tmp_path / "plots" / "page.html") in capsys.readouterr().out
    charts = re.findall(r"<svg.*?</svg>", page)
    assert len(charts) == 4 and all(ElementTree.fromstring(chart) is not None for chart in charts)
    assert "://" not in page and "src=" not in page


def test_a_histogram_counts():
    chart = histogram([0, 0, 1, 9], width=100, height=50, bins=2, limits=(0, 2))
    assert "<title>0 to 1: 2</title>" in chart and "<title>1 to 2: 2</title>" in chart
    ElementTree.fromstring(histogram([], width=100, height=50))
    ElementTree.fromstring(histogram([3, 3], width=100, height=50))


def test_validate_lists_all_faults_and_fails(mixed, capsys):
    assert main(["data", "validate", str(mixed)]) == 2
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith(f"{mixed}, episode")]
    assert len(lines) == 3 and [re.findall(r"episode (\d)", line)[0] for line in lines] == [
        "1",
        "1",
        "3",
    ]
    assert "note: episode 4 repeats episode 0" in out
    assert "6 episodes checked, 3 faults in 2 episodes" in out
    assert "2 x such as: actions row 3 reaches 1.5, outside [-1, 1]" in out


def test_validate_is_content_with_good_data(tmp_path, capsys):
    save_npz(tmp_path / "good.npz", make_task("probe/bandit").collect(3, 0.1, 0))
    assert main(["data", "validate", str(tmp_path / "good.npz"), "--task", "probe/bandit"]) == 0
    assert "3 episodes checked against probe/bandit, no faults" in capsys.readouterr().out


def test_validate_against_the_wrong_task(mixed, capsys):
    assert main(["data", "validate", str(mixed), "--task", "probe/bandit", "--limit", "1"]) == 2
    out = capsys.readouterr().out
    assert (
        "the task needs (5, 1). Is this the right file for the task?" in out
        and "1 episodes checked" in out
    )


@pytest.mark.parametrize("command", ["inspect", "validate"])
def test_a_damaged_file_is_named(tmp_path, capsys, command):
    save_npz(tmp_path / "cut.npz", [episode()])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-5])
    assert main(["data", command, str(tmp_path / "cut.npz"), "--format", "arrays"]) == 2
    out, error = capsys.readouterr()
    assert "cut.npz is not a readable .npz archive" in out + error and "Traceback" not in error


def test_convert_copies_exactly(mixed, tmp_path, capsys):
    assert main(["data", "convert", str(mixed), str(tmp_path / "copy.npz"), "--skip-bad"]) == 0
    out, error = capsys.readouterr()
    assert (
        "copy.npz (arrays): 4 episodes, 20 steps, success 100%" in out
        and "skipped 2 damaged episodes" in out
    )
    assert "skipped episode 1: observations['state'] row 2 holds NaN" in error
    good = load_episodes(mixed, skip_bad=True)
    assert fingerprint(load_npz(tmp_path / "copy.npz")) == fingerprint(good)


def test_convert_stops_at_damage_and_writes_nothing(mixed, tmp_path, capsys):
    assert main(["data", "convert", str(mixed), str(tmp_path / "copy.npz")]) == 2
    error = capsys.readouterr().err
    assert (
        "mixed.npz, episode 1: observations['state'] row 2 holds NaN" in error
        and "--skip-bad" in error
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mixed.npz"]


def test_convert_does_not_overwrite(mixed, tmp_path, capsys):
    target = tmp_path / "copy.npz"
    target.write_text("precious")
    assert main(["data", "convert", str(mixed), str(target), "--skip-bad"]) == 2
    assert "copy.npz exists already" in capsys.readouterr().err and target.read_text() == "precious"
    # damaged: what was there stays
    assert main(["data", "convert", str(mixed), str(target), "--force"]) == 2
    assert target.read_text() == "precious"
    assert (
        main(["data", "convert", str(mixed), str(target), "--skip-bad", "--force", "--limit", "2"])
        == 0
    )
    assert len(load_npz(target)) == 2


def test_clipping(mixed, tmp_path, capsys):
    assert (
        main(
            ["data", "convert", str(mixed), str(tmp_path / "c.npz"), "--clip-actions", "--skip-bad"]
        )
        == 0
    )
    assert "clipped actions of 2 episodes" in capsys.readouterr().out
    episodes = load_npz(tmp_path / "c.npz")
    assert len(episodes) == 5 and episodes[2].actions[0, 1] == -1


def pixels(tmp_path) -> Path:
    path = tmp_path / "pixels.npz"
    actions = np.array([[0, 3], [256, 3], [512, 3]], np.float32)
    save_npz(path, [episode(3, actions=actions), episode(2, actions=actions[:2])])
    return path


@pytest.mark.parametrize(
    ("numbers", "expected", "words"),
    [
        (
            ["0", "512"],
            [[-1, 6 / 512 - 1], [0, 6 / 512 - 1], [1, 6 / 512 - 1]],
            "from 0.0 to 512.0 to [-1, 1]",
        ),
        ([], [[-1, 0], [0, 0], [1, 0]], "from [0.0, 3.0] to [512.0, 3.0] to [-1, 1]"),
    ],
)
def test_scaling(tmp_path, capsys, numbers, expected, words):
    source, target = pixels(tmp_path), tmp_path / "scaled.npz"
    assert main(["data", "convert", str(source), str(target), "--scale-actions", *numbers]) == 0
    assert words in capsys.readouterr().out
    first, second = load_npz(target)
    np.testing.assert_allclose(first.actions, expected, atol=1e-6)
    np.testing.assert_allclose(second.actions, expected[:2], atol=1e-6)


def test_scaling_needs_a_range(tmp_path, capsys):
    for numbers in (["1"], ["5", "5"], ["1", "2", "3"]):
        args = [
            "data",
            "convert",
            str(pixels(tmp_path)),
            str(tmp_path / "x.npz"),
            "--scale-actions",
            *numbers,
        ]
        assert main(args) == 2
        assert "--scale-actions takes LOW and HIGH with LOW < HIGH" in capsys.readouterr().err
    assert scale_actions(episode(), -1.0, 1.0).actions.dtype == np.float32


def test_damaged_episodes_do_not_fail_the_search_for_the_range(tmp_path, capsys):
    def reading(path, options):
        return iter(
            [
                Record("demo_1", broken),
                *records(episode(actions=np.full((5, 2), 7, np.float32))),
            ]
        )

    fake = Format("fake", "for this test", lambda path: path.suffix == ".fake", reading)
    (tmp_path / "x.fake").touch()
    args = ["data", "convert", str(tmp_path / "x.fake"), str(tmp_path / "y.npz"), "--scale-actions"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMATS, "fake", fake)
        assert main(args) == 2
        assert "x.fake, demo_1: rewards cannot be read" in capsys.readouterr().err
        assert main([*args, "--skip-bad"]) == 0
        assert (
            main(["data", "convert", str(tmp_path / "y.npz"), str(tmp_path / "z"), "--to", "fake"])
            == 2
        )
        assert "can be read but not written" in capsys.readouterr().err


def test_which_format_is_written(tmp_path):
    assert find_writer(tmp_path / "A.NPZ").name == "arrays"
    with pytest.raises(ValueError, match=r"does not say which format to write. Add --to arrays"):
        find_writer(tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"unknown format 'hdf6'. These can be written: arrays"):
        find_writer(tmp_path / "a.npz", "hdf6")


def test_converting_holds_one_episode():
    alive = 0
    for index, item in enumerate(
        good_episodes(iter(records(*[episode(seed=s) for s in range(4)])), Written(Path(), ""))
    ):
        alive = index + 1
        assert len(item) == 5
    assert alive == 4


def folder_writer(path: Path, episodes) -> None:
    path.mkdir()
    for index, item in enumerate(episodes):
        (path / str(index)).write_text(str(len(item)))


def test_folders_are_replaced_as_a_whole(tmp_path, monkeypatch):
    to, target = (
        Format("folder", "", lambda path: False, lambda path, options: iter(()), folder_writer),
        tmp_path / "out",
    )
    write = lambda count, **options: convert.write(  # noqa: E731
        target,
        to,
        convert.counted([episode()] * count, w := Written(target, "folder")),
        w,
        **options,
    )
    assert write(3).bytes == 3
    assert write(1, force=True).episodes == 1
    assert [path.name for path in target.iterdir()] == ["0"] and os.listdir(tmp_path) == ["out"]
    with pytest.raises(FileExistsError, match="out exists already"):
        write(1)
    with pytest.raises(ValueError, match="no usable episode to write"):
        write(0, force=True)
    real = os.replace

    def fail_once(old, new):
        if Path(new) == target and Path(old).name == "out" and Path(old).parent != tmp_path:
            raise OSError("no space left")
        real(old, new)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(OSError, match="no space left"):
        write(2, force=True)
    assert [path.name for path in target.iterdir()] == ["0"] and os.listdir(tmp_path) == ["out"]


def test_collect(tmp_path, capsys):
    path = tmp_path / "new" / "bandit.npz"
    args = [
        "data",
        "collect",
        "probe/bandit",
        "--episodes",
        "4",
        "--noise",
        "0.1",
        "--seed",
        "3",
        "--output",
        str(path),
    ]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert (
        "bandit.npz (arrays): 4 episodes, 4 steps, success 0%" in out and "noise 0.1, seed 3" in out
    )
    assert "steps/s" in out
    assert fingerprint(load_npz(path)) == fingerprint(make_task("probe/bandit").collect(4, 0.1, 3))
    assert main(args) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*args, "--force"]) == 0


def test_collect_needs_an_expert(tmp_path, capsys, monkeypatch):
    task = dataclasses.replace(make_task("probe/bandit"), collect=None, source="published files")
    monkeypatch.setattr("exporl.envs.registry.make_task", lambda name: task)
    assert main(["data", "collect", "probe/bandit", "--output", str(tmp_path / "x.npz")]) == 2
    assert "has no scripted expert; its data comes from: published files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["inspekt"], "Did you mean 'inspect'"),
        (["inspect", "nowhere.npz"], "no data file at nowhere.npz"),
        (["validate", "nowhere.npz"], "no data file at nowhere.npz"),
        (["validate", ".", "--task", "probe/bandid"], "Did you mean 'probe/bandit'"),
        (["convert", "nowhere.npz", "out.npz"], "no data file at nowhere.npz"),
        (["convert", "nowhere.npz", "out.xyz"], "does not say which format"),
        (["collect", "probe/bandid", "--output", "x.npz"], "Did you mean 'probe/bandit'"),
        (
            ["collect", "probe/bandit", "--output", "x.npz", "--noise", "-1"],
            "argument --noise: must be at least 0, got -1",
        ),
        (["collect", "probe/bandit", "--output", "x.xyz"], "does not say which format"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_mistakes_are_answered(args, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", *args]) == 2
    error = capsys.readouterr().err
    assert expected in error and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_help_teaches(capsys):
    assert main(["data"]) == 0
    assert "exporl data validate PATH" in capsys.readouterr().out
    for command in ("inspect", "validate", "convert", "collect"):
        with pytest.raises(SystemExit) as stopped:
            main(["data", command, "--help"])
        out = capsys.readouterr().out
        assert stopped.value.code == 0 and "examples:\n  exporl data " + command in out


def test_entries_can_be_chosen(tmp_path, capsys):
    both = episode(
        observations={"a": np.zeros((6, 2), np.float32), "b": np.ones((6, 1), np.float32)}
    )
    save_npz(tmp_path / "two.npz", [both])
    assert main(["data", "inspect", str(tmp_path / "two.npz"), "--keys", "b"]) == 0
    out = capsys.readouterr().out
    assert "observation 'b'" in out and "observation 'a'" not in out


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no recorded data at {SHARED}")
def test_recorded_data(capsys):
    path = SHARED / "metaworld" / "push-v3-mixed.npz"
    assert main(["data", "inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert (
        "success    44 of 50 (88%)" in out and "duplicates none" in out and "faults     none" in out
    )
    assert main(["data", "validate", str(path), "--task", "metaworld/push-v3"]) == 0
