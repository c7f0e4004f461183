"""Suite files: what they ask for, and everything that is wrong with them, said before anything
starts."""

from pathlib import Path

import pytest

from exporl.bench.grid import never_in, plan_runs
from exporl.bench.selection import selected
from exporl.bench.suite import read_suite
from exporl.envs.registry import list_tasks
from helpers.suites import suite_file

ROOT = Path(__file__).parent.parent
FULL = """
seeds = [3, 5]
preset = "tiny"
score = 0.5
window = 2
baselines = ["slow"]
options.train.online_steps = 20
options.data.demo_noise = 0.1

[algorithms.expo]
seconds_per_step = 0.5

[algorithms.slow]
algorithm = "rlpd"
preset = "small"
seeds = 1
options.train.utd_ratio = 2
options.chunk_length = 2
on."probe/delay".train.utd_ratio = 3

[tasks."probe/bandit"]
seconds_per_step = 0.1
options.train.utd_ratio = 9
options.data = { demo_noise = 0.2 }

[tasks."probe/delay"]
score = 0.75
"""


def read(tmp_path, text):
    return read_suite(suite_file(tmp_path, text))


def test_what_a_suite_asks_for(tmp_path):
    suite = read(tmp_path, FULL)
    assert str(suite.folder) == "runs/bench/suite"
    assert suite.labels == ("expo", "slow") and suite.baselines == ("slow",)
    assert suite.compared == ("expo",) and suite.window == 2 and suite.measure == "success"
    assert suite.scores == {"probe/bandit": 0.5, "probe/delay": 0.75}
    assert [(run.label, run.task, run.seed) for run in suite.runs] == [
        ("expo", "probe/bandit", 3),
        ("expo", "probe/delay", 3),
        ("slow", "probe/bandit", 0),
        ("slow", "probe/delay", 0),
        ("expo", "probe/bandit", 5),
        ("expo", "probe/delay", 5),
    ]
    assert str(suite.runs[2].run_dir) == "runs/bench/suite/slow-probe-bandit/s0"
    assert [run.seconds_per_step for run in suite.runs[:4]] == [0.5, 0.5, 0.1, None]


def names(suite):
    return [f"{run.label} {run.task.removeprefix('probe/')} {run.seed}" for run in suite.runs]


def test_seeds_come_before_algorithms_and_these_before_tasks(tmp_path):
    """In the order of the file: a suite that is stopped has most of what stands first."""
    suite = read(tmp_path, FULL.replace("seeds = 1\n", "seeds = [5, 9, 1]\n"))
    assert names(suite) == [
        "expo bandit 3", "expo delay 3", "slow bandit 5", "slow delay 5",
        "expo bandit 5", "expo delay 5", "slow bandit 9", "slow delay 9",
        "slow bandit 1", "slow delay 1",
    ]  # fmt: skip


def test_an_algorithm_on_some_of_the_tasks(tmp_path):
    suite = read(tmp_path, FULL.replace("seeds = 1\n", 'tasks = ["probe/delay"]\n'))
    assert [name for name in names(suite) if name.startswith("slow")] == [
        "slow delay 3",
        "slow delay 5",
    ]
    for wrong, said in (
        ('["probe/dela", {}]', "slow.tasks names 'probe/dela', which is no task"),
        ('"probe/delay"', "algorithms.slow.tasks must be a list"),
    ):
        with pytest.raises(ValueError, match=said):
            read(tmp_path, FULL.replace("seeds = 1\n", f"tasks = {wrong}\n"))


def test_a_part_of_a_suite(tmp_path):
    """Of one kind any of the named, of every kind that is named one; the order stays."""
    suite = read(tmp_path, FULL)
    assert selected(suite, ()) is suite
    assert names(selected(suite, ("seed=5", "seed=0"))) == [
        "slow bandit 0", "slow delay 0", "expo bandit 5", "expo delay 5",
    ]  # fmt: skip
    part = selected(suite, ("expo", "probe/delay", "seed=5"))
    assert names(part) == ["expo delay 5"]
    assert part.scores == {"probe/delay": 0.75} and part.folder == suite.folder
    assert part.labels == ("expo",) and part.baselines == ()
    assert selected(suite, ("slow",)).baselines == ("slow",)


def test_parts_that_are_not_there(tmp_path):
    suite = read(tmp_path, FULL)
    with pytest.raises(ValueError, match=r"--only names 'slo', .* mean 'slow'\? Known: expo"):
        selected(suite, ("expo", "slo"))
    with pytest.raises(ValueError, match=r"no run of .*suite.toml is all of slow, seed=5\."):
        selected(suite, ("slow", "seed=5"))
    search = 'score = 1\n[algorithms.expo]\n[tasks."probe/delay"]\n[search.space]\n'
    with pytest.raises(ValueError, match="is a search, and every trial is all of its runs"):
        selected(read(tmp_path, search + "algo.tau = [0.1, 0.2]\n"), ("expo",))


