"""Parts of the report: names of runs, steps to success, who succeeds, the guard, calibration,
published curves, suites."""

import json
import re

import pytest

from exporl.cli.main import main
from exporl.report.calibration import gaps, starts_of
from exporl.report.guard_section import base_deployed
from exporl.report.labels import labelled
from exporl.report.outcome_tables import paired_table, reach_table
from exporl.report.page import write_report
from exporl.report.published import TASKS, published_lines
from exporl.report.run_data import read_run
from exporl.run.directory import machine
from helpers.reports import change_evaluations, chart, chart_titles, drawn, fake_run, write_metrics


def cells(html):
    """Rows of a table, as text."""
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in rows]


# Names.


def labels(*runs):
    return [run.label for run in labelled([read_run(run) for run in runs])]


def test_seeds_share_a_name(tmp_path):
    runs = [fake_run(tmp_path / f"s{i}", [1, 2], [1, 1], seed=i) for i in range(2)]
    runs.append(fake_run(tmp_path / "rlpd", [1, 2], None, "rlpd"))
    assert labels(*runs) == ["EXPO", "EXPO", "RLPD"]


def test_an_option_that_differs_is_in_the_name_and_in_a_table(tmp_path):
    runs = [
        fake_run(tmp_path / f"c{length}", [1, 2], [1, 1], chunk_length=length) for length in (1, 4)
    ]
    assert labels(*runs) == ["EXPO (chunk_length 1)", "EXPO (chunk_length 4)"]
    page = write_report(runs, tmp_path / "r.html").read_text()
    assert ["chunk_length", "1", "4"] in cells(page.split("What differs between runs</h2>")[1])


def test_many_options_that_differ_are_letters(tmp_path):
    changes = ({"chunk_length": 4}, {"num_envs": 3}, {"execute_length": 1}, {})
    runs = [fake_run(tmp_path / f"r{i}", [1, 2], [1, 1], **each) for i, each in enumerate(changes)]
    assert labels(*runs) == ["EXPO A", "EXPO B", "EXPO C", "EXPO D"]


def test_what_a_resumption_may_change_makes_no_other_name(tmp_path):
    first = fake_run(tmp_path / "a", [1, 2], [1, 1])
    second = fake_run(tmp_path / "b", [1, 2], [1, 1], eval={"every": 7}, log={"every": 3})
    assert labels(first, second) == ["EXPO", "EXPO"]


# Tables.


def test_steps_to_success_by_hand(tmp_path):
    """One seed is at 80% from step 2,000 on; the other falls back and never stays there."""
    runs = labelled([
        read_run(fake_run(tmp_path / "s0", [2, 12, 16, 18], [9] * 4)),
        read_run(fake_run(tmp_path / "s1", [2, 17, 17, 11], [9] * 4, seed=1)),
    ])  # fmt: skip
    assert cells(reach_table(runs, (0.5, 0.8))) == [
        ["algorithm", "to 50%", "to 80%"],
        ["EXPO", "1,000 (2 of 2)", "≥ 2,500 (1 of 2)"],
    ]


def test_without_environment_steps_there_are_none_to_success(tmp_path):
    assert reach_table([read_run(fake_run(tmp_path / "s0", [2], [9]))]) == ""


def test_who_succeeds_from_the_same_starts(tmp_path):
    run = fake_run(tmp_path / "s0", [9, 12], [9, 9], episodes=20)

    def change(i, line):
        line["base"]["success"] = [False] * 5 + [True] * 9 + [False] * 6
        return line

    change_evaluations(run, change)
    row = cells(paired_table([read_run(run)]))[1]
    assert row[0] == "s0" and row[2:] == ["7", "5", "2", "6"]
    assert re.findall(r"width:([\d.]+)%", row[1]) == ["35.00", "25.00", "10.00", "30.00"]


def test_the_difference_from_the_base_is_drawn(tmp_path):
    page = write_report([fake_run(tmp_path / "s0", [9, 12], [9, 9])], tmp_path / "r.html")
    line = chart(page.read_text(), "Policy minus base")["lines"]["EXPO"]
    assert line["y"] == [0, 0.15] and line["low"][1] <= 0.15 <= line["high"][1]


# The guard.


def guarded(folder):
    run = fake_run(folder, [9, 12, 13], [9, 9, 9])
    deployed = ["base", "base", "explore", "base", "explore"]
    write_metrics(run, [
        {"phase": "online", "env_steps": 500 * i, "guard/base": 0.5, "guard/explore": 0.25 * i,
         "guard/base_episodes": 0.2, "deployed": who}
        for i, who in enumerate(deployed)
    ])  # fmt: skip
    return run


