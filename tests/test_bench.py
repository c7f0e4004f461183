"""`exporl bench`: runs of a suite are made, gone on with and never mixed. Stand-ins for the child
processes write files as a run leaves them."""

import json
import os
import signal
import sys
import threading

import pytest

from exporl.bench import fingerprint, running
from exporl.bench.grid import plan_runs
from exporl.bench.pace import Clock, Pace, paces
from exporl.bench.prints import ALLOWED
from exporl.bench.suite import read_suite
from exporl.cli.main import main
from exporl.parallel import processes
from exporl.run.config import to_json
from helpers.runs import Heard, wait_for
from helpers.suites import SUITE, child_code, suite_file, write_run


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    monkeypatch.setattr(processes, "_CHILD", child_code())
    monkeypatch.setattr("exporl.cli.bench_run.keep_compiled_programs", lambda say: None)


def test_every_run_is_made_once_with_a_line_each(tmp_path, capsys):
    path = suite_file(tmp_path)
    assert main(["bench", str(path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len([line for line in out if line.startswith("[")]) == 4
    assert out[3].startswith("[4/4] ") and "left" not in out[3]
    line = next(line for line in out if "expo on probe/delay, seed 1: " in line)
    assert "success policy 90%, base 25% at 20 steps, 2 s" in line
    assert out[4] == "all 4 runs are finished" and out[5].endswith(f"exporl bench {path} --table")
    assert {p.name for p in (tmp_path / "runs" / "fingerprints").iterdir()} == {
        f"{algorithm}-probe-delay-s{seed}.json" for algorithm in ("expo", "rlpd") for seed in (0, 1)
    }
    assert main(["bench", str(path)]) == 0
    again = capsys.readouterr()
    assert "4 of 4 runs are finished already" in again.err
    assert again.out.splitlines()[0] == "all 4 runs are finished"


def test_a_failure_does_not_end_the_suite_and_is_listed(tmp_path, capsys):
    path = suite_file(
        tmp_path, a="[algorithms.rlpd] -> [algorithms.rlpd]\noptions.train.discount = 0.5"
    )
    assert main(["bench", str(path), "--jobs", "1"]) == 1
    out = capsys.readouterr().out
    assert "expo on probe/delay, seed 1: success" in out
    assert "2 of 4 runs failed:\n  rlpd on probe/delay, seed 0: the arm fell off" in out
    assert not (tmp_path / "runs" / "rlpd-probe-delay" / "s0").exists()
    # it is tried again by the next command
    assert main(["bench", str(path)]) == 1
    again = capsys.readouterr()
    assert "2 of 4 runs are finished already" in again.err and "2 of 4 runs failed" in again.out


def test_a_killed_process_goes_on_by_itself(tmp_path, capsys):
    path = suite_file(
        tmp_path, a="= 20 -> = 20\noptions.train.discount = 0.6", b="seeds = 2 -> seeds = 1"
    )
    assert main(["bench", str(path)]) == 0
    assert capsys.readouterr().out.count("success") == 2


def suite_of(path):
    suite = read_suite(path)
    return suite, plan_runs(suite)


def made(suite, runs, stop=None, *, allowed=(), at_once=1, told=None):
    """Makes the runs; the outcomes and what was said."""
    heard = Heard()
    outcomes = running.run_suite(
        suite,
        runs,
        stop or threading.Event(),
        at_once=at_once,
        allowed=allowed,
        row=lambda run: heard,
        say=heard.say,
        told=told or (lambda outcome: None),
    )
    return outcomes, heard.said


def test_a_stop_ends_all_runs_and_begins_none(tmp_path):
    suite, runs = suite_of(suite_file(tmp_path, a="= 20 -> = 20\noptions.train.discount = 0.7"))
    stop = threading.Event()
    begun = runs[0].run_dir / "config.json"
    threading.Thread(target=lambda: (wait_for(begun, "}"), stop.set()), daemon=True).start()
    outcomes, _ = made(suite, runs, stop)
    assert [outcome.ended for outcome in outcomes] == [(None, None)]
    assert [run.begun for run in runs] == [True, False, False, False]


def test_control_c_stops_the_command(tmp_path, capsys):
    path = suite_file(tmp_path, a="= 20 -> = 20\noptions.train.discount = 0.7")

    def interrupt():
        wait_for(tmp_path / "runs" / "expo-probe-delay" / "s0" / "config.json", "}")
        os.kill(os.getpid(), signal.SIGINT)

    # it is ignored where the tests run in the background of a shell
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        assert main(["bench", str(path), "--jobs", "1"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert f"Go on with: exporl bench {path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said", "advice"),
    [
        (
            "every = 10 -> every = 5",
            "expo on probe/delay, seed 0: eval.every was 10, now 5.",
            "Nothing can make one run of two configurations",
        ),
        (
            'preset = "tiny" -> preset = "small"',
            "expo on probe/delay, seed 0: algo.hidden was [64, 64], now [128, 128].",
            "give the suite another folder",
        ),
        (
            "steps = 20 -> steps = 10",
            "train.online_steps was 20, now 10.",
            "Nothing can make one run",
        ),
        (
            "steps = 20 -> steps = 30",
            "train.online_steps was 20, now 30.",
            "add --allow configuration",
        ),
    ],
)
def test_another_configuration_is_refused_by_name(tmp_path, change, said, advice):
    suite, runs = suite_of(suite_file(tmp_path))
    made(suite, runs)
    suite, runs = suite_of(suite_file(tmp_path, a=change))
    with pytest.raises(ValueError) as refused:
        made(suite, runs)
    assert said in str(refused.value) and advice in str(refused.value)


def test_more_steps_are_made_where_that_is_allowed(tmp_path):
    suite, runs = suite_of(suite_file(tmp_path))
    made(suite, runs)
    suite, runs = suite_of(suite_file(tmp_path, a="steps = 20 -> steps = 30"))
    outcomes, _ = made(suite, runs, allowed=["configuration"])
    assert [outcome.ended[0]["after"]["env_steps"] for outcome in outcomes] == [30] * 4
    assert made(suite, runs)[0] == []


def test_logging_may_change(tmp_path):
    made(*suite_of(suite_file(tmp_path)))
    assert made(*suite_of(suite_file(tmp_path, a="= 20 -> = 20\noptions.log.every = 7")))[0] == []


def change_print(suite, **changes):
    """As if the first run had been made with other code."""
    path = suite.folder / "fingerprints" / "expo-probe-delay-s0.json"
    found = json.loads(path.read_text())
    for name, value in changes.items():
        found[name] = {**found[name], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": "0123"}, "the source of exporl was 0123 ("),
        ({"versions": {"jax": "0.0.1"}}, "jax was 0.0.1, now "),
        ({"outside": {"my_task": "0123"}}, "the module my_task was changed."),
    ],
)
def test_other_code_is_refused_by_name_and_allowed_by_an_option(tmp_path, changes, said, capsys):
    path = suite_file(tmp_path)
    suite, runs = suite_of(path)
    made(suite, runs)
    change_print(suite, **changes)
    with pytest.raises(ValueError, match="add --allow version") as refused:
        made(suite, runs)
    assert f"expo on probe/delay, seed 0: {said}" in str(refused.value)
    assert made(suite, runs, allowed=["version"])[0] == []
    assert main(["bench", str(path), "--table"]) == 0
    assert "made with 2 versions of the code" in capsys.readouterr().out


def test_another_commit_with_the_same_source_is_no_other_code(tmp_path):
    suite, runs = suite_of(suite_file(tmp_path))
    made(suite, runs)
    change_print(suite, versions={"git": "abcdef"})
    assert made(suite, runs)[0] == []


def test_a_run_that_goes_on_with_other_code_keeps_what_it_was_made_with_before(tmp_path):
    suite, runs = suite_of(suite_file(tmp_path))
    made(suite, runs)
    change_print(suite, source="0123")
    (runs[0].run_dir / "summary.json").unlink()
    made(suite, runs, allowed=["version"])
    kept = fingerprint.read_print(suite.folder, runs[0].run_dir)
    assert [each["source"] for each in kept["earlier"]] == ["0123"]
    assert kept["source"] == fingerprint.library_code()["source"]
    assert made(suite, runs)[0] == []


def test_runs_of_unknown_origin_are_refused(tmp_path):
    suite, runs = suite_of(suite_file(tmp_path))
    write_run(runs[0].run_dir, json.loads(json.dumps(to_json(runs[0].config))), {0: 0.1, 20: 0.2})
    with pytest.raises(
        ValueError, match="was not made by this suite: nothing says with which code"
    ):
        made(suite, runs)


def test_source_that_changes_while_a_suite_runs_begins_no_more_runs(tmp_path, monkeypatch):
    suite, runs = suite_of(suite_file(tmp_path))
    now, library = iter(["a", "a", "b", "b", "b"]), fingerprint.library_code()
    monkeypatch.setattr(running, "library_code", lambda: {**library, "source": next(now)})
    outcomes, _ = made(suite, runs)
    errors = [outcome.ended[1] for outcome in outcomes]
    assert errors[0] is None and len(errors) == 4
    assert all("was changed while the suite ran, from a to b" in error for error in errors[1:])


def test_the_code_that_a_configuration_names_counts(tmp_path, monkeypatch):
    """Its module lies in the current directory."""
    (tmp_path / "own_code_of_a_suite.py").write_text("from exporl.algos import BC as mine\n")
    monkeypatch.chdir(tmp_path)
    text = SUITE.replace(
        "[algorithms.rlpd]", '[algorithms.own]\nalgorithm = "own_code_of_a_suite:mine"'
    )
    _, runs = suite_of(suite_file(tmp_path, text))
    own = next(run for run in runs if run.asked.label == "own")
    before = fingerprint.code_of(own.config, {})["outside"]
    (tmp_path / "own_code_of_a_suite.py").write_text("from exporl.algos import BC as mine  # new\n")
    after = fingerprint.code_of(own.config, {})["outside"]
    assert list(before) == list(after) == ["own_code_of_a_suite"] and before != after
    del sys.modules["own_code_of_a_suite"]


def test_runs_left_over_by_a_killed_command_are_waited_for(tmp_path):
    suite, runs = suite_of(suite_file(tmp_path))
    suite.folder.mkdir(parents=True)
    left_over = (suite.folder / running.CHILDREN).open("w")
    running.fcntl.flock(left_over, running.fcntl.LOCK_SH)
    threading.Timer(0.7, left_over.close).start()
    outcomes, said = made(suite, runs)
    assert any("earlier `exporl bench` are still saving" in line for line in said)
    assert len(outcomes) == 4


def test_two_commands_do_not_share_a_suite(tmp_path):
    suite, runs = suite_of(suite_file(tmp_path))
    with running.locked(suite.folder), pytest.raises(ValueError, match=r"trains in .*Wait for it"):
        made(suite, runs)


def test_finished_runs_tell_how_long_the_others_take(tmp_path):
    """The stand-ins say 2 s of training and 3 of evaluation for 20 steps."""
    suite, runs = suite_of(suite_file(tmp_path, a="[algorithms.rlpd] -> "))
    seen = []
    made(suite, runs, told=seen.append)
    assert [outcome.left_s for outcome in seen] == [pytest.approx(5.0), 0.0]
    (runs[1].run_dir / "summary.json").unlink()
    clock = Clock([runs[1]], paces(runs), 1)
    assert clock.left_s() == pytest.approx(5.0)


def test_every_run_has_the_same_share_of_cores_however_many_are_left(tmp_path, monkeypatch):
    """So that the last run of a suite computes as the first did."""
    here = min(os.sched_getaffinity(0))
    shares = []
    start = processes._start
    monkeypatch.setattr(processes, "usable_cores", lambda: [here, here, here, here])
    monkeypatch.setattr(
        processes,
        "_start",
        lambda job, cores, *rest: shares.append(cores) or start(job, cores, *rest),
    )
    suite, runs = suite_of(suite_file(tmp_path, a="seeds = 2 -> seeds = 1"))
    made(suite, runs, at_once=2)
    (runs[1].run_dir / "summary.json").unlink()
    made(suite, runs, at_once=2)
    assert [len(cores) for cores in shares] == [2, 2, 2]


def test_the_grid_and_its_hours(tmp_path, capsys):
    path = suite_file(
        tmp_path,
        a="[algorithms.expo] -> [algorithms.expo]\nseconds_per_step = 90",
        b="[tasks -> [algorithms.bc]\n[tasks",
    )
    assert main(["bench", str(path), "--dry-run", "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "| expo | probe/delay | 2 | 0 | 20 | 90 (the suite's file) | 1.00 |" in out
    assert "| rlpd | probe/delay | 2 | 0 | 20 | not known yet | not known |" in out
    assert "The speed of 4 of them is not known" in out and "1.00 hours of computing" in out
    assert not (tmp_path / "runs").exists()
    _, runs = suite_of(path)
    for run in runs[:2]:
        config = json.loads(json.dumps(to_json(run.config)))
        write_run(run.run_dir, config, {0: 0.1, 10: 0.2, 20: 0.3})
    assert main(["bench", str(path), "--dry-run"]) == 0
    out = capsys.readouterr().out
    # 2 s of training and 3 evaluations of 1 s over 20 steps
    assert "| expo | probe/delay | 2 | 1 | 20 | 0.25 (measured, 1 finished) | 0.00 |" in out
    assert "6 runs in" in out and "4 of them left to make" in out


def test_a_folder_that_cannot_be_made_is_seen_before_anything_is_promised(tmp_path, capsys):
    (tmp_path / "runs").write_text("in the way")
    assert main(["bench", str(suite_file(tmp_path)), "--dry-run"]) == 2
    told = capsys.readouterr()
    assert "runs: File exists. Say another folder in the suite's file." in told.err
    assert told.out == "" and (tmp_path / "runs").read_text() == "in the way"


def test_what_would_never_happen_is_said(tmp_path, capsys):
    """The preset tiny of RLPD begins with 1,000 random steps; the suite has 20."""
    assert main(["bench", str(suite_file(tmp_path)), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "rlpd on probe/delay: the policy never acts in training" in said
    assert "rlpd on probe/delay: nothing is learnt online" in said


def test_what_can_be_allowed_is_advised_where_it_is_refused():
    for kind in ALLOWED:
        with pytest.raises(ValueError, match=f"add --allow {kind}"):
            fingerprint.check_unmixed([fingerprint.Mismatch("a run", "differs.", kind)], ())
        fingerprint.check_unmixed([fingerprint.Mismatch("a run", "differs.", kind)], (kind,))


def test_imitation_alone_is_measured_by_its_own_steps(tmp_path):
    text = SUITE.replace("[algorithms.rlpd]", "[algorithms.bc]").replace(
        "options.train.online_steps = 20", "options.train.online_steps = 0"
    )
    _, runs = suite_of(suite_file(tmp_path, text))
    assert {run.steps for run in runs} == {4000}
    assert paces(runs)["bc", "probe/delay"] == Pace(None, "not known yet")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--jobs", "100000"], "--jobs 100000: this process may use"),
        (["--table", "--csv"], "one of --dry-run, --table, --latex, --csv and --json at a time"),
        (["--output", "x"], "--output is for --table, --latex, --csv and --json"),
        (["--table", "--output", "."], "argument --output: '.' is a folder: name a file to write"),
        (["--allow", "versions"], "cannot allow 'versions'. Did you mean 'version'?"),
        (["--dryrun"], "unrecognized arguments: --dryrun. `exporl bench --help` shows"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path, args, message, capsys):
    assert main(["bench", str(suite_file(tmp_path)), *args]) == 2
    assert message in capsys.readouterr().err


def test_a_suite_that_is_not_there(tmp_path, capsys):
    for path, why in ((tmp_path / "none.toml", "No such file or d"), (tmp_path, "Is a directory")):
        assert main(["bench", str(path)]) == 2
        assert f"error: the suite {path} cannot be read: {why}" in capsys.readouterr().err


def test_help_teaches_with_a_suite_that_can_be_read(tmp_path, capsys):
    assert main(["bench", "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    start, end = text.index("a suite:\n") + len("a suite:\n"), text.index("\nEverything is checked")
    suite = read_suite(suite_file(tmp_path, text[start:end].replace("\n  ", "\n").strip()))
    assert len(suite.runs) == 12 and suite.baselines == ("rlpd", "bc")
    assert plan_runs(suite, lambda name, reward: None)[0].config.data.demo_noise == 0.4


class Ticks:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_the_time_left_by_hand(tmp_path):
    """Four runs of 20 steps, two at a time; expo takes 3 s per step by the file."""
    _, runs = suite_of(suite_file(tmp_path))
    ticks = Ticks()
    known = {("expo", "probe/delay"): Pace(3.0, ""), ("rlpd", "probe/delay"): Pace(None, "")}
    clock = Clock(runs, known, 2, ticks)
    # the speed of rlpd is not known: it counts as that of expo
    assert clock.left_s() == pytest.approx(4 * 60 / 2)
    order = [run.asked.label for run in runs]
    assert order == ["expo", "rlpd", "expo", "rlpd"]
    expo, rlpd = 0, 1
    clock.phase(rlpd, "imitation", 4000, 0)
    clock.moved(rlpd, 1000)  # not what it is measured by
    assert clock.left_s() == pytest.approx(120)
    clock.phase(rlpd, "rlpd", 20, 0)
    ticks.now = 10.0
    clock.moved(rlpd, 10)  # 1 s per step
    assert clock.left_s() == pytest.approx((2 * 60 + 10 + 20) / 2)
    clock.phase(expo, "expo", 20, 15)  # resumed
    assert clock.left_s() == pytest.approx(60)  # the other expo alone: (15 + 60 + 10 + 20) / 2 < 60
    for i in range(2):
        clock.ended(i)
    clock.ended(2, seconds=40.0)  # expo took 2 s per step
    assert clock.left_s() == pytest.approx(20)  # the last one is rlpd, and alone
    nothing = dict.fromkeys(known, Pace(None, ""))
    assert Clock(runs, nothing, 2, ticks).left_s() is None
