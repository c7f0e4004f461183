"""Searches of `exporl bench`: trials are chosen, judged, ended early, gone on with and never
counted twice. Stand-ins for the child processes write files as a run leaves them."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from exporl.bench.search_file import Range, Search
from exporl.bench.suite import read_suite
from exporl.bench.trials import COMPLETE, FAILED, PRUNED, RUNNING, Trials, best_of, read_trials
from exporl.cli.main import main
from exporl.parallel import processes
from exporl.run.config import differences
from exporl.run.directory import load_config
from exporl.run.presets import preset_config
from helpers.runs import wait_for
from helpers.suites import child_code, suite_file

pytest.importorskip("optuna", reason="needs Optuna: pip install 'exporl[search]'")
SUITE = """
folder = "{folder}"
seeds = 2
preset = "tiny"
score = 0.5
options.train.online_steps = 40
options.train.discount = 0.99
options.eval.every = 10

[algorithms.rlpd]
[tasks."probe/delay"]

[search]
trials = 7
sampler = "random"
seed = 1
startup = 3
[search.space]
train.utd_ratio = [1, 2, 4]
data.demo_noise = { low = 0.01, high = 0.2, log = true }
"""


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch, request):
    if "slow" not in request.keywords:
        monkeypatch.setattr(processes, "_CHILD", child_code("search_child"))
    monkeypatch.setattr("exporl.cli.bench_run.keep_compiled_programs", lambda say: None)


def trials_of(path):
    suite = read_suite(path)
    assert suite.search is not None
    return read_trials(suite.folder, suite.search)


def test_a_search_from_beginning_to_end(tmp_path, capsys):
    path = suite_file(tmp_path, SUITE.replace("0.99", "0.9"))
    assert main(["bench", str(path), "--jobs", "1"]) == 0
    out, trials = capsys.readouterr().out, trials_of(path)
    ratios = [trial.options["train.utd_ratio"] for trial in trials]
    assert ratios[:3].count(1) < 2 and 1 in ratios[3:], "choose another seed"
    # ratio 1 is worst; in trial 3 or later it would never end by itself
    assert [trial.state for trial in trials[:3]] == [COMPLETE] * 3
    assert all(t.state == PRUNED for t in trials[3:] if t.options["train.utd_ratio"] == 1)
    pruned = sum(trial.state == PRUNED for trial in trials)
    assert pruned < 4 and len(trials) == 7
    assert all(len(trial.reported) == 10 for trial in trials if trial.state == COMPLETE)
    assert all(0.01 <= trial.options["data.demo_noise"] <= 0.2 for trial in trials)
    best = best_of(trials)
    assert best is not None and best.options["train.utd_ratio"] == max(ratios)
    assert best.value == max(trial.value for trial in trials if trial.value is not None)
    assert out.count("[") == 7 and "ended early, " in out
    assert f"{7 - pruned} trials complete, {pruned} trials pruned, 0 trials failed" in out
    assert f"best: rlpd-t{best.number:03d} of suite.toml: final success" in out
    _check_preset(tmp_path / "runs", best)
    # nothing is made again
    assert main(["bench", str(path), "--jobs", "1"]) == 0
    assert "[" not in capsys.readouterr().out and trials_of(path) == trials
    _check_pages(path, best, capsys)
    # one more of them
    path = suite_file(tmp_path, SUITE.replace("0.99", "0.9").replace("= 7", "= 8"))
    assert main(["bench", str(path), "--jobs", "1"]) == 0
    assert trials_of(path)[:7] == trials and len(trials_of(path)) == 8


def _check_preset(folder, best):
    """The file of the best trial makes the configuration of its runs."""
    run = load_config(folder / f"rlpd-t{best.number:03d}-probe-delay" / "s0")
    preset = str(folder / "best.toml")
    assert differences(run, preset_config("rlpd", preset, "probe/delay")) == {
        "preset": ("tiny", preset)
    }


def _check_pages(path, best, capsys):
    """Tables and the report show trials."""
    assert main(["bench", str(path), "--table"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert rows[0] == (
        "| trial | state | value | evaluations | train.utd_ratio | data.demo_noise |"
    )
    assert len(rows) == 8 and rows[1].startswith(f"| rlpd-t{best.number:03d} | complete | ")
    assert main(["bench", str(path), "--csv"]) == 0
    assert f"\nrlpd-t{best.number:03d},probe/delay,1,40,policy," in capsys.readouterr().out
    assert main(["report", str(path)]) == 0
    assert f"rlpd-t{best.number:03d}" in (path.parent / "runs" / "report.html").read_text()


BY_A_MODEL = SUITE.replace('"random"', '"tpe"').replace("trials = 7", "trials = 6")
KILLED = """
from exporl.cli.main import main
from exporl.parallel import processes
processes._CHILD = {child!r}
main(["bench", {path!r}, "--jobs", "1"])
"""


def test_a_killed_search_ends_with_the_same_trials(tmp_path):
    """Killed with -9 while trial 2 runs, its journal cut off in the middle of a line; the model of
    the sampler included."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    text = BY_A_MODEL.replace("0.99", "0.7")
    path = suite_file(broken, text)
    code = KILLED.format(child=child_code("search_child"), path=str(path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) as process:
        wait_for(broken / "runs" / "rlpd-t002-probe-delay" / "s0" / "config.json", "}", 300)
        process.kill()
    journal = broken / "runs" / "trials.jsonl"
    with journal.open("a") as file:
        file.write('{"op_code": 6, "trial')
    assert [trial.state for trial in trials_of(path)] == [COMPLETE, COMPLETE, RUNNING]
    assert main(["bench", str(path), "--jobs", "1"]) == 0
    other = suite_file(whole, BY_A_MODEL)
    assert main(["bench", str(other), "--jobs", "1"]) == 0
    expected, found = trials_of(other), trials_of(path)
    assert found == expected and len(found) == 6
    assert {trial.state for trial in found} <= {COMPLETE, PRUNED}


def test_a_stopped_trial_goes_on(tmp_path, capsys):
    path = suite_file(tmp_path, SUITE.replace("0.99", "0.7").replace("trials = 7", "trials = 4"))

    def interrupt():
        wait_for(tmp_path / "runs" / "rlpd-t002-probe-delay" / "s0" / "config.json", "}")
        os.kill(os.getpid(), signal.SIGINT)

    # it is ignored where the tests run in the background of a shell
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        assert main(["bench", str(path), "--jobs", "1"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "Go on with: exporl bench" in capsys.readouterr().err
    assert [trial.state for trial in trials_of(path)] == [COMPLETE, COMPLETE, RUNNING]
    assert main(["bench", str(path), "--jobs", "1"]) == 0
    assert len(trials_of(path)) == 4


def test_a_trial_that_fails_does_not_count(tmp_path, capsys):
    text = SUITE.replace("0.99", "0.5").replace("trials = 7", "trials = 3")
    path = suite_file(tmp_path, text)
    assert main(["bench", str(path), "--jobs", "1"]) == 1
    out = capsys.readouterr().out
    assert "rlpd-t001: failed: rlpd-t001 on probe/delay, seed 0: the arm fell off" in out
    assert "1 trials are missing" in out
    assert main(["bench", str(path), "--jobs", "1"]) == 0
    assert [trial.state for trial in trials_of(path)] == [COMPLETE, FAILED, COMPLETE, COMPLETE]


def test_options_that_contradict_each_other_fail_the_trial(tmp_path, capsys):
    text = SUITE.replace("train.utd_ratio = [1, 2, 4]", "algo.num_qs = [2, 3]").replace(
        "data.demo_noise = { low = 0.01, high = 0.2, log = true }", "algo.num_min_qs = [1, 3]"
    )
    path = suite_file(tmp_path, text.replace("= 40", "= 40\noptions.train.utd_ratio = 4"))
    assert main(["bench", str(path), "--jobs", "1"]) == 1
    trials = trials_of(path)
    wrong = [trial for trial in trials if tuple(trial.options.values()) == (2, 3)]
    assert wrong and [trial for trial in trials if trial.state == FAILED] == wrong
    assert "failed: num_min_qs must be between 1 and num_qs=2, got 3." in capsys.readouterr().out


def test_a_search_goes_on_as_it_was_begun(tmp_path, capsys):
    path = suite_file(tmp_path, SUITE.replace("trials = 7", "trials = 1"))
    assert main(["bench", str(path), "--jobs", "1"]) == 0
    for old, new, said in (
        ("high = 0.2", "high = 0.3", "was begun with space = "),
        ('"random"', '"tpe"', "was begun with sampler = 'random', and 'tpe' is asked for now"),
        ("seeds = 2", "seeds = 1", "was begun with runs = "),
        ("every = 10", "every = 20", "eval.every was 10, now 20"),
    ):
        changed = suite_file(tmp_path, SUITE.replace(old, new))
        assert main(["bench", str(changed), "--jobs", "1"]) == 2
        assert said in capsys.readouterr().err
    assert main(["bench", str(path), "--allow", "configuration"]) == 2
    assert "--allow configuration is not for a search" in capsys.readouterr().err


def test_a_damaged_journal_is_named(tmp_path, capsys):
    path = suite_file(tmp_path, SUITE)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "trials.jsonl").write_text("{\n{}\n")
    for args in ([], ["--table"]):
        assert main(["bench", str(path), *args]) == 2
        assert "trials.jsonl, line 1" in capsys.readouterr().err


def by_hand(folder, **changes):
    search = Search({"x": Range(0.0, 1.0)}, **{"sampler": "random", "startup": 2, **changes})
    return Trials(folder, search, {})


def test_a_trial_below_the_median_of_finished_ones_ends(tmp_path):
    """Values by hand: 0.2 and 0.6 after evaluation 1, median 0.4; nothing is judged before two
    trials are finished, nor before evaluation 1."""
    trials = by_hand(tmp_path)
    for worth in (0.2, 0.6):
        number = trials.begin().number
        assert not trials.report(number, 0, 0.0) and not trials.report(number, 1, worth)
        trials.complete(number, worth)
    for worth, ends in ((0.39, True), (0.41, False)):
        number = trials.begin().number
        assert not trials.report(number, 0, -1.0)
        assert trials.report(number, 1, worth) is ends
    off = by_hand(tmp_path, pruning="none")
    number = off.begin().number
    assert not off.report(number, 1, -1.0)


def test_a_trial_that_was_not_judged_before_a_kill_is_judged_after_it(tmp_path):
    trials = by_hand(tmp_path, startup=1)
    trials.report(trials.begin().number, 1, 0.5)
    trials.complete(0, 0.5)
    assert trials.report(trials.begin().number, 1, 0.4)
    again = by_hand(tmp_path, startup=1)
    assert again.go_on(1).reported == {1: 0.4} and again.report(1, 1, 0.4)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search_that_goes_on_draws_what_it_would_have_drawn(tmp_path, sampler):
    def drawn(folder, again):
        folder.mkdir()
        trials, found = by_hand(folder, sampler=sampler), []
        for number in range(6):
            if again:
                trials = by_hand(folder, sampler=sampler)
            x = trials.begin().options["x"]
            found.append(trials.go_on(number).options["x"])
            assert found[-1] == x
            trials.complete(number, -((x - 0.3) ** 2))
        return found

    once = drawn(tmp_path / "once", again=False)
    assert drawn(tmp_path / "again", again=True) == once and len(set(once)) == 6


def test_all_mistakes_of_the_table_are_said_at_once(tmp_path):
    text = SUITE[: SUITE.index("[search]")].replace("[tasks", "[algorithms.bc]\n[tasks")
    text += """
[search]
trial = 3
trials = 0
sampler = "grid"
warmup = 1.5
[search.space]
algo.tau = { low = 0.0, high = 1.0, log = true }
algo.hidden = [[64, 64]]
train.utd_ratio = { low = 4, high = 1 }
base.kind = "flow"
data.demo_noise = { low = 0.0, high = 1.0, step = 0.1 }
"""
    with pytest.raises(ValueError) as refused:
        read_suite(suite_file(tmp_path, text))
    for said in (
        "a search is about one algorithm, and there are 2: leave one of rlpd, bc in [algorithms]",
        "unknown entry 'search.trial'. Did you mean 'trials'?",
        "search.trials must be a whole number, and be in [1, 100000], got 0.",
        "search.sampler must be one of tpe, random, got 'grid'.",
        "search.warmup must be a whole number, and not be negative, got 1.5.",
        "search.space.algo.tau has log = true: low must be positive, got 0.0.",
        "search.space.algo.hidden must list at least two different values, got [[64, 64]].",
        "search.space.train.utd_ratio must have low < high",
        "search.space.base.kind must be a list of values or { low = ..., high = ... }, got 'flow'.",
        "unknown entry 'search.space.data.demo_noise.step'.",
    ):
        assert said in str(refused.value), said
    with pytest.raises(ValueError, match=r"search needs a table \[search.space\]"):
        read_suite(suite_file(tmp_path, SUITE[: SUITE.index("[search.space]")]))


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("algo.tai = [0.1, 0.2]", "algo.tai: unknown option 'algo.tai'. Did you mean 'algo.tau'?"),
        ("algo.tau = { low = 0.5, high = 1.5 }", "algo.tau: algo.tau must be in (0, 1], got 1.5."),
        (
            "train.utd_ratio = { low = 1.0, high = 2.0 }",
            "config option 'train.utd_ratio' must be a whole number, got 1.0.",
        ),
        ("train.prefetch = [true, 1]", "'train.prefetch' must be true or false, got 1."),
        (
            'data.storage = ["disk", "tape"]',
            "'data.storage' must be one of 'memory', 'disk', got 'tape'.",
        ),
        ("algo.hidden = [[8], [0]]", "algo.hidden must list at least one positive layer size"),
        ("seed = [1, 2]", "seed: a suite says seeds instead."),
        ("eval.episodes = [1, 2]", "eval.episodes: it is the same in all trials"),
        ("train.online_steps = [10, 20]", "train.online_steps: it is the same in all trials"),
    ],
)
def test_options_that_are_not_searched(tmp_path, space, said, capsys):
    text = SUITE[: SUITE.index("train.utd_ratio = [")] + space
    assert main(["bench", str(suite_file(tmp_path, text)), "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_ranges_are_of_whole_numbers_where_the_option_is_one(tmp_path, capsys):
    text = SUITE[: SUITE.index("train.utd_ratio = [")]
    text += (
        "train.utd_ratio = { low = 1, high = 8, log = true }\nalgo.tau = { low = 0.5, high = 1 }\n"
    )
    text += "data.prior_ratio = { low = 0, high = 1 }\n[algorithms.rlpd]\nseconds_per_step = 36"
    path = suite_file(tmp_path, text.replace("[algorithms.rlpd]\n[tasks", "[tasks"))
    assert main(["bench", str(path), "--dry-run", "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "| train.utd_ratio | whole numbers from 1 to 8, log |" in out
    assert "| data.prior_ratio | numbers from 0 to 1 |" in out
    assert "7 trials of 2 runs each" in out and "5.60 hours of computing" in out
    assert not (tmp_path / "runs").exists()


def test_without_optuna_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["bench", str(suite_file(tmp_path, SUITE)), "--jobs", "1"]) != 0
    assert "pip install 'exporl[search]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


REAL = """
folder = "{folder}"
seeds = 1
preset = "tiny"
score = 0.3
[options]
train = { online_steps = 24, batch_size = 8, utd_ratio = 1, random_steps = 6, update_after = 6 }
eval = { every = 6, episodes = 4, num_envs = 2 }
log = { every = 6, save_every = 6 }
data = { demos = 6, demo_noise = 0.05 }
algo.num_qs = 2
[algorithms.rlpd]
[tasks."probe/delay"]
[search]
trials = 2
[search.space]
algo.tau = { low = 0.001, high = 0.1, log = true }
algo.hidden = [[16], [16, 16]]
"""


@pytest.mark.slow
def test_a_search_of_real_runs(tmp_path, capsys):
    """Every evaluation of every run is heard of, and the best configuration trains."""
    path = suite_file(tmp_path, REAL)
    assert main(["bench", str(path), "--jobs", "1"]) == 0
    trials, out = trials_of(path), capsys.readouterr().out
    assert [trial.state for trial in trials] == [COMPLETE, COMPLETE], out
    assert [sorted(trial.reported) for trial in trials] == [[0, 1, 2, 3, 4]] * 2
    best = best_of(trials)
    assert best is not None and best.value == best.reported[4]
    _check_preset(tmp_path / "runs", best)