def test_the_guard(tmp_path):
    run = guarded(tmp_path / "s0")
    assert base_deployed(read_run(run)) == [(0.0, 1000.0), (1500.0, 2000.0)]
    page = write_report([run], tmp_path / "r.html").read_text()
    found = chart(page, "The guard of s0")
    assert found["spans"] == [[0, 1000], [1500, 2000]] and found["percent"]
    assert found["lines"]["policy around it"]["y"] == [0, 0.25, 0.5, 0.75, 1]
    assert ["s0", "policy", "75% of steps", "50%", "100%", "20%"] in cells(page)


def test_without_a_guard_there_is_nothing_about_it(tmp_path):
    page = write_report([fake_run(tmp_path / "s0", [9, 12], [9, 9])], tmp_path / "r.html")
    assert "The guard" not in page.read_text()


# Calibration.

STARTS = {"values": [-3.0, -2.0, -9.0], "discounted": [-4.0, -2.5, -5.0],
          "cut_off": [False, False, True]}  # fmt: skip


def test_episodes_that_were_cut_off_do_not_count():
    assert gaps(STARTS) == [1.0, 0.5]


@pytest.mark.parametrize(
    "damage",
    [{"values": "x"}, {"values": [1.0]}, {"discounted": [float("nan")] * 3}, {"cut_off": []},
     {"values": [True, False, True]}],
    ids=str,
)  # fmt: skip
def test_what_is_no_list_of_numbers_is_not_drawn(damage):
    assert starts_of(STARTS | damage) == []
    assert gaps(STARTS | damage) == []


def test_calibration_is_drawn(tmp_path):
    run = fake_run(tmp_path / "s0", [1, 2], [1, 1], episodes=3)
    change_evaluations(run, lambda i, line: line | {"policy": line["policy"] | STARTS})
    page = write_report([run], tmp_path / "r.html").read_text()
    cloud = chart(page, "Predicted against realised")["lines"]
    assert cloud["s0"]["x"] == [-3, -2] and cloud["s0"]["y"] == [-4, -2.5]
    assert cloud["s0, cut off"]["x"] == [-9] and cloud["s0, cut off"]["color"] == "published"
    assert chart(page, "Predicted minus realised")["lines"]["EXPO"]["y"] == [0.75, 0.75]
    assert "<td>2 of 3</td>" in page


def test_where_the_base_is_deployed_the_policy_itself_is_calibrated(tmp_path):
    run = fake_run(tmp_path / "s0", [1, 2], [1, 1], episodes=3)
    change_evaluations(run, lambda i, line: line | {"unguarded": line["policy"] | STARTS})
    page = write_report([run], tmp_path / "r.html").read_text()
    assert chart(page, "Predicted against realised")["lines"]["s0"]["x"] == [-3, -2]


@pytest.mark.parametrize("who", ["unguarded", "unedited"])
def test_whoever_else_was_evaluated_is_drawn_or_named_where_it_is_damaged(tmp_path, who):
    run = fake_run(tmp_path / "s0", [9, 12], [9, 9])
    change_evaluations(run, lambda i, line: line | {who: line["base"]})
    page = write_report([run], tmp_path / "r.html").read_text()
    other = [line for line in chart(page, "Success")["lines"].values() if line.get("kind") == who]
    assert [line["y"] for line in other] == [[0.45, 0.45]]
    assert f"kind:{who}" in drawn(page)["hidden"]
    change_evaluations(run, lambda i, line: line | ({who: "x"} if i else {}))
    page = write_report([run], tmp_path / "r.html").read_text()
    assert f"it has no result of the {who}" in page


def test_without_values_there_is_no_calibration(tmp_path):
    page = write_report([fake_run(tmp_path / "s0", [9, 12], [9, 9])], tmp_path / "r.html")
    assert "Calibration" not in page.read_text()


# Published curves.


