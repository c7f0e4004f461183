"""Returns where the environment's rewards are learnt from: in progress, summary and report, with
paired intervals. And what a command that is refused leaves behind: nothing."""

import json

import pytest

from exporl.files.run_files import runs_in
from exporl.files.undo import clear_refused, nothing_left_on_error
from exporl.report.page import write_report
from exporl.report.returns import number, return_summary, return_words
from exporl.run.callbacks import Notes
from exporl.run.config import TrainConfig, to_json
from exporl.run.directory import summarize
from exporl.run.phases import online_updates
from exporl.run.presets import preset_config
from exporl.run.progress import Silent
from exporl.stats.intervals import paired_difference
from helpers.reports import chart

BASE, POLICY = [-1300.0, -1310.0, -1290.0, -1320.0], [-1580.0, -1570.0, -1600.0, -1566.0]
GAIN = "-274 [-298, -253]"


def outcomes(returns):
    """What an evaluation keeps of one policy: nothing succeeds."""
    return {"success": [False] * 4, "success_rate": 0.0, "returns": returns}


LINE = {"policy": outcomes(POLICY), "base": outcomes(BASE)}


class Heard(Silent):
    """A progress that remembers."""

    def __init__(self):
        self.said, self.note = [], ""

    def say(self, message):
        self.said.append(message)

    def advance(self, steps, note):
        self.note = note


def run_with(folder, reward="env", task="probe/bandit", algorithm="expo"):
    """A run directory with one evaluation before training and one after it."""
    folder.mkdir(parents=True)
    config = to_json(preset_config(algorithm, "tiny", task)) | {"reward": reward}
    (folder / "config.json").write_text(json.dumps(config))
    lines = [
        {"env_steps": 0, "time/train_s": 0.0, "policy": outcomes(BASE), "base": outcomes(BASE)},
        {"env_steps": 1000, "time/train_s": 9.0, **LINE},
    ]
    (folder / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize(
    ("value", "words"), [(-1579.3, "-1,579"), (12.345, "12.3"), (0.03451, "0.0345"), (0.0, "0")]
)
def test_returns_in_a_few_digits(value, words):
    assert number(value) == words


def test_an_evaluation_in_words_has_the_paired_interval():
    mean, low, high = paired_difference(POLICY, BASE)
    assert f"{mean:+.0f} [{low:+.0f}, {high:+.0f}]" == GAIN
    assert return_words(LINE) == f"return policy -1,579, base -1,305, policy - base {GAIN}"
    assert return_words({"policy": outcomes([1.0, 2.0])}) == "return policy 1.5"
    assert return_summary(LINE) == {
        "policy": -1579.0,
        "base": -1305.0,
        "policy - base": [mean, low, high],
    }


def test_a_policy_and_a_base_of_different_numbers_of_episodes_pair_on_the_starts_they_share():
    line = {"policy": outcomes([3.0, 4.0, 90.0]), "base": outcomes([1.0, 2.0])}
    assert return_words(line).endswith("policy - base +2 [+2, +2]")


def test_progress_shows_returns_where_they_are_learnt_from():
    record = {"env_steps": 500, **LINE}
    line = {"phase": "online", "time/env_steps_per_s": 9.0, "rollout/success_rate": 0.0}
    line |= {"rollout/return_mean": -1490.2}
    for reward, shown in (("env", True), ("-1/0", False)):
        heard = Heard()
        notes = Notes(heard, reward)
        notes.on_evaluation(record)
        notes.on_log_line(line)
        assert ("return policy -1,579" in heard.said[0] and GAIN in heard.said[0]) == shown
        assert ("return -1,490" in heard.note) == shown
        assert "evaluation success policy 0%, base 0%" in heard.said[0]


def test_the_summary_has_them(tmp_path):
    after = summarize(run_with(tmp_path / "a"))["after"]
    assert after["return"]["policy"] == -1579.0 and after["return"]["policy - base"][0] == -274.0
    assert "return" not in summarize(run_with(tmp_path / "b", reward="-1/0"))["after"]


def test_the_report_has_them(tmp_path):
    page = write_report([run_with(tmp_path / "a")], tmp_path / "r.html").read_text()
    assert "<h2>Return over environment steps</h2>" in page
    assert f"return {GAIN} over its base policy after 1,000 environment steps" in page
    assert "<td>-1,579 [" in page and "<td>-1,305 [" in page
    assert chart(page, "Return over")["lines"]["EXPO"]["y"][-1] == -1579
    page = write_report([run_with(tmp_path / "b", "-1/0")], tmp_path / "r.html").read_text()
    assert "Return over" not in page.split("<script")[0]


def test_a_report_separates_tasks(tmp_path):
    runs = [run_with(tmp_path / "a"), run_with(tmp_path / "b", "-1/0", "probe/delay")]
    page = write_report(runs, tmp_path / "r.html").read_text()
    first, second = page.index("<h1>probe/bandit</h1>"), page.index("<h1>probe/delay</h1>")
    page = page.split("<script")[0]
    assert page.count("<h2>Success over environment steps</h2>") == 2
    assert "<td>a<" in page[first:second] and "<td>b<" not in page[first:second]
    assert "<td>b<" in page[second:] and "Return over" not in page[second:]


# Folders of runs.


def test_a_folder_stands_for_the_runs_in_it(tmp_path):
    for name in ("one", "many/s10", "many/s2", "deep/down/here"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    assert runs_in(tmp_path / "one") == [tmp_path / "one"]
    seeds = [tmp_path / "many" / "s2", tmp_path / "many" / "s10"]
    assert runs_in(tmp_path / "many") == seeds
    assert runs_in(tmp_path) == [*seeds, tmp_path / "one"]
    assert runs_in(tmp_path / "nowhere") == [tmp_path / "nowhere"]


# What counts as an update, and what is left of a run that could not begin.


def test_updates_are_minibatches_learnt_from_online():
    train = TrainConfig(utd_ratio=4, update_every=2)
    assert online_updates(train, calls=3, offline_steps=250, critic_steps=0) == 0
    assert online_updates(train, calls=3 + 2, offline_steps=250, critic_steps=16) == 0
    assert online_updates(train, calls=3 + 2 + 5, offline_steps=250, critic_steps=16) == 40


def test_nothing_is_left_of_a_run_that_could_not_begin(tmp_path):
    run = tmp_path / "runs" / "deep" / "run"
    with pytest.raises(ValueError, match="refused"), nothing_left_on_error(run):
        run.mkdir(parents=True)
        for name in ("config.json", "demonstrations.npz", "policy.json"):
            (run / name).write_text("")
        raise ValueError("refused")
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path):
    (tmp_path / "demonstrations.npz").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="refused"), nothing_left_on_error(tmp_path):
        (tmp_path / "config.json").write_text("")
        raise ValueError("refused")
    assert {path.name for path in tmp_path.iterdir()} == {"demonstrations.npz", "notes.txt"}


def test_a_refused_seed_leaves_no_copy_of_the_demonstrations(tmp_path):
    refused, begun = tmp_path / "s0", tmp_path / "s1"
    for run in (refused, begun):
        run.mkdir()
        (run / "demonstrations.npz").write_text("")
        (run / "output.txt").write_text("")
    (begun / "config.json").write_text("{}")
    for run in (refused, begun):
        clear_refused(run)
    assert not refused.exists() and len(list(begun.iterdir())) == 3
