"""`exporl report --watch`: the page is written whenever runs have changed, until they are
finished."""

import json

import pytest

from exporl.cli import report
from exporl.cli.main import main
from exporl.report.run_data import NothingToReport
from exporl.report.watch import signs_of, watch
from helpers.reports import change_evaluations, drawn, fake_run


def finish(run):
    (run / "summary.json").write_text(json.dumps({"after": {"env_steps": 10**9}}))


class Days:
    """What happens between looks, one thing after the other."""

    def __init__(self, *events):
        self.events = list(events)

    def __call__(self, *_):
        self.events.pop(0)()


def nothing():
    pass


def test_a_page_is_written_when_something_changed_until_all_is_finished(tmp_path):
    run, written = fake_run(tmp_path / "s0", [9], [9]), []
    days = Days(
        nothing, lambda: change_evaluations(run, lambda i, line: line | {"x": 1}),
        lambda: finish(run),
    )  # fmt: skip
    watch(lambda: [run], lambda runs, last: written.append((len(runs), last)), days, print)
    assert written == [(1, False), (1, False), (1, True)] and days.events == []


def test_before_the_first_evaluation_it_waits_and_says_so_once(tmp_path):
    run, said, seen = fake_run(tmp_path / "s0", [], []), [], []

    def write(runs, last):
        if not last:
            raise NothingToReport("nothing to report yet")
        seen.append(last)

    days = Days(lambda: (run / "metrics.jsonl").write_text(""), lambda: finish(run))
    watch(lambda: [run], write, days, said.append)
    assert said == ["waiting: nothing to report yet"] and seen == [True]


def test_runs_may_become_more(tmp_path):
    found = [fake_run(tmp_path / "s0", [9], [9])]

    def another():
        found.append(fake_run(tmp_path / "s1", [9], [9], seed=1))

    days, counts = Days(another, lambda: [finish(run) for run in found]), []
    watch(lambda: list(found), lambda runs, _: counts.append(len(runs)), days, print)
    assert counts == [1, 2, 2]


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path / "none"), "--watch"]) == 2
    assert "is not a run directory" in capsys.readouterr().err
    assert signs_of([tmp_path]) == ()


def test_the_command_refreshes_while_the_run_goes_on(tmp_path, capsys, monkeypatch):
    run = fake_run(tmp_path / "s0", [9, 10], [9, 9])
    pages = []

    def wait(seconds):
        pages.append((seconds, drawn((run / "report.html").read_text())["refresh"]))
        finish(run)

    monkeypatch.setattr(report.time, "sleep", wait)
    assert main(["report", str(run), "--watch", "--every", "3"]) == 0
    assert pages == [(3, 3)]
    assert drawn((run / "report.html").read_text())["refresh"] is None
    assert capsys.readouterr().out.splitlines() == [str(run / "report.html")]


def test_the_last_page_stands_still_when_it_is_stopped(tmp_path, monkeypatch):
    run = fake_run(tmp_path / "s0", [9, 10], [9, 9])

    def stop(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(report.time, "sleep", stop)
    assert main(["report", str(run), "--watch"]) == 130
    assert drawn((run / "report.html").read_text())["refresh"] is None


@pytest.mark.parametrize(("given", "message"), [
    (["--every", "5"], "--every is for --watch"),
    (["--watch", "--every", "0"], "must be in [1, 3600]"),
])  # fmt: skip
def test_mistakes_are_answered(tmp_path, capsys, given, message):
    assert main(["report", str(fake_run(tmp_path / "s0", [9], [9])), *given]) == 2
    assert message in capsys.readouterr().err