def test_published_curves_of_the_same_task_and_setting(tmp_path):
    run = fake_run(tmp_path / "s0", [9, 12], [9, 9], task="probe/bandit")
    config = json.loads((run / "config.json").read_text()) | {"task": "robomimic/can"}
    (run / "config.json").write_text(json.dumps(config))
    page = write_report([run], tmp_path / "r.html").read_text()
    lines = chart(page, "Success over")["lines"]
    published = {name: line for name, line in lines.items() if line.get("kind") == "published"}
    assert "EXPO, published (digitised)" in published and len(published) == 5
    assert all(line["dash"] == 2 for line in published.values())
    assert "digitised from its figures" in page
    config["train"]["critic_pretrain_steps"] = 10
    (run / "config.json").write_text(json.dumps(config))
    others = {line.name: line for line in published_lines([read_run(run)], {})}
    assert "CALQL, published (digitised)" in others
    own = others["EXPO, published (digitised)"]
    assert list(own.y) != published["EXPO, published (digitised)"]["y"]


def test_every_published_task_has_curves(tmp_path):
    run = read_run(fake_run(tmp_path / "s0", [9], [9]))
    for task in TASKS:
        object.__setattr__(run, "task", task)
        names = [line.name for line in published_lines([run], {})]
        assert any(name.startswith("EXPO") for name in names), task
        assert len(set(names)) == len(names)


def test_other_tasks_have_none(tmp_path):
    page = write_report([fake_run(tmp_path / "s0", [9, 12], [9, 9])], tmp_path / "r.html")
    assert "digitised" not in page.read_text().split("<script")[0]


# Suites.


def test_a_suite_has_its_tables_and_its_names(tmp_path, capsys):
    suite = tmp_path / "suite.toml"
    suite.write_text(
        f'folder = "{tmp_path / "runs"}"\nseeds = 2\npreset = "tiny"\nscore = 0.5\n'
        '[algorithms.mine]\nalgorithm = "expo"\n[algorithms.rlpd]\n[tasks."probe/bandit"]\n'
    )
    for seed in range(2):
        for name, algorithm in (("mine", "expo"), ("rlpd", "rlpd")):
            run = tmp_path / "runs" / f"{name}-probe-bandit" / f"s{seed}"
            fake_run(run, [2, 8 + seed, 15], None, algorithm, seed)
            summary = {"after": {"env_steps": 10**9}}
            (run / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "runs" / "fingerprints").mkdir()
    change = {"return_mean": 0.0}
    for run in (tmp_path / "runs").glob("*/s*"):
        change_evaluations(run, lambda _, line: line | {"policy": line["policy"] | change})
    assert main(["report", str(suite)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "runs" / "report.html")
    page = (tmp_path / "runs" / "report.html").read_text()
    assert "<h2>Steps to a score</h2>" in page and "<h2>Over all tasks</h2>" in page
    assert {"mine", "rlpd"} <= set(chart(page, "Success over")["lines"])
    assert main(["report", str(tmp_path / "runs"), "--output", str(tmp_path / "folder.html")]) == 0
    page = (tmp_path / "folder.html").read_text()
    assert {"mine", "rlpd"} <= set(chart(page, "Success over")["lines"])


def test_a_page_is_a_file(tmp_path, capsys):
    assert main(["report", str(tmp_path), "--output", str(tmp_path)]) == 2
    assert "is a folder: name a file to write" in capsys.readouterr().err


def test_a_suite_that_has_not_begun(tmp_path, capsys):
    suite = tmp_path / "suite.toml"
    suite.write_text(
        f'folder = "{tmp_path / "runs"}"\nscore = 0.5\n[algorithms.expo]\n[tasks."probe/bandit"]\n'
    )
    assert main(["report", str(suite)]) == 2
    assert "no run of" in capsys.readouterr().err
    assert main(["report", str(suite), str(tmp_path)]) == 2
    assert "is about one suite, or about runs" in capsys.readouterr().err


def test_the_machine_is_told(tmp_path):
    assert re.search(r"\d+ cores?", machine())
    run = fake_run(tmp_path / "s0", [9, 12], [9, 9], versions={"machine": "<Abacus>, 2 cores"})
    page = write_report([run], tmp_path / "r.html").read_text()
    assert ["machine", "&lt;Abacus&gt;, 2 cores"] in cells(page)


def test_charts_of_two_tasks_stay_apart(tmp_path):
    runs = [
        fake_run(tmp_path / task, [9, 12], [9, 9], task=f"probe/{task}")
        for task in ("bandit", "delay")
    ]
    page = write_report(runs, tmp_path / "r.html").read_text()
    assert chart_titles(page).count("Success over environment steps") == 2
    assert "<h1>2 runs on 2 tasks</h1>" in page and "<h1>probe/delay</h1>" in page