def test_the_closest_override_wins(tmp_path):
    """Of all runs, of the task, of the algorithm, of the algorithm on the task."""
    runs = {(run.asked.label, run.asked.task): run for run in plan_runs(read(tmp_path, FULL))}
    utd = {pair: run.config.train.utd_ratio for pair, run in runs.items()}
    assert utd == {
        ("expo", "probe/bandit"): 9,
        ("expo", "probe/delay"): 4,
        ("slow", "probe/bandit"): 2,
        ("slow", "probe/delay"): 3,
    }
    bandit = runs["slow", "probe/bandit"].config
    assert (bandit.algorithm, bandit.preset, bandit.chunk_length) == ("rlpd", "small", 2)
    assert (
        bandit.data.demo_noise == 0.2 and runs["expo", "probe/delay"].config.data.demo_noise == 0.1
    )
    assert all(run.config.train.online_steps == run.steps == 20 for run in runs.values())


def test_all_mistakes_of_the_file_are_said_at_once(tmp_path):
    text = """
seed = 3
window = 0
measure = "succes"
baselines = ["rlpq"]
[algorithms.rlpd]
option.train.utd_ratio = 3
seeds = [1, 1]
on."probe/dela".chunk_length = 1
options.seed = 4
options.data.path = 1979-05-27
[algorithms."a b"]
seeds = 1_000_000_000_000
preset = 3
[tasks."probe/delay"]
"""
    with pytest.raises(ValueError) as refused:
        read(tmp_path, text)
    lines = str(refused.value).splitlines()
    assert lines[0].endswith("suite.toml cannot be run:")
    for said in (
        "unknown entry 'seed'. Did you mean 'seeds'?",
        "window must be at least 1 evaluation, got 0.",
        "unknown measure 'succes'. Did you mean 'success'?",
        "baselines names 'rlpq', which is no algorithm of the suite. Did you mean 'rlpd'?",
        "unknown entry 'algorithms.rlpd.option'. Did you mean 'options'?",
        "algorithms.rlpd.seeds must be a number of seeds, at most 10000, or a list of different",
        "algorithms.rlpd.on names 'probe/dela', which is no task of the suite. Did you mean",
        "algorithms.rlpd.options has 'seed': a suite says seeds instead.",
        "an algorithm is called 'a b': use letters",
        "algorithms.rlpd.options has data.path = 1979-05-27: no option is such a value.",
        "algorithms.a b.seeds must be a number of seeds, at most 10000",
        "algorithms.a b.preset must be a str, got 3.",
        "probe/delay has no score that counts as reached",
    ):
        assert any(line.startswith(said) for line in lines), said


def test_all_unknown_names_are_said_at_once_with_the_closest(tmp_path):
    text = """
score = 1
preset = "tiny"
[algorithms.expo]
options.algo.edit_scal = 0.1
[algorithms.rlpq]
[algorithms.rlpd]
preset = "tinny"
[algorithms.bc]
options.train.batch_size = "many"
[algorithms.other]
algorithm = "expo"
options.train.utd_ratio = 0
[tasks."probe/dela"]
"""
    with pytest.raises(ValueError) as refused:
        plan_runs(read(tmp_path, text))
    lines = str(refused.value).splitlines()[1:]
    for said in (
        "expo on probe/dela: unknown option 'algo.edit_scal'. Did you mean 'algo.edit_scale'?",
        "rlpq on probe/dela: unknown algorithm 'rlpq'. Did you mean 'rlpd'?",
        "rlpd on probe/dela: unknown preset 'tinny' for rlpd. Did you mean 'tiny'?",
        "bc on probe/dela: config option 'train.batch_size' must be",
        "other on probe/dela: train.utd_ratio must be at least 1",
    ):
        assert any(line.startswith(said) for line in lines), (said, lines)


def test_an_unknown_task_is_said_with_the_closest(tmp_path):
    text = 'score = 1\n[algorithms.expo]\n[tasks."probe/dela"]\n'
    with pytest.raises(ValueError, match=r"unknown task 'probe/dela'. Did you mean 'probe/delay'?"):
        plan_runs(read(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = [", "suite.toml is no TOML file"),
        ("score = 1", r"needs at least one table \[algorithms.expo\]"),
        ("score = 1\n[algorithms.expo]", r"needs at least one table \[tasks"),
        ('algorithms = 3\n[tasks."probe/bandit"]', r"needs at least one table \[algorithms.expo\]"),
        (
            'score = 1\n[algorithms.x]\n[tasks."y-z:f"]\n[tasks."y/z:f"]',
            "would share .*call one of the algorithms differently",
        ),
    ],
)
def test_files_that_ask_for_nothing(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("path", "num_runs"), [("examples/suite.toml", 8), ("benchmarks/claim.toml", 708)]
)
def test_the_suites_of_the_repository_can_be_run(path, num_runs):
    """But for packages of tasks, which need not be installed."""
    runs = plan_runs(read_suite(ROOT / path), lambda name, reward: make_known(name))
    assert len(runs) == num_runs and not never_in(runs)
    assert all(run.asked.seconds_per_step for run in runs if path.startswith("benchmarks"))


def make_known(name):
    assert name in dict(list_tasks())
